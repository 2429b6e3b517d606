//! Checks of task runs: the counts and the report of a run that transient errors interrupted.
//!
//! A run is invoked as the state machine invokes it, each invocation with the last cursor. The counts of every
//! completed run must agree with its report. The runs at the end of a scenario are interrupted after a number of calls
//! that is derived from the scenario's events, because an additional draw would change the scenario of every seed.
//! Nothing else happens meanwhile, so each of these runs must end, and must have counted every item, and reported every
//! failure object, exactly once.

use std::collections::BTreeMap;
use std::rc::Rc;

use millrace_maintenance::failure_record;
use millrace_maintenance::task::TaskResponse;
use millrace_maintenance::task::summary::is_result;
use serde_json::Value;

use super::apply::{REDRIVE, VERIFY};
use super::checker::CheckVerdict;
use super::cloud::{FAILURES, SimBucket};
use super::stage::SimStage;
use super::world::SimState;

/// Runs of one task until nothing is left to do; the first one is interrupted.
const RUNS: usize = 3;
/// Retries of failed invocations in a run: more than its interruptions.
const RETRIES: usize = 3;
/// The maximum number of calls before an interruption. Most runs make fewer.
const MAX_CALLS: usize = 24;
/// The counts for which a report has entries.
const REPORTED: [&str; 11] = [
    "missing",
    "different",
    "resurrected",
    "extra",
    "quarantined",
    "repaired",
    "failed",
    "objects",
    "skipped",
    "redriven",
    "records",
];

impl<S: SimStage> SimState<'_, S> {
    /// Runs a task until nothing is left to do.
    pub(super) async fn carry_out(&mut self, request: &str) -> CheckVerdict {
        // A verify changes nothing, so a second one would find the same.
        let runs = if request == VERIFY { 1 } else { RUNS };
        for run in 0..runs {
            let failed =
                if request == REDRIVE { failure_objects(&self.stage.objects(FAILURES).await) } else { Vec::new() };
            if run == 0 {
                let events = self.source.records.len() * 7 + self.runs_started * 5 + self.discarded;
                self.injector.interrupt([events % MAX_CALLS, events / 3 % MAX_CALLS]);
            }
            self.start_run(Rc::clone(&self.maintenance), request, RETRIES);
            self.run_all().await;
            self.injector.interrupt([]);
            let done =
                self.runs.borrow().last().filter(|done| done.run_id == format!("run-{}", self.runs_started)).cloned();
            let done = done.ok_or_else(|| format!("{request} does not end"))?;
            self.is_complete(&done, failed).await.map_err(|reason| format!("{request}: {reason}"))?;
        }
        Ok(())
    }

    /// Fails unless the run has counted every item and reported every failure object.
    async fn is_complete(&self, done: &TaskResponse, failed: Vec<String>) -> CheckVerdict {
        let items = self.source.items.iter().flatten().count() as u64;
        let count = |sink: &str, names: &[&str]| -> u64 {
            names.iter().map(|name| done.progress.get(&format!("{sink}.{name}"))).sum()
        };
        let of_every_item: &[(&str, &[&str])] = match done.task.as_str() {
            "backfill" => &[
                ("source", &["items"]),
                ("wide", &["written", "skipped", "failed", "filtered"]),
                ("small", &["written", "skipped", "failed", "filtered"]),
            ],
            "verify" => &[("source", &["items"]), ("wide", &["equal"]), ("small", &["equal"])],
            "repair" => &[("source", &["items"])],
            _ => &[],
        };
        for (sink, names) in of_every_item {
            let counted = count(sink, names);
            let expected = match (done.task.as_str(), *sink) {
                ("verify", "wide") => self.stored_items(0),
                ("verify", "small") => self.stored_items(1),
                _ => items,
            };
            if counted != expected {
                return Err(format!("{sink} has {counted} of {expected} items ({names:?}): {}", done.progress));
            }
        }
        if done.task == "verify" && done.differences > 0 {
            return Err(format!("differences where there are none: {}", done.progress));
        }
        if done.task == "redrive" {
            let report = report(&self.stage.objects(FAILURES).await, &done.run_id);
            let mut reported: Vec<&str> = report.iter().map(|entry| entry["object"].as_str().unwrap()).collect();
            reported.sort_unstable();
            if reported != failed {
                return Err(format!("the report is of {reported:?}, and there were {failed:?}"));
            }
        }
        Ok(())
    }

    /// Returns the number of the source's items that a replica stores.
    fn stored_items(&self, sink: usize) -> u64 {
        let (source, table) = (&self.source, &self.source.table);
        let items = source.items.iter().enumerate().filter_map(|(item, kind)| table.stored(sink, item, (*kind)?));
        items.count() as u64
    }

    /// Fails unless the counts of every completed run agree with its report.
    pub(super) async fn reports_agree_with_counts(&self) -> CheckVerdict {
        if self.runs.borrow().is_empty() {
            return Ok(());
        }
        let objects = self.stage.objects(FAILURES).await;
        for done in &*self.runs.borrow() {
            let mut reported = BTreeMap::<String, u64>::new();
            for entry in report(&objects, &done.run_id) {
                for (name, more) in counts_of(done, &entry) {
                    *reported.entry(name).or_default() += more;
                }
            }
            let mut counted: BTreeMap<String, u64> =
                serde_json::from_value(serde_json::to_value(&done.progress).unwrap()).unwrap();
            // A backfill skips the items that a replica has already, without an entry.
            let is_reported = |kind: &str| REPORTED.contains(&kind) && (done.task != "backfill" || kind != "skipped");
            counted.retain(|name, _| name.rsplit_once('.').is_some_and(|(_, kind)| is_reported(kind)));
            reported.retain(|_, count| *count > 0);
            if counted != reported {
                let (task, run) = (&done.task, &done.run_id);
                return Err(format!("{run} of {task} counted {counted:?}, and its report has {reported:?}"));
            }
        }
        Ok(())
    }
}

/// The counts that an entry of a report contributes to.
fn counts_of(done: &TaskResponse, entry: &Value) -> Vec<(String, u64)> {
    let text = |member: &str| entry[member].as_str();
    if done.task == "redrive" {
        let records = entry["records"].as_u64().unwrap_or_default();
        let outcome = format!("redrive.{}", text("outcome").unwrap());
        return vec![("redrive.objects".to_owned(), 1), ("redrive.records".to_owned(), records), (outcome, 1)];
    }
    let sink = text("sink").unwrap();
    [text("kind"), text("outcome")].into_iter().flatten().map(|kind| (format!("{sink}.{kind}"), 1)).collect()
}

/// The entries of a run's report.
fn report(objects: &SimBucket, run: &str) -> Vec<Value> {
    let below = format!("reports/{run}/");
    let parts = objects.iter().filter(|(name, _)| name.starts_with(&below) && !is_result(name));
    let texts = parts.map(|(_, part)| std::str::from_utf8(&part.bytes).unwrap());
    texts.flat_map(str::lines).map(|entry| serde_json::from_str(entry).unwrap()).collect()
}

/// The names of the failure objects, sorted.
fn failure_objects(objects: &SimBucket) -> Vec<String> {
    let failed = |name: &&String| {
        name.starts_with(failure_record::QUARANTINE) || name.starts_with(failure_record::ON_FAILURE_PREFIX)
    };
    objects.keys().filter(failed).cloned().collect()
}
