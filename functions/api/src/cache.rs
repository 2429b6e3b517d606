//! Cache-aside reads: a single record is looked up in the cache; on a miss it is read from the table (strongly
//! consistent) and written to the cache.
//!
//! The cache never decides an outcome. If it fails, or takes longer than [`CacheTimeouts`] allows, the table is read
//! instead; after a failure the cache is bypassed for a cooldown (`breaker`). Writes are conditional on the table.
//! Before a write is acknowledged, it leaves an invalidation marker in the cache, so that a client reads its own
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
mod pending_invalidations;
mod single_flight;

use std::sync::Arc;
use std::time::Duration;

use millrace_http::problem::Problem;
use millrace_http::response::serialization_error;
use millrace_shared::cache::{Cache, CacheConnection, CacheEntry, CacheError, CacheSlot, QuotaDecision, RequestQuota};
use millrace_shared::metric;
use millrace_shared::table::UserTable;
use millrace_shared::user::expiry::ExpiresAt;
use millrace_shared::user::fields::FieldMask;
use millrace_shared::user::{User, UserKey};
use millrace_shared::version_fence::{MAX_FILL_DELAY, MinVersion};
use time::OffsetDateTime;
use tokio::time::{Instant, timeout_at};

use breaker::CircuitBreaker;
use pending_invalidations::{PendingInvalidation, PendingInvalidations};
use single_flight::SingleFlight;

/// The timeouts of the cache.
#[derive(Clone, Copy, Debug)]
pub struct CacheTimeouts {
    /// The timeout of one call, including the connection setup.
    pub call: Duration,
    /// The time for which the cache is bypassed after a failed call.
    pub cooldown: Duration,
}

impl Default for CacheTimeouts {
    fn default() -> Self {
        Self { call: Duration::from_millis(25), cooldown: Duration::from_secs(1) }
    }
}

/// The cache in front of one table. Clones share all state; an instance of the API has one.
#[derive(Clone)]
pub struct CacheAside(Arc<CacheAsideInner>);

struct CacheAsideInner {
    cache: Cache,
    table: String,
    patience: CacheTimeouts,
    breaker: CircuitBreaker,
    flights: SingleFlight,
    pending: PendingInvalidations,
}

impl std::fmt::Debug for CacheAside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CacheAside").field(&self.0.cache).finish()
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

    /// Returns the response body of a read: the record with these members, and its source.
    pub(crate) fn text(&self, fields: FieldMask) -> Result<Vec<u8>, Problem> {
        let (user, source) = match self {
            Self::Cached(entry) if fields == FieldMask::ALL => (entry.json.clone(), "cache"),
            Self::Cached(entry) => (fields.mask_json(&entry.json).map_err(serialization_error)?, "cache"),
            Self::FromTable(user) => (serde_json::to_vec(&user.only(fields)).map_err(serialization_error)?, "database"),
        };
        let mut text = Vec::with_capacity(user.len() + 32);
        text.extend(br#"{"user":"#);
        text.extend(user);
        text.extend(br#","source":""#);
        text.extend(source.as_bytes());
        text.extend(br#""}"#);
        Ok(text)
    }
}

/// The outcome of a cache lookup.
enum CacheLookup {
    /// The cache has the record, or knows that it does not exist.
    Hit(Option<CachedRead>),
    /// The table must be read. With a ticket, the result may be written to the cache.
    Miss(Option<FillTicket>),
}

struct FillTicket {
    line: CacheConnection,
    at: Instant,
}

impl CacheAside {
    /// Creates the cache for the table of this name.
    #[must_use]
    pub fn new(cache: Cache, table: &str, patience: CacheTimeouts) -> Self {
        Self(Arc::new(CacheAsideInner {
            cache,
            table: table.to_owned(),
            patience,
            breaker: CircuitBreaker::new(patience.cooldown),
            flights: SingleFlight::default(),
            pending: PendingInvalidations::default(),
        }))
    }

    /// Connects before the first request, to save it the connection setup. An error is only logged.
    pub async fn connect(&self) {
        if let Err(error) = self.0.cache.connection().await {
            tracing::warn!(%error, "cannot connect to the cache: reading from the table instead");
        }
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
    ) -> Result<Option<CachedRead>, Problem> {
        let name = millrace_shared::cache::key(&self.0.table, key);
        let looked = match self.look(&name, now).await {
            CacheLookup::Hit(found) => {
                metric::CACHE_HITS.increment([], 1);
                return Ok(found);
            }
            CacheLookup::Miss(looked) => looked,
        };
        metric::CACHE_MISSES.increment([], 1);
        let read = Box::pin(async {
            let user = table.read(key, now).await?;
            if let Some(looked) = looked {
                self.fill(&name, user.as_ref(), looked, now).await;
            }
            Ok(user.map(Arc::new))
        });
        let user = self.0.flights.join(&name, read).await?;
        Ok(user.map(CachedRead::FromTable))
    }

    async fn look(&self, name: &str, now: OffsetDateTime) -> CacheLookup {
        let at = Instant::now();
        let debt = self.0.pending.get(name, at);
        let call = async |line: &CacheConnection| match debt {
            PendingInvalidation::None => line.get(name).await,
            PendingInvalidation::MinVersion(min_version) => {
                line.invalidate(name, min_version).await.map(|()| CacheSlot::Fenced)
            }
            PendingInvalidation::All => Ok(CacheSlot::Fenced),
        };
        let Some((line, held)) = self.call(call).await else { return CacheLookup::Miss(None) };
        if let PendingInvalidation::MinVersion(min_version) = debt {
            self.0.pending.complete(name, min_version);
        }
        match held {
            CacheSlot::Entry(entry) if entry.expires_at.is_some_and(|ends| ends <= now.unix_timestamp()) => {
                CacheLookup::Hit(None)
            }
            CacheSlot::Entry(entry) => CacheLookup::Hit(Some(CachedRead::Cached(entry))),
            CacheSlot::Missing => CacheLookup::Hit(None),
            CacheSlot::Fenced | CacheSlot::Miss => CacheLookup::Miss(Some(FillTicket { line, at })),
        }
    }

    /// Writes the result of a table read to the cache, if the rules of the version fence still allow it.
    async fn fill(&self, name: &str, user: Option<&User>, looked: FillTicket, now: OffsetDateTime) {
        let FillTicket { line, at } = looked;
        if at.elapsed() > MAX_FILL_DELAY || !self.0.cache.is_open(&line) {
            return;
        }
        let entry = match user.map(entry).transpose() {
            Ok(entry) => entry,
            Err(error) => return tracing::warn!(%error, "cannot serialize a record for the cache"),
        };
        // `call` may reconnect, but the entry must be written on the connection of the lookup or not at all.
        let call = async {
            match &entry {
                Some(entry) if entry.is_cacheable() => line.put(name, entry, now).await.map(drop),
                Some(_) => Ok(()),
                None => line.put_negative(name).await,
            }
        };
        match timeout_at(Instant::now() + self.0.patience.call, call).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.failed(Some(&line), &error),
            Err(_) => self.failed(Some(&line), &self.timeout_error()),
        }
    }

    /// Invalidates a record after a completed write.
    pub(crate) async fn mark(&self, key: &UserKey, min_version: MinVersion) {
        self.invalidate_named(&millrace_shared::cache::key(&self.0.table, key), min_version).await;
    }

    async fn invalidate_named(&self, name: &str, min_version: MinVersion) {
        // Pending before the call: if the request is cancelled here, the invalidation is not lost.
        self.0.pending.add(name, min_version, Instant::now());
        if self.call(async |line: &CacheConnection| line.invalidate(name, min_version).await).await.is_some() {
            self.0.pending.complete(name, min_version);
        }
    }

    /// Registers a write that starts now and whose outcome is not known yet.
    pub(crate) fn unsettled(&self, key: &UserKey) -> PendingWrite {
        PendingWrite { cache: self.clone(), name: Some(millrace_shared::cache::key(&self.0.table, key)) }
    }

    /// Takes one request from the caller's quota. Returns `None` if the cache does not respond.
    pub(crate) async fn spend(&self, caller: &str, quota: RequestQuota) -> Option<QuotaDecision> {
        self.call(async |line: &CacheConnection| line.try_acquire(caller, quota).await)
            .await
            .map(|(_, allowance)| allowance)
    }

    /// Makes one call, unless the circuit breaker is open.
    async fn call<T>(
        &self,
        work: impl AsyncFnOnce(&CacheConnection) -> Result<T, CacheError>,
    ) -> Option<(CacheConnection, T)> {
        let now = Instant::now();
        if !self.0.breaker.allows_call(now) {
            return None;
        }
        let deadline = now + self.0.patience.call;
        let line = match timeout_at(deadline, self.0.cache.connection()).await {
            Ok(Ok(line)) => line,
            Ok(Err(error)) => return self.fail_open(None, &error),
            Err(_) => return self.fail_open(None, &self.timeout_error()),
        };
        match timeout_at(deadline, work(&line)).await {
            Ok(Ok(answer)) => {
                self.0.breaker.record_success();
                Some((line, answer))
            }
            Ok(Err(error)) => self.fail_open(Some(&line), &error),
            Err(_) => self.fail_open(Some(&line), &self.timeout_error()),
        }
    }

    fn fail_open<T>(&self, line: Option<&CacheConnection>, error: &CacheError) -> Option<T> {
        self.failed(line, error);
        None
    }

    fn failed(&self, line: Option<&CacheConnection>, error: &CacheError) {
        if let Some(line) = line {
            self.0.cache.discard(line);
        }
        self.0.breaker.record_failure(Instant::now());
        metric::CACHE_ERRORS.increment([], 1);
        tracing::warn!(%error, "cache call failed: continuing without the cache");
    }

    fn timeout_error(&self) -> CacheError {
        let (place, wait) = (self.0.cache.endpoint(), self.0.patience.call);
        CacheError::Unavailable(format!("the cache at {place} did not respond within {wait:?}"))
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
    pub(crate) async fn settle(mut self, min_version: Option<MinVersion>) {
        // From here on, the pending invalidations take over, so dropping `self` must not add another one.
        let name = self.name.take();
        if let (Some(name), Some(min_version)) = (name, min_version) {
            self.cache.invalidate_named(&name, min_version).await;
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
