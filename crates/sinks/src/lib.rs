//! The replication targets: [`Sink`], with an implementation for [DynamoDB](dynamodb), [PostgreSQL](postgres), a [cache]
//! and the [archive]; and [`Replica`], a sink whose items can be read back, for maintenance.
//!
//! All sinks of a batch process the same [`DeduplicatedBatch`] concurrently and independently. A sink reports each
//! change that it could not apply, and no other. The properties that every sink must have are a test suite in
//! `tests/sink_contract.rs`.
//!
//! Architecture invariant: a sink decides nothing about a batch. It does not deduplicate, it does not know the format
//! of the response, and it does not write to the failure bucket; it reports which changes failed and how, and the
//! handler acts.
//!
//! # Example
//!
//! Implement a sink that stores the revision of each key in memory, and apply a stream record twice, as Lambda may
//! deliver it. `examples/custom_sink.rs` has a complete sink, with tombstones and failures:
//!
//! ```
//! use std::cmp::Ordering;
//! use std::collections::HashMap;
//! use std::sync::Mutex;
//! use std::time::Duration;
//!
//! use futures::future::{BoxFuture, ready};
//! use millrace_shared::clock::Clock;
//! use millrace_shared::invocation::Invocation;
//! use millrace_shared::revision::Revision;
//! use millrace_shared::stream;
//! use millrace_sinks::{DeduplicatedBatch, Sink, SinkMisconfiguredError, SinkOutcome};
//! use serde_json::value::RawValue;
//! use tokio::time::Instant;
//!
//! #[derive(Default)]
//! struct RevisionSink {
//!     revisions: Mutex<HashMap<String, Revision>>,
//! }
//!
//! impl Sink for RevisionSink {
//!     fn name(&self) -> &'static str {
//!         "revisions"
//!     }
//!
//!     fn check(&self) -> BoxFuture<'_, Result<(), SinkMisconfiguredError>> {
//!         Box::pin(ready(Ok(())))
//!     }
//!
//!     fn apply<'s>(
//!         &'s self,
//!         batch: DeduplicatedBatch<'s>,
//!         _: &'s Invocation,
//!     ) -> BoxFuture<'s, Result<SinkOutcome, SinkMisconfiguredError>> {
//!         let mut outcome = SinkOutcome::default();
//!         let mut revisions = self.revisions.lock().expect("no call panicked");
//!         for change in batch.latest_per_key {
//!             let key = change.key.canonical().to_string();
//!             // The revision guard: only a higher revision is applied.
//!             match revisions.get(&key).map_or(Ordering::Less, |stored| stored.cmp(&change.revision)) {
//!                 Ordering::Less => {
//!                     revisions.insert(key, change.revision);
//!                     outcome.applied += 1;
//!                 }
//!                 Ordering::Equal => outcome.duplicate += 1,
//!                 Ordering::Greater => outcome.stale += 1,
//!             }
//!         }
//!         Box::pin(ready(Ok(outcome)))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let event = r#"{"Records": [{
//!     "eventID": "1", "eventName": "INSERT", "eventSource": "aws:dynamodb", "awsRegion": "eu-west-1",
//!     "eventSourceARN": "arn:aws:dynamodb:eu-west-1:123456789012:table/Users/stream/2026-11-27T09:30:00.000",
//!     "dynamodb": {"SequenceNumber": "100000000000000000001", "StreamViewType": "NEW_AND_OLD_IMAGES",
//!                  "Keys": {"user_id": {"S": "ada"}}, "NewImage": {"user_id": {"S": "ada"}, "name": {"S": "Ada"}}}
//! }]}"#;
//! let event: &RawValue = serde_json::from_str(event)?;
//! let batch = stream::read(event)?;
//! let changes: Vec<_> = batch.records.iter().filter_map(|record| record.read.as_ref().ok()).collect();
//! // One change per key, so that the batch is deduplicated already.
//! let batch = DeduplicatedBatch { changes: &changes, latest_per_key: &changes };
//!
//! let sink = RevisionSink::default();
//! let remaining = Duration::from_secs(30);
//! let invocation = Invocation::new(Clock::system().now(), Instant::now(), remaining, "example".to_owned());
//! let first = sink.apply(batch, &invocation).await?;
//! let redelivered = sink.apply(batch, &invocation).await?;
//! assert_eq!((first.applied, first.duplicate), (1, 0));
//! assert_eq!((redelivered.applied, redelivered.duplicate), (0, 1));
//! # Ok(())
//! # }
//! ```

pub mod archive;
pub mod cache;
pub mod config;
pub mod document;
pub mod document_object;
pub mod dynamodb;
pub mod hash_keys;
mod name;
pub mod postgres;
mod replica;
pub mod transform_history;
mod transformed;

use std::collections::BTreeMap;

use futures::future::{BoxFuture, ready};
use millrace_shared::change::Change;
use millrace_shared::invocation::Invocation;
use millrace_shared::table_reader::IndexSchema;
use tokio::time::Instant;

pub use name::{SinkName, SinkNameError};
pub use replica::{
    ExpectedItem, Replica, ReplicaCondition, ReplicaPage, ReplicaReadError, ReplicaReadOutput, ReplicaWrite,
    WriteResult, WriteTarget,
};
pub use transformed::TransformedSink;

/// The setting that enables a sink of the deployed replicator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkSetting {
    /// The sink's name.
    pub sink: &'static str,
    /// The replicator's environment variable that enables the sink.
    pub variable: &'static str,
    /// Whether the sink stores items that can be read back, compared with the source and repaired. The content of a
    /// cache expires automatically; the archive stores removed items, and has its own tasks.
    pub stores_items: bool,
}

/// All sinks, with the settings that enable them.
pub const SINK_SETTINGS: [SinkSetting; 4] = [
    SinkSetting { sink: dynamodb::NAME, variable: "REPLICA_TABLE", stores_items: true },
    SinkSetting { sink: postgres::NAME, variable: postgres::SETTING, stores_items: true },
    SinkSetting { sink: cache::NAME, variable: "CACHE_URL", stores_items: false },
    SinkSetting { sink: archive::NAME, variable: archive::SETTING, stores_items: false },
];

/// A replication target for changes, under the revision guard: a change is applied only if the replica has no revision
/// under the key, or a lower one.
pub trait Sink: Send + Sync {
    /// Returns the name in metrics, logs, quarantine keys and reports, in the format of [`SinkName`]. The sinks of a
    /// function have different names.
    fn name(&self) -> &str;

    /// Verifies, before the first batch, that the replica exists and has the right shape. A replica that cannot be
    /// reached for a transient reason is not an error: each batch tries again.
    ///
    /// # Errors
    /// [`SinkMisconfiguredError`], which names the setting and the fix.
    fn check(&self) -> BoxFuture<'_, Result<(), SinkMisconfiguredError>>;

    /// Applies the deduplicated changes, and returns by `invocation.deadline` at the latest.
    ///
    /// Applying is idempotent, and deduplicated changes may be written in any order. A rejection by the guard is
    /// success. A change that is neither applied nor rejected by the deadline is a transient failure.
    ///
    /// # Errors
    /// [`SinkMisconfiguredError`] if no change of the batch may be applied, e.g. because the replica is its own source.
    /// The invocation then fails as a whole. An outage is not such an error: it is a transient failure of each change.
    fn apply<'s>(
        &'s self,
        batch: DeduplicatedBatch<'s>,
        invocation: &'s Invocation,
    ) -> BoxFuture<'s, Result<SinkOutcome, SinkMisconfiguredError>>;

    /// Reads the shape of the replica, which [`Sink::key_names`] and [`Sink::indexes`] return, unless it is known.
    /// Returns by `deadline` at the latest. By default, there is nothing to read.
    ///
    /// # Errors
    /// The reason if the shape cannot be read: it remains unknown.
    fn load_shape(&self, _deadline: Instant) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(ready(Ok(())))
    }

    /// Returns the names of the key attributes of the replica's items, as far as they have been read.
    fn key_names(&self) -> Option<Vec<String>> {
        None
    }

    /// Returns the indexes that restrict the types of attributes in the replica, as far as they have been read.
    fn indexes(&self) -> Vec<IndexSchema> {
        Vec::new()
    }

    /// Returns the changes of a batch that this sink has to confirm: if it does not respond in time, all of them have
    /// failed. By default these are the deduplicated changes; a sink to which superseded changes matter names them.
    fn required_changes<'b>(&self, batch: DeduplicatedBatch<'b>) -> Vec<&'b Change<'b>> {
        batch.latest_per_key.to_vec()
    }
}

/// A batch with the result of its deduplication.
#[derive(Debug, Clone, Copy)]
pub struct DeduplicatedBatch<'b> {
    /// Every readable change of the batch, as delivered, including superseded ones: the minimum version of a key in the
    /// cache is the highest over all of them, and the archive has a row for every TTL removal. A replica that stores
    /// items needs only the deduplicated changes.
    pub changes: &'b [&'b Change<'b>],
    /// For each key the change that the replica has to end with, in the order of delivery.
    pub latest_per_key: &'b [&'b Change<'b>],
}

/// The result of the changes of a batch that a sink has to confirm ([`Sink::required_changes`]). Each is counted once, or
/// is among the failures.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SinkOutcome {
    /// The number of changes written, tombstones included.
    pub applied: usize,
    /// The number of changes rejected because the replica has the same revision: a redelivery.
    pub duplicate: usize,
    /// The number of changes rejected because the replica has a later revision.
    pub stale: usize,
    /// The number of applied changes that left a tombstone.
    pub tombstones: usize,
    /// The changes that required no write, because no image of the item in the batch matches the filter; each by the
    /// index of its record, in any order.
    pub filtered: Vec<usize>,
    /// The changes that the replica may lack, in any order.
    pub failures: Vec<FailedChange>,
    /// For a change that failed permanently: the index of its record, and that of the record from which Lambda must
    /// redeliver the batch if the former is not quarantined. It is an earlier one if the change, delivered without the
    /// earlier changes of its item, would require no write.
    pub redelivered_from: BTreeMap<usize, usize>,
}

impl SinkOutcome {
    /// Returns the outcome of a sink for which every change failed, for a transient reason.
    #[must_use]
    pub fn all_failed(changes: &[&Change<'_>], reason: &str) -> Self {
        let transient = || FailureKind::Transient(reason.to_owned());
        let failures = changes.iter().map(|change| FailedChange { index: change.index, kind: transient() }).collect();
        Self { failures, ..Self::default() }
    }
}

/// A change that the replica may lack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedChange {
    /// The record's index in the batch ([`Change::index`]).
    pub index: usize,
    /// The required reaction, and the reason.
    pub kind: FailureKind,
}

/// The required reaction to a failed change, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailureKind {
    /// Another delivery may succeed: throttling, timeouts, outages, and every error of the sink as a whole. The reason
    /// is for the log and contains no value of the item.
    Transient(String),
    /// No delivery can succeed: this sink cannot store this change. The record is quarantined with the reason, which
    /// may quote the record and is not logged.
    Permanent(String),
}

/// An error of a sink that cannot process any batch until an operator corrects it.
#[derive(Debug, thiserror::Error)]
#[error("sink {sink}: {reason}")]
pub struct SinkMisconfiguredError {
    /// The sink's name.
    pub sink: String,
    /// The problem, and the setting to correct.
    pub reason: String,
}
