//! Which records of a batch become rows of which object.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use shared::change::{CanonicalKey, Change, ChangeKind, ItemImage};
use shared::revision::Revision;
use shared::stream::{StreamRecord, is_same_change};
use time::OffsetDateTime;

use super::{ArchiveHour, ArchiveRow};

/// The years that a record's time may lie in: DynamoDB began in 2012. A missing time that was made a 0 on the way lies
/// before, one in milliseconds beyond.
const YEARS: std::ops::RangeInclusive<i32> = 2012..=2199;

/// What a batch holds for the archive.
#[derive(Debug, Default)]
pub struct ArchiveBatch<'a> {
    /// The rows, by the object that they belong to.
    pub partitions: Vec<HourPartition<'a>>,
    /// The records that can never become rows.
    pub unarchivable: Vec<RejectedRecord>,
    /// How many records are none of the archive's business: all but TTL removals.
    pub skipped: usize,
}

/// One table's rows of one hour: one object.
#[derive(Debug)]
pub struct HourPartition<'a> {
    /// The table that they were removed from.
    pub table: &'a str,
    /// The hour they were removed in.
    pub hour: ArchiveHour,
    /// The place in the batch of the one with the lowest sequence number: if the object cannot be put, Lambda shall
    /// resend from there.
    pub lowest: usize,
    /// As they came.
    pub rows: Vec<ArchiveRow<'a>>,
}

/// A record that can never become a row.
#[derive(Debug, PartialEq, Eq)]
pub struct RejectedRecord {
    /// Its place in the batch.
    pub index: usize,
    /// Why, in words that name the field.
    pub reason: String,
    /// Whether it has the item and the sequence number of an earlier record and tells something else: the archive knows no
    /// name for a second one.
    pub contradicts: bool,
}

/// The stream does not show what TTL removes: a fault of the table's stream, not of a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the stream {stream} carries no old images (its view is {view}): nothing that TTL removes can be archived; \
     give the table a stream of NEW_AND_OLD_IMAGES or OLD_IMAGE"
)]
pub struct MissingOldImageError {
    stream: String,
    view: String,
}

/// Sorts a batch by what is to be done with each record. Every TTL removal becomes a row, also the second one of the
/// same key: the archive settles nothing.
///
/// # Errors
/// [`MissingOldImageError`] if a TTL removal comes without its item because the stream's view has none.
pub fn rows_from_removals<'a>(records: &'a [StreamRecord<'_>]) -> Result<ArchiveBatch<'a>, MissingOldImageError> {
    let mut selection = ArchiveBatch::default();
    let mut places: BTreeMap<(&str, ArchiveHour), usize> = BTreeMap::new();
    let contradicting = contradicting(records);
    for (index, record) in records.iter().enumerate() {
        let contradicts = contradicting.contains(&index);
        let mut refuse = |reason| selection.unarchivable.push(RejectedRecord { index, reason, contradicts });
        if contradicts {
            refuse(CONTRADICTION.to_owned());
            continue;
        }
        let change = match &record.read {
            Ok(change) => change,
            Err(unreadable) => {
                refuse(unreadable.to_string());
                continue;
            }
        };
        let ChangeKind::Remove { expired: true, image } = change.effect else {
            selection.skipped += 1;
            continue;
        };
        let Some(image) = image else {
            if !shows_old_images(change) {
                return Err(no_old_image(change));
            }
            refuse("dynamodb.OldImage is missing, or lacks the key".to_owned());
            continue;
        };
        let removed_at = match removal_time(change.approximate_creation_time) {
            Ok(removed_at) => removed_at,
            Err(reason) => {
                refuse(reason);
                continue;
            }
        };
        let (table, hour) = (change.source.table(), ArchiveHour::of(removed_at));
        let place = *places.entry((table, hour)).or_insert_with(|| {
            selection.partitions.push(HourPartition { table, hour, lowest: index, rows: Vec::new() });
            selection.partitions.len() - 1
        });
        let partition = &mut selection.partitions[place];
        if record.number < records[partition.lowest].number {
            partition.lowest = index;
        }
        partition.rows.push(row(change, removed_at, image));
    }
    Ok(selection)
}

const CONTRADICTION: &str =
    "another record of this item has the same sequence number and tells something else: that one was archived";

/// The removals by TTL that contradict an earlier one. A shard's records come in the ascending order of their numbers, so
/// there is nothing to look for unless the order is broken.
fn contradicting(records: &[StreamRecord<'_>]) -> BTreeSet<usize> {
    if records.is_sorted_by(|one, next| one.number < next.number) {
        return BTreeSet::new();
    }
    let mut first_of: HashMap<(&CanonicalKey, Revision), &Change<'_>> = HashMap::new();
    let mut contradicting = BTreeSet::new();
    for (index, record) in records.iter().enumerate() {
        let Ok(change) = &record.read else { continue };
        // One that can become no row is refused for that, and is not what a second one contradicts.
        let is_row = removal_time(change.approximate_creation_time).is_ok();
        if let ChangeKind::Remove { expired: true, image: Some(_) } = change.effect
            && is_row
        {
            let first = first_of.entry((change.key.canonical(), change.revision)).or_insert(change);
            if !is_same_change(first, change) {
                contradicting.insert(index);
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
        Some(at) => Err(format!("{FIELD} lies in the year {}; it must be epoch seconds of {YEARS:?}", at.year())),
        None => Err(format!("{FIELD} is missing or not a time in epoch seconds")),
    }
}

/// Whether the stream's images are those that an archive needs, as far as the record tells.
fn shows_old_images(change: &Change<'_>) -> bool {
    change.view.as_deref().is_none_or(|view| ["OLD_IMAGE", "NEW_AND_OLD_IMAGES"].contains(&view))
}

fn no_old_image(change: &Change<'_>) -> MissingOldImageError {
    MissingOldImageError {
        stream: change.source.arn().to_owned(),
        view: change.view.as_deref().unwrap_or("not named").to_owned(),
    }
}
