//! Demo scenarios of failures from which replication does not recover automatically, and of the tasks that repair them.

use millrace_shared::clock::Clock;
use millrace_shared::revision::Revision;
use serde_json::json;
use serde_json::value::to_raw_value;

use super::api_client::ApiResponse;
use super::item::{DemoItem, has, without_revision};
use super::report::DemoReport;
use super::scenarios::FinalState;
use super::stores::{InspectError, StoreInspector};
use super::task_runner::TaskRunner;
use super::{DemoError, DemoState};
use millrace_event_source_mapping::event;
use millrace_event_source_mapping::on_failure_destination::DiscardedBatch;
use millrace_event_source_mapping::state::DiscardReason;
use millrace_local::lambda::function_arn;
use millrace_shared::clock::new_uuid;

pub(super) async fn scenario_redrive(
    report: &mut DemoReport,
    stores: &StoreInspector,
    task_runner: &TaskRunner<'_>,
    state: &DemoState,
) -> Result<(), DemoError> {
    report.heading("Mallory is rewritten without the reserved attribute, and the record is redriven");
    let timestamp = state.ada.first().map_or(0, ApiResponse::timestamp);
    stores.write("mallory", timestamp, "motto").await?;
    task_runner.wait_until_drained().await?;
    let dry = task_runner.run_task(report, r#"{"task":"redrive"}"#).await?;
    let replicas = stores.replicas;
    let untouched = stores.quarantined().await?.len() == replicas;
    let real = task_runner.run_task(report, r#"{"task":"redrive","dry_run":false}"#).await?;
    for key in stores.failures("redriven/").await? {
        report.show("redriven", &key);
    }
    let ends = FinalState::read(report, stores, "mallory", timestamp).await?;
    report.check(
        "a dry run reports what would be redriven and changes nothing",
        untouched && dry.get("redrive.would_redrive") == replicas as u64,
    );
    report.check("the record is redriven: removed from quarantine and stored under redriven/", {
        let redriven = stores.failures("redriven/quarantine/replicator/").await?;
        real.get("redrive.redriven") == replicas as u64
            && stores.quarantined().await?.is_empty()
            && redriven.len() == replicas
    });
    report.check("the replica's item equals the source item", ends.agree());
    Ok(())
}

pub(super) async fn scenario_backfill(
    report: &mut DemoReport,
    stores: &StoreInspector,
    task_runner: &TaskRunner<'_>,
) -> Result<(), DemoError> {
    report.heading("The replica is lost and rebuilt");
    let [items, tombstones] = stores.delete_replica_data().await?;
    report.show(&stores.replica, &format!("all {items} items and {tombstones} tombstones are deleted"));
    let filled = task_runner.run_task(report, r#"{"task":"backfill"}"#).await?;
    let found = task_runner.run_task(report, r#"{"task":"verify","recheck_after_seconds":0}"#).await?;
    let (source, replica) = (stores.items(&stores.source).await?, stores.items(&stores.replica).await?);
    report.check("the backfill restored every item of the source table", {
        let all: Vec<DemoItem> = replica.iter().map(without_revision).collect();
        let is_back = |item: &DemoItem| all.contains(item);
        filled.get("dynamodb.written") == source.len() as u64 && source.iter().all(is_back)
    });
    report.check("verify finds no difference", {
        let differences = [".missing", ".different", ".resurrected", ".extra", ".quarantined", ".in_flux"];
        let none = differences.iter().all(|kind| found.sum(kind) == 0);
        none && found.get("dynamodb.equal") == source.len() as u64
    });
    report.check("tombstones are not restored: a backfill copies only items that are in the table", {
        tombstones > 0 && replica.iter().all(|item| !has(Some(item), "_tombstone_expires_at"))
    });
    Ok(())
}

pub(super) async fn scenario_stale_redrive(
    report: &mut DemoReport,
    stores: &StoreInspector,
    task_runner: &TaskRunner<'_>,
    state: &DemoState,
) -> Result<(), DemoError> {
    report
        .heading("The record of Edsger's creation is redriven weeks late: the item is deleted and its tombstone lost");
    let timestamp = state.edsger.first().map_or(0, ApiResponse::timestamp);
    let before = FinalState::read(report, stores, "edsger", timestamp).await?;
    let (key, age) = given_up(stores, "edsger").await?;
    report.show("discarded by Lambda", &key);
    report.show("  its revision", &age.to_string());
    let real = task_runner.run_task(report, r#"{"task":"redrive","dry_run":false}"#).await?;
    let after = FinalState::read(report, stores, "edsger", timestamp).await?;
    report.check("no table had the item, and the record was redriven", {
        let unknown = before.source.is_none() && before.replica.is_none();
        let redriven = stores.failures("redriven/aws/lambda/").await?;
        unknown && real.get("redrive.redriven") == 1 && redriven == [format!("redriven/{key}")]
    });
    report.check("the item was not restored: a tombstone was written instead", {
        after.source.is_none()
            && has(after.replica.as_ref(), "_tombstone_expires_at")
            && !has(after.replica.as_ref(), "name")
    });
    report.check("the tombstone's revision is above the record's, so every further delivery is stale", {
        let bytes = after.replica.as_ref().and_then(|item| item.get("_rev")?.as_b().ok());
        bytes.and_then(|bytes| Revision::decode(bytes.as_ref()).ok()).is_some_and(|tombstone| tombstone > age)
    });
    Ok(())
}

/// Writes the first record of a user to the failure bucket, as Lambda writes a discarded batch; returns the object's
/// key and the record's revision.
async fn given_up(stores: &StoreInspector, user_id: &str) -> Result<(String, Revision), InspectError> {
    let (stream_arn, shard, record) = stores.first_record(user_id).await?;
    let failed = |reason: String| InspectError::new("the failure bucket", reason);
    let event = to_raw_value(&json!({"Records": [event::encode(&record, &stream_arn)]}));
    let event = event.map_err(|error| failed(error.to_string()))?;
    let batch = millrace_shared::stream::read(&event).map_err(|error| failed(error.to_string()))?;
    let read = batch.records.first().and_then(|record| Some((record.source.as_ref()?.label(), record.number?)));
    let (label, number) = read.ok_or_else(|| failed("the record has no stream label or sequence number".to_owned()))?;
    let now = Clock::system().now();
    let given_up = DiscardedBatch {
        mapping: "replicator-Changes",
        function_arn: &function_arn("replicator"),
        shard: &shard,
        stream_arn: &stream_arn,
        reason: DiscardReason::RecordAgeExceeded,
        invocations: 1,
        range: [number.to_string(), number.to_string()],
        times: [Some(now), Some(now)],
        count: 1,
        payload: &event,
    };
    let key = given_up.put(stores.given_up(), now, new_uuid(now)).await.map_err(failed)?;
    Ok((key, Revision::new(label, number)))
}
