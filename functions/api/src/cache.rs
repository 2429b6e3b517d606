//! Cache-aside: a single record is looked for in the cache, then read in the table (consistently) and brought to the cache.
//!
//! The cache decides nothing. Whatever is wrong with it, or takes it longer than [`CacheTimeouts`] allows, the table is asked;
//! after a failure it is left alone for a while (`breaker`). Writes are conditional at the table and then leave a mark
//! here, before they are answered: who wrote reads what it wrote. A mark that could not be left is owed (`owed`), and
//! until it is paid this instance does not believe the cache about that record; the stream's mark, a moment later, makes it
//! so for the others. A write that was refused, failed or was given up may have landed, and leaves its mark, too.
//!
//! The newest record of a user is not looked for here: which one it is changes with every record of the user, and
//! versions of different records have no order. It is a query, as any list.
//!
//! What would break it: bringing a record after the request was answered. Lambda may freeze the process for an hour
//! between, and by then no mark stands that would refuse it.

mod breaker;
mod pending_invalidations;
mod single_flight;

use std::sync::Arc;
use std::time::Duration;

use front::problem::Problem;
use front::response::serialization_error;
use shared::cache::{Cache, CacheConnection, CacheEntry, CacheError, CacheSlot, QuotaDecision, RequestQuota};
use shared::metric;
use shared::table::UserTable;
use shared::user::expiry::ExpiresAt;
use shared::user::fields::FieldMask;
use shared::user::{User, UserKey};
use shared::version_fence::{MAX_FILL_DELAY, MinVersion};
use time::OffsetDateTime;
use tokio::time::{Instant, timeout_at};

use breaker::CircuitBreaker;
use pending_invalidations::{PendingInvalidation, PendingInvalidations};
use single_flight::SingleFlight;

/// How long the cache is waited for, and left alone.
#[derive(Clone, Copy, Debug)]
pub struct CacheTimeouts {
    /// For one call, connecting included.
    pub call: Duration,
    /// After a call that failed.
    pub cooldown: Duration,
}

impl Default for CacheTimeouts {
    fn default() -> Self {
        Self { call: Duration::from_millis(25), cooldown: Duration::from_secs(1) }
    }
}

/// The cache before one table. A clone shares everything: an instance of the API has one.
#[derive(Clone)]
pub struct CacheAside(Arc<CacheAsideInner>);

struct CacheAsideInner {
    cache: Cache,
    table: String,
    patience: CacheTimeouts,
    breaker: CircuitBreaker,
    flights: SingleFlight,
    owed: PendingInvalidations,
}

impl std::fmt::Debug for CacheAside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CacheAside").field(&self.0.cache).finish()
    }
}

/// A record that was found.
#[derive(Clone, Debug)]
pub(crate) enum CachedRead {
    /// In the cache.
    Cached(CacheEntry),
    /// In the table.
    FromTable(Arc<User>),
}

impl CachedRead {
    pub(crate) fn version(&self) -> u64 {
        match self {
            Self::Cached(entry) => entry.version,
            Self::FromTable(user) => user.version,
        }
    }

    /// The answer to a read: the record with these members, and where it was found.
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

/// What a look came to.
enum CacheLookup {
    /// The cache knows: this record, or that there is none.
    Hit(Option<CachedRead>),
    /// The table is to be asked; if there is a line, what it says is to be brought to the cache on it.
    Miss(Option<FillTicket>),
}

struct FillTicket {
    line: CacheConnection,
    at: Instant,
}

impl CacheAside {
    /// The cache before the table of this name.
    #[must_use]
    pub fn new(cache: Cache, table: &str, patience: CacheTimeouts) -> Self {
        Self(Arc::new(CacheAsideInner {
            cache,
            table: table.to_owned(),
            patience,
            breaker: CircuitBreaker::new(patience.cooldown),
            flights: SingleFlight::default(),
            owed: PendingInvalidations::default(),
        }))
    }

    /// Connects before the first request, which then need not. What goes wrong is in the log and stops nothing.
    pub async fn connect(&self) {
        if let Err(error) = self.0.cache.connection().await {
            tracing::warn!(%error, "the cache is not there: the table is asked instead");
        }
    }

    /// Reads a record: from the cache, or else from the table. Of many that ask for one record at once, one asks the
    /// table; nobody is given what was read before it asked.
    ///
    /// # Errors
    /// The table's; the cache has none.
    pub(crate) async fn read(
        &self,
        key: &UserKey,
        table: &UserTable,
        now: OffsetDateTime,
    ) -> Result<Option<CachedRead>, Problem> {
        let name = shared::cache::key(&self.0.table, key);
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
        let debt = self.0.owed.get(name, at);
        let call = async |line: &CacheConnection| match debt {
            PendingInvalidation::None => line.get(name).await,
            PendingInvalidation::Floor(floor) => line.invalidate(name, floor).await.map(|()| CacheSlot::Fenced),
            PendingInvalidation::All => Ok(CacheSlot::Fenced),
        };
        let Some((line, held)) = self.call(call).await else { return CacheLookup::Miss(None) };
        if let PendingInvalidation::Floor(floor) = debt {
            self.0.owed.complete(name, floor);
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

    /// Brings what the table said after a look, if the rules still let it.
    async fn fill(&self, name: &str, user: Option<&User>, looked: FillTicket, now: OffsetDateTime) {
        let FillTicket { line, at } = looked;
        if at.elapsed() > MAX_FILL_DELAY || !self.0.cache.is_open(&line) {
            return;
        }
        let entry = match user.map(entry).transpose() {
            Ok(entry) => entry,
            Err(error) => return tracing::warn!(%error, "a record cannot be cached"),
        };
        // Not `call`: it is this line or none.
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
            Err(_) => self.failed(Some(&line), &self.silent()),
        }
    }

    /// Tells the cache of a write that is done.
    pub(crate) async fn mark(&self, key: &UserKey, floor: MinVersion) {
        self.mark_named(&shared::cache::key(&self.0.table, key), floor).await;
    }

    async fn mark_named(&self, name: &str, floor: MinVersion) {
        // Owed from the start: if this request ends here, its mark does not.
        self.0.owed.add(name, floor, Instant::now());
        if self.call(async |line: &CacheConnection| line.invalidate(name, floor).await).await.is_some() {
            self.0.owed.complete(name, floor);
        }
    }

    /// A write that begins, of which it is not known what will come.
    pub(crate) fn unsettled(&self, key: &UserKey) -> PendingWrite {
        PendingWrite { cache: self.clone(), name: Some(shared::cache::key(&self.0.table, key)) }
    }

    /// Takes a request off a caller's quota; nothing is known of it if the cache is silent.
    pub(crate) async fn spend(&self, caller: &str, quota: RequestQuota) -> Option<QuotaDecision> {
        self.call(async |line: &CacheConnection| line.try_acquire(caller, quota).await)
            .await
            .map(|(_, allowance)| allowance)
    }

    /// One call, if the cache is not being left alone.
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
            Err(_) => return self.fail_open(None, &self.silent()),
        };
        match timeout_at(deadline, work(&line)).await {
            Ok(Ok(answer)) => {
                self.0.breaker.record_success();
                Some((line, answer))
            }
            Ok(Err(error)) => self.fail_open(Some(&line), &error),
            Err(_) => self.fail_open(Some(&line), &self.silent()),
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
        tracing::warn!(%error, "the table is asked instead of the cache");
    }

    fn silent(&self) -> CacheError {
        let (place, wait) = (self.0.cache.endpoint(), self.0.patience.call);
        CacheError::Unavailable(format!("the cache at {place} was silent for {wait:?}"))
    }
}

/// A write that is under way. Dropped before it is settled, it may have landed: its mark is owed.
#[derive(Debug)]
pub(crate) struct PendingWrite {
    cache: CacheAside,
    name: Option<String>,
}

impl PendingWrite {
    /// The write is over, and leaves this floor, or nothing.
    pub(crate) async fn settle(mut self, floor: Option<MinVersion>) {
        // From here on the mark is owed by itself.
        let name = self.name.take();
        if let (Some(name), Some(floor)) = (name, floor) {
            self.cache.mark_named(&name, floor).await;
        }
    }
}

impl Drop for PendingWrite {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            self.cache.0.owed.add(&name, MinVersion::HIGHEST, Instant::now());
        }
    }
}

fn entry(user: &User) -> Result<CacheEntry, serde_json::Error> {
    let expires_at = user.profile.expires_at.map(ExpiresAt::seconds);
    Ok(CacheEntry { version: user.version, expires_at, json: serde_json::to_vec(user)? })
}
