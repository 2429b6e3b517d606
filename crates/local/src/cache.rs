//! Throwaway cache server: the installed `valkey-server` or `redis-server` on a free port of the loopback interface,
//! without persistence. It ends together with this process, even if this process is killed.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use millrace_shared::cache::{Cache, CacheError, CacheSettings};
use tempfile::TempDir;

use crate::port::ReservedPort;

/// Advice for a machine on which no server is installed.
pub const INSTALL: &str = "install one: apt-get install valkey-server (or redis-server); on macOS: brew install valkey";

/// Script that starts the installed server and prints its process id. It kills the server when standard input closes,
/// which happens when the parent process ends, and waits until the server has ended, because its port is in use until
/// then.
const SUPERVISOR_SCRIPT: &str = r#"server=$(command -v valkey-server || command -v redis-server) || exit 127
"$server" "$@" >&2 & child=$!
echo $child
read -r _
kill -9 $child
wait $child"#;

/// Time limit for a start; a server needs milliseconds.
const READY_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// An error of starting or reaching a cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheServerError {
    /// No server is installed.
    #[error("neither valkey-server nor redis-server is on PATH: {INSTALL}")]
    NotFound,
    /// The server process could not be started.
    #[error("cannot start the cache server: {0}")]
    NotStarted(String),
    /// The server did not become ready, or cannot be reached.
    #[error(transparent)]
    Unreachable(#[from] CacheError),
}

/// A cache server on a port of its own; it is stopped when this is dropped.
#[derive(Debug)]
pub struct CacheServer {
    port: ReservedPort,
    arguments: Vec<String>,
    keeper: Option<Child>,
    folder: TempDir,
}

impl CacheServer {
    /// Starts a server and waits until it is ready.
    ///
    /// # Errors
    /// [`CacheServerError`], which names the packages to install.
    pub async fn start() -> Result<Self, CacheServerError> {
        Self::start_with(&[]).await
    }

    /// Starts a server with additional command-line arguments and waits until it is ready.
    ///
    /// # Errors
    /// Same as [`Self::start`].
    pub async fn start_with(arguments: &[&str]) -> Result<Self, CacheServerError> {
        let server = Self::spawn(arguments)?;
        server.ready(&server.url()).await?;
        Ok(server)
    }

    /// Starts a server with additional command-line arguments, without waiting until it is ready.
    ///
    /// # Errors
    /// Same as [`Self::start`].
    pub fn spawn(arguments: &[&str]) -> Result<Self, CacheServerError> {
        let port = ReservedPort::claim().map_err(not_started)?;
        let folder = TempDir::new().map_err(not_started)?;
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut server = Self { port, arguments, keeper: None, folder };
        server.spawn_again()?;
        Ok(server)
    }

    /// Kills the server, which simulates the loss of its machine.
    pub fn kill(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }

    /// Kills the server if it runs, starts it again on the same port without its data, and waits until it is ready.
    ///
    /// # Errors
    /// Same as [`Self::start`].
    pub async fn restart(&mut self) -> Result<(), CacheServerError> {
        self.spawn_again()?;
        self.ready(&self.url()).await
    }

    /// Kills the server if it runs and starts it again on the same port without its data, without waiting until it is
    /// ready.
    ///
    /// # Errors
    /// Same as [`Self::start`].
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
        let output = keeper.stdout.take().ok_or_else(|| CacheServerError::NotStarted("no output pipe".to_owned()))?;
        BufReader::new(output).read_line(&mut told).map_err(not_started)?;
        if told.is_empty() {
            // Reap the process, so that no zombie is left.
            let _ = keeper.wait();
            return Err(CacheServerError::NotFound);
        }
        self.keeper = Some(keeper);
        Ok(())
    }

    /// Waits until the server accepts writes at `url`.
    ///
    /// # Errors
    /// Same as [`Self::start`].
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

    /// Returns the URL of the server.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// Returns the port of the server.
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

#[expect(clippy::needless_pass_by_value, reason = "signature of a map_err argument")]
fn not_started(error: std::io::Error) -> CacheServerError {
    CacheServerError::NotStarted(error.to_string())
}

/// Checks that the cache at `url` accepts writes.
///
/// # Errors
/// [`CacheServerError::Unreachable`], which names the endpoint and the fix.
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
