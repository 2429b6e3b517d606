//! A throwaway cache: the `valkey-server` or `redis-server` found on this machine, on a free port of the loopback, without
//! persistence, ended with this process however that ends.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use shared::cache::{Cache, CacheError, CacheSettings};
use tempfile::TempDir;

use crate::port::ReservedPort;

/// What to do where no server is found.
pub const INSTALL: &str = "install one: apt-get install valkey-server (or redis-server); on a Mac: brew install valkey";

/// Starts what is found and tells its process id; ends it when standard input closes, which it does when the process on
/// the other side is gone. It waits for the server's end: until then the port is taken.
const SUPERVISOR_SCRIPT: &str = r#"server=$(command -v valkey-server || command -v redis-server) || exit 127
"$server" "$@" >&2 & child=$!
echo $child
read -r _
kill -9 $child
wait $child"#;

/// A server takes milliseconds.
const READY_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// Why there is no cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheServerError {
    /// None is installed.
    #[error("no valkey-server and no redis-server is on PATH: {INSTALL}")]
    NotFound,
    /// It could not be started.
    #[error("the cache does not start: {0}")]
    NotStarted(String),
    /// It did not come up, or is not there.
    #[error(transparent)]
    Unreachable(#[from] CacheError),
}

/// A server of its own port, ended when dropped.
#[derive(Debug)]
pub struct CacheServer {
    port: ReservedPort,
    arguments: Vec<String>,
    keeper: Option<Child>,
    folder: TempDir,
}

impl CacheServer {
    /// Starts a server.
    ///
    /// # Errors
    /// [`CacheServerError`], with what to install.
    pub async fn start() -> Result<Self, CacheServerError> {
        Self::start_with(&[]).await
    }

    /// Starts a server with further arguments of its own.
    ///
    /// # Errors
    /// As above.
    pub async fn start_with(arguments: &[&str]) -> Result<Self, CacheServerError> {
        let server = Self::spawn(arguments)?;
        server.ready(&server.url()).await?;
        Ok(server)
    }

    /// The same, and does not wait for it.
    ///
    /// # Errors
    /// As above.
    pub fn spawn(arguments: &[&str]) -> Result<Self, CacheServerError> {
        let port = ReservedPort::claim().map_err(not_started)?;
        let folder = TempDir::new().map_err(not_started)?;
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut server = Self { port, arguments, keeper: None, folder };
        server.spawn_again()?;
        Ok(server)
    }

    /// Ends it, as if its machine were lost.
    pub fn kill(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }

    /// Ends it if it runs, and starts it anew on its port, with nothing of what it held.
    ///
    /// # Errors
    /// As above.
    pub async fn restart(&mut self) -> Result<(), CacheServerError> {
        self.spawn_again()?;
        self.ready(&self.url()).await
    }

    /// The same, and does not wait for it.
    ///
    /// # Errors
    /// As above.
    pub fn spawn_again(&mut self) -> Result<(), CacheServerError> {
        self.kill();
        let mut keeper = Command::new("sh")
            .args([
                "-c",
                SUPERVISOR_SCRIPT,
                "cache",
                "--bind",
                "127.0.0.1",
                "--port",
                &self.port().to_string(),
                "--dir",
            ])
            .arg(self.folder.path())
            .args(["--save", "", "--appendonly", "no", "--loglevel", "warning"])
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(not_started)?;
        let mut told = String::new();
        let output = keeper.stdout.take().ok_or_else(|| CacheServerError::NotStarted("it has no output".to_owned()))?;
        BufReader::new(output).read_line(&mut told).map_err(not_started)?;
        if told.is_empty() {
            // It is waited for, so that nothing of it is left.
            let _ = keeper.wait();
            return Err(CacheServerError::NotFound);
        }
        self.keeper = Some(keeper);
        Ok(())
    }

    /// Waits until the server answers at `url`.
    ///
    /// # Errors
    /// As above.
    pub async fn ready(&self, url: &str) -> Result<(), CacheServerError> {
        let cache = Cache::new(settings(url)?, None);
        let started = tokio::time::Instant::now();
        loop {
            match prove(&cache).await {
                Err(_) if started.elapsed() < READY_WITHIN => tokio::time::sleep(POLL).await,
                proved => return Ok(proved?),
            }
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }
}

impl Drop for CacheServer {
    fn drop(&mut self) {
        self.kill();
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err takes")]
fn not_started(error: std::io::Error) -> CacheServerError {
    CacheServerError::NotStarted(error.to_string())
}

/// Asks a cache whether it takes writes.
///
/// # Errors
/// [`CacheServerError::Unreachable`], which names the address and the fix.
pub async fn reach(url: &str) -> Result<(), CacheServerError> {
    Ok(prove(&Cache::new(settings(url)?, None)).await?)
}

async fn prove(cache: &Cache) -> Result<(), CacheError> {
    cache.connection().await?.check_writable().await
}

fn settings(url: &str) -> Result<CacheSettings, CacheError> {
    let parsed = CacheSettings::parse(|name| (name == "CACHE_URL").then_some(url));
    let none = || CacheError::Misconfigured("no cache is named".to_owned());
    parsed.map_err(|wrong| CacheError::Misconfigured(wrong.join("; ")))?.ok_or_else(none)
}
