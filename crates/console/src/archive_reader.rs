//! The archive as the page Archive shows it: the days, the objects of a day and the rows of an object, page by page.
//!
//! A listing reads only the keys of its page, so that a day of any size can be shown.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use millrace_archive::store::{ArchiveStore, ObjectMeta};
use millrace_archive::{ARCHIVE, ArchiveDay, ArchiveKey, ArchivedRow, COMPACTED, KeyNames, ObjectMetadata};
use millrace_maintenance::MaintenanceHandler;
use millrace_maintenance::archive_objects::{ArchiveRowError, ChainedReader};
use tokio::runtime::Handle;

/// The number of objects of a page.
pub(crate) const OBJECTS: usize = 50;
/// The number of rows of a page.
pub(crate) const ROWS: usize = 25;
/// The number of rows of an object that can be reached: the ones before a page are read again for each page.
pub(crate) const MAX_ROWS: usize = 100_000;
/// The number of objects whose metadata is read at once.
const IN_FLIGHT: usize = 8;
/// The time limit of a page.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// The archive of the source table.
pub(crate) struct ArchiveReader {
    pub(crate) store: ArchiveStore,
    /// The table's name, as it is part of the keys.
    pub(crate) table: String,
    pub(crate) key_names: Vec<String>,
}

/// An object of a day.
pub(crate) struct ListedObject {
    pub(crate) key: String,
    pub(crate) bytes: u64,
    /// The number of rows and the times, or why they are not known.
    pub(crate) metadata: Result<ObjectMetadata, String>,
}

/// A page of the objects of a day.
pub(crate) struct ObjectPage {
    pub(crate) objects: Vec<ListedObject>,
    /// The last key of the page, if there are more.
    pub(crate) next: Option<String>,
}

/// A page of the rows of an object.
pub(crate) struct RowPage {
    pub(crate) rows: Vec<ArchivedRow>,
    pub(crate) has_more: bool,
}

impl ArchiveReader {
    /// Opens the archive of the source table; `None` if the deployment has no archive.
    ///
    /// # Errors
    /// The error of the source table, as text.
    pub(crate) async fn open(maintenance: &MaintenanceHandler) -> Result<Option<Self>, String> {
        let Some(store) = &maintenance.archive else { return Ok(None) };
        let description = within(maintenance.source.describe()).await?.map_err(|error| error.to_string())?;
        let table = description.arn.split_once(":table/").map_or(maintenance.source.name(), |(_, name)| name);
        Ok(Some(Self { store: store.clone(), table: table.to_owned(), key_names: description.key_names() }))
    }

    /// Returns the days for which the archive has objects, the latest first.
    ///
    /// # Errors
    /// The error of the bucket, as text.
    pub(crate) async fn days(&self) -> Result<Vec<ArchiveDay>, String> {
        let days = within(millrace_maintenance::catalog::days(&self.store, &self.table)).await?;
        Ok(days.map_err(|error| error.to_string())?.days.into_iter().rev().collect())
    }

    fn prefix(&self, root: &str, day: ArchiveDay) -> String {
        format!("{root}{}/dt={day}/", self.table)
    }

    /// Lists up to `most` objects of a day whose keys sort after `after`, and returns whether there are more.
    async fn list(&self, day: ArchiveDay, after: &str, most: usize) -> Result<(Vec<ObjectMeta>, bool), String> {
        let mut listed = Vec::new();
        for root in [ARCHIVE, COMPACTED] {
            let prefix = self.prefix(root, day);
            let is_inside = after.starts_with(&prefix);
            if !is_inside && after > prefix.as_str() {
                continue;
            }
            // One more than shown, which says whether there are more.
            while listed.len() <= most {
                let limit = i32::try_from(most + 1 - listed.len()).unwrap_or(i32::MAX).min(1_000);
                let start = match listed.last() {
                    Some(ObjectMeta { key, .. }) if key.starts_with(&prefix) => Some(key.clone()),
                    _ => is_inside.then(|| after.to_owned()),
                };
                let page = self.store.list_page(&prefix, start.as_deref(), limit).await;
                let page = page.map_err(|error| error.to_string())?;
                let is_last = page.len() < usize::try_from(limit).unwrap_or_default();
                listed.extend(page);
                if is_last {
                    break;
                }
            }
        }
        let has_more = listed.len() > most;
        listed.truncate(most);
        Ok((listed, has_more))
    }

    /// Returns a page of the objects of a day, after the key `after`; first those that the archiver wrote, then the
    /// compacted ones.
    ///
    /// # Errors
    /// The error of the bucket, as text.
    pub(crate) async fn objects(&self, day: ArchiveDay, after: &str) -> Result<ObjectPage, String> {
        let page = async {
            let (listed, has_more) = self.list(day, after, OBJECTS).await?;
            let next = listed.last().filter(|_| has_more).map(|object| object.key.clone());
            let described = stream::iter(listed).map(|object| async move {
                let metadata = match self.store.metadata(&object.key).await {
                    Err(error) => Err(error.to_string()),
                    Ok(None) => Err("was merged or deleted in the meantime".to_owned()),
                    Ok(Some(entries)) => ObjectMetadata::parse(&entries)
                        .map_err(|entry| format!("the metadata entry {entry} is missing or not valid")),
                };
                ListedObject { key: object.key, bytes: object.size_bytes, metadata }
            });
            Ok(ObjectPage { objects: described.buffered(IN_FLIGHT).collect().await, next })
        };
        within(Box::pin(page)).await?
    }

    /// Returns the keys and sizes of the first objects of a day, and whether there are more.
    ///
    /// # Errors
    /// The error of the bucket, as text.
    pub(crate) async fn first_objects(&self, day: ArchiveDay, most: usize) -> Result<(Vec<ObjectMeta>, bool), String> {
        within(Box::pin(self.list(day, "", most))).await?
    }

    /// Parses the key of an object of this table.
    ///
    /// # Errors
    /// The key, and the fix.
    pub(crate) fn parse_key(&self, key: &str) -> Result<ArchiveDay, String> {
        let invalid =
            || format!("{key:?} is not the key of an archive object of table {}: choose one of the list", self.table);
        let parsed = ArchiveKey::parse(key).map_err(|_| invalid())?;
        if parsed.table() == self.table { Ok(parsed.day()) } else { Err(invalid()) }
    }

    /// Returns the rows of an object from the index `from` on.
    ///
    /// # Errors
    /// The error of the bucket, or why the object is corrupt, as text.
    pub(crate) async fn rows(&self, object: &str, from: usize) -> Result<RowPage, String> {
        let (store, object, runtime) = (self.store.clone(), object.to_owned(), Handle::current());
        let names = Arc::new(KeyNames::new(self.key_names.clone()));
        let read = move || {
            let rows = ChainedReader::new(vec![object], store, names, runtime);
            let mut rows = rows.skip(from).take(ROWS + 1).collect::<Result<Vec<_>, ArchiveRowError>>()?;
            let has_more = rows.len() > ROWS;
            rows.truncate(ROWS);
            Ok(RowPage { rows, has_more })
        };
        let page = within(tokio::task::spawn_blocking(read)).await?.map_err(|error| error.to_string())?;
        page.map_err(|error| match error {
            ArchiveRowError::Unread(error) => error.to_string(),
            ArchiveRowError::Corrupt(corrupt) => corrupt.to_string(),
        })
    }
}

/// Awaits a call to the bucket for at most [`READ_TIMEOUT`].
async fn within<T>(call: impl Future<Output = T>) -> Result<T, String> {
    let reason = || format!("the archive bucket has not responded within {} s: try again", READ_TIMEOUT.as_secs());
    tokio::time::timeout(READ_TIMEOUT, call).await.map_err(|_| reason())
}
