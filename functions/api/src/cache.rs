//! Cache-aside: a single record is looked for in the cache, then read in the table (consistently) and brought to the cache.
//!
//! The cache decides nothing. Whatever is wrong with it, or takes it longer than [`Patience`] allows, the table is asked;
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
mod flight;
mod owed;

use std::sync::Arc;
use std::time::Duration;

use front::answer::unwritable;
use front::problem::Problem;
use shared::cache::{Allowance, Cache, CacheError, Entry, Held, Line, Quota};
use shared::floor::{FILL_WITHIN, Floor};
use shared::metric;
use shared::table::UserTable;
use shared::user::expiry::ExpiresAt;
use shared::user::fields::Fields;
use shared::user::{User, UserKey};
use time::OffsetDateTime;
use tokio::time::{Instant, timeout_at};

use breaker::Breaker;
use flight::Flights;
use owed::{Debt, Owed};

/// How long the cache is waited for, and left alone.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For one call, connecting included.
    pub call: Duration,
    /// After a call that failed.
    pub rest: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { call: Duration::from_millis(25), rest: Duration::from_secs(1) }
    }
}

/// The cache before one table. A clone shares everything: an instance of the API has one.
#[derive(Clone)]
pub struct CacheAside(Arc<Inner>);

struct Inner {
    cache: Cache,
    table: String,
    patience: Patience,
    breaker: Breaker,
    flights: Flights,
    owed: Owed,
}

impl std::fmt::Debug for CacheAside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CacheAside").field(&self.0.cache).finish()
    }
}

/// A record that was found.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// In the cache.
    Cached(Entry),
    /// In the table.
    Stored(Arc<User>),
}

impl Found {
    pub(crate) fn version(&self) -> u64 {
        match self {
            Self::Cached(entry) => entry.version,
            Self::Stored(user) => user.version,
        }
    }

    /// The answer to a read: the record with these members, and where it was found.
    pub(crate) fn text(&self, fields: Fields) -> Result<Vec<u8>, Problem> {
        let (user, source) = match self {
            Self::Cached(entry) if fields == Fields::ALL => (entry.json.clone(), "cache"),
            Self::Cached(entry) => (fields.of_json(&entry.json).map_err(unwritable)?, "cache"),
            Self::Stored(user) => (serde_json::to_vec(&user.only(fields)).map_err(unwritable)?, "database"),
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
enum Look {
    /// The cache knows: this record, or that there is none.
    Told(Option<Found>),
    /// The table is to be asked; if there is a line, what it says is to be brought to the cache on it.
    Ask(Option<Looked>),
}

struct Looked {
    line: Line,
    at: Instant,
}

impl CacheAside {
    /// The cache before the table of this name.
    #[must_use]
    pub fn new(cache: Cache, table: &str, patience: Patience) -> Self {
        Self(Arc::new(Inner {
            cache,
            table: table.to_owned(),
            patience,
            breaker: Breaker::new(patience.rest),
            flights: Flights::default(),
            owed: Owed::default(),
        }))
    }

    /// Connects before the first request, which then need not. What goes wrong is in the log and stops nothing.
    pub async fn connect(&self) {
        if let Err(error) = self.0.cache.line().await {
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
    ) -> Result<Option<Found>, Problem> {
        let name = shared::cache::key(&self.0.table, key);
        let looked = match self.look(&name, now).await {
            Look::Told(found) => {
                metric::CACHE_HITS.increment([], 1);
                return Ok(found);
            }
            Look::Ask(looked) => looked,
        };
        metric::CACHE_MISSES.increment([], 1);
        let read = Box::pin(async {
            let user = table.read(key, now).await?;
            if let Some(looked) = looked {
                self.bring(&name, user.as_ref(), looked, now).await;
            }
            Ok(user.map(Arc::new))
        });
        let user = self.0.flights.join(&name, read).await?;
        Ok(user.map(Found::Stored))
    }

    async fn look(&self, name: &str, now: OffsetDateTime) -> Look {
        let at = Instant::now();
        let debt = self.0.owed.of(name, at);
        let call = async |line: &Line| match debt {
            Debt::None => line.get(name).await,
            Debt::Floor(floor) => line.mark(name, floor).await.map(|()| Held::Mark),
            Debt::Everything => Ok(Held::Mark),
        };
        let Some((line, held)) = self.call(call).await else { return Look::Ask(None) };
        if let Debt::Floor(floor) = debt {
            self.0.owed.paid(name, floor);
        }
        match held {
            Held::Entry(entry) if entry.expires_at.is_some_and(|ends| ends <= now.unix_timestamp()) => Look::Told(None),
            Held::Entry(entry) => Look::Told(Some(Found::Cached(entry))),
            Held::Missing => Look::Told(None),
            Held::Mark | Held::Nothing => Look::Ask(Some(Looked { line, at })),
        }
    }

    /// Brings what the table said after a look, if the rules still let it.
    async fn bring(&self, name: &str, user: Option<&User>, looked: Looked, now: OffsetDateTime) {
        let Looked { line, at } = looked;
        if at.elapsed() > FILL_WITHIN || !self.0.cache.is_open(&line) {
            return;
        }
        let entry = match user.map(entry).transpose() {
            Ok(entry) => entry,
            Err(error) => return tracing::warn!(%error, "a record cannot be cached"),
        };
        // Not `call`: it is this line or none.
        let call = async {
            match &entry {
                Some(entry) if entry.may_be_kept() => line.fill(name, entry, now).await.map(drop),
                Some(_) => Ok(()),
                None => line.fill_missing(name).await,
            }
        };
        match timeout_at(Instant::now() + self.0.patience.call, call).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.failed(Some(&line), &error),
            Err(_) => self.failed(Some(&line), &self.silent()),
        }
    }

    /// Tells the cache of a write that is done.
    pub(crate) async fn mark(&self, key: &UserKey, floor: Floor) {
        self.mark_named(&shared::cache::key(&self.0.table, key), floor).await;
    }

    async fn mark_named(&self, name: &str, floor: Floor) {
        // Owed from the start: if this request ends here, its mark does not.
        self.0.owed.owe(name, floor, Instant::now());
        if self.call(async |line: &Line| line.mark(name, floor).await).await.is_some() {
            self.0.owed.paid(name, floor);
        }
    }

    /// A write that begins, of which it is not known what will come.
    pub(crate) fn unsettled(&self, key: &UserKey) -> Unsettled {
        Unsettled { cache: self.clone(), name: Some(shared::cache::key(&self.0.table, key)) }
    }

    /// Takes a request off a caller's quota; nothing is known of it if the cache is silent.
    pub(crate) async fn spend(&self, caller: &str, quota: Quota) -> Option<Allowance> {
        self.call(async |line: &Line| line.spend(caller, quota).await).await.map(|(_, allowance)| allowance)
    }

    /// One call, if the cache is not being left alone.
    async fn call<T>(&self, work: impl AsyncFnOnce(&Line) -> Result<T, CacheError>) -> Option<(Line, T)> {
        let now = Instant::now();
        if !self.0.breaker.admits(now) {
            return None;
        }
        let deadline = now + self.0.patience.call;
        let line = match timeout_at(deadline, self.0.cache.line()).await {
            Ok(Ok(line)) => line,
            Ok(Err(error)) => return self.gone(None, &error),
            Err(_) => return self.gone(None, &self.silent()),
        };
        match timeout_at(deadline, work(&line)).await {
            Ok(Ok(answer)) => {
                self.0.breaker.well();
                Some((line, answer))
            }
            Ok(Err(error)) => self.gone(Some(&line), &error),
            Err(_) => self.gone(Some(&line), &self.silent()),
        }
    }

    fn gone<T>(&self, line: Option<&Line>, error: &CacheError) -> Option<T> {
        self.failed(line, error);
        None
    }

    fn failed(&self, line: Option<&Line>, error: &CacheError) {
        if let Some(line) = line {
            self.0.cache.hang_up(line);
        }
        self.0.breaker.failed(Instant::now());
        metric::CACHE_ERRORS.increment([], 1);
        tracing::warn!(%error, "the table is asked instead of the cache");
    }

    fn silent(&self) -> CacheError {
        let (place, wait) = (self.0.cache.place(), self.0.patience.call);
        CacheError::Unavailable(format!("the cache at {place} was silent for {wait:?}"))
    }
}

/// A write that is under way. Dropped before it is settled, it may have landed: its mark is owed.
#[derive(Debug)]
pub(crate) struct Unsettled {
    cache: CacheAside,
    name: Option<String>,
}

impl Unsettled {
    /// The write is over, and leaves this floor, or nothing.
    pub(crate) async fn settle(mut self, floor: Option<Floor>) {
        // From here on the mark is owed by itself.
        let name = self.name.take();
        if let (Some(name), Some(floor)) = (name, floor) {
            self.cache.mark_named(&name, floor).await;
        }
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            self.cache.0.owed.owe(&name, Floor::HIGHEST, Instant::now());
        }
    }
}

fn entry(user: &User) -> Result<Entry, serde_json::Error> {
    let expires_at = user.profile.expires_at.map(ExpiresAt::seconds);
    Ok(Entry { version: user.version, expires_at, json: serde_json::to_vec(user)? })
}
