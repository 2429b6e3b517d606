//! Brings keys of a replica to the state of their source: reads both, plans a write with [`reconcile`], writes, and
//! repeats this until there is nothing left to do.
//!
//! Many keys are processed together, but in every round the label is read before the replica, and the replica before
//! the source, for all of them.
//!
//! [`reconcile`]: crate::reconcile

use std::time::Duration;

use millrace_shared::change::CanonicalKey;
use millrace_shared::invocation::Invocation;
use millrace_shared::replica_item::ReplicaItem;
use millrace_shared::revision::Revision;
use millrace_sinks::{
    ExpectedItem, Replica, ReplicaCondition, ReplicaReadError, ReplicaWrite, WriteResult, WriteTarget,
};
use tokio::time::Instant;

use crate::reconcile::{ReconcileAction, plan_repair};
use crate::source::{SourceTable, SourceTableError};

/// Maximum number of rounds. A key that is modified in every round is left to the stream.
const ROUNDS: u32 = 10;
/// Pause after the first round with a failed write; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

const UNSEEN: &str = "the deadline passed before it was processed";

/// A key to repair, and the revision of the record that named it, if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaleKey {
    /// The item's key.
    pub key: CanonicalKey,
    /// The record's revision.
    pub record_revision: Option<Revision>,
}

/// The outcome of the repair of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepairOutcome {
    /// No action was needed.
    InSync,
    /// The source's state was written.
    Written,
    /// The key could not be repaired, for this reason. The reason may quote the item and is not logged.
    Failed(String),
}

/// Error of a repair: one side cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] SourceTableError),
    /// The replica cannot be read.
    #[error(transparent)]
    Replica(#[from] ReplicaReadError),
}

/// Repairs these keys, which must be distinct. Returns one outcome per key, in the same order.
///
/// # Errors
/// [`ReconcileError`] if one side cannot be read. The writes made before the error are correct and remain.
pub async fn reconcile_keys(
    source: &SourceTable,
    replica: &dyn Replica,
    stale: &[StaleKey],
    invocation: &Invocation,
) -> Result<Vec<RepairOutcome>, ReconcileError> {
    carry_out(source, replica, stale, invocation, WriteMode::Made).await
}

/// Predicts the result of [`reconcile_keys`] as far as possible without a write: makes the same reads and the same
/// decisions, and calls [`Replica::refusal`] instead of writing, to learn whether the replica can store the item.
///
/// # Errors
/// Same as [`reconcile_keys`].
pub async fn predict(
    source: &SourceTable,
    replica: &dyn Replica,
    stale: &[StaleKey],
    invocation: &Invocation,
) -> Result<Vec<RepairOutcome>, ReconcileError> {
    carry_out(source, replica, stale, invocation, WriteMode::Predicted).await
}

/// Selects whether the replica is written to, or the writes are only predicted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WriteMode {
    Made,
    Predicted,
}

async fn carry_out(
    source: &SourceTable,
    replica: &dyn Replica,
    stale: &[StaleKey],
    invocation: &Invocation,
    mode: WriteMode,
) -> Result<Vec<RepairOutcome>, ReconcileError> {
    let mut outcomes = vec![RepairOutcome::InSync; stale.len()];
    let mut open: Vec<usize> = (0..stale.len()).collect();
    let mut pause = FIRST_PAUSE;
    for _ in 0..ROUNDS {
        if open.is_empty() || Instant::now() >= invocation.deadline {
            break;
        }
        let keys: Vec<CanonicalKey> = open.iter().map(|position| stale[*position].key.clone()).collect();
        let label = source.stream().await?.label;
        let held = replica.read(&keys).await?.items;
        let (items, _) = source.read(&keys).await?;

        let expected: Vec<ExpectedItem> = keys
            .iter()
            .zip(items)
            .map(|(key, item)| item.map_or(Ok(None), |item| replica.expected(key, item)))
            .collect();
        let (mut writes, mut positions) = (Vec::new(), Vec::new());
        for (((position, key), held), item) in open.into_iter().zip(&keys).zip(&held).zip(&expected) {
            let item = match item {
                Ok(item) => item,
                Err(error) => {
                    outcomes[position] = RepairOutcome::Failed(error.to_string());
                    continue;
                }
            };
            match plan_repair(label, stale[position].record_revision, held.as_ref(), item.as_ref()) {
                // The write of an earlier round has taken effect: the key is reported as written.
                ReconcileAction::Settled if matches!(outcomes[position], RepairOutcome::Failed(_)) => {
                    outcomes[position] = RepairOutcome::Written;
                }
                ReconcileAction::Settled => {}
                ReconcileAction::Unmanaged(error) => {
                    outcomes[position] = RepairOutcome::Failed(format!(
                        "the replica's item has a {} that is not a revision ({error})",
                        replica.revision_name()
                    ));
                }
                ReconcileAction::Write { revision, over } => {
                    let expired = held.as_ref().is_some_and(ReplicaItem::expired);
                    let target = item.as_ref().map_or(WriteTarget::Tombstone { expired }, WriteTarget::Item);
                    writes.push(ReplicaWrite { key, target, revision, over: ReplicaCondition::Revision(over) });
                    positions.push(position);
                }
            }
        }
        if mode == WriteMode::Predicted {
            for (position, write) in positions.into_iter().zip(&writes) {
                outcomes[position] =
                    replica.refusal(write, invocation.now).map_or(RepairOutcome::Written, RepairOutcome::Failed);
            }
            open = Vec::new();
            break;
        }
        let puts = replica.put(&writes, invocation).await;
        let mut failed = false;
        open = Vec::new();
        for (position, put) in positions.into_iter().zip(puts) {
            let left = match put {
                WriteResult::Permanent(reason) => {
                    outcomes[position] = RepairOutcome::Failed(reason);
                    continue;
                }
                WriteResult::Written | WriteResult::ConditionFailed => {
                    "the item was modified concurrently on every attempt: run the task again".to_owned()
                }
                WriteResult::Transient(reason) => {
                    failed = true;
                    reason
                }
            };
            outcomes[position] = RepairOutcome::Failed(left);
            open.push(position);
        }
        if failed {
            tokio::time::sleep_until(invocation.deadline.min(Instant::now() + pause)).await;
            pause *= 2;
        }
    }
    // A key that was never read is not known to be in sync.
    for position in open {
        if outcomes[position] == RepairOutcome::InSync {
            outcomes[position] = RepairOutcome::Failed(UNSEEN.to_owned());
        }
    }
    Ok(outcomes)
}
