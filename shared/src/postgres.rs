//! A line to PostgreSQL: one connection, made when it is first needed and again when it is lost. [`PostgresDatabase`]
//!
//! A function instance handles one invocation at a time, so one connection is what it needs; statements of one invocation
//! may share it and are pipelined. Between invocations Lambda freezes the process, and the line may be dead when it
//! thaws: what fails on a connection that stood before is tried once more on a new one. So whatever runs through
//! [`PostgresDatabase::run`] must be safe to run twice; reads are, and the guard by revision makes the replica's writes so.
//!
//! After a failover the name leads to another server. A server that is stopping, or that takes no writes any more, ends the
//! connection, and the next one asks the name anew.
//!
//! What would break it: a statement without a time limit. Each has two: the client stops waiting at the time that it is
//! given, and the server, which is told as many whole seconds, gives up then as well.

mod auth;
mod database_url;
mod error;
mod settings;
mod tls;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::{Client, Error, NoTls, Statement};

pub use auth::PostgresAuth;
pub use database_url::DatabaseUrl;
pub use error::{PostgresError, PostgresErrorKind};
pub use settings::PostgresSettings;

use database_url::TlsMode;
use error::ErrorClassifier;

/// To the server's port, not to its answer: a paused Aurora cluster takes the connection at once and answers when it has
/// resumed, up to half a minute later.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long what was sent may stay without a sign of having arrived.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 2;
/// Prepared statements that a session keeps. A query that is built of its caller's parts comes in few shapes.
const STATEMENTS: usize = 64;

/// One database and the line to it.
pub struct PostgresDatabase {
    setting: &'static str,
    address: DatabaseUrl,
    login: PostgresAuth,
    setup: &'static str,
    session: tokio::sync::Mutex<Option<Arc<PostgresSession>>>,
}

impl PostgresDatabase {
    /// The database at `address`, which the variable `setting` names, so that faults can name it too; no I/O. `setup` is SQL
    /// that each new connection begins with.
    #[must_use]
    pub fn new(setting: &'static str, address: DatabaseUrl, login: PostgresAuth, setup: &'static str) -> Self {
        Self { setting, address, login, setup, session: tokio::sync::Mutex::new(None) }
    }

    /// The variable that names it.
    #[must_use]
    pub fn setting(&self) -> &'static str {
        self.setting
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &DatabaseUrl {
        &self.address
    }

    /// Does `work` over the line, within `until`. It may be done twice: see above.
    ///
    /// # Errors
    /// [`PostgresError`], which names the setting and the fix. After one the work may have been done or not.
    pub async fn run<T, W>(&self, until: Instant, work: impl Fn(Arc<PostgresSession>) -> W) -> Result<T, PostgresError>
    where
        W: Future<Output = Result<T, Error>>,
    {
        loop {
            let (session, stood) =
                timeout_at(until, self.session()).await.unwrap_or_else(|_| Err(self.teller().query_timeout()))?;
            let call = PendingQuery { session: &session, is_over: false };
            let Ok(done) = timeout_at(until, session.within(until, work(Arc::clone(&session)))).await else {
                return Err(self.teller().query_timeout());
            };
            call.end();
            let error = match done {
                Ok(done) => {
                    if session.is_abandoned.load(Ordering::Relaxed) {
                        self.drop_session(&session).await;
                    }
                    return Ok(done);
                }
                Err(error) => error,
            };
            let fault = self.teller().classify(&error);
            if session.client.is_closed() || fault.is_connection_fatal() {
                self.drop_session(&session).await;
                // Another's work may have ended a connection that was made for this one.
                let is_new = !stood && !session.is_abandoned.load(Ordering::Relaxed);
                if !is_new
                    && fault.kind != PostgresErrorKind::Misconfigured
                    && error.code().is_none_or(|code| !is_late(code))
                {
                    continue;
                }
            }
            return Err(fault);
        }
    }

    /// Does `work` with a connection of its own, which is closed after it: for what needs the whole of one.
    ///
    /// # Errors
    /// [`PostgresError`] if there is none.
    pub async fn dedicated_connection(&self, until: Instant) -> Result<Client, PostgresError> {
        timeout_at(until, self.connect())
            .await
            .unwrap_or_else(|_| Err(self.teller().query_timeout()))
            .map(|(client, _)| client)
    }

    /// What a statement's error means here.
    #[must_use]
    pub fn fault(&self, error: &Error) -> PostgresError {
        self.teller().classify(error)
    }

    fn teller(&self) -> ErrorClassifier<'_> {
        ErrorClassifier { setting: self.setting, address: &self.address }
    }

    /// The session, and whether it stood before.
    async fn session(&self) -> Result<(Arc<PostgresSession>, bool), PostgresError> {
        let mut held = self.session.lock().await;
        if let Some(session) = &*held
            && !session.client.is_closed()
            && !session.is_abandoned.load(Ordering::Relaxed)
        {
            return Ok((Arc::clone(session), true));
        }
        let (client, line) = self.connect().await?;
        let session = Arc::new(PostgresSession::new(client, line));
        *held = Some(Arc::clone(&session));
        Ok((session, false))
    }

    async fn drop_session(&self, session: &Arc<PostgresSession>) {
        let mut held = self.session.lock().await;
        if held.as_ref().is_some_and(|held| Arc::ptr_eq(held, session)) {
            *held = None;
        }
    }

    async fn connect(&self) -> Result<(Client, AbortHandle), PostgresError> {
        let mut config = self.address.config.clone();
        config
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(TCP_USER_TIMEOUT)
            .keepalives(true)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_PROBES);
        if config.get_application_name().is_none() {
            config.application_name("millrace");
        }
        let pass = self.login.pass(&self.address).await;
        if let Some(pass) = pass.map_err(|reason| self.teller().fault(PostgresErrorKind::Misconfigured, &reason))? {
            config.password(pass.password);
            if let Some(user) = pass.user {
                config.user(user);
            }
        }
        let (client, line) = match &self.address.protection {
            TlsMode::Verified(own) => {
                let tls = tls::connector(own.as_ref());
                let tls = tls.map_err(|reason| self.teller().fault(PostgresErrorKind::Misconfigured, &reason))?;
                let (client, line) = config.connect(tls).await.map_err(|error| self.fault(&error))?;
                (client, tokio::spawn(line).abort_handle())
            }
            TlsMode::None => {
                let (client, line) = config.connect(NoTls).await.map_err(|error| self.fault(&error))?;
                (client, tokio::spawn(line).abort_handle())
            }
        };
        if !self.setup.is_empty() {
            client.batch_execute(self.setup).await.map_err(|error| self.fault(&error))?;
        }
        Ok((client, line))
    }
}

/// Its own statements took too long: it would take as long on a new connection.
fn is_late(code: &tokio_postgres::error::SqlState) -> bool {
    *code == tokio_postgres::error::SqlState::QUERY_CANCELED
}

impl fmt::Debug for PostgresDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("setting", &self.setting)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// A connection, and what has been prepared on it.
pub struct PostgresSession {
    client: Client,
    prepared: Mutex<HashMap<String, Statement>>,
    /// What the server was told last: how long a statement may take, in seconds.
    limit_seconds: AtomicU64,
    line: AbortHandle,
    /// Whether work on it was given up before its answer came: the line may lead nowhere, and if it does not, it still waits
    /// for what nobody wants any more.
    is_abandoned: AtomicBool,
}

/// Work whose answer has not come. If it is dropped so, by its own time limit or by that of whoever waits for it, the next work
/// takes another connection.
struct PendingQuery<'s> {
    session: &'s PostgresSession,
    is_over: bool,
}

impl PendingQuery<'_> {
    fn end(mut self) {
        self.is_over = true;
    }
}

impl Drop for PendingQuery<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            // Others may be at work on it: they end it, and nobody begins.
            self.session.is_abandoned.store(true, Ordering::Relaxed);
        }
    }
}

impl PostgresSession {
    fn new(client: Client, line: AbortHandle) -> Self {
        let (prepared, limit_seconds) = (Mutex::default(), AtomicU64::new(0));
        Self { client, prepared, limit_seconds, line, is_abandoned: AtomicBool::new(false) }
    }

    /// Ends the connection, on which the server still sends what nobody reads: to read it all to the end could take longer
    /// than a new one.
    pub fn abandon(&self) {
        self.is_abandoned.store(true, Ordering::Relaxed);
        self.line.abort();
    }

    /// The driver's own.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The prepared statement of this text, prepared once a session: a round trip the first time, none after that.
    ///
    /// # Errors
    /// The driver's, if the server refuses it.
    pub async fn statement(&self, sql: &str) -> Result<Statement, Error> {
        let known = self.prepared.lock().unwrap_or_else(PoisonError::into_inner).get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.client.prepare(sql).await?;
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if prepared.len() >= STATEMENTS {
            prepared.clear();
        }
        prepared.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Does the work with the server told how long it may take. Both are sent at once, so it costs no round trip; told is
    /// only what changed.
    async fn within<T>(&self, until: Instant, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let left = until.saturating_duration_since(Instant::now());
        let seconds = left.as_secs() + 1;
        if self.limit_seconds.swap(seconds, Ordering::Relaxed) == seconds {
            return work.await;
        }
        let limit = format!("set statement_timeout = '{seconds}s'");
        let (told, done) = join(self.client.batch_execute(&limit), work).await;
        done.and_then(|done| told.map(|()| done))
    }
}

impl fmt::Debug for PostgresSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("closed", &self.client.is_closed()).finish_non_exhaustive()
    }
}
