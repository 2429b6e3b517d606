//! Redrive of records that may be missing in the archive: items that TTL removed become rows.

use std::collections::BTreeMap;

use millrace_archive::writer::ArchiveWriter;
use millrace_archive::{ArchiveBatch, ArchiveHour, ArchiveRow, RejectedRecord};
use millrace_shared::stream::{StreamRecord, may_be_expiry, read};
use serde_json::value::RawValue;

use super::{OpenFailure, open_for, wrong_table_reason};
use crate::failure_record::FailedFunction;
use crate::task::context::TaskContext;

/// Returns the records of an object that may be archived, and a reason if there are others that may not.
fn records_of_source<'e>(event: &'e RawValue, context: &TaskContext<'_>) -> (Vec<StreamRecord<'e>>, Option<String>) {
    let records = read(event).map(|batch| batch.records).unwrap_or_default();
    let strange =
        |(position, record)| Some(format!("record {}: {}", position + 1, wrong_table_reason(record, context.source)?));
    let reason = records.iter().enumerate().find_map(strange);
    (records.into_iter().filter(|record| wrong_table_reason(record, context.source).is_none()).collect(), reason)
}

/// Returns the rows of an object's records, and a reason if some records cannot be archived.
///
/// The archiver receives TTL removals only, the replicator every change: an unreadable record of the replicator counts
/// only if it may be a TTL removal.
fn selected<'r>(records: &'r [StreamRecord<'_>], function: FailedFunction) -> (ArchiveBatch<'r>, Option<String>) {
    let is_other_change = |rejected: &RejectedRecord| {
        let record = records.get(rejected.index).filter(|record| record.read.is_err());
        function == FailedFunction::Replicator && record.is_some_and(|record| !may_be_expiry(record.raw.to_raw()))
    };
    match millrace_archive::rows_from_removals(records) {
        Ok(mut selection) => {
            selection.unarchivable.retain(|rejected| !is_other_change(rejected));
            let reason = selection.unarchivable.first().map(|one| format!("record {}: {}", one.index + 1, one.reason));
            (selection, reason)
        }
        Err(fault) => (ArchiveBatch::default(), Some(fault.to_string())),
    }
}

/// The rows of a table and hour, and the indexes of the failure objects that contained them.
#[derive(Default)]
struct RedrivePartition<'r> {
    rows: Vec<ArchiveRow<'r>>,
    holders: Vec<usize>,
}

/// Archives all records that can be archived, as one archive object per table and hour; returns the number of rows. A
/// dry run creates the same objects, but uploads none.
pub(super) async fn redrive(context: &TaskContext<'_>, objects: &mut [OpenFailure], dry_run: bool) -> usize {
    let mut objects: Vec<&mut OpenFailure> = open_for(objects, |targets| targets.archive).collect();
    let events: Vec<Box<RawValue>> = objects.iter().map(|object| object.failure.event.clone()).collect();
    let batches: Vec<_> = events.iter().map(|event| records_of_source(event, context)).collect();
    let mut partitions: BTreeMap<(&str, ArchiveHour), RedrivePartition<'_>> = BTreeMap::new();
    for (position, (records, strange)) in batches.iter().enumerate() {
        let (selection, reason) = selected(records, objects[position].failure.function);
        if let Some(reason) = strange.clone().or(reason) {
            objects[position].skip(reason);
        }
        for partition in selection.partitions {
            let whole = partitions.entry((partition.table, partition.hour)).or_default();
            whole.rows.extend(partition.rows);
            whole.holders.push(position);
        }
    }
    let mut archived = 0;
    for ((table, hour), RedrivePartition { rows, holders }) in partitions {
        let count = rows.len();
        match put(context, table, hour, rows, dry_run).await {
            Ok(()) => archived += count,
            Err(reason) => holders.into_iter().for_each(|position| objects[position].skip(reason.clone())),
        }
    }
    archived
}

async fn put(
    context: &TaskContext<'_>,
    table: &str,
    hour: ArchiveHour,
    rows: Vec<ArchiveRow<'_>>,
    dry_run: bool,
) -> Result<(), String> {
    let archive = context.archive().map_err(|error| error.to_string())?;
    if dry_run {
        return millrace_archive::write(table, hour, rows, context.compression)
            .map(drop)
            .map_err(|error| error.to_string());
    }
    let writer = ArchiveWriter::new(archive.clone(), context.compression);
    writer.write(table, hour, rows).await.map(drop).map_err(|error| error.to_string())
}
