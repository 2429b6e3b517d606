//! One key in every store: the source, each replica, the cache, the archive and the failure bucket. [`read`]
//!
//! Each store is read separately, so that one that cannot be read is shown as such next to the others.

use std::sync::Arc;

use futures::future::join_all;
use futures::{StreamExt as _, stream as futures_stream};
use millrace_archive::store::ArchiveStore;
use millrace_archive::{ARCHIVE, ArchiveDay, ArchivedRow, KeyNames};
use millrace_maintenance::MaintenanceHandler;
use millrace_maintenance::archive_objects::{ArchiveRowError, ChainedReader};
use millrace_maintenance::failure_record::{self, FailureRecord, ON_FAILURE_PREFIX, QUARANTINE};
use millrace_shared::cache::{self, Cache, CacheSlot};
use millrace_shared::change::CanonicalKey;
use millrace_shared::item::image_key;
use millrace_shared::raw_item::RawItem;
use millrace_shared::replica_item::{ReplicaItem, ReplicaState};
use millrace_shared::stream;
use millrace_shared::table_reader::SourceDescription;
use millrace_sinks::Replica;
use time::{Duration, OffsetDateTime};
use tokio::runtime::Handle;

use crate::stack_stores::StackCache;

/// The time limit of the read of a store.
const STORE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(12);
/// The number of failure objects that are read at once.
const IN_FLIGHT: usize = 8;
/// The time limit of a lookup in the cache.
const CACHE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(3);
/// The maximum number of archive objects that are searched for a key.
pub(crate) const ARCHIVE_OBJECTS: usize = 50;
/// The maximum number of rows of a key that are shown.
const ROWS: usize = 20;
/// The maximum number of failure objects that are searched for a key.
pub(crate) const FAILURES: i32 = 200;
/// The largest failure object that is read for a page, in bytes.
pub(crate) const FAILURE_BYTES: u64 = 1024 * 1024;

/// The item that a replica stores under a key.
pub(crate) struct StoredReplica {
    pub(crate) name: String,
    /// Whether the replica stores a part of the items or of their attributes.
    pub(crate) has_rules: bool,
    /// The item that the replica is expected to store; an error if it is not known.
    pub(crate) expected: Result<Option<RawItem>, String>,
    pub(crate) state: Result<Option<ReplicaItem>, String>,
}

impl StoredReplica {
    /// Returns the item; a tombstone counts as absent.
    pub(crate) fn item(&self) -> Option<&RawItem> {
        self.state.as_ref().ok()?.as_ref()?.item()
    }

    /// Returns whether the replica stores the expected item, or no item if none is expected; `None` if either is not
    /// known.
    pub(crate) fn is_equal(&self) -> Option<bool> {
        let expected = self.expected.as_ref().ok()?;
        self.state.as_ref().ok()?;
        Some(match (expected, self.item()) {
            (None, None) => true,
            (Some(expected), Some(copy)) => expected.eq_by_value(copy),
            _ => false,
        })
    }
}

/// A failure object that contains a record of a key.
pub(crate) struct FailureOfKey {
    pub(crate) object: String,
    pub(crate) reason: String,
    pub(crate) sink: Option<String>,
}

/// The entry of a key in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CacheState {
    /// The stack has no cache.
    Off,
    /// See [`StackCache::InNetwork`].
    InNetwork,
    /// The key is not that of a record of the users service, and therefore not cached.
    NotCached,
    Unreadable(String),
    Miss,
    Missing,
    Fenced,
    Entry {
        version: u64,
        expires_at: Option<OffsetDateTime>,
        json: String,
    },
}

/// The rows of a key in the archive.
pub(crate) struct FoundRows {
    pub(crate) rows: Vec<ArchivedRow>,
    /// Whether there are more than [`ARCHIVE_OBJECTS`] objects, so that some were not searched.
    pub(crate) is_cut: bool,
}

/// One key in every store.
pub(crate) struct KeyStores {
    pub(crate) source: Result<Option<RawItem>, String>,
    pub(crate) replicas: Vec<StoredReplica>,
    /// The archived rows of the last two days; `None` if there is no archive.
    pub(crate) archive: Option<Result<FoundRows, String>>,
    pub(crate) failures: Result<Vec<FailureOfKey>, String>,
    pub(crate) cache: CacheState,
}

/// Returns the names of the attributes that differ between two items.
pub(crate) fn differences(source: Option<&RawItem>, copy: Option<&RawItem>) -> Vec<String> {
    let empty = RawItem::new(std::collections::HashMap::new());
    source.unwrap_or(&empty).diff_attribute_names(copy.unwrap_or(&empty))
}

/// Parses the key of a page: DynamoDB JSON with the key attributes of the source.
///
/// # Errors
/// A message that names the text and the expected form.
pub(crate) fn parse_key(text: &str, description: &SourceDescription) -> Result<CanonicalKey, String> {
    let example = example(description);
    let wrong = |reason: &str| format!("the key {text:?} {reason}: expected DynamoDB JSON such as {example}");
    let key = CanonicalKey::parse(text).map_err(|error| wrong(&format!("is not valid ({error})")))?;
    let item = RawItem::parse(key.as_str()).map_err(|error| wrong(&error.to_string()))?;
    for (name, kind) in &description.key {
        let prefix =
            format!("{}:{{{}:", serde_json::Value::from(name.as_str()), serde_json::Value::from(kind.as_str()));
        if item.get(name).is_none() {
            return Err(wrong(&format!("has no attribute {name:?}")));
        }
        if !key.as_str().contains(&prefix) {
            return Err(wrong(&format!("has another type of {name:?} than {kind}")));
        }
    }
    match item.into_attributes().into_keys().find(|name| !description.key.iter().any(|(own, _)| own == name)) {
        Some(other) => Err(wrong(&format!("has the attribute {other:?}, which is not part of the key"))),
        None => Ok(key),
    }
}

/// Returns a key with the source's attributes as an example.
pub(crate) fn example(description: &SourceDescription) -> String {
    let value = |kind: &str| match kind {
        "N" => "1",
        // Base64 of one letter.
        "B" => "YQ==",
        _ => "ada",
    };
    let attribute = |(name, kind): &(String, String)| (name.clone(), serde_json::json!({kind: value(kind)}));
    serde_json::Value::Object(description.key.iter().map(attribute).collect()).to_string()
}

/// Reads a key from every store.
pub(crate) async fn read(
    maintenance: &MaintenanceHandler,
    cache: &StackCache,
    key: &CanonicalKey,
    now: OffsetDateTime,
) -> KeyStores {
    let keys = std::slice::from_ref(key);
    let source = async {
        let read = within("the source", maintenance.source.read(keys)).await?;
        Ok(read.map_err(|error| error.to_string())?.items.pop().flatten())
    };
    let mut states = Vec::new();
    for replica in &maintenance.replicas {
        states.push(replica_state(replica.as_ref(), keys));
    }
    let archive = async {
        let archive = maintenance.archive.as_ref()?;
        Some(within("the archive", archived(maintenance, archive, key, now)).await.and_then(|rows| rows))
    };
    let failures = async { within("the failure bucket", failures(maintenance, key)).await.and_then(|own| own) };
    let cache = async {
        match cache {
            StackCache::Reachable(cache) => cached(cache, maintenance.source.name(), key).await,
            StackCache::Off => CacheState::Off,
            StackCache::InNetwork => CacheState::InNetwork,
        }
    };
    let (source, states, archive, failures, cache) =
        futures::join!(Box::pin(source), join_all(states), Box::pin(archive), Box::pin(failures), Box::pin(cache));
    let replicas = maintenance.replicas.iter().zip(states).map(|(replica, state)| {
        let expected = match &source {
            Ok(Some(item)) => replica.expected(key, item.clone()).map_err(|error| error.to_string()),
            Ok(None) => Ok(None),
            Err(_) => Err("the source could not be read".to_owned()),
        };
        let (name, has_rules) = (replica.name().to_owned(), replica.transform().is_some());
        StoredReplica { name, has_rules, expected, state }
    });
    let replicas = replicas.collect();
    KeyStores { source, replicas, archive, failures, cache }
}

/// Reads what a replica stores under a key.
async fn replica_state(replica: &dyn Replica, keys: &[CanonicalKey]) -> Result<Option<ReplicaItem>, String> {
    let read = within(&format!("the replica {}", replica.name()), replica.read(keys)).await?;
    Ok(read.map_err(|error| error.to_string())?.items.pop().flatten())
}

/// Awaits the read of a store for at most [`STORE_TIMEOUT`].
async fn within<T>(store: &str, read: impl Future<Output = T>) -> Result<T, String> {
    let reason = || format!("{store} has not responded within {} s: try again", STORE_TIMEOUT.as_secs());
    tokio::time::timeout(STORE_TIMEOUT, read).await.map_err(|_| reason())
}

/// Looks a key up in the cache, for at most [`CACHE_TIMEOUT`].
async fn cached(cache: &Cache, table: &str, key: &CanonicalKey) -> CacheState {
    let Ok(user) = image_key(key) else { return CacheState::NotCached };
    let lookup = async {
        let connection = cache.connection().await?;
        let found = connection.get(&cache::key(table, &user)).await;
        if found.is_err() {
            cache.discard(&connection);
        }
        found
    };
    match tokio::time::timeout(CACHE_TIMEOUT, lookup).await {
        Err(_) => CacheState::Unreadable(format!(
            "the cache at {} has not responded within {} s",
            cache.endpoint(),
            CACHE_TIMEOUT.as_secs()
        )),
        Ok(Err(error)) => CacheState::Unreadable(error.to_string()),
        Ok(Ok(CacheSlot::Miss)) => CacheState::Miss,
        Ok(Ok(CacheSlot::Missing)) => CacheState::Missing,
        Ok(Ok(CacheSlot::Fenced)) => CacheState::Fenced,
        Ok(Ok(CacheSlot::Entry(entry))) => CacheState::Entry {
            version: entry.version,
            expires_at: entry.expires_at.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok()),
            json: String::from_utf8_lossy(&entry.json).into_owned(),
        },
    }
}

/// Returns the keys of the latest objects of a day, at most `most`, and whether there are more.
///
/// A day may have any number of objects, and a listing begins at its first hour. The objects of an hour are in no order
/// of time.
async fn latest_objects(archive: &ArchiveStore, day: &str, most: usize) -> Result<(Vec<String>, bool), String> {
    let limit = i32::try_from(most + 1).unwrap_or(i32::MAX);
    let objects = first_keys(archive, day, limit).await?;
    if objects.len() <= most {
        return Ok((objects, false));
    }
    let mut latest = Vec::new();
    for hour in (0..24).rev() {
        latest.extend(first_keys(archive, &format!("{day}hr={hour:02}/"), limit).await?);
        if latest.len() >= most {
            break;
        }
    }
    latest.truncate(most);
    Ok((latest, true))
}

async fn first_keys(archive: &ArchiveStore, prefix: &str, limit: i32) -> Result<Vec<String>, String> {
    let page = archive.list_page(prefix, None, limit).await.map_err(|error| error.to_string())?;
    Ok(page.into_iter().map(|object| object.key).collect())
}

async fn archived(
    maintenance: &MaintenanceHandler,
    archive: &ArchiveStore,
    key: &CanonicalKey,
    now: OffsetDateTime,
) -> Result<FoundRows, String> {
    let description = maintenance.source.describe().await.map_err(|error| error.to_string())?;
    let table = description.arn.split_once(":table/").map_or(maintenance.source.name(), |(_, name)| name);
    let (mut objects, mut is_cut) = (Vec::new(), false);
    for day in [now, now - Duration::DAY] {
        let prefix = format!("{ARCHIVE}{table}/dt={}/", ArchiveDay::from_datetime(day));
        let (listed, has_more) = latest_objects(archive, &prefix, ARCHIVE_OBJECTS - objects.len()).await?;
        objects.extend(listed);
        is_cut |= has_more;
    }
    let names = Arc::new(KeyNames::new(description.key_names()));
    let (archive, key, runtime) = (archive.clone(), key.clone(), Handle::current());
    let search = move || {
        let rows = ChainedReader::new(objects, archive, names, runtime);
        let own = rows.filter(|row| row.as_ref().map_or(true, |row| row.key == key)).take(ROWS);
        own.collect::<Result<Vec<_>, ArchiveRowError>>()
    };
    let rows = tokio::task::spawn_blocking(search).await.map_err(|error| error.to_string())?;
    let rows = rows.map_err(|error| match error {
        ArchiveRowError::Unread(error) => error.to_string(),
        ArchiveRowError::Corrupt(corrupt) => corrupt.to_string(),
    })?;
    Ok(FoundRows { rows, is_cut })
}

/// Reads a failure object; `None` if it is too large for a page, or no longer exists.
///
/// # Errors
/// The error of the bucket or of the object, as text.
pub(crate) async fn failure(
    maintenance: &MaintenanceHandler,
    object: &str,
    size_bytes: u64,
) -> Result<Option<FailureRecord>, String> {
    if size_bytes > FAILURE_BYTES {
        return Ok(None);
    }
    let body = maintenance.failures.get(object).await.map_err(|error| error.to_string())?;
    let Some(body) = body else { return Ok(None) };
    failure_record::read(object, &body, &maintenance.functions).map(Some).map_err(|error| error.to_string())
}

/// Returns the canonical keys of a failure's records, as far as they can be read.
pub(crate) fn keys_of(failure: &FailureRecord) -> Vec<CanonicalKey> {
    let Ok(batch) = stream::read(&failure.event) else { return Vec::new() };
    let readable = batch.records.iter().filter_map(|record| record.read.as_ref().ok());
    readable.map(|change| change.key.canonical().clone()).collect()
}

async fn failures(maintenance: &MaintenanceHandler, key: &CanonicalKey) -> Result<Vec<FailureOfKey>, String> {
    let mut objects = Vec::new();
    for prefix in [QUARANTINE, ON_FAILURE_PREFIX] {
        let listed = maintenance.failures.list(prefix, None, FAILURES).await;
        objects.extend(listed.map_err(|error| error.to_string())?);
    }
    let read = futures_stream::iter(objects).map(|object| async move {
        let found = failure(maintenance, &object.key, object.size_bytes).await?;
        let own = found.filter(|failure| keys_of(failure).contains(key));
        Ok(own.map(|failure| FailureOfKey { object: object.key, reason: failure.reason, sink: failure.sink }))
    });
    let read: Vec<Result<Option<FailureOfKey>, String>> = read.buffered(IN_FLIGHT).collect().await;
    let unread = read.iter().find_map(|object| object.as_ref().err().cloned());
    let own: Vec<FailureOfKey> = read.into_iter().filter_map(Result::ok).flatten().collect();
    match unread {
        // A record of the key may be in an object that was not read.
        Some(reason) if own.is_empty() => Err(format!("not every object could be read: {reason}")),
        _ => Ok(own),
    }
}

/// Returns a short description of the state in a replica.
pub(crate) fn state_word(state: Option<&ReplicaItem>) -> &'static str {
    match state.map(|stored| &stored.state) {
        None => "nothing",
        Some(ReplicaState::Item(_)) => "an item",
        Some(ReplicaState::Tombstone { expired: true }) => "a tombstone of an item that TTL removed",
        Some(ReplicaState::Tombstone { expired: false }) => "a tombstone",
    }
}
