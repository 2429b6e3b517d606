//! The selection of a batch's records: which become rows, and in which object.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use millrace_shared::change::{CanonicalKey, Change, ChangeKind, ItemImage, replace_stream_steps};
use millrace_shared::revision::Revision;
use millrace_shared::stream::{CONTRADICTION, StreamRecord, is_same_change};
use time::OffsetDateTime;

use super::{ArchiveHour, ArchiveRow};

/// The accepted years of a record's time. DynamoDB was released in 2012; a missing time that was converted to 0 is
/// earlier, and a time in milliseconds is later.
const YEARS: std::ops::RangeInclusive<i32> = 2012..=2199;

/// A batch, partitioned for the archive.
#[derive(Debug, Default)]
pub struct ArchiveBatch<'a> {
    /// The rows, grouped by the object that they belong to.
    pub partitions: Vec<HourPartition<'a>>,
    /// The records that can never become rows.
    pub unarchivable: Vec<RejectedRecord>,
    /// Number of records that are not TTL removals and are ignored.
    pub skipped: usize,
}

/// One table's rows of one hour, which form one object.
#[derive(Debug)]
pub struct HourPartition<'a> {
    /// The table that they were removed from.
    pub table: &'a str,
    /// The hour in which they were removed.
    pub hour: ArchiveHour,
    /// The rows in the order of the batch.
    pub rows: Vec<ArchiveRow<'a>>,
    /// The index in the batch of each row's record, in the order of the rows. If the object cannot be put, Lambda must
    /// redeliver the batch from the record with the lowest sequence number among them.
    pub records: Vec<usize>,
}

/// A record that can never become a row.
#[derive(Debug, PartialEq, Eq)]
pub struct RejectedRecord {
    /// Index of the record in the batch.
    pub index: usize,
    /// The reason, which names the offending field.
    pub reason: String,
    /// Whether the record has the same item and sequence number as an earlier record but different content. The archive
    /// identifies a row by its key and revision, so it has no name for a second one.
    pub contradicts: bool,
}

/// A stream that does not carry the items that TTL removes. The cause is the table's stream configuration, not a
/// record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the stream {stream} does not include old images (StreamViewType {view}), so TTL deletes cannot be archived: {}",
    replace_stream_steps(stream)
)]
pub struct MissingOldImageError {
    stream: String,
    view: String,
}

/// Partitions a batch by how each record is processed, as [`rows_from_changes`] does. A record that cannot be parsed is
/// among the rejected ones, because it may be a TTL removal.
///
/// # Errors
/// [`MissingOldImageError`] if a TTL removal has no item because the stream view does not include old images.
pub fn rows_from_removals<'a>(records: &'a [StreamRecord<'_>]) -> Result<ArchiveBatch<'a>, MissingOldImageError> {
    let readable: Vec<&Change<'_>> = records.iter().filter_map(|record| record.read.as_ref().ok()).collect();
    let mut selection = rows_from_changes(&readable)?;
    let unreadable = records.iter().enumerate().filter_map(|(index, record)| {
        let reason = record.read.as_ref().err()?.to_string();
        Some(RejectedRecord { index, reason, contradicts: false })
    });
    selection.unarchivable.extend(unreadable);
    selection.unarchivable.sort_by_key(|rejected| rejected.index);
    Ok(selection)
}

/// Fails if the changes come from a stream without old images, whether a TTL removal is among them or not.
///
/// # Errors
/// [`MissingOldImageError`] if the view of a change does not include old images.
pub fn require_old_images(changes: &[&Change<'_>]) -> Result<(), MissingOldImageError> {
    changes.iter().find(|change| !shows_old_images(change)).map_or(Ok(()), |change| Err(no_old_image(change)))
}

/// Partitions the changes of a batch by how each is processed. Every TTL removal becomes a row, including a second
/// removal of the same key and one that a later change of the batch superseded: the archive does not deduplicate by
/// key.
///
/// # Errors
/// [`MissingOldImageError`] if a TTL removal has no item because the stream view does not include old images.
pub fn rows_from_changes<'a>(changes: &[&'a Change<'_>]) -> Result<ArchiveBatch<'a>, MissingOldImageError> {
    let mut selection = ArchiveBatch::default();
    let mut partition_of: BTreeMap<(&str, ArchiveHour), usize> = BTreeMap::new();
    let contradicting = contradicting(changes);
    for &change in changes {
        let index = change.index;
        let contradicts = contradicting.contains(&index);
        let mut refuse = |reason| selection.unarchivable.push(RejectedRecord { index, reason, contradicts });
        if contradicts {
            refuse(format!("{CONTRADICTION}: that one was archived"));
            continue;
        }
        let ChangeKind::Remove { expired: true, image } = change.effect else {
            selection.skipped += 1;
            continue;
        };
        let Some(image) = image else {
            if !shows_old_images(change) {
                return Err(no_old_image(change));
            }
            refuse("dynamodb.OldImage is missing, or does not contain the key".to_owned());
            continue;
        };
        let removed_at = match removal_time(change.approximate_creation_time) {
            Ok(removed_at) => removed_at,
            Err(reason) => {
                refuse(reason);
                continue;
            }
        };
        let (table, hour) = (change.source.table(), ArchiveHour::from_datetime(removed_at));
        let number = *partition_of.entry((table, hour)).or_insert_with(|| {
            selection.partitions.push(HourPartition { table, hour, rows: Vec::new(), records: Vec::new() });
            selection.partitions.len() - 1
        });
        let partition = &mut selection.partitions[number];
        partition.rows.push(row(change, removed_at, image));
        partition.records.push(index);
    }
    Ok(selection)
}

/// Returns the indexes of the TTL removals that contradict an earlier one. A shard delivers its records in ascending
/// order of their sequence numbers, so the records are compared only if that order is broken.
fn contradicting(changes: &[&Change<'_>]) -> BTreeSet<usize> {
    if changes.is_sorted_by(|one, next| one.revision < next.revision) {
        return BTreeSet::new();
    }
    let mut first_of: HashMap<(&CanonicalKey, Revision), &Change<'_>> = HashMap::new();
    let mut contradicting = BTreeSet::new();
    for &change in changes {
        // A removal that cannot become a row is rejected for that reason, and a later record cannot contradict it.
        let is_row = removal_time(change.approximate_creation_time).is_ok();
        if let ChangeKind::Remove { expired: true, image: Some(_) } = change.effect
            && is_row
        {
            let first = first_of.entry((change.key.canonical(), change.revision)).or_insert(change);
            if !is_same_change(first, change) {
                contradicting.insert(change.index);
            }
        }
    }
    contradicting
}

fn row<'a>(change: &'a Change<'_>, removed_at: OffsetDateTime, item: ItemImage<'a>) -> ArchiveRow<'a> {
    ArchiveRow {
        key: change.key.canonical(),
        revision: change.revision,
        removed_at,
        event_id: change.event_id.as_deref().map(Into::into),
        item: item.get(),
    }
}

fn removal_time(at: Option<OffsetDateTime>) -> Result<OffsetDateTime, String> {
    const FIELD: &str = "dynamodb.ApproximateCreationDateTime";
    match at {
        Some(at) if YEARS.contains(&at.year()) => Ok(at),
        Some(at) => Err(format!("{FIELD} is in the year {}: expected epoch seconds in the years {YEARS:?}", at.year())),
        None => Err(format!("{FIELD} is missing or not a time in epoch seconds")),
    }
}

/// Returns whether the stream view includes old images, as far as the record says.
fn shows_old_images(change: &Change<'_>) -> bool {
    change.view.as_deref().is_none_or(|view| ["OLD_IMAGE", "NEW_AND_OLD_IMAGES"].contains(&view))
}

fn no_old_image(change: &Change<'_>) -> MissingOldImageError {
    MissingOldImageError {
        stream: change.source.arn().to_owned(),
        view: change.view.as_deref().unwrap_or("unknown").to_owned(),
    }
}
