//! Cache-aside reads: a single record is looked up in the cache; on a miss it is read from the table (strongly
//! consistent) and written to the cache.
//!
//! The cache never decides an outcome. If it fails, or takes longer than [`CacheTimeouts`] allows, the table is read
//! instead; after a failure the cache is bypassed for a cooldown (`client`, `breaker`). Writes are conditional on the
//! table. Before a write is acknowledged, it leaves an invalidation marker in the cache, so that a client reads its own
//! writes. An invalidation that does not reach the cache is pending (`pending_invalidations`): until it is delivered,
//! this instance ignores the cached value of that record. The replicator invalidates the record for the other instances
//! shortly afterwards, when it processes the stream record. A write that was rejected, failed or timed out may have
//! landed, so it invalidates the record, too.
//!
//! The latest record of a user is not cached: every write of a record of the user may change which record it is, and
//! the versions of different records are not comparable. It is a query, like every list.
//!
//! An entry must be written before the response is sent. Lambda may freeze the process for an hour after the response,
//! and by then the invalidation marker that would reject a stale entry has expired.

mod breaker;
pub(crate) mod client;
mod pending_invalidations;
mod single_flight;

use std::sync::Arc;

use millrace_shared::cache::{Cache, CacheConnection, CacheEntry, CacheSlot};
use millrace_shared::metric;
use millrace_shared::table::{TableError, UserTable};
use millrace_shared::user::expiry::ExpiresAt;
use millrace_shared::user::{User, UserKey};
use millrace_shared::version_fence::{MAX_FILL_DELAY, MinVersion};
use time::OffsetDateTime;
use tokio::time::Instant;

use client::CacheClient;
pub use client::CacheTimeouts;
use pending_invalidations::{PendingInvalidation, PendingInvalidations};
use single_flight::SingleFlight;

/// The cache in front of one table. Clones share all state; an instance of the API has one.
#[derive(Clone)]
pub struct CacheAside(Arc<CacheAsideInner>);

struct CacheAsideInner {
    client: CacheClient,
    table: String,
    flights: SingleFlight,
    pending: PendingInvalidations,
}

impl std::fmt::Debug for CacheAside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CacheAside").field(&self.0.client).finish()
    }
}

/// A record that was read, and its source.
#[derive(Clone, Debug)]
pub(crate) enum CachedRead {
    /// Read from the cache.
    Cached(CacheEntry),
    /// Read from the table.
    FromTable(Arc<User>),
}

impl CachedRead {
    pub(crate) fn version(&self) -> u64 {
        match self {
            Self::Cached(entry) => entry.version,
            Self::FromTable(user) => user.version,
        }
    }
}

/// The outcome of a cache lookup.
enum CacheLookup {
    /// The cache has the record.
    Hit(CacheEntry),
    /// The cache has the information that no live record exists: a negative entry, or an entry that has expired.
    Absent,
    /// The table must be read. With a ticket, the result may be written to the cache.
    Miss(Option<FillTicket>),
}

/// The right to write the result of a table read to the cache, on the connection of the lookup.
struct FillTicket {
    connection: CacheConnection,
    looked_up_at: Instant,
}

impl CacheAside {
    /// Creates the cache for the table of this name.
    #[must_use]
    pub fn new(cache: Cache, table: &str, timeouts: CacheTimeouts) -> Self {
        Self(Arc::new(CacheAsideInner {
            client: CacheClient::new(cache, timeouts),
            table: table.to_owned(),
            flights: SingleFlight::default(),
            pending: PendingInvalidations::default(),
        }))
    }

    /// Returns the client of the cache, whose connection and circuit breaker are shared with this one.
    pub(crate) fn client(&self) -> CacheClient {
        self.0.client.clone()
    }

    /// Connects before the first request, to save it the connection setup. An error is only logged.
    pub async fn connect(&self) {
        self.0.client.connect().await;
    }

    /// Reads a record from the cache or, on a miss, from the table. Concurrent reads of the same record share one table
    /// read, and no caller receives a value that was read before its call.
    ///
    /// # Errors
    /// The errors of the table; errors of the cache are never returned.
    pub(crate) async fn read(
        &self,
        key: &UserKey,
        table: &UserTable,
        now: OffsetDateTime,
    ) -> Result<Option<CachedRead>, Arc<TableError>> {
        let name = self.entry_name(key);
        let started = Instant::now();
        let lookup = match self.0.pending.get(&name, started) {
            PendingInvalidation::None => self.look_up(&name, started, now).await,
            PendingInvalidation::MinVersion(min_version) => {
                self.deliver_pending_invalidation(&name, min_version, started).await
            }
            PendingInvalidation::All => self.skip_lookup(started).await,
        };
        let ticket = match lookup {
            CacheLookup::Hit(entry) => {
                metric::CACHE_HITS.increment([], 1);
                return Ok(Some(CachedRead::Cached(entry)));
            }
            CacheLookup::Absent => {
                metric::CACHE_HITS.increment([], 1);
                return Ok(None);
            }
            CacheLookup::Miss(ticket) => ticket,
        };
        metric::CACHE_MISSES.increment([], 1);
        let read = Box::pin(async {
            let user = table.read(key, now).await?;
            if let Some(ticket) = ticket {
                self.fill(&name, user.as_ref(), ticket, now).await;
            }
            Ok(user.map(Arc::new))
        });
        let user = self.0.flights.join(&name, read).await?;
        Ok(user.map(CachedRead::FromTable))
    }

    async fn look_up(&self, name: &str, started: Instant, now: OffsetDateTime) -> CacheLookup {
        let call = self.0.client.call(async |connection: &CacheConnection| connection.get(name).await);
        let Some((connection, slot)) = call.await else { return CacheLookup::Miss(None) };
        match slot {
            CacheSlot::Entry(entry) if entry.expires_at.is_some_and(|ends| ends <= now.unix_timestamp()) => {
                CacheLookup::Absent
            }
            CacheSlot::Entry(entry) => CacheLookup::Hit(entry),
            CacheSlot::Missing => CacheLookup::Absent,
            CacheSlot::Fenced | CacheSlot::Miss => {
                CacheLookup::Miss(Some(FillTicket { connection, looked_up_at: started }))
            }
        }
    }

    /// Writes the invalidation marker of an earlier write instead of a lookup: the cached value is known to be stale.
    async fn deliver_pending_invalidation(&self, name: &str, min_version: MinVersion, started: Instant) -> CacheLookup {
        match self.invalidate_entry(name, min_version).await {
            Some(connection) => CacheLookup::Miss(Some(FillTicket { connection, looked_up_at: started })),
            None => CacheLookup::Miss(None),
        }
    }

    /// Obtains a connection without a lookup: more invalidations are pending than are tracked, so that no cached value
    /// is trusted, but the version fence still decides whether the result of the table read may be written.
    async fn skip_lookup(&self, started: Instant) -> CacheLookup {
        let connected = self.0.client.call(async |_: &CacheConnection| Ok(())).await;
        CacheLookup::Miss(connected.map(|(connection, ())| FillTicket { connection, looked_up_at: started }))
    }

    /// Writes the result of a table read to the cache, if the rules of the version fence still allow it.
    async fn fill(&self, name: &str, user: Option<&User>, ticket: FillTicket, now: OffsetDateTime) {
        let FillTicket { connection, looked_up_at } = ticket;
        if looked_up_at.elapsed() > MAX_FILL_DELAY {
            return;
        }
        let entry = match user.map(entry).transpose() {
            Ok(entry) => entry,
            Err(error) => return tracing::warn!(%error, "cannot serialize a record for the cache"),
        };
        // `call` may reconnect, but the entry must be written on the connection of the lookup or not at all.
        let put = async |connection: &CacheConnection| match &entry {
            Some(entry) if entry.is_cacheable() => connection.put(name, entry, now).await.map(drop),
            Some(_) => Ok(()),
            None => connection.put_negative(name).await,
        };
        self.0.client.call_on(&connection, put).await;
    }

    /// Invalidates a record after a completed write.
    pub(crate) async fn invalidate(&self, key: &UserKey, min_version: MinVersion) {
        self.add_and_deliver_invalidation(&self.entry_name(key), min_version).await;
    }

    async fn add_and_deliver_invalidation(&self, name: &str, min_version: MinVersion) {
        // Pending before the call: if the request is cancelled here, the invalidation is not lost.
        self.0.pending.add(name, min_version, Instant::now());
        self.invalidate_entry(name, min_version).await;
    }

    /// Sets the invalidation marker and completes the pending invalidation. Returns the connection, or `None` if the
    /// invalidation is still pending.
    async fn invalidate_entry(&self, name: &str, min_version: MinVersion) -> Option<CacheConnection> {
        let call = async |connection: &CacheConnection| connection.invalidate(name, min_version).await;
        let (connection, ()) = self.0.client.call(call).await?;
        self.0.pending.complete(name, min_version);
        Some(connection)
    }

    /// Registers a write that starts now and whose outcome is not known yet.
    pub(crate) fn begin_write(&self, key: &UserKey) -> PendingWrite {
        PendingWrite { cache: self.clone(), name: Some(self.entry_name(key)) }
    }

    fn entry_name(&self, key: &UserKey) -> String {
        millrace_shared::cache::key(&self.0.table, key)
    }
}

/// A write in progress. If it is dropped before [`PendingWrite::settle`], the write may have landed, so its
/// invalidation becomes pending.
#[derive(Debug)]
pub(crate) struct PendingWrite {
    cache: CacheAside,
    name: Option<String>,
}

impl PendingWrite {
    /// Completes the write and invalidates cached values below this minimum version; `None` invalidates nothing.
    pub(crate) async fn complete(mut self, min_version: Option<MinVersion>) {
        // From here on, the pending invalidations take over, so dropping `self` must not add another one.
        let name = self.name.take();
        if let (Some(name), Some(min_version)) = (name, min_version) {
            self.cache.add_and_deliver_invalidation(&name, min_version).await;
        }
    }
}

impl Drop for PendingWrite {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            self.cache.0.pending.add(&name, MinVersion::HIGHEST, Instant::now());
        }
    }
}

fn entry(user: &User) -> Result<CacheEntry, serde_json::Error> {
    let expires_at = user.profile.expires_at.map(ExpiresAt::seconds);
    Ok(CacheEntry { version: user.version, expires_at, json: serde_json::to_vec(user)? })
}
