//! A sink that holds items and can tell them: [`Replica`], what maintenance compares, fills and mends.
//!
//! The stream writes through [`Sink::apply`]; everything else goes through [`Replica::put`], whose writes say over what
//! they may go. There are two such: over nothing at all (a backfill, which any streamed change beats) and over exactly
//! what was read (a reconciled write, which loses to whatever came in between).

use futures::future::BoxFuture;
use shared::change::CanonicalKey;
use shared::held::Held;
use shared::invocation::Invocation;
use shared::raw_item::RawItem;
use shared::raw_table::Segment;
use shared::revision::Revision;
use time::OffsetDateTime;

use super::Sink;

/// A write beside the stream.
#[derive(Debug, Clone, Copy)]
pub struct Write<'w> {
    /// Of which item.
    pub key: &'w CanonicalKey,
    /// What shall stand there.
    pub target: Target<'w>,
    /// Its age.
    pub revision: Revision,
    /// Over what it may go.
    pub over: Over,
}

/// What a write leaves.
#[derive(Debug, Clone, Copy)]
pub enum Target<'w> {
    /// An item of the source.
    Item(&'w RawItem),
    /// A tombstone.
    Gone {
        /// Whether TTL removed the item.
        expired: bool,
    },
}

/// Over what a write may go; if anything else stands there it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// No item and no tombstone.
    Nothing,
    /// What has this revision, or, if it is none, nothing or what has none.
    Revision(Option<Revision>),
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// It stands.
    Written,
    /// Something else stood there.
    Refused,
    /// This replica can never hold it; the reason may quote the item and is not logged.
    Permanent(String),
    /// It may stand or not; another try may succeed.
    Transient(String),
}

/// A replica that could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("sink {sink}: {reason}")]
pub struct Unread {
    /// The sink's name.
    pub sink: &'static str,
    /// Why, in words that hold none of an item's values.
    pub reason: String,
}

/// What a read found.
#[derive(Debug, Default)]
pub struct Reading {
    /// One for each key, in their order.
    pub held: Vec<Option<Held>>,
    /// What it cost, in read capacity units.
    pub units: f64,
}

/// A page of a scan.
#[derive(Debug, Default)]
pub struct HeldPage {
    /// Items and tombstones, each with its key.
    pub held: Vec<(CanonicalKey, Held)>,
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
    /// [`Unread`] if the replica does not tell all of it.
    fn read<'s>(&'s self, keys: &'s [CanonicalKey]) -> BoxFuture<'s, Result<Reading, Unread>>;

    /// A page of a segment, after the key `after` if that is given, read consistently.
    ///
    /// # Errors
    /// [`Unread`] if the replica does not tell it.
    fn scan<'s>(&'s self, segment: Segment, after: Option<&'s CanonicalKey>)
    -> BoxFuture<'s, Result<HeldPage, Unread>>;

    /// Why this replica can never hold what a write would leave, as far as that is known without asking it. [`Replica::put`]
    /// refuses at least that, and returns it as [`Put::Permanent`].
    fn refusal(&self, write: &Write<'_>, now: OffsetDateTime) -> Option<String>;

    /// Does these writes, one an item, and returns by `invocation.stop_at` at the latest; answers for each of them, in
    /// their order.
    fn put<'s>(&'s self, writes: &'s [Write<'s>], invocation: &'s Invocation) -> BoxFuture<'s, Vec<Put>>;
}
