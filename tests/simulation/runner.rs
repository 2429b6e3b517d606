//! Runs scenarios by number on several threads, and shrinks the first one that fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use metrics::{Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use tokio::runtime::{Builder, Runtime};

use super::action::{Scenario, scenarios};
use super::checker::CheckVerdict;
use super::coverage::Coverage;
use super::engine::SimEngines;
use super::fault_injector::FaultInjector;
use super::stage::{MemoryStage, SimStage};
use super::table::{SimTable, tables};
use super::world::SimState;

/// The maximum number of actions in a scenario.
const MAX_ACTS: usize = 40;
/// Scenarios that a thread takes at a time.
const BUNDLE: u64 = 16;

/// The scenarios to run.
pub(super) struct RunReport {
    /// The number of the first scenario.
    pub(super) seed: u64,
    /// The number of scenarios; they are numbered consecutively.
    pub(super) count: u64,
    pub(super) threads: usize,
    pub(super) on: SimBackend,
    pub(super) tables: SimTables,
}

/// The source tables of scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SimTables {
    /// Each scenario draws its key schema, the names of its attributes, and the rules of its replicas.
    Any,
    /// The users table.
    Users,
}

/// Runs scenarios; returns the events that occurred in them.
pub(super) fn all_end_right(proof: &RunReport) -> Coverage {
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let seen = Mutex::new(Coverage::default());
    std::thread::scope(|scope| {
        for _ in 0..proof.threads {
            scope.spawn(|| {
                let simulation = Simulation::new(proof.on, proof.tables);
                loop {
                    let from = next.fetch_add(BUNDLE, Ordering::Relaxed);
                    if from >= proof.count || failed.load(Ordering::Relaxed) {
                        break;
                    }
                    for index in from..proof.count.min(from + BUNDLE) {
                        let number = proof.seed.wrapping_add(index);
                        if let Err(reason) = simulation.play_number(number) {
                            failed.store(true, Ordering::Relaxed);
                            panic!("history {number} does not end right: {reason}");
                        }
                    }
                }
                seen.lock().unwrap().add(&simulation.injector.coverage());
            });
        }
    });
    seen.into_inner().unwrap()
}

/// Runs a handwritten scenario in memory.
pub(super) fn ends_right(history: &Scenario) {
    let simulation = Simulation::new(SimBackend::Memory, SimTables::Users);
    let verdict = simulation.play(history, &Arc::new(SimTable::users()));
    verdict.unwrap_or_else(|reason| panic!("{history:?} does not end right: {reason}"));
}

/// A metrics recorder that copies counters of the functions to the coverage.
struct RunCounts(FaultInjector);

/// Counts the changes that were not sent to a sink again because it had confirmed them.
struct SkippedCounts(FaultInjector);

impl CounterFn for SkippedCounts {
    fn increment(&self, value: u64) {
        self.0.see_many("sink: spared what it had confirmed", usize::try_from(value).unwrap());
    }

    fn absolute(&self, _: u64) {}
}

impl Recorder for RunCounts {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let is_seen = key.name() == millrace_shared::metric::PREVIOUSLY_CONFIRMED_CHANGES.name();
        if is_seen { Counter::from_arc(Arc::new(SkippedCounts(self.0.clone()))) } else { Counter::noop() }
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// The stores that a scenario can run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SimBackend {
    Memory,
    Engines,
    /// The second replica is in PostgreSQL.
    Relational,
}

/// The environment in which one thread runs its scenarios.
struct Simulation {
    on: SimBackend,
    tables: SimTables,
    runtime: Runtime,
    injector: FaultInjector,
    host: SimulationHost,
}

enum SimulationHost {
    Memory(MemoryStage),
    Engines(SimEngines),
}

impl Simulation {
    fn new(on: SimBackend, tables: SimTables) -> Self {
        let injector = FaultInjector::default();
        let (runtime, host) = match on {
            SimBackend::Memory => {
                // The clock is paused: the simulation advances it and thereby wakes the waiting tasks.
                let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
                (runtime, SimulationHost::Memory(MemoryStage::new(&injector)))
            }
            SimBackend::Engines | SimBackend::Relational => {
                let runtime = Builder::new_current_thread().enable_all().build().unwrap();
                let engines = runtime.block_on(SimEngines::start(&injector, on == SimBackend::Relational));
                (runtime, SimulationHost::Engines(engines))
            }
        };
        Self { on, tables, runtime, injector, host }
    }

    /// Runs the scenario with this number; if it fails, finds a shorter scenario that fails and describes it in the
    /// error.
    fn play_number(&self, number: u64) -> CheckVerdict {
        let mut runner = runner(number, 0);
        let table = Arc::new(self.table(number));
        let tree = scenarios(MAX_ACTS).new_tree(&mut runner).unwrap();
        self.play(&tree.current(), &table).map_err(|reason| {
            eprintln!("history {number}: {reason}\nlooking for a shorter one");
            let shrunk = runner.run_one(tree, |history| {
                // A simulation of its own: the previous scenario may have ended in a panic.
                Self::new(self.on, self.tables).play(&history, &table).map_err(TestCaseError::fail)
            });
            let Err(TestError::Fail(reason, history)) = shrunk else { return reason };
            let acts: Vec<String> = history.acts.iter().map(|act| format!("{act:?}")).collect();
            let acts = acts.join("\n    ");
            let replay = format!("scripts/prove --seed {number} --count 1");
            format!("{reason}\n  {:?}\n  {table:?}\n    {acts}\n  replay it with: {replay}", history.features)
        })
    }

    /// Returns the source table of the scenario with this number.
    fn table(&self, number: u64) -> SimTable {
        match self.tables {
            SimTables::Any => {
                let table = tables().new_tree(&mut runner(number, 1)).unwrap().current();
                let rules = table.replica_rules().new_tree(&mut runner(number, 2)).unwrap().current();
                table.with_rules(rules)
            }
            SimTables::Users => SimTable::users(),
        }
    }

    fn play(&self, history: &Scenario, table: &Arc<SimTable>) -> CheckVerdict {
        let played = catch_unwind(AssertUnwindSafe(|| self.play_unguarded(history, table)));
        played.unwrap_or_else(|panic| {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(message.unwrap_or("it panics").to_owned())
        })
    }

    fn play_unguarded(&self, history: &Scenario, table: &Arc<SimTable>) -> CheckVerdict {
        self.injector.reset();
        metrics::with_local_recorder(&RunCounts(self.injector.clone()), || self.play_counted(history, table))
    }

    fn play_counted(&self, history: &Scenario, table: &Arc<SimTable>) -> CheckVerdict {
        self.runtime.block_on(async {
            match &self.host {
                SimulationHost::Memory(memory) => {
                    memory.reset(table);
                    play(memory, &self.injector, history).await
                }
                SimulationHost::Engines(engines) => {
                    engines.reset(table).await;
                    play(engines, &self.injector, history).await
                }
            }
        })
    }
}

/// Runs a scenario to its end and checks the final state.
async fn play<S: SimStage>(stage: &S, injector: &FaultInjector, history: &Scenario) -> CheckVerdict {
    let mut world = SimState::new(stage, injector.clone(), history.features);
    for act in &history.acts {
        world.apply_action(*act).await;
    }
    world.finish().await
}

/// The generator whose seed is the number of the scenario; each part of a scenario has another one.
fn runner(number: u64, part: u8) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[8] = part;
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config { failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    TestRunner::new_with_rng(config, rng)
}
