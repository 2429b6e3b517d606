//! Throwaway PostgreSQL server: the installed PostgreSQL, on its own port and in its own folder. [`PostgresServer`]
//!
//! It is a real server, not a simulation. Its data is disposable, so no write waits for the disk, but confirmed data
//! survives a crash of the server process. PostgreSQL refuses to run as root; if this process runs as root, the server
//! runs as another user. When this process ends, even if it is killed, a guardian process stops the server and removes
//! its folder: the guardian waits for the end of a pipe whose other end only this process has open.

mod programs;

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tokio_postgres::NoTls;

pub use programs::PostgresPrograms;

use crate::child_program::{ProgramError, run_program};
use crate::port::ReservedPort;

/// The role and the database that the template's URLs name.
pub const NAME: &str = "millrace";
/// The server's own superuser.
const OWNER: &str = "postgres";
/// Time limit for a start; much longer than a start takes.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// An error of starting or using the server.
#[derive(Debug, thiserror::Error)]
pub enum PostgresServerError {
    /// PostgreSQL's programs are not installed.
    #[error("PostgreSQL is not installed: run apt-get install postgresql or brew install postgresql, or use a URL")]
    NotInstalled,
    /// The process runs as root, and the server has no other user to run as.
    #[error(
        "PostgreSQL does not run as root, and neither a user postgres nor a user nobody exists: add one with useradd \
         postgres, run millrace as another user, or use a URL"
    )]
    OnlyRoot,
    /// One of PostgreSQL's programs cannot be run, or failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The operating system returned an error.
    #[error("{doing}: {source}")]
    System {
        /// The attempted operation.
        doing: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The server runs, but returned an error.
    #[error("unexpected response from PostgreSQL: {0}")]
    UnexpectedResponse(String),
}

fn system(doing: &'static str) -> impl FnOnce(io::Error) -> PostgresServerError {
    move |source| PostgresServerError::System { doing, source }
}

/// A server that is not started yet. Its port is reserved, so its URL is known.
#[derive(Debug)]
pub struct PlannedServer {
    programs: PostgresPrograms,
    port: ReservedPort,
    folder: TempDir,
    user: Option<(u32, u32)>,
}

impl PlannedServer {
    /// Finds the programs, reserves a port and creates a folder.
    ///
    /// # Errors
    /// [`PostgresServerError`], which names what to install.
    pub fn new() -> Result<Self, PostgresServerError> {
        let programs = PostgresPrograms::find().ok_or(PostgresServerError::NotInstalled)?;
        let port = ReservedPort::claim().map_err(system("cannot reserve a free port"))?;
        let folder = tempfile::Builder::new().prefix("millrace-postgres-").tempdir();
        let folder = folder.map_err(system("cannot create a temporary folder"))?;
        let owner = fs::metadata(folder.path()).map_err(system("cannot read the temporary folder"))?.uid();
        let user =
            if owner == 0 { Some(programs::unprivileged_user().ok_or(PostgresServerError::OnlyRoot)?) } else { None };
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid)).map_err(system("cannot change the folder's owner"))?;
        }
        Ok(Self { programs, port, folder, user })
    }

    /// Returns the URL of the database [`NAME`].
    #[must_use]
    pub fn url(&self) -> String {
        url(self.port.number(), NAME)
    }

    /// Creates the cluster, starts the server, and creates the database [`NAME`].
    ///
    /// # Errors
    /// [`PostgresServerError`].
    pub async fn start(self) -> Result<PostgresServer, PostgresServerError> {
        let data = self.folder.path().join("data");
        let mut initdb = command(&self.programs.initdb, self.user);
        initdb.arg("-D").arg(&data).args(["-U", OWNER, "-E", "UTF8", "-A", "trust", "--no-sync"]);
        // Text is sorted byte by byte, with UTF-8 character classes, regardless of this machine's locale.
        initdb.args(["--locale=C", if cfg!(target_os = "macos") { "--lc-ctype=UTF-8" } else { "--lc-ctype=C.UTF-8" }]);
        run_program(&name_of(&self.programs.initdb), &mut initdb)?;
        let Self { programs, port, folder, user } = self;
        let mut server = PostgresServer { programs, user, port, data, running: None, folder };
        server.start().await?;
        // Like the owner of a database on AWS, it creates the roles of the tables.
        let own = format!("create role {NAME} login createrole");
        server.owner(OWNER, &own).await?;
        server.create_database(NAME).await?;
        Ok(server)
    }
}

/// The running server. Dropping it stops it immediately and removes its data.
#[derive(Debug)]
pub struct PostgresServer {
    programs: PostgresPrograms,
    user: Option<(u32, u32)>,
    port: ReservedPort,
    data: PathBuf,
    running: Option<RunningServer>,
    folder: TempDir,
}

#[derive(Debug)]
struct RunningServer {
    server: Child,
    guardian: Child,
}

impl PostgresServer {
    /// Returns the URL of the database with this name.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        url(self.port.number(), database)
    }

    /// Returns the URL of the database [`NAME`].
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of(NAME)
    }

    /// Returns the folder with all files of the server.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the process ID of the server's first process, if it runs.
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.server.id())
    }

    /// Creates an empty database that the role [`NAME`] owns.
    ///
    /// # Errors
    /// [`PostgresServerError`].
    pub async fn create_database(&self, database: &str) -> Result<(), PostgresServerError> {
        self.owner(OWNER, &format!("create database {database} owner {NAME}")).await
    }

    /// Creates a database as a copy of another, which must have no open connections.
    ///
    /// # Errors
    /// [`PostgresServerError`].
    pub async fn copy_database(&self, template: &str, database: &str) -> Result<(), PostgresServerError> {
        self.owner(OWNER, &format!("create database {database} template {template} owner {NAME}")).await
    }

    /// Runs SQL in a database as the server's superuser.
    ///
    /// # Errors
    /// [`PostgresServerError`].
    pub async fn owner(&self, database: &str, sql: &str) -> Result<(), PostgresServerError> {
        let client = connect(self.port.number(), database)
            .await
            .map_err(|error| PostgresServerError::UnexpectedResponse(describe_error(&error)))?;
        client.batch_execute(sql).await.map_err(|error| PostgresServerError::UnexpectedResponse(describe_error(&error)))
    }

    /// Starts the server, if it does not run.
    ///
    /// # Errors
    /// [`PostgresServerError`].
    pub async fn start(&mut self) -> Result<(), PostgresServerError> {
        if self.running.is_some() {
            return Ok(());
        }
        let log = fs::File::create(self.log()).map_err(system("cannot create the server's log"))?;
        let mut postgres = command(&self.programs.postgres, self.user);
        postgres.arg("-D").arg(&self.data).args(["-p", &self.port.number().to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "full_page_writes=off",
            "max_wal_senders=0",
            "max_connections=200",
        ] {
            postgres.args(["-c", setting]);
        }
        // A process group of its own: Ctrl-C must reach only this process, which stops the server after its own work is
        // done.
        postgres.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        let mut server =
            postgres.spawn().map_err(|error| ProgramError::not_run(&name_of(&self.programs.postgres), error))?;
        let mut guardian = Command::new("sh");
        // The postmaster stops its children; SIGQUIT is its immediate shutdown.
        guardian.arg("-c").arg("read _; kill -QUIT \"$1\"; sleep 1; kill -KILL \"$1\"; rm -rf \"$2\"").arg("guardian");
        guardian.arg(server.id().to_string()).arg(self.folder.path());
        guardian.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let guardian = guardian.spawn().map_err(|error| {
            let _ = server.kill();
            ProgramError::not_run("sh", error)
        })?;
        self.running = Some(RunningServer { server, guardian });
        self.wait_until_ready().await
    }

    async fn wait_until_ready(&mut self) -> Result<(), PostgresServerError> {
        let until = Instant::now() + START_TIMEOUT;
        loop {
            let Err(error) = connect(self.port.number(), OWNER).await else { return Ok(()) };
            let ended = match &mut self.running {
                Some(running) => running.server.try_wait().map_err(system("cannot wait for postgres"))?,
                None => None,
            };
            if ended.is_some() || Instant::now() > until {
                self.end();
                let log = fs::read(self.log()).unwrap_or_default();
                let (program, reason) = (name_of(&self.programs.postgres), describe_error(&error));
                let failed = ended.map(|status| ProgramError::exited(&program, status, &log));
                let not_ready = || ProgramError::not_ready(&program, START_TIMEOUT, &reason, &log);
                return Err(failed.unwrap_or_else(not_ready).into());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops the server immediately, as a crash does: connections are interrupted, and the next start recovers.
    pub fn kill(&mut self) {
        self.end();
    }

    /// Shuts the server down in order, with all data on disk.
    ///
    /// # Errors
    /// [`PostgresServerError`].
    pub fn stop(&mut self) -> Result<(), PostgresServerError> {
        if self.running.is_some() {
            self.pg_ctl("fast")?;
            self.end();
        }
        Ok(())
    }

    fn pg_ctl(&self, mode: &str) -> Result<(), PostgresServerError> {
        let mut stop = command(&self.programs.pg_ctl, self.user);
        stop.arg("-D").arg(&self.data).args(["stop", "-w", "-m", mode]);
        run_program(&name_of(&self.programs.pg_ctl), &mut stop)?;
        Ok(())
    }

    /// Stops the server, if it runs. The guardian is stopped first, so that it never signals a process ID that another
    /// process has by then.
    fn end(&mut self) {
        let Some(RunningServer { mut server, mut guardian }) = self.running.take() else { return };
        let _ = guardian.kill();
        let _ = guardian.wait();
        if matches!(server.try_wait(), Ok(None)) && self.pg_ctl("immediate").is_err() {
            let _ = server.kill();
        }
        let _ = server.wait();
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.end();
    }
}

fn url(port: u16, database: &str) -> String {
    format!("postgres://{NAME}@127.0.0.1:{port}/{database}")
}

async fn connect(port: u16, database: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).user(OWNER).dbname(database).connect_timeout(Duration::from_secs(2));
    let (client, line) = config.connect(NoTls).await?;
    tokio::spawn(line);
    Ok(client)
}

fn command(program: &Path, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    // A fixed locale and time zone, so that the parsed output does not depend on the environment.
    command.env("LC_ALL", "C").env("TZ", "UTC").current_dir("/");
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

fn describe_error(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

fn name_of(program: &Path) -> String {
    program.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn failed_initdb_is_reported_with_its_reason() {
        let planned = PlannedServer::new().unwrap();
        let data = planned.folder.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("file"), "").unwrap();
        let error_text = planned.start().await.unwrap_err().to_string();
        assert!(error_text.contains("/initdb failed (exit status: 1)"), "{error_text}");
        assert!(error_text.contains("exists but is not empty"), "{error_text}");
    }

    #[tokio::test]
    async fn server_that_does_not_start_is_reported_with_its_reason() {
        let mut server = PlannedServer::new().unwrap().start().await.unwrap();
        server.stop().unwrap();
        let settings = server.data.join("postgresql.conf");
        let text = fs::read_to_string(&settings).unwrap();
        fs::write(&settings, text.clone() + "shared_buffers = many\n").unwrap();
        let error_text = server.start().await.unwrap_err().to_string();
        assert!(error_text.contains("/postgres failed (exit status: 1)"), "{error_text}");
        assert!(error_text.contains("invalid value for parameter \"shared_buffers\""), "{error_text}");
        fs::write(&settings, text).unwrap();
        server.start().await.unwrap();
    }
}
