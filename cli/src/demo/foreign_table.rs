//! Demo of a table that is not the users table: `infra/replication.yaml` by itself replicates orders, which have another
//! key and another TTL attribute, through expiry, the loss of the replica, a backfill and a restore.

use aws_sdk_dynamodb::types::AttributeValue;
use millrace_local::stack::{LocalStack, StackOptions};
use millrace_local::table_description::TableDescription;
use millrace_local::template::SourceTable;
use millrace_maintenance::progress::TaskProgress;
use millrace_shared::clock::Clock;

use super::item::{DemoItem, describe, has, summarize_row, without_revision};
use super::report::DemoReport;
use super::stores::StoreInspector;
use super::task_runner::TaskRunner;
use super::{DemoError, wait_until_drained};

/// The output of `aws dynamodb describe-table` for the table.
const DESCRIPTION: &str = include_str!("../../../examples/orders-table.json");
const TTL_ATTRIBUTE: &str = "ttl";
pub(super) const VERIFY: &str = r#"{"task":"verify","recheck_after_seconds":0}"#;
/// The order that expires.
const EXPIRED: u32 = 2;

/// Runs the chapter on a stack of its own, which is next to the template of the users service.
pub(super) async fn show(report: &mut DemoReport, users: &StackOptions) -> Result<(), DemoError> {
    let stack = LocalStack::start(stack_options(users)?).await?;
    let shown = show_stack(report, &stack).await;
    stack.stop().await;
    shown
}

/// Returns the options of a stack that replicates the orders.
pub(super) fn stack_options(users: &StackOptions) -> Result<StackOptions, DemoError> {
    let source = SourceTable {
        description: Some(TableDescription::parse(DESCRIPTION)?),
        ttl_attribute: Some(TTL_ATTRIBUTE.into()),
    };
    let template = users.template.with_file_name("infra").join("replication.yaml");
    Ok(StackOptions { template, source, ..StackOptions::default() })
}

async fn show_stack(report: &mut DemoReport, stack: &LocalStack) -> Result<(), DemoError> {
    let stores = StoreInspector::new(stack)?;
    let task_runner = TaskRunner::new(stack)?;
    scenario_changes(report, stack, &stores).await?;
    scenario_expiry(report, stack, &stores).await?;
    scenario_loss(report, &stores, &task_runner).await?;
    scenario_restore(report, stack, &stores, &task_runner).await
}

pub(super) fn key(number: u32) -> DemoItem {
    let key = [("pk", AttributeValue::S("customer-1".to_owned())), ("sk", AttributeValue::N(number.to_string()))];
    key.map(|(name, value)| (name.to_owned(), value)).into()
}

/// Shows an order in both tables, and returns both items.
async fn shown(
    report: &mut DemoReport,
    stores: &StoreInspector,
    number: u32,
) -> Result<[Option<DemoItem>; 2], DemoError> {
    let source = stores.item_of(&stores.source, key(number)).await?;
    let replica = stores.item_of(&stores.replica, key(number)).await?;
    for (table, item) in [(&stores.source, &source), (&stores.replica, &replica)] {
        report.show(table, &item.as_ref().map_or_else(|| "no item".to_owned(), describe));
    }
    Ok([source, replica])
}

async fn scenario_changes(
    report: &mut DemoReport,
    stack: &LocalStack,
    stores: &StoreInspector,
) -> Result<(), DemoError> {
    report.heading("A table of another shape is replicated: orders with the key pk and sk");
    let past = (Clock::system().now().unix_timestamp() - 60).to_string();
    for (number, ttl) in [(1, None), (EXPIRED, Some(past)), (3, None)] {
        let mut order = key(number);
        order.insert("total".to_owned(), AttributeValue::N(format!("{number}9.90")));
        order.insert("status".to_owned(), AttributeValue::S("paid".to_owned()));
        order.extend(ttl.map(|ttl| (TTL_ATTRIBUTE.to_owned(), AttributeValue::N(ttl))));
        stores.put(order).await?;
    }
    stores.delete(key(3)).await?;
    wait_until_drained(stack).await?;
    let [source, replica] = shown(report, stores, 1).await?;
    let [_, tombstone] = shown(report, stores, 3).await?;
    report.check("the replica's item equals the order, and a tombstone is stored for the deleted one", {
        source.is_some() && replica.as_ref().map(without_revision) == source && has_tombstone(tombstone.as_ref())
    });
    Ok(())
}

async fn scenario_expiry(
    report: &mut DemoReport,
    stack: &LocalStack,
    stores: &StoreInspector,
) -> Result<(), DemoError> {
    report.heading("An order expires by the attribute ttl");
    stack.run_ttl_sweep().await?;
    wait_until_drained(stack).await?;
    let [source, replica] = shown(report, stores, EXPIRED).await?;
    let archived = stores.archived().await?;
    for (key, rows) in &archived {
        report.show("archive", key);
        for row in rows {
            report.show("  its row", &summarize_row(row.item.get()));
        }
    }
    report.check("it is in the archive, and the replica has a tombstone with the reason", {
        let rows: Vec<&str> = archived.iter().flat_map(|(_, rows)| rows).map(|row| row.item.get()).collect();
        let is_complete = rows.len() == 1 && rows[0].contains(r#""total":{"N":"29.9"#);
        source.is_none() && has(replica.as_ref(), "_deleted_by_ttl") && is_complete
    });
    Ok(())
}

async fn scenario_loss(
    report: &mut DemoReport,
    stores: &StoreInspector,
    task_runner: &TaskRunner<'_>,
) -> Result<(), DemoError> {
    report.heading("The replica of the orders is lost and rebuilt");
    let [items, tombstones] = stores.delete_replica_data().await?;
    report.show(&stores.replica, &format!("{items} item and {tombstones} tombstones are deleted"));
    let filled = task_runner.run_task(report, r#"{"task":"backfill"}"#).await?;
    let found = task_runner.run_task(report, VERIFY).await?;
    report.check("the backfill writes the order that is in the table, and verify finds no difference", {
        (items, tombstones) == (1, 2) && filled.get("dynamodb.written") == 1 && is_equal(&found, 1)
    });
    Ok(())
}

async fn scenario_restore(
    report: &mut DemoReport,
    stack: &LocalStack,
    stores: &StoreInspector,
    task_runner: &TaskRunner<'_>,
) -> Result<(), DemoError> {
    report.heading("The expired order is restored from the archive");
    let restore = r#"{"task":"restore","key":{"pk":{"S":"customer-1"},"sk":{"N":"2"}},"expires_in_seconds":3600,"dry_run":false}"#;
    let restored = task_runner.run_task(report, restore).await?;
    wait_until_drained(stack).await?;
    let [source, replica] = shown(report, stores, EXPIRED).await?;
    report.check("it expires in an hour by the table's own TTL attribute, and is replicated", {
        let ttl = source.as_ref().and_then(|item| item.get(TTL_ATTRIBUTE)?.as_n().ok()?.parse::<i64>().ok());
        let is_extended = ttl.is_some_and(|ttl| ttl > Clock::system().now().unix_timestamp());
        restored.get("restore.restored") == 1 && is_extended && replica.as_ref().map(without_revision) == source
    });
    let found = task_runner.run_task(report, VERIFY).await?;
    report.check("verify finds both orders equal", is_equal(&found, 2));
    Ok(())
}

fn has_tombstone(item: Option<&DemoItem>) -> bool {
    has(item, "_tombstone_expires_at") && !has(item, "_deleted_by_ttl")
}

/// Returns whether `verify` found this number of equal items, and nothing else.
fn is_equal(found: &TaskProgress, items: u64) -> bool {
    let differences = [".missing", ".different", ".resurrected", ".extra", ".quarantined", ".in_flux"];
    found.get("dynamodb.equal") == items && differences.iter().all(|kind| found.sum(kind) == 0)
}
