//! Lambda's event source mapping as a pure state machine: [`MappingState`].
//!
//! It is told what was read from the shards and what the function answered, and says what to deliver or discard
//! next. It does no I/O, asks no clock (the time is an argument) and draws nothing at random: the same calls give
//! the same steps, so that it serves both the driver and a simulator. The type of a record's body is the caller's.
//!
//! What it keeps, whatever it is told:
//! - a record is settled (answered for, or discarded and recorded as such) exactly once, never skipped;
//! - a record is delivered only after all earlier ones of its item in its shard and the shard's ancestors are
//!   settled, or together with them, in order;
//! - a checkpoint never passes a record that is not settled.
//!
//! Sources: <https://docs.aws.amazon.com/lambda/latest/dg/services-dynamodb-errors.html> and
//! <https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html>. Where AWS is silent: a
//! partial answer that names a batch's first record makes no progress, so it counts as a failure of the whole batch;
//! records past the maximum age are discarded from the front of a batch when its turn comes, the rest is delivered.

use std::collections::BTreeMap;
use std::sync::Arc;

use shared::revision::SequenceNumber;
use time::OffsetDateTime;

use super::lane::ShardLane;
use super::response::FunctionResponse;
use super::settings::MappingSettings;

/// A shard's name.
pub type ShardId = Arc<str>;

/// Names a [`MappingAction`] when its outcome is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActionId(u64);

/// A record as the machine sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordEntry<R> {
    /// Its place in the stream.
    pub number: SequenceNumber,
    /// A hash of its item's key, see [`hash_key`]: equal keys share a lane.
    pub key_hash: u64,
    /// When it was written, if that is known: its age counts from here.
    pub at: Option<OffsetDateTime>,
    /// What it adds to a payload.
    pub size_bytes: usize,
    /// Whether the mapping's filter lets it through. What it does not is passed over.
    pub wanted: bool,
    /// The record itself.
    pub body: R,
}

/// What to do with a step's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionKind {
    /// Invoke the function, then tell [`MappingState::answer`].
    Deliver,
    /// Write them to the on-failure destination, then tell [`MappingState::recorded`].
    Discard(DiscardReason),
}

/// Why a batch was given up, as AWS spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiscardReason {
    /// `MaximumRetryAttempts` were used up.
    RetryAttemptsExhausted,
    /// Older than `MaximumRecordAgeInSeconds`.
    RecordAgeExceeded,
}

/// One thing to do.
#[derive(Debug, Clone)]
pub struct MappingAction<R> {
    /// To be given back with the outcome.
    pub ticket: ActionId,
    /// The shard that the records are from.
    pub shard: ShardId,
    /// What to do.
    pub work: ActionKind,
    /// With these, in order; never empty.
    pub records: Vec<RecordEntry<R>>,
    /// How often the function was invoked with these records, this time included.
    pub invocations: u32,
}

/// How far a shard is settled, to go on from after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShardPosition {
    /// Each lane's last number, up to which all of its records are settled.
    pub lanes: Vec<Option<SequenceNumber>>,
    /// The shard is closed and all of it is settled.
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
    /// The last record that was read.
    read: Option<SequenceNumber>,
    /// All of it was read, and nothing will be added.
    closed: bool,
}

impl<R: Clone> ShardState<R> {
    fn is_drained(&self) -> bool {
        self.closed && self.lanes.iter().all(ShardLane::is_drained)
    }
}

/// One event source mapping over the shards of one stream.
#[derive(Debug)]
pub struct MappingState<R> {
    settings: MappingSettings,
    shards: BTreeMap<ShardId, ShardState<R>>,
    in_flight: BTreeMap<ActionId, (ShardId, usize)>,
    tickets: u64,
}

impl<R: Clone> MappingState<R> {
    /// A mapping that has seen no shard yet.
    #[must_use]
    pub fn new(settings: MappingSettings) -> Self {
        Self { settings, shards: BTreeMap::new(), in_flight: BTreeMap::new(), tickets: 0 }
    }

    /// Takes a shard on, from its beginning or from where a former run left off. A known one stays as it is.
    ///
    /// If the number of lanes has changed since, every lane starts at the lowest checkpoint: some records come again.
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

    /// The shards to read on from, each with the number after which to read: the parent is drained, it is not
    /// closed itself, and no lane has more than two batches waiting.
    #[must_use]
    pub fn readable(&self) -> Vec<(ShardId, Option<SequenceNumber>)> {
        let room = self.settings.batch_size.saturating_mul(2);
        let ready = |shard: &ShardState<R>| {
            !shard.closed && self.follows(shard) && shard.lanes.iter().all(|lane| lane.holds() < room)
        };
        self.shards.iter().filter(|(_, shard)| ready(shard)).map(|(id, shard)| (Arc::clone(id), shard.read)).collect()
    }

    /// Whether all that comes before this shard is settled. A parent that nobody knows any more is trimmed.
    fn follows(&self, shard: &ShardState<R>) -> bool {
        shard.parent.as_ref().and_then(|parent| self.shards.get(parent)).is_none_or(ShardState::is_drained)
    }

    /// Records that were read from a shard, in its order. Those at or below what was read already are passed over,
    /// and so are all while the shard's parent is not drained: they are to be read again.
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

    /// All of the shard was read and nothing will be added: its children may be read once it is drained.
    pub fn close(&mut self, shard: &str) {
        if let Some(shard) = self.shards.get_mut(shard) {
            shard.closed = true;
        }
    }

    /// The next thing to do now, if any; ask until there is none.
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

    /// When [`MappingState::next`] may have something without being told anything new: a window's or a back-off's end.
    #[must_use]
    pub fn wake_at(&self) -> Option<OffsetDateTime> {
        let lanes = self.shards.values().flat_map(|shard| &shard.lanes);
        lanes.filter_map(|lane| lane.wake_at(&self.settings)).min()
    }

    /// The function's answer to a delivered step, or `None` if it failed or did not answer in time.
    ///
    /// Returns whether the step was waiting for it: a second answer changes nothing.
    pub fn answer(&mut self, ticket: ActionId, answer: Option<&FunctionResponse>, now: OffsetDateTime) -> bool {
        self.complete(ticket, |lane, settings| lane.answer(settings, ticket, answer, now))
    }

    /// Whether a discarded step's records reached the on-failure destination; if not, the step comes again.
    ///
    /// Returns whether the step was waiting for it.
    pub fn discard_completed(&mut self, ticket: ActionId, done: bool, now: OffsetDateTime) -> bool {
        self.complete(ticket, |lane, settings| lane.recorded(settings, ticket, done, now))
    }

    fn complete(&mut self, ticket: ActionId, tell: impl FnOnce(&mut ShardLane<R>, &MappingSettings) -> bool) -> bool {
        let Some((shard, lane)) = self.in_flight.get(&ticket) else { return false };
        let lane = self.shards.get_mut(shard).and_then(|shard| shard.lanes.get_mut(*lane));
        let landed = lane.is_some_and(|lane| tell(lane, &self.settings));
        if landed {
            self.in_flight.remove(&ticket);
        }
        landed
    }

    /// How far each shard is settled.
    #[must_use]
    pub fn checkpoints(&self) -> BTreeMap<ShardId, ShardPosition> {
        let checkpoint = |shard: &ShardState<R>| ShardPosition {
            lanes: shard.lanes.iter().map(|lane| lane.checkpoint(shard.read)).collect(),
            drained: shard.is_drained(),
        };
        self.shards.iter().map(|(id, shard)| (Arc::clone(id), checkpoint(shard))).collect()
    }

    /// Whether every record that was read is settled.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.shards.values().all(|shard| shard.lanes.iter().all(ShardLane::is_drained))
    }
}

/// The lane of an item among `lanes`.
fn lane_of(key_hash: u64, lanes: usize) -> usize {
    let lanes = u64::try_from(lanes.max(1)).unwrap_or(u64::MAX);
    usize::try_from(key_hash % lanes).unwrap_or(0)
}

/// FNV-1a: checkpoints outlive the process, so the lane of an item must be the same in every build.
#[must_use]
pub fn hash_key(key: &str) -> u64 {
    key.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod scenario_tests;
