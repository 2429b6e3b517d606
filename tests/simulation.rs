//! Deterministic simulation of replication: random scenarios of writes, deliveries, faults, crashes and maintenance. At
//! the end of each, the replicas must equal their source, the archive must contain exactly the items that TTL removed,
//! and the quarantine exactly the poison records.
//!
//! A scenario is generated from one seed number: the writes to the source, how the stream is read and delivered, which
//! fault occurs at which store, which invocation crashes, and which maintenance tasks run concurrently ([`action`]).
//! The number also decides the key schema of the source, the names of its attributes, and the rules by which each replica
//! stores a part of them ([`table`]). The scenario runs
//! against the production functions, which the scheduler polls call by call ([`world`], [`fault_injector`]), and
//! the final state is checked ([`checker`]). Scenarios run in memory, where one takes a millisecond, and on the
//! embedded engines. Unique emails ([`emails`]) and idempotent creates with a cache ([`creates`]) have separate
//! scenarios, because these run the API's writes.

mod action;
mod apply;
mod checker;
mod cloud;
mod coverage;
mod creates;
mod emails;
mod engine;
mod fault_injector;
mod http_connector;
mod mapping;
mod memory_replica;
mod relational;
mod runner;
mod runs;
mod source;
mod stage;
mod table;
mod world;

use action::{Scenario, SimAction, SimFeatures};
use coverage::EXPECTED;
use millrace_shared::environment::Environment;
use runner::{RunReport, SimBackend, SimTables};
use source::WriteKind;

/// The seed of the first scenario in the test suite.
const SEED: u64 = 1;
/// Number of scenarios in memory per run of the suite.
const SHARE: u64 = 4_000;
/// Number of scenarios on the embedded engines per run of the suite.
const ON_ENGINES: u64 = 1_000;
/// Number of scenarios with one replica in PostgreSQL per run of the suite.
const ON_POSTGRES: u64 = 400;
/// Number of scenarios of unique emails per run of the suite.
const ON_EMAILS: u32 = 400;
/// Number of scenarios of idempotent creates per run of the suite.
const ON_CREATES: u32 = 200;

#[test]
fn every_simulation_in_memory_ends_consistent() {
    let (on, tables) = (SimBackend::Memory, SimTables::Any);
    let seen = runner::all_end_right(&RunReport { seed: SEED, count: SHARE, threads: 2, on, tables });
    assert_eq!(seen.missing(EXPECTED), [""; 0], "these never occurred:\n{seen}");
}

#[test]
fn every_simulation_on_the_engines_ends_consistent() {
    let (on, tables) = (SimBackend::Engines, SimTables::Any);
    let seen = runner::all_end_right(&RunReport { seed: SEED, count: ON_ENGINES, threads: 6, on, tables });
    println!("{seen}");
}

#[test]
fn every_simulation_with_a_relational_replica_ends_consistent() {
    let (on, tables) = (SimBackend::Relational, SimTables::Users);
    let seen = runner::all_end_right(&RunReport { seed: SEED, count: ON_POSTGRES, threads: 4, on, tables });
    println!("{seen}");
}

#[test]
fn every_simulation_of_emails_ends_consistent() {
    emails::all_end_right(SEED, ON_EMAILS);
}

#[test]
fn every_simulation_of_idempotent_creates_ends_consistent() {
    creates::all_end_right(SEED, ON_CREATES);
}

/// A range of call counts that covers all calls of one repair, and a few more.
const CALLS: std::ops::Range<usize> = 1..9;

/// Runs the repair of one item once for each pair of call counts: after the first number of calls the actions `between`
/// happen, and after the second number of further calls the repair crashes.
fn a_repair_amid(before: &[SimAction], between: &[SimAction]) {
    let features = SimFeatures {
        trouble: false,
        interleaved: true,
        poison: false,
        maintenance: true,
        incidents: false,
        retries: None,
        age: None,
        bisect: false,
        batch: 1,
        lanes: 1,
    };
    let step = |times| SimAction::Step { task: 0, times };
    for (calls, more) in CALLS.flat_map(|calls| CALLS.map(move |more| (calls, more))) {
        let repair = [SimAction::Repair { sink: 0, items: 1, run: false }, step(calls)];
        let acts = [before, &repair, between, &[step(more), SimAction::Crash { task: 0, keep: false }]].concat();
        runner::ends_right(&Scenario { features, acts });
    }
}

fn named(value: u8) -> SimAction {
    SimAction::Write { item: 0, kind: WriteKind::Plain(value), gap: 0, unreadable: false }
}

#[test]
fn a_repair_that_dies_at_any_call_loses_no_change_that_was_delivered_meanwhile() {
    let deliver = SimAction::Deliver { mapping: 0 };
    a_repair_amid(&[named(0), deliver], &[named(1), deliver]);
    a_repair_amid(&[named(0), deliver, named(1)], &[named(2), deliver]);
}

#[test]
fn a_repair_that_dies_at_any_call_outranks_no_change_of_the_stream_before() {
    let deliver = SimAction::Deliver { mapping: 0 };
    a_repair_amid(&[named(0), deliver, named(1)], &[named(2), SimAction::NewStream { keep: true }]);
}

/// Regression test for the one scenario in half a million that failed: a record of a former stream is delivered after
/// the replica was lost, and with it the tombstone of a delete that a later stream had delivered before. Restoring the
/// replica takes a repair.
#[test]
fn a_replica_lost_while_a_former_stream_is_read_is_repaired() {
    let (on, tables) = (SimBackend::Memory, SimTables::Users);
    runner::all_end_right(&RunReport { seed: 477_246, count: 1, threads: 1, on, tables });
}

/// Entry point of `scripts/prove`: runs the number of scenarios that the environment specifies.
#[test]
#[ignore = "runs the number of simulations that scripts/prove requests"]
fn requested_number_of_simulations_passes() {
    let environment = Environment::from_env();
    let number = |name, otherwise: u64| environment.get(name).map_or(otherwise, |text| text.parse().unwrap());
    let threads = std::thread::available_parallelism().unwrap().get();
    let on = match environment.get("ENGINES") {
        Some("postgres") => SimBackend::Relational,
        Some(_) => SimBackend::Engines,
        None => SimBackend::Memory,
    };
    // The relational tier stores users only.
    let tables = if on == SimBackend::Relational { SimTables::Users } else { SimTables::Any };
    let proof = RunReport { seed: number("SEED", SEED), count: number("COUNT", 1_000_000), threads, on, tables };
    println!("{}", runner::all_end_right(&proof));
}
