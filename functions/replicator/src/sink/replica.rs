//! A sink that holds items and can tell them: [`Replica`], what maintenance compares, fills and mends.
//!
//! The stream writes through [`Sink::apply`]; everything else goes through [`Replica::put`], whose writes say over what
//! they may go. There are two such: over nothing at all (a backfill, which any streamed change beats) and over exactly
//! what was read (a reconciled write, which loses to whatever came in between).

use futures::future::BoxFuture;
use shared::change::CanonicalKey;
use shared::invocation::Invocation;
use shared::raw_item::RawItem;
use shared::replica_item::ReplicaItem;
use shared::revision::Revision;
use shared::table_reader::ScanSegment;
use time::OffsetDateTime;

use super::Sink;

/// A write beside the stream.
#[derive(Debug, Clone, Copy)]
pub struct ReplicaWrite<'w> {
    /// Of which item.
    pub key: &'w CanonicalKey,
    /// What shall stand there.
    pub target: WriteTarget<'w>,
    /// Its age.
    pub revision: Revision,
    /// Over what it may go.
    pub over: ReplicaCondition,
}

/// What a write leaves.
#[derive(Debug, Clone, Copy)]
pub enum WriteTarget<'w> {
    /// An item of the source.
    Item(&'w RawItem),
    /// A tombstone.
    Tombstone {
        /// Whether TTL removed the item.
        expired: bool,
    },
}

/// Over what a write may go; if anything else stands there it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaCondition {
    /// No item and no tombstone.
    IfAbsent,
    /// What has this revision, or, if it is none, nothing or what has none.
    Revision(Option<Revision>),
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteResult {
    /// It stands.
    Written,
    /// Something else stood there.
    ConditionFailed,
    /// This replica can never hold it; the reason may quote the item and is not logged.
    Permanent(String),
    /// It may stand or not; another try may succeed.
    Transient(String),
}

/// A replica that could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("sink {sink}: {reason}")]
pub struct ReplicaReadError {
    /// The sink's name.
    pub sink: &'static str,
    /// Why, in words that hold none of an item's values.
    pub reason: String,
}

/// What a read found.
#[derive(Debug, Default)]
pub struct ReplicaReadOutput {
    /// One for each key, in their order.
    pub held: Vec<Option<ReplicaItem>>,
    /// What it cost, in read capacity units.
    pub units: f64,
}

/// A page of a scan.
#[derive(Debug, Default)]
pub struct ReplicaPage {
    /// Items and tombstones, each with its key.
    pub held: Vec<(CanonicalKey, ReplicaItem)>,
    /// Where to go on; nothing at the end.
    pub next: Option<CanonicalKey>,
    /// What it cost, in read capacity units.
    pub units: f64,
}

/// A sink that holds items.
pub trait Replica: Sink {
    /// What stands under these keys, read consistently.
    ///
    /// # Errors
    /// [`ReplicaReadError`] if the replica does not tell all of it.
    fn read<'s>(&'s self, keys: &'s [CanonicalKey]) -> BoxFuture<'s, Result<ReplicaReadOutput, ReplicaReadError>>;

    /// A page of a segment, after the key `after` if that is given, read consistently.
    ///
    /// # Errors
    /// [`ReplicaReadError`] if the replica does not tell it.
    fn scan<'s>(
        &'s self,
        segment: ScanSegment,
        after: Option<&'s CanonicalKey>,
    ) -> BoxFuture<'s, Result<ReplicaPage, ReplicaReadError>>;

    /// Why this replica can never hold what a write would leave, as far as that is known without asking it. [`Replica::put`]
    /// refuses at least that, and returns it as [`WriteResult::Permanent`].
    fn refusal(&self, write: &ReplicaWrite<'_>, now: OffsetDateTime) -> Option<String>;

    /// Does these writes, one an item, and returns by `invocation.stop_at` at the latest; answers for each of them, in
    /// their order.
    fn put<'s>(&'s self, writes: &'s [ReplicaWrite<'s>], invocation: &'s Invocation)
    -> BoxFuture<'s, Vec<WriteResult>>;
}
