//! Listing of a table's archive by day, in both layouts (`archive/` and `compacted/`), including unrecognized keys.

use std::collections::{BTreeMap, BTreeSet};

use millrace_archive::store::{ArchiveStore, StoreError};
use millrace_archive::{ARCHIVE, ArchiveDay, ArchiveKey, COMPACTED};

/// An object of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveObject {
    /// The object's key.
    pub key: String,
    /// The parsed key.
    pub name: ArchiveKey,
    /// The compressed size in bytes.
    pub bytes: u64,
}

/// The objects of a day.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DayListing {
    /// The objects: first those that the archiver wrote, then the compacted ones.
    pub objects: Vec<ArchiveObject>,
    /// Unrecognized keys: neither the archiver nor a compaction wrote them.
    pub unrecognized: Vec<String>,
}

/// The days for which the archive contains objects.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ArchiveDays {
    /// The days, in order.
    pub days: BTreeSet<ArchiveDay>,
    /// Unrecognized keys next to the days; the key of a folder ends in a slash.
    pub unrecognized: Vec<String>,
}

/// Lists the days for which the archive contains objects.
///
/// # Errors
/// [`StoreError`] if the archive cannot be listed.
pub async fn days(store: &ArchiveStore, table: &str) -> Result<ArchiveDays, StoreError> {
    let mut found = ArchiveDays::default();
    for root in [ARCHIVE, COMPACTED] {
        found.unrecognized.extend(store.list_with_delimiter(root).await?.objects);
        let prefix = format!("{root}{table}/");
        let level = store.list_with_delimiter(&prefix).await?;
        found.unrecognized.extend(level.objects);
        for folder in level.folders {
            let day = folder.strip_prefix(&prefix).and_then(|of| of.strip_prefix("dt=")?.strip_suffix('/'));
            match day.and_then(ArchiveDay::parse) {
                Some(day) => drop(found.days.insert(day)),
                None => found.unrecognized.push(folder),
            }
        }
    }
    Ok(found)
}

/// Lists the objects of a day.
///
/// # Errors
/// [`StoreError`] if the archive cannot be listed.
pub async fn list_day(store: &ArchiveStore, table: &str, day: ArchiveDay) -> Result<DayListing, StoreError> {
    let mut listing = DayListing::default();
    for root in [ARCHIVE, COMPACTED] {
        for stored in store.list(&format!("{root}{table}/dt={day}/")).await? {
            match ArchiveKey::parse(&stored.key) {
                Ok(name) => listing.objects.push(ArchiveObject { key: stored.key, name, bytes: stored.size_bytes }),
                Err(_) => listing.unrecognized.push(stored.key),
            }
        }
    }
    Ok(listing)
}

/// Groups the compacted objects by run. Returns the total size of each run, and its parts in order: together they form
/// one sorted sequence of rows.
#[must_use]
pub fn group_by_run(objects: &[ArchiveObject]) -> Vec<(u64, Vec<String>)> {
    let mut runs: BTreeMap<&str, (u64, Vec<String>)> = BTreeMap::new();
    for object in objects {
        if let ArchiveKey::Compacted(key) = &object.name {
            let (bytes, parts) = runs.entry(&key.run).or_default();
            *bytes += object.bytes;
            parts.push(object.key.clone());
        }
    }
    for (_, parts) in runs.values_mut() {
        parts.sort();
    }
    runs.into_values().collect()
}
