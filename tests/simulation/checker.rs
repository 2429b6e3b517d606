//! The checks of a scenario's final state.
//!
//! Once no more faults occur and all records are delivered, each replica equals its source on every key without an
//! outstanding failure; items that an incident outside of the guarantees affected equal the source after a backfill or
//! a repair. The quarantine contains the poison records and nothing else. Once the causes are removed and the failures
//! are redriven, no failure is outstanding except records that can never be archived, and all replicas equal the
//! source; in every third scenario a `verify` confirms this. The archive contains the items that TTL removed and
//! nothing else, whether an archiver reads the stream or the archive is a sink of the replicator. The counts of every task run agree with its report, and a run that transient errors interrupted has
//! counted and reported everything exactly once ([`super::runs`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;

use millrace_archive::{KeyNames, MergeIterator, RowReader};
use millrace_maintenance::failure_record;
use millrace_shared::revision::{Revision, StreamLabel};
use millrace_shared::stream;
use millrace_sinks::archive;

use super::action::SimFunction;
use super::apply::{BACKFILL, LONG, REDRIVE, REPAIR, VERIFY};
use super::cloud::{ARCHIVE, FAILURES, SimBucket};
use super::source::{ITEMS, PoisonKind, SimRecord, SourceWrite, WriteKind};
use super::stage::SimStage;
use super::world::SimState;
use crate::replication::rig::record_digest;

/// The result of a check: an error describes the violation.
pub(super) type CheckVerdict = Result<(), String>;

/// A record that failed, and the function and sink in which it failed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct FailedCheck {
    function: SimFunction,
    /// `None` if the change may be missing in any sink.
    sink: Option<String>,
    /// The index of the record in the scenario.
    record: usize,
}

impl<S: SimStage> SimState<'_, S> {
    /// Ends the scenario and checks the final state.
    pub(super) async fn finish(&mut self) -> CheckVerdict {
        self.injector.end_of_troubles();
        self.drain().await;
        self.land_all().await;
        let outstanding = self.outstanding().await?;
        self.is_as_the_source(&outstanding, true, "when all is delivered").await?;
        self.quarantine_is_the_poison().await?;

        if !self.unfilled.is_empty() {
            self.carry_out(BACKFILL).await?;
            let unfilled = std::mem::take(&mut self.unfilled);
            let left = (0..ITEMS).filter(|item| self.source.items[*item].is_some_and(WriteKind::is_unusual));
            self.untrusted.extend(left.flat_map(|item| unfilled.iter().map(move |sink| (*sink, item))));
            self.is_as_the_source(&outstanding, true, "after a backfill").await?;
        }
        if !self.untrusted.is_empty() {
            self.carry_out(REPAIR).await?;
            // The repair skips items that the sink cannot store; they have no outstanding failure if the sink missed
            // their record.
            self.untrusted.retain(|(_, item)| self.source.items[*item].is_some_and(WriteKind::is_unusual));
            self.is_as_the_source(&outstanding, true, "after a repair").await?;
        }

        // Remove the causes of the failures.
        self.replicas[1].grow();
        for item in 0..ITEMS {
            if let Some(WriteKind::Reserved(value)) = self.source.items[item] {
                self.report_progress(item, SourceWrite::Written(WriteKind::Plain(value)), None, 0).await;
            }
        }
        self.drain().await;
        if !self.untrusted.is_empty() {
            self.carry_out(REPAIR).await?;
            self.untrusted.clear();
        }
        if !outstanding.is_empty() {
            self.is_as_the_source(&self.outstanding().await?, true, "once the causes are gone").await?;
            let old = |failed: &FailedCheck| self.now - self.source.records[failed.record].at >= LONG;
            if outstanding.iter().any(old) {
                self.injector.see("redrive: after the tombstone expired");
            }
            self.carry_out(REDRIVE).await?;
        }
        self.nothing_is_outstanding().await?;
        self.is_as_the_source(&BTreeSet::new(), false, "after a redrive").await?;
        if self.source.records.len().is_multiple_of(3) {
            self.carry_out(VERIFY).await?;
        }
        self.reports_agree_with_counts().await?;
        self.archive_is_what_ttl_removed().await
    }

    /// Fails if a failure is outstanding, except in objects of the archiving function that contain a record that can
    /// never be archived.
    async fn nothing_is_outstanding(&self) -> CheckVerdict {
        let left = self.failures(&self.stage.objects(FAILURES).await, "")?;
        let timeless = |failed: &FailedCheck| self.source.records[failed.record].poison == Some(PoisonKind::Timeless);
        let excused: BTreeSet<&String> =
            left.iter().filter(|(failed, _)| timeless(failed)).map(|(_, object)| object).collect();
        let inexcusable = |(failed, object): &&(FailedCheck, String)| {
            failed.function != self.archiving_function() || !excused.contains(object)
        };
        match left.iter().find(inexcusable) {
            Some((failed, object)) => {
                let record = &self.source.records[failed.record];
                Err(format!("{object} is outstanding after a redrive: {record:?}"))
            }
            None => Ok(()),
        }
    }

    /// The records in the failure bucket.
    async fn outstanding(&self) -> Result<BTreeSet<FailedCheck>, String> {
        self.failures(&self.stage.objects(FAILURES).await, "")
            .map(|found| found.into_iter().map(|(failed, _)| failed).collect())
    }

    /// The failures below a prefix, each with the name of the object that contains it.
    fn failures(&self, objects: &SimBucket, below: &str) -> Result<Vec<(FailedCheck, String)>, String> {
        let mut found = Vec::new();
        for (name, object) in objects {
            let Some(name) = name.strip_prefix(below) else { continue };
            if !name.starts_with(failure_record::QUARANTINE) && !name.starts_with(failure_record::ON_FAILURE_PREFIX) {
                continue;
            }
            let failure = failure_record::read(name, &object.bytes, &self.maintenance.functions);
            let failure = failure.map_err(|error| format!("{name}: {error}"))?;
            let function = match failure.function {
                failure_record::FailedFunction::Replicator => SimFunction::Replicator,
                failure_record::FailedFunction::Archiver => SimFunction::Archiver,
            };
            let batch = stream::read(&failure.event).map_err(|error| format!("{name}: {error}"))?;
            for record in batch.records {
                let same = |known: &SimRecord| known.json == record.raw.get();
                let record = self.source.records.iter().position(same);
                let record = record.ok_or_else(|| format!("{name} holds a record that the stream did not"))?;
                found.push((FailedCheck { function, sink: failure.sink.clone(), record }, name.to_owned()));
            }
        }
        Ok(found)
    }

    async fn is_as_the_source(&self, outstanding: &BTreeSet<FailedCheck>, spared: bool, when: &str) -> CheckVerdict {
        for sink in 0..2 {
            let held = self.stage.held(sink).await;
            if let Some(stranger) = held.keys().find(|key| self.source.table.item_of(key).is_none()) {
                return Err(format!("sink {sink} holds {stranger}"));
            }
            let name = ["wide", "small"][sink];
            for item in 0..ITEMS {
                let failed = |failed: &FailedCheck| {
                    failed.function == SimFunction::Replicator
                        && self.source.records[failed.record].item == item
                        && failed.sink.as_deref().is_none_or(|its| its == name)
                };
                let befallen = self.untrusted.contains(&(sink, item)) || self.unfilled.contains(&sink);
                if spared && (befallen || outstanding.iter().any(failed)) {
                    continue;
                }
                let table = &self.source.table;
                let expected = self.source.items[item].and_then(|kind| table.stored(sink, item, kind));
                let there = held.get(table.key(item));
                if expected.is_none() && self.source.items[item].is_some() {
                    self.injector.see(match there {
                        Some(_) => "rules: a tombstone of an item in the source",
                        None => "rules: an item that was never stored",
                    });
                }
                let equal = match (&expected, there.and_then(|held| held.item())) {
                    (Some(expected), Some(there)) => expected.eq_by_value(there),
                    (None, None) => true,
                    _ => false,
                };
                if !equal {
                    let expected = self.source.items[item];
                    return Err(format!("item {item} of sink {name} is {there:?} {when}, and not {expected:?}"));
                }
            }
        }
        Ok(())
    }

    /// The function and sink in which a record is quarantined, for each in which it is a poison record.
    fn poisoned(&self, position: usize) -> Vec<(SimFunction, &'static str)> {
        let record = &self.source.records[position];
        match (record.poison, record.what) {
            (Some(PoisonKind::Unreadable), _) => vec![(SimFunction::Replicator, "read")],
            (Some(PoisonKind::Timeless), _) if self.features.archive_is_sink() => {
                vec![(SimFunction::Replicator, archive::NAME)]
            }
            (Some(PoisonKind::Timeless), _) => vec![(SimFunction::Archiver, "s3")],
            (None, SourceWrite::Written(kind)) => {
                let refused: &[usize] = match kind {
                    WriteKind::Reserved(_) => &[0, 1],
                    WriteKind::Large(_) => &[1],
                    WriteKind::Plain(_) => &[],
                };
                // An item that the filter leaves out is not written.
                let stored = |sink: &&usize| self.source.table.stored(**sink, record.item, kind).is_some();
                let refused = refused.iter().filter(stored);
                refused.map(|sink| (SimFunction::Replicator, ["wide", "small"][*sink])).collect()
            }
            _ => Vec::new(),
        }
    }

    async fn quarantine_is_the_poison(&self) -> CheckVerdict {
        let objects = self.stage.objects(FAILURES).await;
        let mut failed = self.failures(&objects, "")?;
        failed.extend(self.failures(&objects, "redriven/")?);
        let discarded: BTreeSet<(SimFunction, usize)> = failed
            .iter()
            .filter(|(_, object)| object.starts_with(failure_record::ON_FAILURE_PREFIX))
            .map(|(failed, _)| (failed.function, failed.record))
            .collect();
        let aside: BTreeSet<&String> = failed
            .iter()
            .map(|(_, object)| object)
            .filter(|object| object.starts_with(failure_record::QUARANTINE))
            .collect();
        let mut poison = BTreeSet::new();
        for (position, record) in self.source.records.iter().enumerate() {
            for (function, sink) in self.poisoned(position) {
                let label = StreamLabel::parse(&self.source.streams[record.stream].label).unwrap();
                let (number, digest) = (&record.number, record_digest(&record.json));
                let name = format!("quarantine/{}/{sink}/Users/{label}-{number}-{digest}.json", function.name());
                // A settled change is superseded by a later one of the same item in the same batch, but not for the
                // archive.
                let superseded = function == SimFunction::Replicator
                    && ![archive::NAME, "read"].contains(&sink)
                    && self.source.records[position + 1..].iter().any(|later| later.item == record.item);
                let must = self.settled[position][function as usize] && !superseded;
                if sink == archive::NAME && aside.contains(&name) {
                    self.injector.see("archive sink: poison");
                }
                if must && !aside.contains(&name) && !discarded.contains(&(function, position)) {
                    return Err(format!("{name} is poison and not in quarantine: {record:?}"));
                }
                poison.insert(name);
            }
        }
        match aside.iter().find(|name| !poison.contains(**name)) {
            Some(name) => Err(format!("{name} is in quarantine, and no poison")),
            None => Ok(()),
        }
    }

    async fn archive_is_what_ttl_removed(&self) -> CheckVerdict {
        let objects = self.stage.objects(ARCHIVE).await;
        let reader = |(name, object): (&String, &super::cloud::SimObject)| {
            RowReader::open(
                name,
                &object.metadata,
                KeyNames::new(self.source.table.key_names()),
                Cursor::new(object.bytes.clone()),
            )
        };
        let readers: Vec<_> =
            objects.iter().map(reader).collect::<Result<_, _>>().map_err(|corrupt| corrupt.to_string())?;
        let rows: Vec<_> =
            MergeIterator::new(readers).collect::<Result<_, _>>().map_err(|corrupt| corrupt.to_string())?;
        let stated = |object: &super::cloud::SimObject| object.metadata["rows"].parse::<usize>().unwrap();
        self.injector
            .see_many("archive: a row in two objects", objects.values().map(stated).sum::<usize>() - rows.len());
        let mut archived = BTreeMap::new();
        for row in rows {
            let item = self.source.table.item_of(&row.key);
            let item = item.ok_or_else(|| format!("{} is in the archive, and no item", row.key))?;
            archived.insert((item, row.revision), row.item.get().to_owned());
        }
        for (position, record) in self.source.records.iter().enumerate().filter(|(_, record)| record.is_expiry()) {
            let label = StreamLabel::parse(&self.source.streams[record.stream].label).unwrap();
            let row = archived.remove(&(record.item, Revision::new(label, record.number)));
            let timeless = record.poison == Some(PoisonKind::Timeless);
            let must = self.settled[position][self.archiving_function() as usize] && !timeless;
            let image = self.source.table.image(record.item, record.before.unwrap());
            match row {
                Some(row) if timeless || row != image => return Err(format!("{row} is in the archive for {record:?}")),
                None if must => return Err(format!("{record:?} is not in the archive")),
                _ => {}
            }
        }
        match archived.into_iter().next() {
            Some((row, _)) => Err(format!("{row:?} is in the archive, and TTL did not remove it")),
            None => Ok(()),
        }
    }
}
