//! Self-checking demo: [`run`] runs a scenario on fresh engines, prints the final state of every user, and checks it.
//!
//! The scenario sends HTTP requests to the API, like a client. The final state is read from the tables and buckets with
//! the official SDKs, like an operator does. Maintenance is the only function that is invoked directly, since it is the
//! operator's tool.

use std::time::Duration;

use millrace_shared::clock::Clock;
use serde_json::json;
use tokio::time::Instant;

use millrace_local::stack::{LocalStack, StackOptions, StartError};
use millrace_local::table_description::TableDescriptionError;

mod api_client;
mod cached;
mod duckdb;
mod foreign_table;
mod item;
mod masked_copy;
mod recovery_scenarios;
mod relational;
mod report;
mod restore_scenario;
mod scenarios;
mod stores;
mod task_runner;

use api_client::{ApiClient, ApiResponse};
pub use duckdb::DuckDb;
use report::DemoReport;
use stores::{InspectError, StoreInspector};
use task_runner::TaskRunner;

/// A demo that cannot be completed. A failed check is not an error.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The stack does not start.
    #[error(transparent)]
    Refusal(#[from] StartError),
    /// The API cannot be reached.
    #[error("cannot send a request to the API: {0}")]
    Api(String),
    /// The description of the other table is not valid.
    #[error(transparent)]
    Description(#[from] TableDescriptionError),
    /// A table or bucket cannot be read.
    #[error(transparent)]
    Look(#[from] InspectError),
    /// The engine failed to remove the expired items.
    #[error(transparent)]
    Expiry(#[from] millrace_local::dynamodb::DynamoDbEngineError),
    /// The template has no maintenance function.
    #[error("the template has no function whose binary is maintenance")]
    NoMaintenance,
    /// The files for DuckDB cannot be written to a folder.
    #[error("cannot write the files for DuckDB: {0}")]
    Folder(std::io::Error),
    /// A task failed.
    #[error("maintenance task failed: {0}")]
    Task(#[from] millrace_maintenance::TaskError),
    /// Some stream record was not processed in time.
    #[error("the records of the streams were not processed within {} s", DRAIN_TIMEOUT.as_secs())]
    NotDrained,
}

/// Time limit for the streams; much longer than they need.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
/// A number that no binary floating-point type can represent exactly.
const EXACT: &str = "12345678901234567890123456789012345678";

/// The responses that the scenario received.
struct DemoState {
    ada: Vec<ApiResponse>,
    replicated_ms: u128,
    grace: Vec<ApiResponse>,
    edsger: Vec<ApiResponse>,
    alan: Vec<ApiResponse>,
    started: Instant,
}

/// Runs the scenario, prints the page, and returns whether every check passed. The stack is in memory and is discarded
/// afterwards.
///
/// # Errors
/// [`DemoError`] if the scenario cannot be completed.
pub async fn run(options: StackOptions, duckdb: &DuckDb) -> Result<bool, DemoError> {
    let started = Instant::now();
    let stack = LocalStack::start(options).await?;
    let page = shown(&stack, duckdb, started).await;
    let options = stack.options().clone();
    stack.stop().await;
    let mut page = page?;
    // After the metrics of the users service, which count all stacks of the process.
    foreign_table::show(&mut page, &options).await?;
    masked_copy::show(&mut page, &options).await?;
    println!("{}", page.text());
    Ok(page.failed() == 0)
}

async fn shown(stack: &LocalStack, duckdb: &DuckDb, started: Instant) -> Result<DemoReport, DemoError> {
    let stores = StoreInspector::new(stack)?;
    let browser = ApiClient::new(stack.api_url());
    let state = act(stack, &stores, &browser, started).await?;
    wait_until_drained(stack).await?;
    let mut page = DemoReport::new();
    scenarios::scenario_update(&mut page, &stores, &state).await?;
    scenarios::scenario_patch(&mut page, &stores, &state).await?;
    scenarios::scenario_delete(&mut page, &stores, &state).await?;
    scenarios::scenario_expiry(&mut page, &stores, &state).await?;
    restore_scenario::show(&mut page, stack, &stores, &browser, &state, duckdb).await?;
    scenarios::poison(&mut page, &stores, &state).await?;
    let operator = TaskRunner::new(stack)?;
    recovery_scenarios::scenario_redrive(&mut page, &stores, &operator, &state).await?;
    recovery_scenarios::scenario_backfill(&mut page, &stores, &operator).await?;
    recovery_scenarios::scenario_stale_redrive(&mut page, &stores, &operator, &state).await?;
    relational::show(&mut page, stack, &stores, &browser, &operator).await?;
    cached::show(&mut page, stack, &stores, &browser, &state).await?;
    scenarios::scenario_stats(&mut page, &browser, &state).await?;
    Ok(page)
}

async fn wait_until_drained(stack: &LocalStack) -> Result<(), DemoError> {
    tokio::time::timeout(DRAIN_TIMEOUT, stack.wait_until_drained()).await.map_err(|_| DemoError::NotDrained)
}

/// Runs the scenario. The poison record is written in the middle, so that everything after it shows that it blocks no
/// other record.
async fn act(
    stack: &LocalStack,
    stores: &StoreInspector,
    browser: &ApiClient,
    started: Instant,
) -> Result<DemoState, DemoError> {
    let person = |id: &str, name: &str| json!({"user_id": id, "name": name, "email": format!("{id}@example.com")});
    let json = "application/json";

    let mut ada = vec![browser.send("POST", "/users", json, &person("ada", "Ada Byron").to_string()).await?];
    let replicated_ms = stores.replicated("ada", ada[0].timestamp()).await?;
    // No replica can store an attribute with the name `_rev`, which replication reserves.
    stores.write("mallory", ada[0].timestamp(), "_rev").await?;
    let renamed = json!({"name": "Ada Lovelace", "email": "ada@example.com"}).to_string();
    ada.push(browser.send("PUT", &ada[0].path("ada"), json, &renamed).await?);

    let mut grace = vec![browser.send("POST", "/users", json, &person("grace", "Grace Hopper").to_string()).await?];
    let patch = format!(r#"{{"status":"inactive","attributes":{{"rank":"rear admiral","exact":{EXACT}}}}}"#);
    grace.push(browser.send("PATCH", &grace[0].path("grace"), "application/merge-patch+json", &patch).await?);

    let edsger = browser.send("POST", "/users", json, &person("edsger", "Edsger Dijkstra").to_string()).await?;
    let deleted = browser.send("DELETE", &edsger.path("edsger"), json, "").await?;
    let gone = browser.send("GET", &edsger.path("edsger"), json, "").await?;

    let expires_at = Clock::system().now().unix_timestamp() + 1;
    let mut person = person("alan", "Alan Turing");
    person["expires_at"] = expires_at.into();
    let alan = browser.send("POST", "/users", json, &person.to_string()).await?;
    while Clock::system().now().unix_timestamp() <= expires_at {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let expired = browser.send("GET", &alan.path("alan"), json, "").await?;
    stack.run_ttl_sweep().await?;
    Ok(DemoState { ada, replicated_ms, grace, edsger: vec![edsger, deleted, gone], alan: vec![alan, expired], started })
}
