//! A sink whose stored items can be read back: [`Replica`], which maintenance compares, backfills and repairs.
//!
//! Stream changes are written with [`Sink::apply`]; all other writes use [`Replica::put`] and carry a condition on the
//! stored state. There are two conditions: the key is absent (a backfill, which every streamed change overrides), or
//! the stored revision is exactly the one that was read (a reconciled write, which is rejected if another write came in
//! between).

use std::borrow::Cow;

use futures::future::{BoxFuture, ready};
use millrace_shared::change::{CanonicalKey, ItemImage};
use millrace_shared::invocation::Invocation;
use millrace_shared::raw_item::RawItem;
use millrace_shared::replica_item::{REVISION, ReplicaItem};
use millrace_shared::revision::Revision;
use millrace_shared::table_reader::{ScanSegment, SourceDescription};
use millrace_transform::{ItemTransform, TransformError};
use time::OffsetDateTime;

use super::{Sink, SinkMisconfiguredError};

/// The item that a replica has to store for an item of the source: `None` if the filter leaves it out, or the error if
/// it cannot be transformed.
pub type ExpectedItem = Result<Option<RawItem>, TransformError>;

/// A write that does not come from the stream.
#[derive(Debug, Clone, Copy)]
pub struct ReplicaWrite<'w> {
    /// The item's key.
    pub key: &'w CanonicalKey,
    /// The state to write.
    pub target: WriteTarget<'w>,
    /// The revision of the new state.
    pub revision: Revision,
    /// The condition on the stored state.
    pub over: ReplicaCondition,
}

/// The state that a write leaves.
#[derive(Debug, Clone, Copy)]
pub enum WriteTarget<'w> {
    /// An item of the source.
    Item(&'w RawItem),
    /// An item of the source, as the JSON that the replica is to store.
    Image(ItemImage<'w>),
    /// A tombstone.
    Tombstone {
        /// Whether TTL removed the item.
        expired: bool,
    },
}

impl<'w> WriteTarget<'w> {
    /// Returns the item as DynamoDB JSON; `None` for a tombstone.
    #[must_use]
    pub fn item_text(&self) -> Option<Cow<'w, str>> {
        match self {
            Self::Item(item) => Some(Cow::Owned(item.encode())),
            Self::Image(image) => Some(Cow::Borrowed(image.get())),
            Self::Tombstone { .. } => None,
        }
    }
}

/// The condition on the stored state of a key; if it is not met, the write is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaCondition {
    /// The key has neither an item nor a tombstone.
    IfAbsent,
    /// The stored state has this revision; `None` requires that it is absent or has no revision.
    Revision(Option<Revision>),
}

/// The result of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteResult {
    /// The state was written.
    Written,
    /// The stored state does not meet the condition.
    ConditionFailed,
    /// This replica can never store the item; the reason may quote the item and is not logged.
    Permanent(String),
    /// The write may or may not have been done; a retry may succeed.
    Transient(String),
}

/// A replica that could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("sink {sink}: {reason}")]
pub struct ReplicaReadError {
    /// The sink's name.
    pub sink: String,
    /// The description, which contains no value of an item.
    pub reason: String,
}

/// The result of a read.
#[derive(Debug, Default)]
pub struct ReplicaReadOutput {
    /// One entry for each key, in the order of the keys.
    pub items: Vec<Option<ReplicaItem>>,
    /// The consumed read capacity units.
    pub units: f64,
}

/// A page of a scan.
#[derive(Debug, Default)]
pub struct ReplicaPage {
    /// Items and tombstones, each with its key.
    pub items: Vec<(CanonicalKey, ReplicaItem)>,
    /// The key after which to continue; `None` on the last page.
    pub next: Option<CanonicalKey>,
    /// The consumed read capacity units.
    pub units: f64,
}

/// A sink that stores items.
pub trait Replica: Sink {
    /// Returns what the replica stores of an item; `None` if it stores items as they are.
    fn transform(&self) -> Option<&ItemTransform> {
        None
    }

    /// Returns the digest of the rules and of the table, by which [`TransformHistory`](crate::transform_history) records
    /// them; `None` if the replica stores items as they are.
    fn rules_digest(&self) -> Option<&str> {
        self.transform().map(ItemTransform::digest)
    }

    /// Returns the item that the replica has to store for this item of the source.
    ///
    /// # Errors
    /// [`TransformError`] if the item cannot be transformed.
    fn expected(&self, key: &CanonicalKey, item: RawItem) -> ExpectedItem {
        match self.transform() {
            Some(transform) => transform.apply_to_item(key, &item),
            None => Ok(Some(item)),
        }
    }

    /// Reads the stored state under these keys, consistently.
    ///
    /// # Errors
    /// [`ReplicaReadError`] if any of it cannot be read.
    fn read<'s>(&'s self, keys: &'s [CanonicalKey]) -> BoxFuture<'s, Result<ReplicaReadOutput, ReplicaReadError>>;

    /// Reads a page of a segment, after the key `after` if it is given, consistently.
    ///
    /// # Errors
    /// [`ReplicaReadError`] if the page cannot be read.
    fn scan<'s>(
        &'s self,
        segment: ScanSegment,
        after: Option<&'s CanonicalKey>,
    ) -> BoxFuture<'s, Result<ReplicaPage, ReplicaReadError>>;

    /// Returns the name of the attribute or column that contains the revision, for errors.
    fn revision_name(&self) -> &str {
        REVISION
    }

    /// Verifies that this replica can mirror the source with this description: it is another table and has the same key
    /// schema. A replica that cannot be reached is not an error. By default, nothing is verified.
    ///
    /// # Errors
    /// [`SinkMisconfiguredError`], which names the setting and the fix.
    fn check_source<'s>(&'s self, _source: &'s SourceDescription) -> BoxFuture<'s, Result<(), SinkMisconfiguredError>> {
        Box::pin(ready(Ok(())))
    }

    /// Returns the ARN of the replica's own stream, if it is enabled and [`Replica::check_source`] has read it. A
    /// function that reads it may replicate to the source. By default, a replica has no stream.
    fn stream_arn(&self) -> Option<String> {
        None
    }

    /// Returns the reason if this replica can never store the state that a write would leave, as far as that can be
    /// determined without a request. [`Replica::put`] rejects at least these writes, with [`WriteResult::Permanent`].
    fn refusal(&self, write: &ReplicaWrite<'_>, now: OffsetDateTime) -> Option<String>;

    /// Performs these writes, at most one per item, and returns by `invocation.deadline` at the latest. Returns a
    /// result for each of them, in their order.
    fn put<'s>(&'s self, writes: &'s [ReplicaWrite<'s>], invocation: &'s Invocation)
    -> BoxFuture<'s, Vec<WriteResult>>;
}
