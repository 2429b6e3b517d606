//! What the archive holds of a table, by the day, in both layouts; and what lies there that is not its own.

use std::collections::{BTreeMap, BTreeSet};

use archiver::archive::{ARCHIVE, ArchiveDay, ArchiveKey, COMPACTED};
use archiver::store::{ArchiveStore, StoreError};

/// An object of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveObject {
    /// Its key.
    pub key: String,
    /// The key taken apart.
    pub name: ArchiveKey,
    /// Its size, compressed.
    pub bytes: u64,
}

/// What the archive holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DayListing {
    /// The objects, those of the archiver before the compacted ones.
    pub objects: Vec<ArchiveObject>,
    /// Keys that neither the archiver nor a merge wrote.
    pub unrecognized: Vec<String>,
}

/// The days of which there is something.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DayRange {
    /// They, in order.
    pub days: BTreeSet<ArchiveDay>,
    /// What lies beside them; a folder ends in a slash.
    pub foreign: Vec<String>,
}

/// The days that the archive holds something of.
///
/// # Errors
/// [`StoreError`] if it cannot be listed.
pub async fn days(store: &ArchiveStore, table: &str) -> Result<DayRange, StoreError> {
    let mut found = DayRange::default();
    for root in [ARCHIVE, COMPACTED] {
        found.foreign.extend(store.list_with_delimiter(root).await?.objects);
        let prefix = format!("{root}{table}/");
        let level = store.list_with_delimiter(&prefix).await?;
        found.foreign.extend(level.objects);
        for folder in level.folders {
            let day = folder.strip_prefix(&prefix).and_then(|of| of.strip_prefix("dt=")?.strip_suffix('/'));
            match day.and_then(ArchiveDay::parse) {
                Some(day) => drop(found.days.insert(day)),
                None => found.foreign.push(folder),
            }
        }
    }
    Ok(found)
}

/// What the archive holds of a day.
///
/// # Errors
/// [`StoreError`] if it cannot be listed.
pub async fn list_day(store: &ArchiveStore, table: &str, day: ArchiveDay) -> Result<DayListing, StoreError> {
    let mut shelf = DayListing::default();
    for root in [ARCHIVE, COMPACTED] {
        for stored in store.list(&format!("{root}{table}/dt={day}/")).await? {
            match ArchiveKey::parse(&stored.key) {
                Ok(name) => shelf.objects.push(ArchiveObject { key: stored.key, name, bytes: stored.bytes }),
                Err(_) => shelf.unrecognized.push(stored.key),
            }
        }
    }
    Ok(shelf)
}

/// The compacted runs among these objects: how large each is, and its parts in their order, which are sorted as one.
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
