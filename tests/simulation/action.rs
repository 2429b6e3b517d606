//! What may happen in a history: [`SimAction`], and how histories are drawn.
//!
//! A history draws its features first and its acts among those: where everything may happen, nothing happens twice in a
//! row, and many faults need that.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::Union;

use super::fault_injector::{FaultPoint, InjectedFault};
use super::source::{ITEMS, WriteKind};

/// A function that has a mapping on the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SimFunction {
    Replicator,
    Archiver,
}

impl SimFunction {
    pub(super) const BOTH: [Self; 2] = [Self::Replicator, Self::Archiver];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Replicator => "replicator",
            Self::Archiver => "archiver",
        }
    }
}

/// One thing that happens. What is chosen by a number is chosen among what there is then.
#[derive(Debug, Clone, Copy)]
pub(super) enum SimAction {
    /// The source's item is put; its record may be unreadable.
    Write {
        item: usize,
        kind: WriteKind,
        gap: u8,
        unreadable: bool,
    },
    /// The source's item is deleted.
    Delete {
        item: usize,
        gap: u8,
    },
    /// TTL removes it; its record may be of no time.
    Expire {
        item: usize,
        gap: u8,
        timeless: bool,
    },
    /// The clock goes on.
    Pass {
        seconds: u16,
    },
    /// A shard splits.
    Split {
        item: usize,
    },
    /// A mapping reads on in its shards.
    Read {
        mapping: usize,
        count: usize,
    },
    /// A mapping starts what it has to do.
    Start {
        mapping: usize,
    },
    /// A mapping reads, and delivers until it has nothing left to do now.
    Deliver {
        mapping: usize,
    },
    /// A task goes on, by so many calls.
    Step {
        task: usize,
        times: usize,
    },
    /// A task goes on to its end.
    Run {
        task: usize,
    },
    /// A task dies; the write that it was about to do may come all the same.
    Crash {
        task: usize,
        keep: bool,
    },
    /// The next answer to a mapping is lost.
    LoseAnswer,
    /// The next batch that is given up cannot be recorded.
    FailRecording,
    /// Records that were delivered once are delivered again: a slice, or all up to there; in order for each item.
    Again {
        function: SimFunction,
        from: usize,
        count: usize,
        prefix: bool,
        reorder: bool,
        run: bool,
    },
    /// The next call to a store is in trouble.
    Trouble {
        place: FaultPoint,
        trouble: InjectedFault,
    },
    /// A write arrives for which nobody waits any more.
    Land {
        zombie: usize,
    },
    /// Maintenance.
    Repair {
        sink: usize,
        items: u8,
        run: bool,
    },
    Backfill {
        run: bool,
    },
    Redrive {
        run: bool,
    },
    /// A replica is lost; its mapping begins at the oldest record, and it is filled when all is over.
    LoseReplica {
        sink: usize,
    },
    /// The stream drops records before they are read.
    Gap {
        count: usize,
    },
    /// The table gets another stream; the old one is read to its end, or not.
    NewStream {
        keep: bool,
    },
    /// Longer than a tombstone stays; what was not read in time is gone.
    LongTime {
        drained: bool,
    },
}

/// What a history may be about, and how the mappings are set.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is there or not, with or without any other")]
pub(super) struct SimFeatures {
    /// Stores fail.
    pub(super) trouble: bool,
    /// Tasks are interrupted and die.
    pub(super) interleaved: bool,
    /// Records and items are poison.
    pub(super) poison: bool,
    /// Backfill, repair and redrive run beside the stream.
    pub(super) maintenance: bool,
    /// What is outside of the promise happens.
    pub(super) incidents: bool,
    /// Batches are given up after so many retries.
    pub(super) retries: Option<u32>,
    /// Records are given up at this age, in seconds.
    pub(super) age: Option<u64>,
    pub(super) bisect: bool,
    pub(super) batch: usize,
    pub(super) lanes: usize,
}

/// A history.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) features: SimFeatures,
    pub(super) acts: Vec<SimAction>,
}

/// Histories of up to `most` acts.
pub(super) fn histories(most: usize) -> impl Strategy<Value = Scenario> {
    features()
        .prop_flat_map(move |features| vec(acts(&features), 4..most).prop_map(move |acts| Scenario { features, acts }))
}

fn features() -> impl Strategy<Value = SimFeatures> {
    use proptest::bool::weighted;
    let kinds = (weighted(0.5), weighted(0.5), weighted(0.3), weighted(0.3), weighted(0.2));
    let limits = (
        prop_oneof![3 => Just(None), 1 => (0..3_u32).prop_map(Some)],
        prop_oneof![3 => Just(None), 1 => Just(Some(60_u64))],
    );
    let shape = (any::<bool>(), 1..6_usize, 1..3_usize);
    (kinds, limits, shape).prop_map(|(kinds, (retries, age), (bisect, batch, lanes))| {
        let (trouble, interleaved, poison, maintenance, incidents) = kinds;
        SimFeatures { trouble, interleaved, poison, maintenance, incidents, retries, age, bisect, batch, lanes }
    })
}

fn acts(features: &SimFeatures) -> Union<BoxedStrategy<SimAction>> {
    let item = || 0..ITEMS;
    let mapping = || 0..4_usize;
    let (poison, interleaved) = (features.poison, features.interleaved);
    let kind = (0..12_u8, 0..3_u8).prop_map(move |(which, value)| match which {
        0 if poison => WriteKind::Reserved(value),
        1 | 2 if poison => WriteKind::Large(value),
        _ => WriteKind::Plain(value),
    });
    let write = (item(), kind, 0..3_u8, 0..12_u8).prop_map(move |(item, kind, gap, unreadable)| SimAction::Write {
        item,
        kind,
        gap,
        unreadable: poison && unreadable == 0,
    });
    let expire = (item(), 0..3_u8, 0..6_u8).prop_map(move |(item, gap, timeless)| SimAction::Expire {
        item,
        gap,
        timeless: poison && timeless == 0,
    });
    let run = move |run: bool| run || !interleaved;
    let again = (any::<bool>(), 0..40_usize, 1..8_usize, 0..3_u8, any::<bool>(), any::<bool>()).prop_map(
        move |(archiver, from, count, prefix, reorder, at_once)| SimAction::Again {
            function: if archiver { SimFunction::Archiver } else { SimFunction::Replicator },
            from,
            count,
            prefix: prefix == 0,
            reorder,
            run: run(at_once),
        },
    );
    let trouble = (0..FaultPoint::ALL.len(), 0..InjectedFault::ALL.len()).prop_map(|(place, trouble)| {
        SimAction::Trouble { place: FaultPoint::ALL[place], trouble: InjectedFault::ALL[trouble] }
    });
    let seconds = prop_oneof![6 => 0..30_u16, 1 => 60..90_u16];
    let mut all: Vec<(u32, BoxedStrategy<SimAction>)> = vec![
        (10, write.boxed()),
        (3, (item(), 0..3_u8).prop_map(|(item, gap)| SimAction::Delete { item, gap }).boxed()),
        (3, expire.boxed()),
        (2, seconds.prop_map(|seconds| SimAction::Pass { seconds }).boxed()),
        (1, item().prop_map(|item| SimAction::Split { item }).boxed()),
        (if interleaved { 4 } else { 8 }, mapping().prop_map(|mapping| SimAction::Deliver { mapping }).boxed()),
        (3, again.boxed()),
    ];
    if interleaved {
        let read = (mapping(), 1..6_usize).prop_map(|(mapping, count)| SimAction::Read { mapping, count });
        let step = (0..4_usize, 1..5_usize).prop_map(|(task, times)| SimAction::Step { task, times });
        all.extend([
            (6, read.boxed()),
            (10, mapping().prop_map(|mapping| SimAction::Start { mapping }).boxed()),
            (10, step.boxed()),
            (4, (0..4_usize).prop_map(|task| SimAction::Run { task }).boxed()),
            (5, (0..4_usize, any::<bool>()).prop_map(|(task, keep)| SimAction::Crash { task, keep }).boxed()),
        ]);
    }
    if features.trouble {
        all.extend([
            (6, trouble.boxed()),
            (1, Just(SimAction::LoseAnswer).boxed()),
            (1, Just(SimAction::FailRecording).boxed()),
        ]);
    }
    if features.trouble || interleaved {
        all.push((2, (0..4_usize).prop_map(|zombie| SimAction::Land { zombie }).boxed()));
    }
    if features.maintenance {
        let repair = (0..2_usize, 1..16_u8, any::<bool>());
        all.extend([
            (
                1,
                repair
                    .prop_map(move |(sink, items, at_once)| SimAction::Repair { sink, items, run: run(at_once) })
                    .boxed(),
            ),
            (1, any::<bool>().prop_map(move |at_once| SimAction::Backfill { run: run(at_once) }).boxed()),
            (1, any::<bool>().prop_map(move |at_once| SimAction::Redrive { run: run(at_once) }).boxed()),
        ]);
    }
    if features.incidents {
        all.extend([
            (1, (0..2_usize).prop_map(|sink| SimAction::LoseReplica { sink }).boxed()),
            (1, (1..4_usize).prop_map(|count| SimAction::Gap { count }).boxed()),
            (1, any::<bool>().prop_map(|keep| SimAction::NewStream { keep }).boxed()),
            (1, any::<bool>().prop_map(|drained| SimAction::LongTime { drained }).boxed()),
        ]);
    }
    Union::new_weighted(all)
}
