//! A connection to PostgreSQL, opened on first use and again after it is lost. [`PostgresDatabase`]
//!
//! A function instance handles one invocation at a time, so a single connection is enough; the statements of one
//! invocation may share it and are pipelined. Between invocations Lambda freezes the process, and the connection may be
//! dead afterwards: work that fails on a connection that was opened earlier is retried once on a new one. Everything
//! that runs through [`PostgresDatabase::run`] must therefore be safe to run twice; reads are, and the replica's writes
//! are because of the revision guard.
//!
//! After a failover, the host name resolves to another server. A server that is shutting down, or that no longer
//! accepts writes, closes the connection, and the next connection resolves the name again.
//!
//! No statement may run without a time limit. Each statement has two: the client stops waiting at the given deadline,
//! and the server, which receives the same limit in whole seconds (rounded up), cancels the statement then.

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
pub use error::{PostgresError, PostgresErrorKind, RejectedBy};
pub use settings::PostgresSettings;

use database_url::TlsMode;
use error::ErrorClassifier;

/// The limit for reaching the server's port, not for its first response: a paused Aurora cluster accepts the connection
/// at once and responds when it has resumed, up to 30 seconds later.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long sent data may stay unacknowledged.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 2;
/// The maximum number of prepared statements per session. A query that is assembled from request parameters has only a
/// few forms.
const STATEMENTS: usize = 64;

/// A database and the connection to it.
pub struct PostgresDatabase {
    setting: &'static str,
    address: DatabaseUrl,
    login: PostgresAuth,
    setup: &'static str,
    session: tokio::sync::Mutex<Option<Arc<PostgresSession>>>,
}

impl PostgresDatabase {
    /// Creates a client for the database at `address`, which comes from the variable `setting`, so that errors can name
    /// it; no I/O. `setup` is SQL that runs first on each new connection.
    #[must_use]
    pub fn new(setting: &'static str, address: DatabaseUrl, login: PostgresAuth, setup: &'static str) -> Self {
        Self { setting, address, login, setup, session: tokio::sync::Mutex::new(None) }
    }

    /// Returns the name of the variable that contains the URL.
    #[must_use]
    pub fn setting(&self) -> &'static str {
        self.setting
    }

    /// Returns the database's location.
    #[must_use]
    pub fn address(&self) -> &DatabaseUrl {
        &self.address
    }

    /// Runs `work` on the connection, within `until`. `work` may run twice: see the module documentation.
    ///
    /// # Errors
    /// [`PostgresError`], which names the setting and the fix. After an error, the work may or may not have been done.
    pub async fn run<T, W>(&self, until: Instant, work: impl Fn(Arc<PostgresSession>) -> W) -> Result<T, PostgresError>
    where
        W: Future<Output = Result<T, Error>>,
    {
        loop {
            let (session, stood) = timeout_at(until, self.session())
                .await
                .unwrap_or_else(|_| Err(self.error_classifier().query_timeout()))?;
            let call = PendingQuery { session: &session, is_over: false };
            let Ok(done) = timeout_at(until, session.within(until, work(Arc::clone(&session)))).await else {
                return Err(self.error_classifier().query_timeout());
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
            let fault = self.error_classifier().classify(&error);
            if session.client.is_closed() || fault.is_connection_fatal() {
                self.drop_session(&session).await;
                // Concurrent work may have abandoned a connection that was opened for this call.
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

    /// Opens a separate connection, for work that needs a connection of its own; it is closed when the client is
    /// dropped.
    ///
    /// # Errors
    /// [`PostgresError`] if the connection cannot be opened.
    pub async fn dedicated_connection(&self, until: Instant) -> Result<Client, PostgresError> {
        timeout_at(until, self.connect())
            .await
            .unwrap_or_else(|_| Err(self.error_classifier().query_timeout()))
            .map(|(client, _)| client)
    }

    /// Classifies the error of a statement.
    #[must_use]
    pub fn fault(&self, error: &Error) -> PostgresError {
        self.error_classifier().classify(error)
    }

    fn error_classifier(&self) -> ErrorClassifier<'_> {
        ErrorClassifier { setting: self.setting, address: &self.address }
    }

    /// Returns the session, and whether it already existed.
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
        let pass = self.login.credentials(&self.address).await;
        if let Some(pass) =
            pass.map_err(|reason| self.error_classifier().fault(PostgresErrorKind::Misconfigured, &reason))?
        {
            config.password(pass.password);
            if let Some(user) = pass.user {
                config.user(user);
            }
        }
        let (client, line) = match &self.address.protection {
            TlsMode::Verified(own) => {
                let tls = tls::connector(own.as_ref());
                let tls =
                    tls.map_err(|reason| self.error_classifier().fault(PostgresErrorKind::Misconfigured, &reason))?;
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

/// Returns whether the statement itself took too long: it would take as long on a new connection.
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

/// A connection and its prepared statements.
pub struct PostgresSession {
    client: Client,
    prepared: Mutex<HashMap<String, Statement>>,
    /// The statement timeout that was last sent to the server, in seconds.
    limit_seconds: AtomicU64,
    line: AbortHandle,
    /// Whether work on the connection was dropped before its response arrived: the connection may be dead, and if it is
    /// not, it still waits for a response that is no longer needed.
    is_abandoned: AtomicBool,
}

/// Work whose response has not arrived. If it is dropped in this state, by its own time limit or by that of its caller,
/// the next work uses another connection.
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
            // Concurrent work may still use the session: it completes, and no new work starts on it.
            self.session.is_abandoned.store(true, Ordering::Relaxed);
        }
    }
}

impl PostgresSession {
    fn new(client: Client, line: AbortHandle) -> Self {
        let (prepared, limit_seconds) = (Mutex::default(), AtomicU64::new(0));
        Self { client, prepared, limit_seconds, line, is_abandoned: AtomicBool::new(false) }
    }

    /// Closes the connection while the server is still sending rows that are no longer needed: reading them to the end
    /// could take longer than opening a new connection.
    pub fn abandon(&self) {
        self.is_abandoned.store(true, Ordering::Relaxed);
        self.line.abort();
    }

    /// Returns the driver's client.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the prepared statement for this text. It is prepared once per session: one round trip on first use, none
    /// after that.
    ///
    /// # Errors
    /// The driver's error, if the server rejects the statement.
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

    /// Runs the work with a statement timeout set in the server. Both are sent together, so this adds no round trip;
    /// the timeout is sent only if it has changed.
    async fn within<T>(&self, until: Instant, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let left = until.saturating_duration_since(Instant::now());
        let seconds = left.as_secs() + 1;
        if self.limit_seconds.swap(seconds, Ordering::Relaxed) == seconds {
            return work.await;
        }
        let limit = format!("set statement_timeout = '{seconds}s'");
        let (limited, done) = join(self.client.batch_execute(&limit), work).await;
        done.and_then(|done| limited.map(|()| done))
    }
}

impl fmt::Debug for PostgresSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("closed", &self.client.is_closed()).finish_non_exhaustive()
    }
}
