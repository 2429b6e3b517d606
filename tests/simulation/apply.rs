//! The effect of each action on the simulation state.

use std::rc::Rc;
use std::time::Duration;

use super::action::{SimAction, SimFunction};
use super::fault_injector::FaultPoint;
use super::mapping::SimMapping;
use super::source::{ITEMS, PoisonKind, SourceWrite, WriteKind};
use super::stage::SimStage;
use super::world::{SimState, TaskRole};

/// Rounds of a drain after which a mapping counts as never finishing.
const MAX_ROUNDS: usize = 600;
/// A period that is longer than a replica retains tombstones.
pub(super) const LONG: time::Duration = time::Duration::days(9);

impl<S: SimStage> SimState<'_, S> {
    /// Applies an action.
    pub(super) async fn apply_action(&mut self, act: SimAction) {
        match act {
            SimAction::Write { item, kind, gap, unreadable } => self.write(item, kind, gap, unreadable).await,
            SimAction::Delete { item, gap } if self.source.items[item].is_some() => {
                self.injector.see("delete");
                self.report_progress(item, SourceWrite::Deleted, None, gap).await;
            }
            SimAction::Expire { item, gap, timeless } if self.source.items[item].is_some() => {
                self.injector.see(if timeless { "expiry: unarchivable" } else { "expiry" });
                self.report_progress(item, SourceWrite::Expired, timeless.then_some(PoisonKind::Timeless), gap).await;
            }
            SimAction::Pass { seconds } => self.now += Duration::from_secs(seconds.into()),
            SimAction::Split { item } => {
                self.injector.see("shard: split");
                self.source.split(item);
            }
            SimAction::Read { mapping, count } => drop(self.read(mapping % self.mappings.len(), count)),
            SimAction::Start { mapping } => drop(self.start(mapping % self.mappings.len()).await),
            SimAction::Deliver { mapping } => {
                let mapping = mapping % self.mappings.len();
                self.read(mapping, usize::MAX);
                let before = self.tasks.len();
                while self.start(mapping).await && self.tasks.len() > before {
                    while self.tasks.len() > before {
                        self.run(before).await;
                    }
                }
            }
            SimAction::Step { task, times } => {
                if let Some(task) = self.chosen(task) {
                    self.step(task, times).await;
                }
            }
            SimAction::Run { task } => {
                if let Some(task) = self.chosen(task) {
                    self.run(task).await;
                }
            }
            SimAction::Crash { task, keep } => {
                if let Some(task) = self.chosen(task) {
                    self.crash(task, keep);
                }
            }
            SimAction::LoseAnswer => self.lose_answers += 1,
            SimAction::FailRecording => self.fail_recordings += 1,
            SimAction::Again { function, from, count, prefix, reorder, run } => {
                let function = if function == SimFunction::Archiver { self.archiving_function() } else { function };
                let from = if prefix { None } else { Some(from) };
                if self.again(function, from, count, reorder) && run {
                    self.run_last().await;
                }
            }
            SimAction::Trouble { point, trouble } => self.injector.trouble(point, trouble),
            SimAction::Land { zombie } => {
                if let Some(write) = self.injector.take_zombie(zombie) {
                    write.await;
                }
            }
            SimAction::Repair { sink, items, run } => {
                self.injector.see("repair");
                if items == 15 {
                    self.order(REPAIR);
                } else {
                    self.repair_all(sink, (0..ITEMS).filter(|item| items >> item & 1 == 1).collect());
                }
                self.run_last_if(run).await;
            }
            SimAction::Backfill { run } => {
                self.injector.see("backfill");
                self.order(BACKFILL);
                self.run_last_if(run).await;
            }
            SimAction::Redrive { run } => {
                self.injector.see("redrive");
                // Not drawn: an additional draw would change the scenario of every seed.
                if self.settled.len().is_multiple_of(2) {
                    self.injector.see("redrive: by one that does not know a sink");
                    self.order_to(Rc::clone(&self.partial), REDRIVE);
                } else {
                    self.order(REDRIVE);
                }
                self.run_last_if(run).await;
            }
            SimAction::LoseReplica { sink } => self.lose_replica(sink).await,
            SimAction::Gap { count } => {
                let unread = self.unread();
                if let Some(last) = unread.get(count - 1).or(unread.last()) {
                    self.injector.see("stream: gap");
                    self.trim(last + 1);
                }
            }
            SimAction::NewStream { keep } if self.source.can_begin_stream() => self.new_stream(keep),
            // Nothing to do: the item does not exist, or the table has had all of its streams.
            SimAction::Delete { .. } | SimAction::Expire { .. } | SimAction::NewStream { .. } => {}
            SimAction::LongTime { drained } => self.long_time(drained).await,
        }
    }

    fn chosen(&self, task: usize) -> Option<usize> {
        (!self.tasks.is_empty()).then(|| task % self.tasks.len())
    }

    async fn run_last(&mut self) {
        self.run(self.tasks.len() - 1).await;
    }

    async fn run_last_if(&mut self, run: bool) {
        if run {
            self.run_last().await;
        }
    }

    fn read(&mut self, mapping: usize, count: usize) -> bool {
        let (read, ended) = self.mappings[mapping].read(&self.source, count, self.now);
        if ended && self.source.streams[self.mappings[mapping].stream].shards.len() > 1 {
            self.injector.see("shard: drained and its children read");
        }
        read > 0 || ended
    }

    async fn write(&mut self, item: usize, kind: WriteKind, gap: u8, unreadable: bool) {
        if self.source.items[item] == Some(kind) {
            // DynamoDB Streams writes no record if a put does not change the item.
            return self.injector.see("write: changes nothing");
        }
        if self.source.items[item].is_none() && self.source.known[item] {
            self.injector.see("write: recreates a deleted item");
        }
        self.injector.see(match kind {
            _ if unreadable => "write: unreadable record",
            WriteKind::Plain(_) => "write: plain",
            WriteKind::Reserved(_) => "write: reserved attribute",
            WriteKind::Large(_) => "write: too large for one sink",
        });
        self.report_progress(item, SourceWrite::Written(kind), unreadable.then_some(PoisonKind::Unreadable), gap).await;
    }

    /// Delivers records again that were delivered before: `count` records from index `from`, or all up to the latest
    /// one.
    fn again(&mut self, function: SimFunction, from: Option<usize>, count: usize, reorder: bool) -> bool {
        let known = |position: usize| {
            let of = |mapping: &SimMapping| mapping.function == function && mapping.received.contains(&position);
            self.settled[position][function as usize] || self.mappings.iter().any(of)
        };
        let records = &self.source.records;
        let Some(stream) = records.iter().rev().map(|record| record.stream).find(|stream| *stream >= self.again_from)
        else {
            return false;
        };
        // Sometimes uses the previous stream, which may still be read to its end.
        let stream = if count.is_multiple_of(3) { stream.saturating_sub(1).max(self.again_from) } else { stream };
        let wanted = |(position, record): &(usize, &super::source::SimRecord)| {
            let of_function = function == SimFunction::Replicator || record.is_expiry();
            record.stream == stream && of_function && !record.trimmed && known(*position)
        };
        let mut all: Vec<usize> = records.iter().enumerate().filter(wanted).map(|(position, _)| position).collect();
        if all.is_empty() {
            return false;
        }
        self.injector.see("delivery again");
        match from {
            Some(from) => {
                let from = from % all.len();
                all.rotate_left(from);
                all.truncate(count);
                all.sort_unstable();
            }
            None => self.injector.see("delivery again: of a prefix"),
        }
        if reorder {
            self.injector.see("delivery again: reordered across items");
            all.sort_by_key(|position| std::cmp::Reverse(records[*position].item));
        }
        self.deliver(function, all, TaskRole::Stray);
        true
    }

    /// Records that no mapping of the replicator has read.
    fn unread(&self) -> Vec<usize> {
        let read = |position: usize| {
            let of = |mapping: &SimMapping| {
                mapping.function == SimFunction::Replicator && mapping.received.contains(&position)
            };
            self.mappings.iter().any(of)
        };
        let unread = |position: &usize| !self.source.records[*position].trimmed && !read(*position);
        (0..self.source.records.len()).filter(unread).collect()
    }

    /// The streams drop all records before this index. The replicator misses those that it has not read.
    fn trim(&mut self, before: usize) {
        for position in self.unread().into_iter().filter(|position| *position < before) {
            let item = self.source.records[position].item;
            self.untrusted.extend([(0, item), (1, item)]);
        }
        self.source.records.iter_mut().take(before).for_each(|record| record.trimmed = true);
    }

    async fn lose_replica(&mut self, sink: usize) {
        self.injector.see("replica: lost");
        // Work in progress on the replica ends with the replica.
        while !self.tasks.is_empty() {
            self.crash(0, false);
        }
        self.injector.forget_zombies(FaultPoint::Sink(sink));
        self.stage.lose(sink).await;
        // An operator who replaces a replica restarts the function: confirmations of the lost replica no longer count.
        self.restart_replicator();
        self.unfilled.insert(sink);
        let stream = self.source.streams.len() - 1;
        self.again_from = stream;
        for (record, settled) in self.source.records.iter().zip(&mut self.settled) {
            if record.stream == stream && !record.trimmed {
                settled[0] = false;
            } else if record.stream == stream && !settled[0] {
                // The mapping had received the record, and restarts without it.
                self.untrusted.extend([(0, record.item), (1, record.item)]);
            } else if record.stream < stream && !record.trimmed && !settled[0] {
                // The record is delivered after the loss, and a later change under a later label may have been
                // delivered before it. A backfill does not remove the item.
                self.untrusted.insert((sink, record.item));
            }
        }
        for mapping in &mut self.mappings {
            if mapping.function == SimFunction::Replicator && mapping.stream == stream {
                *mapping = SimMapping::new(SimFunction::Replicator, stream, &self.features);
            }
        }
    }

    fn new_stream(&mut self, keep: bool) {
        if keep {
            self.injector.see("stream: re-created, the old one drained");
        } else {
            self.injector.see("stream: re-created, the old one lost");
            while !self.tasks.is_empty() {
                self.crash(0, true);
            }
            for (position, record) in self.source.records.iter().enumerate() {
                if !self.settled[position][0] {
                    self.untrusted.extend([(0, record.item), (1, record.item)]);
                }
            }
            self.mappings.clear();
            self.source.records.iter_mut().for_each(|record| record.trimmed = true);
        }
        self.source.begin_stream();
        self.map_stream();
    }

    async fn long_time(&mut self, drained: bool) {
        self.injector.end_of_troubles();
        self.run_all().await;
        if drained {
            self.drain().await;
        } else {
            self.trim(self.source.records.len());
            self.drain().await;
        }
        self.land_all().await;
        self.source.records.iter_mut().for_each(|record| record.trimmed = true);
        self.now += LONG;
        for sink in 0..2 {
            let forgotten = self.stage.forget_tombstones(sink).await;
            self.injector.see_many("tombstones: expired", forgotten);
        }
    }

    /// Lets every delayed write take effect for which no caller waits any more.
    pub(super) async fn land_all(&mut self) {
        while let Some(write) = self.injector.take_zombie(0) {
            write.await;
        }
    }

    /// Lets the mappings deliver all records.
    pub(super) async fn drain(&mut self) {
        self.lose_answers = 0;
        self.fail_recordings = 0;
        self.run_all().await;
        for _ in 0..MAX_ROUNDS {
            let mut moved = false;
            for mapping in 0..self.mappings.len() {
                moved |= self.read(mapping, usize::MAX);
                moved |= self.start(mapping).await;
            }
            moved |= !self.tasks.is_empty();
            self.run_all().await;
            if !moved {
                if self.mappings.iter().all(|mapping| mapping.machine.is_idle()) {
                    return;
                }
                self.now += Duration::from_secs(5);
            }
        }
        panic!("the mappings do not come to an end");
    }
}

pub(super) const REPAIR: &str = r#"{"task":"repair","dry_run":false,"recheck_after_seconds":0}"#;
pub(super) const VERIFY: &str = r#"{"task":"verify","recheck_after_seconds":0}"#;
pub(super) const BACKFILL: &str = r#"{"task":"backfill"}"#;
pub(super) const REDRIVE: &str = r#"{"task":"redrive","dry_run":false}"#;
