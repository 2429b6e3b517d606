//! Lambda's event source mapping as a pure state machine: [`MappingState`].
//!
//! The caller reports the records that were read from the shards and the responses of the function; the state machine
//! returns which batch to deliver or discard next. It does no I/O, reads no clock (the time is an argument) and uses no
//! randomness: the same calls return the same actions, so that both the driver and a simulation can use it. The caller
//! defines the type of a record's body.
//!
//! Invariants, for any sequence of calls:
//! - a record is settled exactly once, and never skipped; it is settled when the function has processed it or when it
//!   has been discarded and written to the on-failure destination;
//! - a record is delivered only after all earlier records of its item, in its shard and the shard's ancestors, are
//!   settled, or together with them, in order;
//! - a checkpoint never passes a record that is not settled.
//!
//! Sources: <https://docs.aws.amazon.com/lambda/latest/dg/services-dynamodb-errors.html> and
//! <https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html>. Two rules are not documented
//! by AWS: a partial response that names the first record of a batch makes no progress, so it counts as a failure of
//! the whole batch; and records past the maximum age are discarded from the front of a batch when it is next due, and
//! the rest is delivered.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_shared::hash::fnv1a;
use millrace_shared::revision::SequenceNumber;
use time::OffsetDateTime;

use super::lane::ShardLane;
use super::response::FunctionResponse;
use super::settings::MappingSettings;

/// The ID of a shard.
pub type ShardId = Arc<str>;

/// Identifies a [`MappingAction`] when its result is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActionId(u64);

/// A record as the state machine sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordEntry<R> {
    /// The sequence number of the record in the stream.
    pub number: SequenceNumber,
    /// A hash of its item's key, see [`hash_key`]: records with equal keys share a lane.
    pub key_hash: u64,
    /// The time of the write, if it is known; the record's age is measured from it.
    pub at: Option<OffsetDateTime>,
    /// The number of bytes that the record adds to a payload.
    pub size_bytes: usize,
    /// Whether the mapping's filter selects the record. Other records are skipped.
    pub wanted: bool,
    /// The record itself.
    pub body: R,
}

/// The kind of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionKind {
    /// Invoke the function, then call [`MappingState::invocation_completed`].
    Deliver,
    /// Write the records to the on-failure destination, then call [`MappingState::discard_completed`].
    Discard(DiscardReason),
}

/// The reason why a batch is discarded, with AWS's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiscardReason {
    /// `MaximumRetryAttempts` is exhausted.
    RetryAttemptsExhausted,
    /// The records are older than `MaximumRecordAgeInSeconds`.
    RecordAgeExceeded,
}

/// An action for the caller to perform.
#[derive(Debug, Clone)]
pub struct MappingAction<R> {
    /// The ID to report the result with.
    pub ticket: ActionId,
    /// The shard of the records.
    pub shard: ShardId,
    /// The kind of the action.
    pub work: ActionKind,
    /// The records, in order; never empty.
    pub records: Vec<RecordEntry<R>>,
    /// The number of times that the function was invoked with these records, including this action.
    pub invocations: u32,
}

/// The settled position of a shard, from which reading continues after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShardPosition {
    /// The sequence number of each lane up to which all of its records are settled.
    pub lanes: Vec<Option<SequenceNumber>>,
    /// Whether the shard is closed and all of its records are settled.
    pub drained: bool,
}

impl ShardPosition {
    fn lowest(&self) -> Option<SequenceNumber> {
        self.lanes.iter().copied().min().flatten()
    }
}

#[derive(Debug)]
struct ShardState<R> {
    parent: Option<ShardId>,
    lanes: Vec<ShardLane<R>>,
    /// The sequence number of the last record that was read.
    read: Option<SequenceNumber>,
    /// Whether the shard was read to its end and no records will be added.
    closed: bool,
}

impl<R: Clone> ShardState<R> {
    fn is_drained(&self) -> bool {
        self.closed && self.lanes.iter().all(ShardLane::is_drained)
    }
}

/// The state of one event source mapping over the shards of one stream.
#[derive(Debug)]
pub struct MappingState<R> {
    settings: MappingSettings,
    shards: BTreeMap<ShardId, ShardState<R>>,
    in_flight: BTreeMap<ActionId, (ShardId, usize)>,
    tickets: u64,
}

impl<R: Clone> MappingState<R> {
    /// Returns the state of a mapping without shards.
    #[must_use]
    pub fn new(settings: MappingSettings) -> Self {
        Self { settings, shards: BTreeMap::new(), in_flight: BTreeMap::new(), tickets: 0 }
    }

    /// Adds a shard, to be read from its beginning or from the position of a former run. A shard that was added before
    /// is not changed.
    ///
    /// If the number of lanes has changed since the former run, every lane starts at the lowest checkpoint, so some
    /// records are redelivered.
    pub fn open(&mut self, shard: ShardId, parent: Option<ShardId>, from: Option<&ShardPosition>) {
        let count = self.settings.lanes.max(1);
        let lowest = from.and_then(ShardPosition::lowest);
        let floors = match from {
            Some(checkpoint) if checkpoint.lanes.len() == count => checkpoint.lanes.clone(),
            _ => vec![lowest; count],
        };
        self.shards.entry(shard).or_insert_with(|| ShardState {
            parent,
            lanes: floors.into_iter().map(ShardLane::new).collect(),
            read: lowest,
            closed: from.is_some_and(|checkpoint| checkpoint.drained),
        });
    }

    /// Returns the shards to read from, each with the sequence number after which to read: shards that are not closed,
    /// whose parent is drained, and in which every lane contains fewer records than two full batches.
    #[must_use]
    pub fn readable(&self) -> Vec<(ShardId, Option<SequenceNumber>)> {
        let room = self.settings.batch_size.saturating_mul(2);
        let ready = |shard: &ShardState<R>| {
            !shard.closed && self.follows(shard) && shard.lanes.iter().all(|lane| lane.holds() < room)
        };
        self.shards.iter().filter(|(_, shard)| ready(shard)).map(|(id, shard)| (Arc::clone(id), shard.read)).collect()
    }

    /// Returns whether everything before this shard is settled. A parent that was never added has been trimmed from the
    /// stream.
    fn follows(&self, shard: &ShardState<R>) -> bool {
        shard.parent.as_ref().and_then(|parent| self.shards.get(parent)).is_none_or(ShardState::is_drained)
    }

    /// Adds records that were read from a shard, in its order. Records at or below the last one read are ignored. All
    /// records are ignored while the shard's parent is not drained; they must be read again later.
    pub fn receive(&mut self, shard: &str, entries: impl IntoIterator<Item = RecordEntry<R>>, now: OffsetDateTime) {
        if !self.shards.get(shard).is_some_and(|shard| self.follows(shard)) {
            return;
        }
        let Some(shard) = self.shards.get_mut(shard) else { return };
        for entry in entries {
            let before = shard.read;
            if before.is_some_and(|read| entry.number <= read) {
                continue;
            }
            shard.read = Some(entry.number);
            let lane = lane_of(entry.key_hash, shard.lanes.len());
            if let (true, Some(lane)) = (entry.wanted, shard.lanes.get_mut(lane)) {
                lane.push(entry, before, now);
            }
        }
    }

    /// Marks a shard as read to its end: no records will be added, and its children may be read once it is drained.
    pub fn close(&mut self, shard: &str) {
        if let Some(shard) = self.shards.get_mut(shard) {
            shard.closed = true;
        }
    }

    /// Returns the next action that is due at `now`, if any; call this until it returns `None`.
    pub fn next(&mut self, now: OffsetDateTime) -> Option<MappingAction<R>> {
        let ticket = ActionId(self.tickets);
        for (id, shard) in &mut self.shards {
            for (index, lane) in shard.lanes.iter_mut().enumerate() {
                if let Some((work, records, invocations)) = lane.next(&self.settings, shard.closed, now, ticket) {
                    self.tickets += 1;
                    self.in_flight.insert(ticket, (Arc::clone(id), index));
                    return Some(MappingAction { ticket, shard: Arc::clone(id), work, records, invocations });
                }
            }
        }
        None
    }

    /// Returns the time at which [`MappingState::next`] may have a new action without another call: the end of a batch
    /// window or of a back-off.
    #[must_use]
    pub fn wake_at(&self) -> Option<OffsetDateTime> {
        let lanes = self.shards.values().flat_map(|shard| &shard.lanes);
        lanes.filter_map(|lane| lane.wake_at(&self.settings)).min()
    }

    /// Handles the function's response to a delivered batch, or `None` if the function failed or timed out.
    ///
    /// Returns whether the action was waiting for it: a second response changes nothing.
    pub fn invocation_completed(
        &mut self,
        ticket: ActionId,
        response: Option<&FunctionResponse>,
        now: OffsetDateTime,
    ) -> bool {
        self.complete(ticket, |lane, settings| lane.invocation_completed(settings, ticket, response, now))
    }

    /// Handles the result of writing a discarded batch to the on-failure destination; if it failed, the action is
    /// repeated.
    ///
    /// Returns whether the action was waiting for it.
    pub fn discard_completed(&mut self, ticket: ActionId, done: bool, now: OffsetDateTime) -> bool {
        self.complete(ticket, |lane, settings| lane.discard_completed(settings, ticket, done, now))
    }

    fn complete(
        &mut self,
        ticket: ActionId,
        complete: impl FnOnce(&mut ShardLane<R>, &MappingSettings) -> bool,
    ) -> bool {
        let Some((shard, lane)) = self.in_flight.get(&ticket) else { return false };
        let lane = self.shards.get_mut(shard).and_then(|shard| shard.lanes.get_mut(*lane));
        let landed = lane.is_some_and(|lane| complete(lane, &self.settings));
        if landed {
            self.in_flight.remove(&ticket);
        }
        landed
    }

    /// Returns the settled position of each shard.
    #[must_use]
    pub fn checkpoints(&self) -> BTreeMap<ShardId, ShardPosition> {
        let checkpoint = |shard: &ShardState<R>| ShardPosition {
            lanes: shard.lanes.iter().map(|lane| lane.checkpoint(shard.read)).collect(),
            drained: shard.is_drained(),
        };
        self.shards.iter().map(|(id, shard)| (Arc::clone(id), checkpoint(shard))).collect()
    }

    /// Returns whether every record that was read is settled.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.shards.values().all(|shard| shard.lanes.iter().all(ShardLane::is_drained))
    }
}

/// Returns the index of an item's lane among `lanes`.
fn lane_of(key_hash: u64, lanes: usize) -> usize {
    let lanes = u64::try_from(lanes.max(1)).unwrap_or(u64::MAX);
    usize::try_from(key_hash % lanes).unwrap_or(0)
}

/// Returns the hash of a key: checkpoints outlive the process, so the lane of an item must be the same in every build.
#[must_use]
pub fn hash_key(key: &str) -> u64 {
    fnv1a(key)
}

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod scenario_tests;
