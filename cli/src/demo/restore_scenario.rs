//! Demo scenario of a restore: Alan's archived record is compacted with the rest of the archive, found with SQL,
//! restored, replicated, and expired again.

use std::time::Duration;

use millrace_maintenance::MaintenanceHandler;
use millrace_maintenance::progress::TaskProgress;
use millrace_shared::clock::Clock;
use millrace_shared::invocation::Invocation;
use serde_json::value::to_raw_value;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::api_client::{ApiClient, ApiResponse};
use super::duckdb::{DuckDb, ParquetCopy, TO_HAVE_IT};
use super::item::{describe, has, without_revision};
use super::report::DemoReport;
use super::scenarios::rows_of;
use super::stores::StoreInspector;
use super::{DRAIN_TIMEOUT, DemoError, DemoState};
use millrace_local::stack::LocalStack;

/// The end of the compacted period, far in the future, so that removals of today are compacted as well.
const TO: &str = "2999-01-01T00:00:00Z";

pub(super) async fn show(
    report: &mut DemoReport,
    stack: &LocalStack,
    stores: &StoreInspector,
    browser: &ApiClient,
    state: &DemoState,
    duckdb: &DuckDb,
) -> Result<(), DemoError> {
    report.heading("Alan is restored from the archive and expires again");
    let Some(maintenance) = stack.maintenance() else {
        report.check("the template has the maintenance function", false);
        return Ok(());
    };
    let merged = run_request(report, &maintenance, json!({"task": "compact", "to": TO})).await?;
    let audited = run_request(report, &maintenance, json!({"task": "audit"})).await?;
    report.check("the archive is compacted and has a row for every TTL tombstone of the replica", {
        merged.get("compact.skipped") == 0 && audited.get("audit.found") > 0 && audited.get("audit.missing") == 0
    });
    let columns = run_request(report, &maintenance, json!({"task": "export-parquet", "to": TO})).await?;
    report.check("the compacted rows are exported as Parquet, for queries in SQL", {
        columns.get("export-parquet.rows") > 0 && columns.get("export-parquet.rows") == merged.get("compact.rows")
    });
    queried(report, stores, duckdb, columns.get("export-parquet.rows")).await?;
    let request = json!({"task": "restore", "user_id": "alan", "expires_in_seconds": 3_600, "dry_run": false});
    let restored = run_request(report, &maintenance, request).await?;
    wait_until_drained(stack).await?;
    let timestamp = state.alan.first().map_or(0, ApiResponse::timestamp);
    let source = stores.item(&stores.source, "alan", timestamp).await?;
    let replica = stores.item(&stores.replica, "alan", timestamp).await?;
    for (table, item) in [(&stores.source, &source), (&stores.replica, &replica)] {
        report.show(table, &item.as_ref().map_or_else(|| "no item".to_owned(), describe));
    }
    report.check("the item is restored, and the replica's item has replaced the tombstone", {
        restored.get("restore.restored") == 1 && source.is_some() && replica.as_ref().map(without_revision) == source
    });

    let ended = json!({"expires_at": Clock::system().now().unix_timestamp() - 1}).to_string();
    let path = state.alan.first().map(|response| response.path("alan")).unwrap_or_default();
    browser.send("PATCH", &path, "application/merge-patch+json", &ended).await?;
    stack.run_ttl_sweep().await?;
    wait_until_drained(stack).await?;
    let rows = rows_of(stores, "alan").await?;
    for (key, _) in &rows {
        report.show("archive", key);
    }
    let replica = stores.item(&stores.replica, "alan", timestamp).await?;
    report.check("the second expiry adds a second row to the archive", {
        rows.len() == 2 && has(replica.as_ref(), "_deleted_by_ttl")
    });
    Ok(())
}

/// Runs a task to completion, and shows its counters.
async fn run_request(
    report: &mut DemoReport,
    maintenance: &MaintenanceHandler,
    request: Value,
) -> Result<TaskProgress, DemoError> {
    let payload = to_raw_value(&request).map_err(|error| DemoError::Api(error.to_string()))?;
    let (now, minute) = (Clock::system().now(), Duration::from_mins(1));
    let invocation = Invocation::new(now, Instant::now(), minute, "demo".to_owned());
    let response = Box::pin(maintenance.handle(&payload, &invocation)).await?;
    report.show(&format!("task {request}"), &response.progress.to_string());
    Ok(response.progress)
}

/// Queries DuckDB, if it is installed, for Alan's rows and for the number of all rows.
async fn queried(
    report: &mut DemoReport,
    stores: &StoreInspector,
    duckdb: &DuckDb,
    rows: u64,
) -> Result<(), DemoError> {
    let program = match duckdb {
        DuckDb::Off => return Ok(()),
        DuckDb::Auto => {
            report.show("DuckDB", TO_HAVE_IT);
            return Ok(());
        }
        DuckDb::At(program) => program,
    };
    let columns = ParquetCopy::write(&stores.columns().await?).map_err(DemoError::Folder)?;
    let alan = "user_id, name, email, expires_at > 0";
    let selected = columns.select(program, alan, "where user_id = 'alan'");
    let counted = columns.select(program, "count(*)", "");
    for response in [&selected, &counted] {
        report.show("DuckDB", response.as_ref().unwrap_or_else(|wrong| wrong));
    }
    report.check("DuckDB finds the row in the archive's Parquet files and counts the same number of rows", {
        let selected = selected.map(|line| line.to_lowercase());
        selected.as_deref() == Ok("alan\talan turing\talan@example.com\ttrue") && counted == Ok(rows.to_string())
    });
    Ok(())
}

async fn wait_until_drained(stack: &LocalStack) -> Result<(), DemoError> {
    tokio::time::timeout(DRAIN_TIMEOUT, stack.wait_until_drained()).await.map_err(|_| DemoError::NotDrained)
}
