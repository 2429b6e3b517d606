//! Histories: whatever happens, in any order, the replicas end as their source is, the archive holds what TTL removed, and
//! the quarantine the poison.
//!
//! A history is drawn from one number: what happens at the source, how the stream is read and delivered, what goes wrong
//! at which store, who dies in the middle, and what maintenance does beside it ([`action`]). It is played against the
//! production functions with a hand that polls them call by call ([`world`], [`fault_injector`]), and judged at its end ([`checker`]).
//! It is played in memory, where a history takes a millisecond, and on the embedded engines. Histories of their own are those
//! of unique emails ([`emails`]) and of idempotent creates with a cache ([`creates`]), because the API's writes run in these.

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
mod world;

use action::{Scenario, SimAction, SimFeatures};
use coverage::EXPECTED;
use runner::{RunReport, SimBackend};
use shared::environment::Environment;
use source::WriteKind;

/// Where the histories of the test suite begin.
const SEED: u64 = 1;
/// Of the histories in memory the share that every run of the suite plays.
const SHARE: u64 = 4_000;
/// And of those on the engines.
const ON_ENGINES: u64 = 1_000;
/// And of those of which one replica is PostgreSQL's.
const ON_POSTGRES: u64 = 400;
/// And of those of emails.
const ON_EMAILS: u32 = 400;
/// And of those of idempotent creates.
const ON_CREATES: u32 = 200;

#[test]
fn every_history_in_memory_ends_right() {
    let seen = runner::all_end_right(&RunReport { seed: SEED, count: SHARE, threads: 2, on: SimBackend::Memory });
    assert_eq!(seen.missing(EXPECTED), [""; 0], "these never occurred:\n{seen}");
}

#[test]
fn every_history_on_the_engines_ends_right() {
    let seen = runner::all_end_right(&RunReport { seed: SEED, count: ON_ENGINES, threads: 6, on: SimBackend::Engines });
    println!("{seen}");
}

#[test]
fn every_history_with_a_relational_replica_ends_right() {
    let seen =
        runner::all_end_right(&RunReport { seed: SEED, count: ON_POSTGRES, threads: 4, on: SimBackend::Relational });
    println!("{seen}");
}

#[test]
fn every_history_of_emails_ends_right() {
    emails::all_end_right(SEED, ON_EMAILS);
}

#[test]
fn every_history_of_idempotent_creates_ends_right() {
    creates::all_end_right(SEED, ON_CREATES);
}

/// Calls of one repair, and some more.
const CALLS: std::ops::Range<usize> = 1..9;

/// A repair of an item, with something in between after so many of its calls, that dies so many calls later.
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

/// The one in half a million that ended otherwise: a record of a former stream comes after the replica was lost, and with it
/// the tombstone of a delete that a later stream had told before. It takes a repair.
#[test]
fn a_replica_lost_while_a_former_stream_is_read_is_repaired() {
    runner::all_end_right(&RunReport { seed: 477_246, count: 1, threads: 1, on: SimBackend::Memory });
}

/// `scripts/prove`: as many as asked for.
#[test]
#[ignore = "takes as long as it is told to: scripts/prove"]
fn as_many_histories_as_asked_for_end_right() {
    let environment = Environment::from_env();
    let number = |name, otherwise: u64| environment.get(name).map_or(otherwise, |text| text.parse().unwrap());
    let threads = std::thread::available_parallelism().unwrap().get();
    let on = match environment.get("ENGINES") {
        Some("postgres") => SimBackend::Relational,
        Some(_) => SimBackend::Engines,
        None => SimBackend::Memory,
    };
    let proof = RunReport { seed: number("SEED", SEED), count: number("COUNT", 1_000_000), threads, on };
    println!("{}", runner::all_end_right(&proof));
}
