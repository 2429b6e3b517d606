//! Replays a setting in the simulator of the event source mapping, to show which records are lost:
//! [`replay`].
//!
//! Ten records of ten items are written, one a minute; record 4 is a poison record, on which the function always fails.
//! A record that the simulator discards is stored where the mapping's destination stores it, and the stream trims a
//! record 24 hours after its write. Time is simulated, so a replay takes milliseconds.

use std::collections::BTreeSet;
use std::time::Duration;

use millrace_event_source_mapping::filter::RecordFilter;
use millrace_event_source_mapping::response::FunctionResponse;
use millrace_event_source_mapping::settings::MappingSettings;
use millrace_event_source_mapping::state::{ActionKind, DiscardReason, MappingState, RecordEntry, hash_key};
use millrace_shared::revision::SequenceNumber;
use time::OffsetDateTime;

use crate::rule_table::RuleSeverity;
use crate::rules::STREAM_RETENTION_S;

/// The number of records.
const RECORDS: u32 = 10;
/// The record on which the function always fails.
const POISON: u32 = 4;
const RETENTION: Duration = Duration::from_secs(STREAM_RETENTION_S.unsigned_abs());
/// The interval between two records.
const INTERVAL: Duration = Duration::from_mins(1);
const SHARD: &str = "shard";

/// The handling of discarded records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayDestination {
    /// There is no destination.
    None,
    /// A bucket retains them until they are redriven.
    Records,
    /// A bucket expires them before they are redriven.
    ExpiringRecords,
    /// A queue has their positions, which are read after the stream has trimmed them.
    Positions,
    /// The role may not write to the destination.
    Denied,
}

/// How the function fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayFunction {
    /// It fails on a batch with the poison record, and applies nothing of it.
    Throws,
    /// It applies the records before the poison record and returns the position of the first that it did not.
    Reports,
    /// The store that it writes to is unreachable for 30 hours.
    Outage,
    /// It applies every record.
    Works,
}

/// A deployment for a replay.
#[derive(Debug, Clone)]
pub struct ReplaySettings {
    mapping: MappingSettings,
    destination: ReplayDestination,
    function: ReplayFunction,
    filter: Option<&'static str>,
    enabled: bool,
    /// The first record that the mapping reads: those before were written before it polled.
    first_read: u32,
    /// The first record that it no longer reads, or that no longer has an effect.
    first_missed: u32,
    /// Whether the records contain the image that the function applies.
    has_image: bool,
    /// The number of records that share a key in the replica.
    records_per_key: u32,
}

impl ReplaySettings {
    /// Returns a deployment without a fault.
    fn valid() -> Self {
        let mapping = MappingSettings {
            max_age: Some(Duration::from_hours(6)),
            bisect: true,
            partial_responses: true,
            longest_back_off: Duration::from_mins(1),
            ..MappingSettings::default()
        };
        Self {
            mapping,
            destination: ReplayDestination::Records,
            function: ReplayFunction::Throws,
            filter: None,
            enabled: true,
            first_read: 1,
            first_missed: RECORDS + 1,
            has_image: true,
            records_per_key: 1,
        }
    }

    fn changed(self, change: impl FnOnce(&mut Self)) -> Self {
        let mut settings = self;
        change(&mut settings);
        settings
    }
}

/// The outcome for each of the records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplayOutcome {
    /// Applied by the function.
    pub applied: BTreeSet<u32>,
    /// Not applied, but stored with their contents for a redrive.
    pub recoverable: BTreeSet<u32>,
    /// Neither.
    pub lost: BTreeSet<u32>,
}

/// A setting with and without the fault of a rule.
#[derive(Debug, Clone)]
pub struct ReplayScenario {
    /// The course of events, in one sentence.
    pub story: &'static str,
    /// With the faulty setting.
    pub faulty: ReplaySettings,
    /// With the fix.
    pub fixed: ReplaySettings,
}

const POISON_STORY: &str =
    "Ten records are written, one a minute; the function always fails on record 4, a poison record.";
const PLAIN_STORY: &str = "Ten records are written, one a minute; the function applies every record that it receives.";

/// Returns the scenario of a rule; each rule that loses records has one.
#[must_use]
pub fn scenario(rule: &str) -> Option<ReplayScenario> {
    let valid = ReplaySettings::valid;
    let works = || valid().changed(|it| it.function = ReplayFunction::Works);
    let bounded = |it: &mut ReplaySettings| {
        it.mapping.max_retries = Some(3);
        it.mapping.max_age = None;
    };
    let plain = |faulty: ReplaySettings| ReplayScenario { story: PLAIN_STORY, faulty, fixed: works() };
    let poison = |faulty: ReplaySettings, fixed: ReplaySettings| ReplayScenario { story: POISON_STORY, faulty, fixed };
    let discarding = |destination| poison(valid().changed(|it| it.destination = destination), valid());
    Some(match rule {
        "discarded-without-destination" => discarding(ReplayDestination::None),
        "metadata-only-destination" => discarding(ReplayDestination::Positions),
        "destination-not-granted" => discarding(ReplayDestination::Denied),
        "failure-objects-expire" => discarding(ReplayDestination::ExpiringRecords),
        "poison-record-blocks-shard" => poison(
            valid().changed(|it| {
                it.mapping.max_age = None;
                it.mapping.bisect = false;
                it.mapping.partial_responses = false;
                it.destination = ReplayDestination::None;
            }),
            valid(),
        ),
        "response-ignored" => poison(
            valid().changed(|it| {
                it.function = ReplayFunction::Reports;
                it.mapping.partial_responses = false;
            }),
            valid().changed(|it| it.function = ReplayFunction::Reports),
        ),
        "batch-discarded-whole" => {
            let lossy = valid().changed(bounded).changed(|it| it.destination = ReplayDestination::None);
            let whole = lossy.changed(|it| {
                it.mapping.bisect = false;
                it.mapping.window = Duration::from_mins(10);
            });
            let fixed = whole.clone().changed(|it| {
                it.mapping.bisect = true;
                it.destination = ReplayDestination::Records;
            });
            ReplayScenario {
                story: "Ten records are written within a batch window; the function always fails on record 4, a poison \
                        record. The batch is retried three times. There is an on-failure destination only with the \
                        fix.",
                faulty: whole,
                fixed,
            }
        }
        "age-exceeds-retention" => {
            let outage = valid().changed(|it| it.function = ReplayFunction::Outage);
            ReplayScenario {
                story: "Ten records are written, one a minute, while the replica is unreachable for 30 hours.",
                faulty: outage.clone().changed(|it| it.mapping.max_age = Some(RETENTION)),
                fixed: outage,
            }
        }
        "starts-at-latest" => plain(works().changed(|it| it.first_read = 4)),
        "mapping-disabled" => plain(works().changed(|it| it.enabled = false)),
        "literal-stream-arn" => plain(works().changed(|it| it.first_missed = 6)),
        "alias-misses-parameters" => plain(works().changed(|it| it.first_missed = 6)),
        "image-missing" => plain(works().changed(|it| it.has_image = false)),
        "replica-does-not-fit" => plain(works().changed(|it| it.records_per_key = 2)),
        "filter-never-matches" => ReplayScenario {
            story: "Ten records are written, one a minute, each with the number n; the mapping selects those with n \
                    above 0.",
            faulty: works()
                .changed(|it| it.filter = Some(r#"{"dynamodb":{"NewImage":{"n":{"N":[{"numeric":[">",0]}]}}}}"#)),
            fixed: works()
                .changed(|it| it.filter = Some(r#"{"dynamodb":{"NewImage":{"n":{"N":[{"anything-but":["0"]}]}}}}"#)),
        },
        _ => return None,
    })
}

/// Returns whether a rule must have a scenario.
#[must_use]
pub fn needs_scenario(severity: RuleSeverity) -> bool {
    severity == RuleSeverity::Loses
}

/// Replays the ten records.
#[must_use]
pub fn replay(settings: &ReplaySettings) -> ReplayOutcome {
    let start = OffsetDateTime::UNIX_EPOCH;
    let written_at = |number: u32| start + INTERVAL * number;
    let patterns: Vec<String> = settings.filter.iter().map(|pattern| (*pattern).to_owned()).collect();
    let filter = RecordFilter::parse("replay", &patterns);
    // The stream trims what the mapping has not discarded: a retention is the longest age.
    let mut mapping = settings.mapping.clone();
    mapping.max_age = Some(mapping.max_age.map_or(RETENTION, |age| age.min(RETENTION)));
    let is_trimmed = mapping.max_age == Some(RETENTION);
    let mut state = MappingState::new(mapping);
    state.open(SHARD.into(), None, None);
    let mut outcome = ReplayOutcome::default();
    let mut now = start;
    let mut written = 0;
    while now <= start + RETENTION * 2 {
        while written < RECORDS && written_at(written + 1) <= now {
            written += 1;
            let is_read = settings.enabled && written >= settings.first_read && written < settings.first_missed;
            let body = format!(r#"{{"eventName":"INSERT","dynamodb":{{"NewImage":{{"n":{{"N":"{written}"}}}}}}}}"#);
            let wanted = filter.as_ref().is_ok_and(|filter| filter.matches(&body));
            let number = SequenceNumber::parse(&written.to_string());
            if let (true, Ok(number)) = (is_read, number) {
                let key_hash = hash_key(&format!("item {written}"));
                let at = Some(written_at(written));
                state.receive(
                    SHARD,
                    [RecordEntry { number, key_hash, at, size_bytes: 100, wanted, body: written }],
                    now,
                );
            }
        }
        while let Some(action) = state.next(now) {
            let numbers: Vec<u32> = action.records.iter().map(|record| record.body).collect();
            match action.work {
                ActionKind::Deliver => {
                    let (applied, response) = invoke(settings, &numbers, now - start);
                    if settings.has_image {
                        outcome.applied.extend(applied);
                    }
                    state.invocation_completed(action.ticket, response.as_ref(), now);
                }
                ActionKind::Discard(reason) => {
                    let by_stream = is_trimmed && reason == DiscardReason::RecordAgeExceeded;
                    if settings.destination == ReplayDestination::Records && !by_stream {
                        outcome.recoverable.extend(numbers);
                    }
                    state.discard_completed(action.ticket, true, now);
                }
            }
        }
        if written == RECORDS && state.is_idle() {
            break;
        }
        let next_record = (written < RECORDS).then(|| written_at(written + 1));
        now =
            [state.wake_at(), next_record].into_iter().flatten().filter(|at| *at > now).min().unwrap_or(now + INTERVAL);
    }
    // Of the records that share a key, the replica has the last.
    if settings.records_per_key > 1 {
        outcome.applied.retain(|number| number % settings.records_per_key == 0);
    }
    outcome.recoverable = &outcome.recoverable - &outcome.applied;
    outcome.lost = (1..=RECORDS)
        .filter(|number| !outcome.applied.contains(number) && !outcome.recoverable.contains(number))
        .collect();
    outcome
}

/// Returns the records that the function applies, and its response: `None` if it fails.
fn invoke(settings: &ReplaySettings, numbers: &[u32], elapsed: time::Duration) -> (Vec<u32>, Option<FunctionResponse>) {
    let all = || (numbers.to_vec(), Some(FunctionResponse::Done));
    match (settings.function, numbers.iter().position(|number| *number == POISON)) {
        (ReplayFunction::Outage, _) if elapsed < time::Duration::hours(30) => (Vec::new(), None),
        (ReplayFunction::Throws, Some(_)) => (Vec::new(), None),
        (ReplayFunction::Reports, Some(at)) => {
            (numbers[..at].to_vec(), Some(FunctionResponse::Failures(vec![POISON.to_string()])))
        }
        _ => all(),
    }
}

/// Formats numbers of records.
#[must_use]
pub fn format_numbers(numbers: &BTreeSet<u32>) -> String {
    if numbers.is_empty() {
        return "none".to_owned();
    }
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
