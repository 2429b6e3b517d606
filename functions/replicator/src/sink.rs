//! What a replica is: [`Sink`], the one trait of this function, and what is said through it; and [`Replica`], a sink
//! whose items can be read back, for maintenance.
//!
//! All sinks of a batch work side by side on the same [`DeduplicatedBatch`] changes, and none knows of another. A sink answers
//! for each change that it could not apply, and for no other. The laws that every sink keeps stand as a suite in
//! `tests/sink_contract.rs`.
//!
//! Architecture invariant: a sink decides nothing about a batch. It does not settle, it does not know the answer's
//! format, and it does not write to the failure bucket; it says what failed and how, and the handler acts.

pub mod cache;
pub mod dynamodb;
pub mod postgres;
mod replica;

use futures::future::BoxFuture;
use shared::change::Change;
use shared::invocation::Invocation;

pub use replica::{
    Replica, ReplicaCondition, ReplicaPage, ReplicaReadError, ReplicaReadOutput, ReplicaWrite, WriteResult, WriteTarget,
};

/// What turns a sink on where the replicator is deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkSetting {
    /// The sink's name.
    pub sink: &'static str,
    /// The variable of the replicator that turns it on.
    pub variable: &'static str,
    /// Whether it stores items, so that they can be read back. What others lack, such as a cache, expires by itself.
    pub stores_items: bool,
}

/// Every sink, and what turns it on.
pub const SINK_SETTINGS: [SinkSetting; 3] = [
    SinkSetting { sink: dynamodb::NAME, variable: "REPLICA_TABLE", stores_items: true },
    SinkSetting { sink: postgres::NAME, variable: postgres::SETTING, stores_items: true },
    SinkSetting { sink: cache::NAME, variable: "CACHE_URL", stores_items: false },
];

/// A replica that changes are applied to, under the one guard: only over nothing or over a lower revision.
pub trait Sink: Send + Sync {
    /// The name in metrics, logs and quarantine keys: one lowercase word.
    fn name(&self) -> &'static str;

    /// Proves, before the first batch, that the replica is there and of the right shape. A replica that cannot be
    /// asked for a reason that may pass is none of the faults: each batch asks again.
    ///
    /// # Errors
    /// [`SinkMisconfiguredError`], which names the setting and the fix.
    fn check(&self) -> BoxFuture<'_, Result<(), SinkMisconfiguredError>>;

    /// Applies the settled changes, and returns by `invocation.stop_at` at the latest.
    ///
    /// Applying is idempotent, and the order in which settled changes are written is free. A refusal by the guard is
    /// success. A change that is neither applied nor refused when the time is up is a transient failure.
    ///
    /// # Errors
    /// [`SinkMisconfiguredError`] if nothing of this batch may be applied at all, e.g. because the replica is its own source. The
    /// invocation then fails whole. An outage is none: it is a transient failure of each change.
    fn apply<'s>(
        &'s self,
        decided: DeduplicatedBatch<'s>,
        invocation: &'s Invocation,
    ) -> BoxFuture<'s, Result<SinkOutcome, SinkMisconfiguredError>>;
}

/// What a batch comes to.
#[derive(Debug, Clone, Copy)]
pub struct DeduplicatedBatch<'b> {
    /// Every readable change of the batch, as delivered, superseded ones included: a cache's floor for a key is the
    /// highest over all of them. A replica that holds items needs only the settled ones.
    pub changes: &'b [&'b Change<'b>],
    /// Of each key the change that the replica is to end with, in the order of delivery.
    pub latest_per_key: &'b [&'b Change<'b>],
}

/// What became of the settled changes of a batch in one sink. Each is counted once, or is among the failures.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SinkOutcome {
    /// Written, tombstones included.
    pub applied: usize,
    /// Refused because the replica held this very revision: a redelivery.
    pub duplicate: usize,
    /// Refused because the replica held a later revision.
    pub stale: usize,
    /// Of the applied, those that left a tombstone.
    pub tombstones: usize,
    /// The changes that the replica may lack, in no order.
    pub failures: Vec<FailedChange>,
}

impl SinkOutcome {
    /// The outcome of a sink that is sure of none of the changes, for a reason that may pass.
    #[must_use]
    pub fn all_failed(settled: &[&Change<'_>], reason: &str) -> Self {
        let transient = || FailureKind::Transient(reason.to_owned());
        let failures = settled.iter().map(|change| FailedChange { index: change.index, kind: transient() }).collect();
        Self { failures, ..Self::default() }
    }
}

/// A change that the replica may lack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedChange {
    /// The record's place in the batch ([`Change::index`]).
    pub index: usize,
    /// What to do about it, and why.
    pub kind: FailureKind,
}

/// What to do about a failed change, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailureKind {
    /// Another delivery may succeed: throttles, timeouts, outages, and every fault of the sink as a whole. The reason is
    /// for the log and holds none of the item's values.
    Transient(String),
    /// No delivery will: this sink cannot hold this change. It goes to quarantine with the reason, which may quote it
    /// and is not logged.
    Permanent(String),
}

/// A sink that cannot serve any batch until someone mends it.
#[derive(Debug, thiserror::Error)]
#[error("sink {sink}: {reason}")]
pub struct SinkMisconfiguredError {
    /// The sink's name.
    pub sink: &'static str,
    /// What is wrong, and the setting to mend.
    pub reason: String,
}
