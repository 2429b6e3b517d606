//! A throwaway cache: the `valkey-server` or `redis-server` found on this machine, on a free port of the loopback, without
//! persistence, ended with this process however that ends.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use shared::cache::{Cache, CacheError, Settings};
use tempfile::TempDir;

/// What to do where no server is found.
pub const INSTALL: &str = "install one: apt-get install valkey-server (or redis-server); on a Mac: brew install valkey";

/// Starts what is found and tells its process id; ends it when standard input closes, which it does when the process on
/// the other side is gone.
const KEEPER: &str = r#"server=$(command -v valkey-server || command -v redis-server) || exit 127
"$server" "$@" >&2 & child=$!
echo $child
read -r _
kill -9 $child"#;

/// A server takes milliseconds.
const READY_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// Why there is no cache.
#[derive(Debug, thiserror::Error)]
pub enum NoCache {
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

/// A running server, ended when dropped.
#[derive(Debug)]
pub struct Server {
    keeper: Child,
    port: u16,
    _folder: TempDir,
}

impl Server {
    /// Starts a server on a free port.
    ///
    /// # Errors
    /// [`NoCache`], with what to install.
    pub async fn start() -> Result<Self, NoCache> {
        let server = Self::spawn_anywhere()?;
        server.ready(&server.url()).await?;
        Ok(server)
    }

    /// Starts a server on a free port and does not wait for it.
    ///
    /// # Errors
    /// As above.
    pub fn spawn_anywhere() -> Result<Self, NoCache> {
        Self::spawn(free_port().map_err(|error| NoCache::NotStarted(error.to_string()))?, &[])
    }

    /// Starts a server on this port, with further arguments of its own.
    ///
    /// # Errors
    /// As above.
    pub async fn start_on(port: u16, arguments: &[&str]) -> Result<Self, NoCache> {
        let server = Self::spawn(port, arguments)?;
        server.ready(&server.url()).await?;
        Ok(server)
    }

    /// Starts a server on this port and does not wait for it.
    ///
    /// # Errors
    /// As above.
    pub fn spawn(port: u16, arguments: &[&str]) -> Result<Self, NoCache> {
        let not_started = |error: std::io::Error| NoCache::NotStarted(error.to_string());
        let folder = TempDir::new().map_err(not_started)?;
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "cache", "--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"])
            .arg(folder.path())
            .args(["--save", "", "--appendonly", "no", "--loglevel", "warning"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(not_started)?;
        let mut told = String::new();
        let output = keeper.stdout.take().ok_or_else(|| NoCache::NotStarted("it has no output".to_owned()))?;
        BufReader::new(output).read_line(&mut told).map_err(not_started)?;
        if told.is_empty() {
            // It is waited for, so that nothing of it is left.
            let _ = keeper.wait();
            return Err(NoCache::NotFound);
        }
        Ok(Self { keeper, port, _folder: folder })
    }

    /// Waits until the server answers at `url`.
    ///
    /// # Errors
    /// As above.
    pub async fn ready(&self, url: &str) -> Result<(), NoCache> {
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
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Killed, as if the machine had lost it.
impl Drop for Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// Asks a cache whether it takes writes.
///
/// # Errors
/// [`NoCache::Unreachable`], which names the address and the fix.
pub async fn reach(url: &str) -> Result<(), NoCache> {
    Ok(prove(&Cache::new(settings(url)?, None)).await?)
}

async fn prove(cache: &Cache) -> Result<(), CacheError> {
    cache.line().await?.prove().await
}

fn settings(url: &str) -> Result<Settings, CacheError> {
    let parsed = Settings::parse(|name| (name == "CACHE_URL").then_some(url));
    let none = || CacheError::Refused("no cache is named".to_owned());
    parsed.map_err(|wrong| CacheError::Refused(wrong.join("; ")))?.ok_or_else(none)
}

/// A port that nobody listens on now.
///
/// # Errors
/// The machine has none.
pub fn free_port() -> std::io::Result<u16> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr().map(|address| address.port())
}
