//! One lane of a shard: the records of its items in order, with one batch in flight at a time.
//!
//! A failed batch stays at the front until it is settled or discarded. A split puts both parts back to the front, so no
//! record overtakes another. The checkpoint advances only when the batch at the front is removed.

use std::collections::VecDeque;

use millrace_shared::revision::SequenceNumber;
use time::OffsetDateTime;

use super::response::FunctionResponse;
use super::settings::MappingSettings;
use super::state::{ActionId, ActionKind, DiscardReason, RecordEntry};

/// Records that are delivered together, with the state of their delivery.
#[derive(Debug, Clone)]
struct InFlightBatch<R> {
    records: Vec<RecordEntry<R>>,
    retries: u32,
    invocations: u32,
    not_before: Option<OffsetDateTime>,
    given_up: Option<DiscardReason>,
}

impl<R> InFlightBatch<R> {
    /// Splits the batch in two. Both parts inherit the numbers of retries and invocations: a split does not use up a
    /// retry.
    fn split(mut self, at: usize) -> (Self, Self) {
        let rest = Self { records: self.records.split_off(at), ..self.fresh() };
        (Self { not_before: None, ..self }, rest)
    }

    fn fresh(&self) -> Self {
        Self {
            records: Vec::new(),
            retries: self.retries,
            invocations: self.invocations,
            not_before: None,
            given_up: None,
        }
    }
}

#[derive(Debug)]
pub(super) struct ShardLane<R> {
    /// Records that were read and are not in a batch yet, each with the time of the read, at which the batch window
    /// starts.
    pending: VecDeque<(OffsetDateTime, RecordEntry<R>)>,
    batches: VecDeque<InFlightBatch<R>>,
    in_flight: Option<ActionId>,
    /// The sequence number up to which all records of this lane are settled.
    checkpoint: Option<SequenceNumber>,
}

impl<R: Clone> ShardLane<R> {
    pub(super) fn new(checkpoint: Option<SequenceNumber>) -> Self {
        Self { pending: VecDeque::new(), batches: VecDeque::new(), in_flight: None, checkpoint }
    }

    pub(super) fn is_drained(&self) -> bool {
        self.pending.is_empty() && self.batches.is_empty()
    }

    pub(super) fn holds(&self) -> usize {
        self.pending.len() + self.batches.iter().map(|batch| batch.records.len()).sum::<usize>()
    }

    /// Returns the sequence number up to which all of this lane's records are settled, if the shard has been read up to
    /// `read`.
    pub(super) fn checkpoint(&self, read: Option<SequenceNumber>) -> Option<SequenceNumber> {
        if self.is_drained() { self.checkpoint.max(read) } else { self.checkpoint }
    }

    /// Adds a record, unless it was settled before a restart. `read` is the last record of the shard that was read
    /// before it.
    pub(super) fn push(&mut self, entry: RecordEntry<R>, read: Option<SequenceNumber>, now: OffsetDateTime) {
        if self.checkpoint.is_some_and(|checkpoint| entry.number <= checkpoint) {
            return;
        }
        if self.is_drained() {
            self.checkpoint = self.checkpoint.max(read);
        }
        self.pending.push_back((now, entry));
    }

    /// Returns the next action, if any. `last` means that the shard is closed, so a batch does not wait for its window.
    pub(super) fn next(
        &mut self,
        settings: &MappingSettings,
        last: bool,
        now: OffsetDateTime,
        ticket: ActionId,
    ) -> Option<(ActionKind, Vec<RecordEntry<R>>, u32)> {
        if self.in_flight.is_some() {
            return None;
        }
        if self.batches.is_empty() {
            self.form(settings, last, now);
        }
        self.discard_expired(settings, now);
        let front = self.batches.front_mut()?;
        if front.not_before.is_some_and(|time| now < time) {
            return None;
        }
        let work = front.given_up.map_or(ActionKind::Deliver, ActionKind::Discard);
        if work == ActionKind::Deliver {
            front.invocations = front.invocations.saturating_add(1);
        }
        self.in_flight = Some(ticket);
        Some((work, front.records.clone(), front.invocations))
    }

    /// Returns the time at which [`ShardLane::next`] may have a new action without a new record or response.
    pub(super) fn wake_at(&self, settings: &MappingSettings) -> Option<OffsetDateTime> {
        if self.in_flight.is_some() {
            return None;
        }
        match (self.batches.front(), self.pending.front()) {
            (Some(batch), _) => batch.not_before,
            (None, Some((read, _))) => Some(*read + settings.window),
            (None, None) => None,
        }
    }

    fn form(&mut self, settings: &MappingSettings, last: bool, now: OffsetDateTime) {
        let Some((oldest, _)) = self.pending.front() else { return };
        let mut size = 0_usize;
        let mut taken = 0;
        let mut full = self.pending.len() >= settings.batch_size;
        for (_, entry) in self.pending.iter().take(settings.batch_size) {
            size = size.saturating_add(entry.size_bytes);
            if taken > 0 && size > settings.batch_bytes {
                full = true;
                break;
            }
            taken += 1;
        }
        if full || last || now >= *oldest + settings.window {
            let records = self.pending.drain(..taken).map(|(_, entry)| entry).collect();
            self.batches.push_back(InFlightBatch {
                records,
                retries: 0,
                invocations: 0,
                not_before: None,
                given_up: None,
            });
        }
    }

    /// Splits records past the maximum age off the front batch; they are discarded before the rest is delivered.
    fn discard_expired(&mut self, settings: &MappingSettings, now: OffsetDateTime) {
        let Some(max_age) = settings.max_age else { return };
        let Some(front) = self.batches.front().filter(|batch| batch.given_up.is_none()) else { return };
        let old = |entry: &RecordEntry<R>| entry.at.is_some_and(|at| now - at > max_age);
        let count = front.records.iter().take_while(|entry| old(entry)).count();
        if count == 0 {
            return;
        }
        let Some(front) = self.batches.pop_front() else { return };
        let not_before = front.not_before;
        let (gone, rest) = front.split(count);
        if !rest.records.is_empty() {
            self.batches.push_front(InFlightBatch { not_before, ..rest });
        }
        self.batches.push_front(InFlightBatch { given_up: Some(DiscardReason::RecordAgeExceeded), ..gone });
    }

    /// Removes and returns the batch in flight if it has this ticket and is of this kind.
    fn take_in_flight(&mut self, ticket: ActionId, discarding: bool) -> Option<InFlightBatch<R>> {
        let of_this_kind = self.batches.front().is_some_and(|batch| batch.given_up.is_some() == discarding);
        if self.in_flight != Some(ticket) || !of_this_kind {
            return None;
        }
        self.in_flight = None;
        self.batches.pop_front()
    }

    /// Handles the function's response, or `None` for an error or a timeout. Returns whether the lane was waiting for
    /// it.
    pub(super) fn invocation_completed(
        &mut self,
        settings: &MappingSettings,
        ticket: ActionId,
        response: Option<&FunctionResponse>,
        now: OffsetDateTime,
    ) -> bool {
        let Some(batch) = self.take_in_flight(ticket, false) else { return false };
        match lowest_failing(settings, &batch, response) {
            BatchVerdict::Done => self.advance_checkpoint(&batch),
            BatchVerdict::From(at) if at > 0 => {
                let (done, rest) = batch.split(at);
                self.advance_checkpoint(&done);
                self.batches.push_front(rest);
            }
            BatchVerdict::From(_) | BatchVerdict::Whole => self.fail(settings, batch, now),
        }
        true
    }

    /// Handles the result of writing a discarded batch to its destination. Returns whether the lane was waiting for it.
    pub(super) fn discard_completed(
        &mut self,
        settings: &MappingSettings,
        ticket: ActionId,
        done: bool,
        now: OffsetDateTime,
    ) -> bool {
        let Some(mut batch) = self.take_in_flight(ticket, true) else { return false };
        if done {
            self.advance_checkpoint(&batch);
        } else {
            batch.not_before = Some(now + settings.back_off(batch.retries));
            batch.retries = batch.retries.saturating_add(1);
            self.batches.push_front(batch);
        }
        true
    }

    fn advance_checkpoint(&mut self, batch: &InFlightBatch<R>) {
        self.checkpoint = self.checkpoint.max(batch.records.last().map(|entry| entry.number));
    }

    fn fail(&mut self, settings: &MappingSettings, mut batch: InFlightBatch<R>, now: OffsetDateTime) {
        if settings.bisect && batch.records.len() > 1 {
            let middle = batch.records.len() / 2;
            let (first, second) = batch.split(middle);
            self.batches.push_front(second);
            self.batches.push_front(first);
            return;
        }
        if settings.max_retries.is_some_and(|most| batch.retries >= most) {
            batch.given_up = Some(DiscardReason::RetryAttemptsExhausted);
            batch.retries = 0;
        } else {
            batch.not_before = Some(now + settings.back_off(batch.retries));
            batch.retries = batch.retries.saturating_add(1);
        }
        self.batches.push_front(batch);
    }
}

enum BatchVerdict {
    Done,
    From(usize),
    Whole,
}

fn lowest_failing<R>(
    settings: &MappingSettings,
    batch: &InFlightBatch<R>,
    response: Option<&FunctionResponse>,
) -> BatchVerdict {
    let identifiers = match response {
        Some(_) if !settings.partial_responses => return BatchVerdict::Done,
        Some(FunctionResponse::Done) => return BatchVerdict::Done,
        None | Some(FunctionResponse::Malformed) => return BatchVerdict::Whole,
        Some(FunctionResponse::Failures(identifiers)) => identifiers,
    };
    let position_of = |identifier: &String| {
        let number = SequenceNumber::parse(identifier).ok()?;
        batch.records.iter().position(|entry| entry.number == number)
    };
    match identifiers.iter().map(position_of).collect::<Option<Vec<_>>>() {
        Some(positions) => positions.into_iter().min().map_or(BatchVerdict::Done, BatchVerdict::From),
        None => BatchVerdict::Whole,
    }
}
