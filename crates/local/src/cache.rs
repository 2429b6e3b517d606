//! Throwaway cache server: the installed `valkey-server` or `redis-server` on a free port of the loopback interface,
//! without persistence. It ends together with this process, even if this process is killed.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use millrace_shared::cache::{Cache, CacheError, CacheSettings};
use tempfile::TempDir;

use crate::child_program::ProgramError;
use crate::port::ReservedPort;

/// Advice for a machine on which no server is installed.
pub const INSTALL: &str = "install one: apt-get install valkey-server (or redis-server); on macOS: brew install valkey";

/// Script that starts the installed server and prints its path. It kills the server when standard input closes, which
/// happens when the parent process ends, and ends after the server, because the port is in use until then, with the exit
/// status of the server.
const SUPERVISOR_SCRIPT: &str = r#"server=$(command -v valkey-server || command -v redis-server) || exit 127
exec 3<&0
"$server" "$@" >&2 </dev/null 3<&- & child=$!
{ read -r _ <&3; kill -9 $child; } >/dev/null & reader=$!
echo "$server"
wait $child; status=$?
kill $reader 2>/dev/null
exit $status"#;
/// The exit status of the script if no server is installed.
const NOT_INSTALLED: i32 = 127;

/// Time limit for a start; a server needs milliseconds.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// An error of starting or reaching a cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheServerError {
    /// No server is installed.
    #[error("neither valkey-server nor redis-server is on PATH: {INSTALL}")]
    NotFound,
    /// No port or folder is available for the server.
    #[error("cannot start the cache server: {0}")]
    NotStarted(io::Error),
    /// The server process could not be started, ended, or did not become ready.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The server cannot be reached.
    #[error(transparent)]
    Unreachable(#[from] CacheError),
}

/// A cache server on a port of its own; it is stopped when this is dropped.
#[derive(Debug)]
pub struct CacheServer {
    port: ReservedPort,
    arguments: Vec<String>,
    /// The shell that runs the server; `None` after it was killed.
    keeper: Option<Child>,
    /// The path of the server's program.
    program: String,
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
        let mut server = Self::spawn(arguments)?;
        server.ready(&server.url()).await?;
        Ok(server)
    }

    /// Starts a server with additional command-line arguments, without waiting until it is ready.
    ///
    /// # Errors
    /// Same as [`Self::start`].
    pub fn spawn(arguments: &[&str]) -> Result<Self, CacheServerError> {
        let port = ReservedPort::claim().map_err(CacheServerError::NotStarted)?;
        let folder = TempDir::new().map_err(CacheServerError::NotStarted)?;
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut server = Self { port, arguments, keeper: None, program: String::new(), folder };
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
        let log = File::create(self.log()).map_err(CacheServerError::NotStarted)?;
        let mut keeper = Command::new("sh");
        keeper.args(["-c", SUPERVISOR_SCRIPT, "cache", "--bind", "127.0.0.1", "--port", &self.port().to_string()]);
        keeper.arg("--dir").arg(self.folder.path());
        keeper.args(["--save", "", "--appendonly", "no", "--loglevel", "warning"]).args(&self.arguments);
        keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut keeper = keeper.spawn().map_err(|error| ProgramError::not_run("sh", error))?;
        let mut program = String::new();
        if let Some(output) = keeper.stdout.take() {
            BufReader::new(output).read_line(&mut program).map_err(CacheServerError::NotStarted)?;
        }
        if program.is_empty() {
            let status = keeper.wait().map_err(CacheServerError::NotStarted)?;
            if status.code() == Some(NOT_INSTALLED) {
                return Err(CacheServerError::NotFound);
            }
            return Err(ProgramError::exited("sh", status, &self.printed()).into());
        }
        program.trim_end().clone_into(&mut self.program);
        self.keeper = Some(keeper);
        Ok(())
    }

    /// Waits until the server accepts writes at `url`.
    ///
    /// # Errors
    /// Same as [`Self::start`].
    pub async fn ready(&mut self, url: &str) -> Result<(), CacheServerError> {
        let cache = Cache::new(settings(url)?, None);
        let started = tokio::time::Instant::now();
        while let Err(error) = check_writable(&cache).await {
            let ended = self.keeper.as_mut().and_then(|keeper| keeper.try_wait().ok()?);
            if let Some(status) = ended {
                return Err(ProgramError::exited(&self.program, status, &self.printed()).into());
            }
            if started.elapsed() > READY_TIMEOUT {
                return Err(ProgramError::not_ready(&self.program, READY_TIMEOUT, &error, &self.printed()).into());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
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

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Returns what the server has printed.
    fn printed(&self) -> Vec<u8> {
        fs::read(self.log()).unwrap_or_default()
    }
}

impl Drop for CacheServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Checks that the cache at `url` accepts writes.
///
/// # Errors
/// [`CacheServerError::Unreachable`], which names the endpoint and the fix.
pub async fn check_reachable(url: &str) -> Result<(), CacheServerError> {
    Ok(check_writable(&Cache::new(settings(url)?, None)).await?)
}

async fn check_writable(cache: &Cache) -> Result<(), CacheError> {
    cache.connection().await?.check_writable().await
}

fn settings(url: &str) -> Result<CacheSettings, CacheError> {
    let parsed = CacheSettings::parse(|name| (name == "CACHE_URL").then_some(url));
    let none = || CacheError::Misconfigured("no cache is named".to_owned());
    parsed.map_err(|wrong| CacheError::Misconfigured(wrong.join("; ")))?.ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn server_that_does_not_start_is_reported_with_its_reason() {
        let started = tokio::time::Instant::now();
        let message = CacheServer::start_with(&["--databases", "none"]).await.unwrap_err().to_string();
        assert!(started.elapsed() < READY_TIMEOUT, "its end is noticed");
        assert!(message.contains("-server failed (exit status: 1)"), "{message}");
        assert!(message.contains("databases"), "{message}");
    }

    #[tokio::test]
    async fn killed_server_starts_again_on_its_port() {
        let mut server = CacheServer::start().await.unwrap();
        let port = server.port();
        server.kill();
        assert!(check_reachable(&server.url()).await.is_err());
        server.restart().await.unwrap();
        assert_eq!(server.port(), port);
    }
}
