//! The complete API test suite again, with a cache in front of the table: a healthy one, one on which every other call
//! fails, and one that is killed repeatedly. The suite runs in a separate process, which takes its cache from this
//! module.

use std::process::Command;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use millrace_api::cache::{CacheAside, CacheTimeouts};
use millrace_local::cache::CacheServer;
use millrace_shared::cache::Cache;
use millrace_shared::environment::Environment;
use tokio::sync::OnceCell;

use super::proxy::{self, CacheFault};
use super::servers;

const VARIABLE: &str = "MILLRACE_SUITE_CACHE";
/// So short that the API calls the cache again soon after a failure.
const REST: Duration = Duration::from_millis(1);
const LIVES: Duration = Duration::from_millis(150);

static MORTAL: OnceCell<u16> = OnceCell::const_new();
static DATABASE: AtomicU32 = AtomicU32::new(0);

/// Returns the cache that the suite runs with, and a direct connection to its server for the stream.
pub(crate) async fn cache() -> Option<(CacheAside, Cache)> {
    let environment = Environment::from_env();
    let mode = environment.get(VARIABLE)?;
    let (url, through) = match mode {
        "well" => {
            let url = servers::url().await;
            (url.clone(), url)
        }
        "failing" => {
            let url = servers::url().await;
            let (address, database) = url.rsplit_once('/').unwrap();
            let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
            let calls = AtomicUsize::new(0);
            let plan = move |_: &str| match calls.fetch_add(1, Ordering::Relaxed) % 6 {
                1 => CacheFault::CutBefore,
                3 => CacheFault::ResponseLost,
                5 => CacheFault::Silence,
                _ => CacheFault::None,
            };
            let through = format!("redis://127.0.0.1:{}/{database}", proxy::before(port, plan).await);
            (url, through)
        }
        "killed" => {
            let port = MORTAL.get_or_init(|| async { mortal() }).await;
            let url = format!("redis://127.0.0.1:{port}/{}", DATABASE.fetch_add(1, Ordering::Relaxed));
            (url.clone(), url)
        }
        other => panic!("{VARIABLE} is {other}"),
    };
    let patience = CacheTimeouts { cooldown: REST, ..CacheTimeouts::default() };
    Some((CacheAside::new(servers::at(&through), "Users", patience), servers::at(&url)))
}

/// Starts a server that is killed and restarted repeatedly for as long as the process lives; returns its port.
fn mortal() -> u16 {
    let mut server = CacheServer::spawn(&["--databases", "4096"]).unwrap();
    let port = server.port();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(LIVES);
            server.spawn_again().unwrap();
        }
    });
    port
}

fn the_suite_passes(mode: &str) {
    let program = std::env::current_exe().unwrap();
    let run = Command::new(program).args(["users_api::", "--test-threads=4"]).env(VARIABLE, mode).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{stdout}\n{stderr}");
    assert!(stdout.contains("test users_api::records"), "it was run: {stdout}");
}

#[test]
fn whole_api_suite_passes_with_a_cache() {
    the_suite_passes("well");
}

#[test]
fn whole_api_suite_passes_with_a_cache_that_fails_every_other_call() {
    the_suite_passes("failing");
}

#[test]
fn whole_api_suite_passes_with_a_cache_that_is_killed_repeatedly() {
    the_suite_passes("killed");
}
