//! Property tests of the state machine over random streams, settings, functions and restarts.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::*;

const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

/// A record's shard, its item, and whether the filter selects it; its index in the list is its sequence number.
#[derive(Debug, Clone)]
struct WrittenRecord {
    shard: usize,
    item: u64,
    wanted: bool,
}

/// The next event, if it is possible in the current state.
#[derive(Debug, Clone)]
enum ModelAction {
    Read { shard: usize, count: usize },
    Next,
    Complete { step: usize, reply: ModelReply },
    Wait { seconds: u8 },
    Restart,
}

#[derive(Debug, Clone)]
enum ModelReply {
    Done,
    Thrown,
    Malformed,
    Unknown,
    From(usize),
}

fn acts() -> impl Strategy<Value = Vec<ModelAction>> {
    let reply = prop_oneof![
        3 => Just(ModelReply::Done),
        1 => Just(ModelReply::Thrown),
        1 => Just(ModelReply::Malformed),
        1 => Just(ModelReply::Unknown),
        2 => (0..8_usize).prop_map(ModelReply::From),
    ];
    let act = prop_oneof![
        4 => (0..4_usize, 1..6_usize).prop_map(|(shard, count)| ModelAction::Read { shard, count }),
        5 => Just(ModelAction::Next),
        5 => (0..4_usize, reply).prop_map(|(step, reply)| ModelAction::Complete { step, reply }),
        2 => (0..40_u8).prop_map(|seconds| ModelAction::Wait { seconds }),
        1 => Just(ModelAction::Restart),
    ];
    prop::collection::vec(act, 0..120)
}

fn records() -> impl Strategy<Value = Vec<WrittenRecord>> {
    let record = (0..4_usize, 0..5_u64, prop::bool::weighted(0.8));
    prop::collection::vec(record, 0..60).prop_map(|records| {
        let mut records: Vec<_> =
            records.into_iter().map(|(shard, item, wanted)| WrittenRecord { shard, item, wanted }).collect();
        // A parent's records are older than its children's.
        records.sort_by_key(|record| record.shard);
        records
    })
}

fn settings() -> impl Strategy<Value = MappingSettings> {
    let numbers = (1..6_usize, 10..60_usize, 0..30_u64, 1..4_usize);
    let limits = (prop::option::of(0..3_u32), prop::option::of(20..90_u64));
    (numbers, limits, any::<bool>(), any::<bool>()).prop_map(|(numbers, limits, bisect, partial_responses)| {
        let seconds = std::time::Duration::from_secs;
        let (batch_size, batch_bytes, window, lanes) = numbers;
        MappingSettings {
            batch_size,
            batch_bytes,
            window: seconds(window),
            lanes,
            max_retries: limits.0,
            max_age: limits.1.map(seconds),
            bisect,
            partial_responses,
            first_back_off: seconds(2),
            longest_back_off: seconds(9),
        }
    })
}

fn shard(index: usize) -> ShardId {
    format!("shard-{index}").into()
}

/// The stream, a state machine that reads it, and the state of the checked properties.
struct ModelState {
    settings: MappingSettings,
    records: Vec<WrittenRecord>,
    machine: MappingState<usize>,
    steps: Vec<MappingAction<usize>>,
    now: OffsetDateTime,
    settled: BTreeSet<usize>,
    acknowledged: BTreeMap<usize, u32>,
}

impl ModelState {
    fn new(settings: MappingSettings, records: Vec<WrittenRecord>) -> Self {
        let mut world = Self {
            machine: MappingState::new(settings.clone()),
            settings,
            records,
            steps: Vec::new(),
            now: START,
            settled: BTreeSet::new(),
            acknowledged: BTreeMap::new(),
        };
        world.open(&BTreeMap::new());
        world
    }

    /// Opens a chain of shards in which each is the parent of the next.
    fn open(&mut self, from: &BTreeMap<ShardId, ShardPosition>) {
        for index in 0..4 {
            self.machine.open(shard(index), index.checked_sub(1).map(shard), from.get(&shard(index)));
        }
    }

    fn index_of(number: SequenceNumber) -> usize {
        number.to_string().parse::<usize>().unwrap() - 1
    }

    fn read(&mut self, index: usize, count: usize) {
        let Some((id, after)) = self.machine.readable().into_iter().find(|(id, _)| *id == shard(index)) else { return };
        let after = after.map_or(0, |number| Self::index_of(number) + 1);
        let entry = |index: usize, record: &WrittenRecord| RecordEntry {
            number: SequenceNumber::parse(&(index + 1).to_string()).unwrap(),
            key_hash: record.item,
            at: Some(START),
            size_bytes: 10,
            wanted: record.wanted,
            body: index,
        };
        let rest = self.records.iter().enumerate().skip(after).filter(|(_, record)| record.shard == index);
        let page: Vec<_> = rest.take(count).map(|(index, record)| entry(index, record)).collect();
        if page.is_empty() {
            self.machine.close(&id);
        }
        self.machine.receive(&id, page, self.now);
    }

    fn next(&mut self) -> Result<bool, TestCaseError> {
        let Some(step) = self.machine.next(self.now) else { return Ok(false) };
        prop_assert!(!step.records.is_empty() && step.records.len() <= self.settings.batch_size);
        let bytes: usize = step.records.iter().map(|entry| entry.size_bytes).sum();
        prop_assert!(step.records.len() == 1 || bytes <= self.settings.batch_bytes);
        let mut before = BTreeSet::new();
        for entry in &step.records {
            let record = &self.records[entry.body];
            prop_assert!(record.wanted, "the filter was passed by");
            for (index, earlier) in self.records.iter().enumerate().take(entry.body) {
                let of_the_item = earlier.item == record.item && earlier.wanted;
                let known = self.settled.contains(&index) || before.contains(&index);
                prop_assert!(!of_the_item || known, "{} overtook {index} of its item", entry.body);
            }
            before.insert(entry.body);
        }
        self.steps.push(step);
        Ok(true)
    }

    fn respond(&mut self, step: usize, reply: &ModelReply) -> Result<(), TestCaseError> {
        if self.steps.is_empty() {
            return Ok(());
        }
        let step = self.steps.remove(step % self.steps.len());
        let all: Vec<_> = step.records.iter().map(|entry| entry.body).collect();
        if let ActionKind::Discard(_) = step.work {
            let done = !matches!(reply, ModelReply::Thrown);
            prop_assert!(self.machine.discard_completed(step.ticket, done, self.now));
            self.settled.extend(all.into_iter().filter(|_| done));
            return self.checkpoints_are_safe();
        }
        let index_of = |at: usize| at % step.records.len();
        let response = match reply {
            ModelReply::Done => Some(FunctionResponse::Done),
            ModelReply::Thrown => None,
            ModelReply::Malformed => Some(FunctionResponse::Malformed),
            ModelReply::Unknown => Some(FunctionResponse::Failures(vec!["4000000".to_owned()])),
            ModelReply::From(at) => {
                Some(FunctionResponse::Failures(vec![step.records[index_of(*at)].number.to_string()]))
            }
        };
        let accepted = match reply {
            ModelReply::Thrown => 0,
            ModelReply::Done => all.len(),
            _ if !self.settings.partial_responses => all.len(),
            ModelReply::From(at) => index_of(*at),
            ModelReply::Malformed | ModelReply::Unknown => 0,
        };
        prop_assert!(self.machine.invocation_completed(step.ticket, response.as_ref(), self.now));
        for index in all.into_iter().take(accepted) {
            self.settled.insert(index);
            *self.acknowledged.entry(index).or_default() += 1;
        }
        self.checkpoints_are_safe()
    }

    fn checkpoints_are_safe(&self) -> Result<(), TestCaseError> {
        let checkpoints = self.machine.checkpoints();
        for (index, record) in self.records.iter().enumerate() {
            let checkpoint = &checkpoints[&shard(record.shard)];
            let lane = lane_of(record.item, self.settings.lanes);
            let passed = checkpoint.lanes[lane].is_some_and(|number| Self::index_of(number) >= index);
            let settled = !record.wanted || self.settled.contains(&index);
            prop_assert!(settled || !(passed || checkpoint.drained), "the checkpoint passed {index}");
        }
        Ok(())
    }

    fn restart(&mut self) {
        let from = self.machine.checkpoints();
        self.machine = MappingState::new(self.settings.clone());
        self.steps.clear();
        self.open(&from);
    }

    fn act(&mut self, act: &ModelAction) -> Result<(), TestCaseError> {
        match act {
            ModelAction::Read { shard, count } => self.read(*shard, *count),
            ModelAction::Next => drop(self.next()?),
            ModelAction::Complete { step, reply } => self.respond(*step, reply)?,
            ModelAction::Wait { seconds } => self.now += time::Duration::seconds(i64::from(*seconds)),
            ModelAction::Restart => self.restart(),
        }
        self.checkpoints_are_safe()
    }

    /// Reads and settles everything, with a function that no longer fails.
    fn finish(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..2000 {
            (0..4).for_each(|index| self.read(index, 100));
            while self.next()? {}
            while !self.steps.is_empty() {
                self.respond(0, &ModelReply::Done)?;
            }
            self.now += time::Duration::seconds(10);
        }
        let wanted = |(index, record): (usize, &WrittenRecord)| record.wanted.then_some(index);
        let wanted: BTreeSet<_> = self.records.iter().enumerate().filter_map(wanted).collect();
        prop_assert_eq!(&self.settled, &wanted, "a record was skipped");
        prop_assert!(self.machine.is_idle() && self.machine.wake_at().is_none());
        prop_assert!(self.machine.checkpoints().values().all(|checkpoint| checkpoint.drained));
        Ok(())
    }
}

proptest! {
    #[test]
    fn every_record_is_settled_in_the_order_of_its_item(settings in settings(), records in records(), acts in acts()) {
        let mut world = ModelState::new(settings, records);
        for act in &acts {
            world.act(act)?;
        }
        world.finish()?;
    }

    #[test]
    fn a_function_that_never_fails_sees_each_record_once(settings in settings(), records in records()) {
        let mut world = ModelState::new(MappingSettings { max_age: None, ..settings }, records);
        world.finish()?;
        prop_assert!(world.acknowledged.values().all(|times| *times == 1));
    }

    #[test]
    fn the_same_calls_give_the_same_steps(settings in settings(), records in records(), acts in acts()) {
        let run = || {
            let mut world = ModelState::new(settings.clone(), records.clone());
            acts.iter().try_for_each(|act| world.act(act)).map(|()| format!("{:?} {:?}", world.steps, world.machine))
        };
        prop_assert_eq!(run()?, run()?);
    }
}
