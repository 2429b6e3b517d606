//! Compares the source with its replicas as [`verify`](super::verify) does, and repairs the real differences.

use std::time::Duration;

use millrace_shared::transform_record::TransformState;
use millrace_sinks::SinkName;
use millrace_sinks::transform_history::RepairRecord;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::timeout_at;

use super::verify::{RepairMode, ReplicaComparison, VerifyCursor, VerifyError, compare};
use crate::task::context::TaskContext;
use crate::task::registry::{MaintenanceTask, SegmentTask};
use crate::task::request::InvalidRequest;
use crate::task::task_run::TaskRun;

/// Fields of the request of a repair.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct RepairRequest {
    /// Process only the replica of this name (default: all replicas)
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME"))]
    replica: Option<String>,
    /// Time after which a difference is read again, 0 to 300; only a difference that persists is repaired (default: 5)
    #[cfg_attr(feature = "cli", arg(long, value_name = "SECONDS"))]
    recheck_after_seconds: Option<u32>,
    /// Maximum number of read capacity units per second that the task consumes, for all concurrent segments together
    /// (default: no limit)
    #[cfg_attr(feature = "cli", arg(long, value_name = "UNITS"))]
    max_read_capacity_units: Option<u32>,
    /// Reports the repairs that the task would make, without writing (default: true)
    #[cfg_attr(feature = "cli", arg(skip))]
    dry_run: Option<bool>,
}

/// The task `repair`.
#[derive(Debug, PartialEq, Eq)]
pub struct RepairTask(pub(crate) ReplicaComparison);

impl MaintenanceTask for RepairTask {
    const NAME: &'static str = "repair";
    const SUMMARY: &'static str = "as verify, and brings each differing key of a replica to the state of the table";
    const SCANS_SOURCE: bool = true;
    type Request = RepairRequest;

    fn parse(request: RepairRequest, _: OffsetDateTime) -> Result<Self, InvalidRequest> {
        let RepairRequest { replica, recheck_after_seconds, max_read_capacity_units, dry_run } = request;
        let repair_mode = if dry_run.unwrap_or(true) { RepairMode::DryRun } else { RepairMode::Yes };
        ReplicaComparison::parse(replica, recheck_after_seconds, max_read_capacity_units, repair_mode).map(Self)
    }
}

impl SegmentTask for RepairTask {
    type Cursor = VerifyCursor;
    type Error = VerifyError;
    const USES_REPLICAS: bool = true;

    fn replica(&self) -> Option<&SinkName> {
        self.0.replica.as_ref()
    }

    fn writes_replicas(&self) -> bool {
        self.0.repair_mode == RepairMode::Yes
    }

    fn extra_time(&self) -> Duration {
        self.0.recheck_after
    }

    async fn run(&self, task_run: &mut TaskRun<VerifyCursor>, context: &TaskContext<'_>) -> Result<bool, VerifyError> {
        let done = compare(task_run, context, &self.0).await?;
        if done && self.0.repair_mode == RepairMode::Yes {
            // The future of a request of the SDK is large.
            Box::pin(record_rules(task_run, context)).await;
        }
        Ok(done)
    }
}

/// Records the rules that every item of this segment has in the replicas now. A replica whose segment does not count is
/// reported, and remains outdated.
async fn record_rules(task_run: &mut TaskRun<VerifyCursor>, context: &TaskContext<'_>) {
    let history = context.bucket.transform_history();
    let began = task_run.cursor().began_with_rules_of(context.replicas);
    for replica in context.replicas {
        let (sink, digest) = (replica.name(), replica.rules_digest());
        let failed = task_run.confirmed_count(&format!("{sink}.failed"));
        let recorded = async {
            match began {
                Some(began) if failed == 0 => {
                    history.record_repair(sink, digest, task_run.segment(), began).await.map(Some)
                }
                // The segment does not count, which matters only if the rules are not confirmed.
                _ => {
                    let is_confirmed = history.state(sink, digest).await? == TransformState::Confirmed;
                    Ok(is_confirmed.then_some(RepairRecord::Confirmed))
                }
            }
        };
        let reason = match timeout_at(task_run.report_by(), recorded).await {
            Ok(Ok(None)) if failed > 0 => "an item could not be repaired: repeat the repair".to_owned(),
            Ok(Ok(None)) => "the rules changed during the repair: repeat it".to_owned(),
            Ok(Ok(Some(RepairRecord::Confirmed))) => continue,
            Ok(Ok(Some(RepairRecord::TooEarly { repair_from }))) => format!(
                "a function with other rules may have written after the segment was repaired: repeat the repair at \
                 {} or later",
                repair_from.replace_nanosecond(0).unwrap_or(repair_from).format(&Rfc3339).unwrap_or_default()
            ),
            Ok(Ok(Some(RepairRecord::Unused))) => {
                "the replicator has not started with the rules of this repair: start it, then repeat the repair"
                    .to_owned()
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "S3 did not respond in time".to_owned(),
        };
        task_run.count(format!("{sink}.unconfirmed_segments"), 1);
        tracing::warn!(sink, error = reason, "the segment is not recorded as repaired with the rules of the replica");
    }
}
