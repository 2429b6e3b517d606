//! The console: web pages that show a stack, of this machine ([`ConsoleServer::start`]) or of an account
//! ([`ConsoleServer::start_deployed`]).
//!
//! The pages read through the same adapters as the maintenance tasks, and through the observer of the stack
//! ([`millrace_local::observer`]). The only state is in memory: the observer's last changes, the last task runs and,
//! for a deployed stack, the last diagnosis. `router` lists the pages, `security` decides which requests are served,
//! and `frame` contains the parts that all pages share.
//!
//! Invariants: every text that comes from data is escaped, because only `maud` writes HTML. No page loads anything from
//! another host, and no page needs its script: it only keeps pages up to date.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use millrace_local::stack::LocalStack;
use millrace_maintenance::MaintenanceHandler;
use millrace_shared::clock::{Clock, new_uuid};
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio::sync::watch;
use tokio::task::JoinHandle;

mod account_doctor;
mod api_page;
mod archive_page;
mod archive_query;
mod archive_reader;
mod assets;
mod break_it;
pub mod deployed_stack;
mod doctor_page;
mod duckdb;
mod executions;
mod frame;
mod item_page;
mod item_text;
mod key;
mod key_stores;
mod live;
mod metrics_page;
mod quarantine;
mod router;
mod sample_item;
mod security;
pub mod stack_calls;
mod stack_metrics;
mod stack_stores;
mod table_items;
mod tables;
mod task_access;
mod task_runs;
mod tasks;
#[cfg(test)]
mod tests;
mod verify_light;

use deployed_stack::DeployedStack;
use duckdb::DuckDbProgram;
pub use router::router;
use security::RequestGuard;
use stack_stores::{LocalOrigin, StackOrigin};
use task_runs::TaskRuns;

/// The time limit for requests in progress at a stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// The state that the pages read.
#[derive(Clone)]
pub struct ConsoleContext {
    origin: StackOrigin,
    guard: Arc<RequestGuard>,
    runs: Arc<TaskRuns>,
    stopped: watch::Receiver<bool>,
    clock: Clock,
    duckdb: Arc<OnceCell<Option<DuckDbProgram>>>,
}

/// The state of the pages that need a stack of this machine.
#[derive(Clone)]
struct LocalContext {
    stack: Arc<LocalStack>,
    maintenance: Option<Arc<MaintenanceHandler>>,
    console: ConsoleContext,
}

impl LocalContext {
    fn new(LocalOrigin { stack, stores }: &LocalOrigin, console: &ConsoleContext) -> Self {
        let maintenance = stores.as_ref().map(|stores| Arc::clone(&stores.maintenance));
        Self { stack: Arc::clone(stack), maintenance, console: console.clone() }
    }
}

/// The state of the pages that only a deployed stack has.
#[derive(Clone)]
struct DeployedContext {
    stack: Arc<DeployedStack>,
    console: ConsoleContext,
}

impl Deref for DeployedContext {
    type Target = ConsoleContext;

    fn deref(&self) -> &ConsoleContext {
        &self.console
    }
}

impl Deref for LocalContext {
    type Target = ConsoleContext;

    fn deref(&self) -> &ConsoleContext {
        &self.console
    }
}

impl ConsoleContext {
    /// Creates the context of a console that is reached at this address, such as `127.0.0.1:8090`. Streams of events end
    /// when `stopped` becomes true.
    #[must_use]
    pub fn new(stack: Arc<LocalStack>, address: &str, stopped: watch::Receiver<bool>, clock: Clock) -> Self {
        Self::with_origin(StackOrigin::Local(LocalOrigin::new(stack)), address, stopped, clock)
    }

    /// Creates the context of a console of a deployed stack, like [`ConsoleContext::new`].
    #[must_use]
    pub fn deployed(stack: Arc<DeployedStack>, address: &str, stopped: watch::Receiver<bool>, clock: Clock) -> Self {
        Self::with_origin(StackOrigin::Deployed(stack), address, stopped, clock)
    }

    fn with_origin(origin: StackOrigin, address: &str, stopped: watch::Receiver<bool>, clock: Clock) -> Self {
        let token = format!("{}{}", new_uuid(clock.now()).simple(), new_uuid(clock.now()).simple());
        let guard = Arc::new(RequestGuard::new(address, token));
        Self { origin, guard, runs: Arc::default(), stopped, clock, duckdb: Arc::default() }
    }

    /// Returns the installed DuckDB, which is looked for once.
    async fn duckdb(&self) -> Option<DuckDbProgram> {
        self.duckdb.get_or_init(DuckDbProgram::find).await.clone()
    }

    /// Uses this DuckDB, or none, without looking for one.
    #[cfg(test)]
    fn with_duckdb(self, duckdb: Option<DuckDbProgram>) -> Self {
        Self { duckdb: Arc::new(OnceCell::new_with(Some(duckdb))), ..self }
    }

    /// Returns the token that state-changing requests must contain.
    #[must_use]
    pub fn token(&self) -> &str {
        self.guard.token()
    }
}

/// The running console.
pub struct ConsoleServer {
    url: String,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
}

impl ConsoleServer {
    /// Serves the console on a listener of the loopback interface.
    ///
    /// # Errors
    /// Fails if the listener's address cannot be determined.
    pub fn start(listener: TcpListener, stack: Arc<LocalStack>, clock: Clock) -> std::io::Result<Self> {
        Self::serve(listener, StackOrigin::Local(LocalOrigin::new(stack)), clock)
    }

    /// Serves the console of a deployed stack on a listener of the loopback interface.
    ///
    /// # Errors
    /// Fails if the listener's address cannot be determined.
    pub fn start_deployed(listener: TcpListener, stack: DeployedStack, clock: Clock) -> std::io::Result<Self> {
        Self::serve(listener, StackOrigin::Deployed(Arc::new(stack)), clock)
    }

    fn serve(listener: TcpListener, origin: StackOrigin, clock: Clock) -> std::io::Result<Self> {
        let address = listener.local_addr()?.to_string();
        let (stop, stopped) = watch::channel(false);
        let context = ConsoleContext::with_origin(origin, &address, stopped.clone(), clock);
        let server = tokio::spawn(async move {
            let mut stopped = stopped;
            let served = axum::serve(listener, router(context)).with_graceful_shutdown(async move {
                // A dropped sender stops the server as well.
                let _ = stopped.wait_for(|stopped| *stopped).await;
            });
            if let Err(error) = served.await {
                tracing::error!(%error, "the console ended");
            }
        });
        Ok(Self { url: format!("http://{address}"), stop, server })
    }

    /// Returns the URL of the console.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Stops serving; requests in progress have 2 s to finish.
    pub async fn stop(self) {
        // The server may already have ended: there is nothing to stop then.
        let _ = self.stop.send(true);
        let _ = tokio::time::timeout(STOP_TIMEOUT, self.server).await;
    }
}
