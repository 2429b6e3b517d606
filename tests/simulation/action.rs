//! The actions of a scenario ([`SimAction`]) and the generators of scenarios.
//!
//! A scenario draws its features first and then only actions of these features. If every action were always possible,
//! the same kind of action would rarely occur twice in a row, and many faults need that.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::Union;

use super::fault_injector::{FaultPoint, InjectedFault};
use super::source::{ITEMS, WriteKind};

/// A function that has an event source mapping on the stream.
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

/// One action of a scenario. An index is taken modulo the number of candidates that exist when the action runs.
#[derive(Debug, Clone, Copy)]
pub(super) enum SimAction {
    /// Puts an item of the source; the stream record may be unreadable.
    Write {
        item: usize,
        kind: WriteKind,
        gap: u8,
        unreadable: bool,
    },
    /// Deletes an item of the source.
    Delete {
        item: usize,
        gap: u8,
    },
    /// TTL removes an item of the source; the stream record may have an invalid time.
    Expire {
        item: usize,
        gap: u8,
        timeless: bool,
    },
    /// Advances the clock.
    Pass {
        seconds: u16,
    },
    /// Splits a shard.
    Split {
        item: usize,
    },
    /// A mapping reads further records from its shards.
    Read {
        mapping: usize,
        count: usize,
    },
    /// A mapping starts every action that is due.
    Start {
        mapping: usize,
    },
    /// A mapping reads, and delivers until nothing is due at the current time.
    Deliver {
        mapping: usize,
    },
    /// Advances a task by the given number of calls.
    Step {
        task: usize,
        times: usize,
    },
    /// Runs a task to completion.
    Run {
        task: usize,
    },
    /// A task crashes; if `keep` is set, the write that it was about to make may still take effect later.
    Crash {
        task: usize,
        keep: bool,
    },
    /// The next response to a mapping is lost.
    LoseAnswer,
    /// The next discarded batch cannot be written to the on-failure destination.
    FailRecording,
    /// Delivers records again that were delivered before: a slice of them, or all up to one; the records of an item
    /// stay in order.
    Again {
        function: SimFunction,
        from: usize,
        count: usize,
        prefix: bool,
        reorder: bool,
        run: bool,
    },
    /// Injects a fault into the next call to a store.
    Trouble {
        point: FaultPoint,
        trouble: InjectedFault,
    },
    /// A delayed write takes effect, although no caller waits for it any more.
    Land {
        zombie: usize,
    },
    /// Repairs a replica: the given items, or a complete `repair` task.
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
    /// A replica loses its data; its mapping restarts at the oldest record, and a backfill follows at the end of the
    /// scenario.
    LoseReplica {
        sink: usize,
    },
    /// The stream drops records before they are read.
    Gap {
        count: usize,
    },
    /// The table gets a new stream; the old one is read to its end, or is lost.
    NewStream {
        keep: bool,
    },
    /// Advances the clock past the retention of tombstones; records that were not read in time are lost.
    LongTime {
        drained: bool,
    },
}

/// The features of a scenario, and the settings of the mappings.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is there or not, with or without any other")]
pub(super) struct SimFeatures {
    /// Calls to stores fail.
    pub(super) trouble: bool,
    /// Tasks are interrupted and crash.
    pub(super) interleaved: bool,
    /// Some records and items are poison.
    pub(super) poison: bool,
    /// Backfill, repair and redrive run concurrently with the stream.
    pub(super) maintenance: bool,
    /// Incidents occur that the guarantees do not cover.
    pub(super) incidents: bool,
    /// Batches are discarded after this number of retries.
    pub(super) retries: Option<u32>,
    /// Records are discarded at this age, in seconds.
    pub(super) age: Option<u64>,
    pub(super) bisect: bool,
    pub(super) batch: usize,
    pub(super) lanes: usize,
}

impl SimFeatures {
    /// Returns whether the archive is a sink of the replicator, and no archiver reads the stream. Not drawn: an
    /// additional draw would change the scenario of every seed.
    pub(super) fn archive_is_sink(&self) -> bool {
        (self.batch + self.lanes).is_multiple_of(3)
    }
}

/// A scenario.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) features: SimFeatures,
    pub(super) acts: Vec<SimAction>,
}

/// Scenarios of fewer than `most` actions.
pub(super) fn scenarios(most: usize) -> impl Strategy<Value = Scenario> {
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
    let trouble = (0..FaultPoint::ALL.len(), 0..InjectedFault::ALL.len()).prop_map(|(point, trouble)| {
        SimAction::Trouble { point: FaultPoint::ALL[point], trouble: InjectedFault::ALL[trouble] }
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
