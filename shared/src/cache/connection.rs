//! A connection to the cache, and the commands sent over it. The value under a key is replaced atomically in the
//! server, by two scripts:
//!
//! - `FILL`: an entry is stored if the key is absent, contains a lower version, or contains an invalidation marker
//!   whose minimum version is not above the entry's version.
//! - `SET_MARKER`: an invalidation marker is stored if the key is absent or contains a lower version. If the key
//!   contains a marker with the same or a higher version, its TTL restarts: there are readers that looked the key up
//!   after that marker was set and before this change.
//!
//! A negative entry (the record does not exist) is stored only if the key is absent.
//!
//! An entry lives at least as long as a marker, even if the record expires sooner (the entry contains the record's
//! expiry time): the minimum version that it replaced must stay in force. Each script accesses a single key, so no
//! command spans several slots of a cluster.

use std::sync::Weak;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster_async::ClusterConnection;
use redis::{Cmd, FromRedisValue, RedisError, cmd, pipe};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::entry::{self, CacheEntry, CacheSlot};
use super::{Cache, CacheError, CacheInner};
use crate::hash::sha256;
use crate::user::UserKey;
use crate::version_fence::{FENCE_TTL, MAX_ENTRY_TTL, MinVersion};

/// The lifetime of a negative entry.
const NEGATIVE_TTL: Duration = Duration::from_secs(5);
/// The maximum by which an entry's lifetime is shortened, so that entries that were filled together do not expire
/// together.
const JITTER_MS: u64 = 90_000;
/// Markers per round trip: some hundred kilobytes.
const MARKERS_PER_ROUND_TRIP: usize = 2_000;

/// KEYS[1]; ARGV: the version as 20 digits, the entry, the lifetime in milliseconds.
const FILL: &str = "local h=redis.call('GETRANGE',KEYS[1],0,20)
local v,f=ARGV[1],string.sub(h,2)
if h=='' or f<v or (f==v and string.sub(h,1,1)=='M') then redis.call('SET',KEYS[1],ARGV[2],'PX',ARGV[3]) return 1 end
return 0";

/// KEYS[1]; ARGV: the marker, the lifetime in milliseconds.
const SET_MARKER: &str = "local h=redis.call('GETRANGE',KEYS[1],0,20)
if h=='' or string.sub(h,2)<string.sub(ARGV[1],2) then redis.call('SET',KEYS[1],ARGV[1],'PX',ARGV[2]) return 1 end
if string.sub(h,1,1)=='M' then redis.call('PEXPIRE',KEYS[1],ARGV[2]) end
return 0";

/// A token bucket, stored as the time at which it is full (generic cell rate algorithm). KEYS[1]; ARGV: microseconds
/// per request, burst size. Returns whether the request is allowed, how many more requests are allowed now, and a
/// number of microseconds: until the bucket is full, or until the next request is allowed.
const SPEND: &str = "local t=redis.call('TIME')
local now,each,burst=t[1]*1000000+t[2],tonumber(ARGV[1]),tonumber(ARGV[2])
local full=math.max(tonumber(redis.call('GET',KEYS[1]) or '0'),now)+each
local room=now+burst*each-full
if room<0 then return {0,0,math.ceil(-room)} end
redis.call('SET',KEYS[1],string.format('%.0f',full),'PX',math.ceil((full-now)/1000)+1)
return {1,math.floor(room/each),math.ceil(full-now)}";

/// A caller's rate limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RequestQuota {
    /// Requests per window.
    pub requests: u32,
    /// The window, in seconds.
    pub seconds: u32,
    /// Burst size: the number of requests allowed at once after a period without requests.
    pub burst: u32,
}

/// The result of taking one request from a quota.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QuotaDecision {
    /// The request is allowed.
    Allowed {
        /// The number of further requests that are allowed at once.
        remaining: u32,
        /// The time until the full burst is available again.
        full_in: Duration,
    },
    /// The request is not allowed.
    Limited {
        /// The time until the next request is allowed.
        next_in: Duration,
    },
}

/// Returns the key of a record's entry. A cluster computes the slot from the text between the braces, which is the
/// table and the complete record key.
#[must_use]
pub fn key(table: &str, key: &UserKey) -> String {
    format!("millrace:1:{{{table}/{}/{}}}", key.id.as_str(), key.timestamp.seconds())
}

#[derive(Clone)]
pub(super) enum CacheTransport {
    Single(MultiplexedConnection),
    Cluster(Box<ClusterConnection>),
}

/// A connection to the cache. Clones share it; calls on it run concurrently.
#[derive(Clone)]
pub struct CacheConnection {
    link: CacheTransport,
    pub(super) number: u64,
    pub(super) since: Instant,
    cache: Weak<CacheInner>,
}

/// A call whose response has not arrived. If it is dropped in this state, its connection is discarded, and the next
/// call uses another one.
struct PendingCall<'l> {
    connection: &'l CacheConnection,
    is_over: bool,
}

impl PendingCall<'_> {
    fn end(mut self) {
        self.is_over = true;
    }
}

impl Drop for PendingCall<'_> {
    fn drop(&mut self) {
        if !self.is_over
            && let Some(cache) = self.connection.cache.upgrade()
        {
            Cache(cache).discard(self.connection);
        }
    }
}

impl CacheConnection {
    pub(super) fn new(link: CacheTransport, number: u64, since: Instant, cache: Weak<CacheInner>) -> Self {
        Self { link, number, since, cache }
    }

    fn in_flight(&self) -> PendingCall<'_> {
        PendingCall { connection: self, is_over: false }
    }

    /// Looks up a key.
    ///
    /// # Errors
    /// [`CacheError`], as for every call here; the caller then has to discard the connection.
    pub async fn get(&self, key: &str) -> Result<CacheSlot, CacheError> {
        self.query(cmd("GET").arg(key)).await.map(CacheSlot::decode)
    }

    /// Stores a record that was read after a lookup of this key on this connection; returns whether it was accepted. It
    /// is cached for at most 15 minutes, or until it expires.
    ///
    /// # Errors
    /// [`CacheError`].
    pub async fn put(&self, key: &str, entry: &CacheEntry, now: OffsetDateTime) -> Result<bool, CacheError> {
        let kept = kept_for(entry, now);
        let version = entry::digits(entry.version);
        let mut fill = cmd("EVAL");
        fill.arg(FILL).arg(1).arg(key).arg(version).arg(entry.encode()).arg(millis(kept));
        self.query::<u8>(&fill).await.map(|taken| taken == 1)
    }

    /// Stores a negative entry for a record that was found missing after a lookup of this key on this connection.
    ///
    /// # Errors
    /// [`CacheError`].
    pub async fn put_negative(&self, key: &str) -> Result<(), CacheError> {
        let mut set = cmd("SET");
        set.arg(key).arg(entry::missing()).arg("NX").arg("PX").arg(millis(NEGATIVE_TTL));
        self.query::<Option<String>>(&set).await.map(drop)
    }

    /// Sets an invalidation marker.
    ///
    /// # Errors
    /// [`CacheError`].
    pub async fn invalidate(&self, key: &str, min_version: MinVersion) -> Result<(), CacheError> {
        let mut marker = cmd("EVAL");
        marker.arg(SET_MARKER).arg(1).arg(key).arg(entry::marker(min_version)).arg(millis(FENCE_TTL));
        self.query::<u8>(&marker).await.map(drop)
    }

    /// Sets many invalidation markers, with one round trip for every 2,000.
    ///
    /// # Errors
    /// [`CacheError`]; some of the markers may have been set.
    pub async fn invalidate_all(&self, markers: &[(String, MinVersion)]) -> Result<(), CacheError> {
        for markers in markers.chunks(MARKERS_PER_ROUND_TRIP) {
            match &self.link {
                CacheTransport::Single(connection) => {
                    let mut pipe = pipe();
                    // Loading the script first lets the other commands refer to it by its hash, even after the server
                    // was restarted.
                    pipe.cmd("SCRIPT").arg("LOAD").arg(SET_MARKER).ignore();
                    let name = marker_script_sha1();
                    for (key, min_version) in markers {
                        let marker = pipe.cmd("EVALSHA").arg(name).arg(1).arg(key.as_str());
                        marker.arg(entry::marker(*min_version)).arg(millis(FENCE_TTL)).ignore();
                    }
                    let call = self.in_flight();
                    let marked = pipe.query_async::<()>(&mut connection.clone()).await;
                    call.end();
                    marked.map_err(|error| self.failed(&error))?;
                }
                CacheTransport::Cluster(_) => self.set_each_marker(markers).await?,
            }
        }
        Ok(())
    }

    /// Sets each marker with its own command, all concurrently: a pipeline goes to a single node, but each key has its
    /// own.
    async fn set_each_marker(&self, markers: &[(String, MinVersion)]) -> Result<(), CacheError> {
        let mut sent = tokio::task::JoinSet::new();
        for (key, min_version) in markers {
            let (connection, key, min_version) = (self.clone(), key.clone(), *min_version);
            sent.spawn(async move { connection.invalidate(&key, min_version).await });
        }
        while let Some(marked) = sent.join_next().await {
            marked.map_err(|_| CacheError::Unavailable("an invalidation was cancelled".to_owned()))??;
        }
        Ok(())
    }

    /// Takes one request from a caller's quota, by the server's clock. The caller's name is not sent to the server.
    ///
    /// # Errors
    /// [`CacheError`].
    pub async fn try_acquire(&self, caller: &str, quota: RequestQuota) -> Result<QuotaDecision, CacheError> {
        let each = f64::from(quota.seconds) * 1e6 / f64::from(quota.requests);
        let mut spend = cmd("EVAL");
        spend.arg(SPEND).arg(1).arg(quota_key(caller)).arg(each).arg(quota.burst);
        let (passes, remaining, micros): (u8, u32, u64) = self.query(&spend).await?;
        let time = Duration::from_micros(micros);
        Ok(match passes {
            1 => QuotaDecision::Allowed { remaining, full_in: time },
            _ => QuotaDecision::Limited { next_in: time },
        })
    }

    /// Verifies that the server accepts writes from this function, by setting a marker for a record that no table
    /// contains.
    ///
    /// # Errors
    /// [`CacheError`].
    pub async fn check_writable(&self) -> Result<(), CacheError> {
        self.invalidate("millrace:1:{proof}", MinVersion::HIGHEST).await
    }

    async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, CacheError> {
        let call = self.in_flight();
        let response = match &self.link {
            CacheTransport::Single(connection) => command.query_async(&mut connection.clone()).await,
            CacheTransport::Cluster(connection) => command.query_async(&mut (**connection).clone()).await,
        };
        call.end();
        response.map_err(|error: RedisError| self.failed(&error))
    }

    fn failed(&self, error: &RedisError) -> CacheError {
        match self.cache.upgrade() {
            Some(cache) => CacheError::from_redis(error, &cache.settings),
            None => CacheError::Unavailable(format!("the cache client was dropped: {error}")),
        }
    }
}

fn quota_key(caller: &str) -> String {
    // Half of the digest suffices to distinguish callers.
    let digest = u128::from_be_bytes(*sha256(caller).first_chunk().unwrap_or(&[0; 16]));
    format!("millrace:quota:{{{digest:032x}}}")
}

fn marker_script_sha1() -> &'static str {
    static NAME: std::sync::LazyLock<String> =
        std::sync::LazyLock::new(|| redis::Script::new(SET_MARKER).get_hash().to_owned());
    &NAME
}

fn kept_for(entry: &CacheEntry, now: OffsetDateTime) -> Duration {
    let longest = MAX_ENTRY_TTL.saturating_sub(Duration::from_millis(entry.version % JITTER_MS));
    let ends = entry.expires_at.map(|ends| ends.saturating_sub(now.unix_timestamp()).max(0).unsigned_abs());
    ends.map_or(longest, |seconds| longest.min(Duration::from_secs(seconds))).max(FENCE_TTL)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::user::Timestamp;
    use crate::user::id::UserId;

    const NOW: OffsetDateTime = datetime!(2026-11-22 10:00 UTC);

    fn kept(version: u64, ends_in: Option<i64>) -> Duration {
        let expires_at = ends_in.map(|seconds| NOW.unix_timestamp() + seconds);
        kept_for(&CacheEntry { version, expires_at, json: Vec::new() }, NOW)
    }

    #[test]
    fn a_record_is_kept_for_a_quarter_of_an_hour_or_a_little_less_and_at_least_as_long_as_a_mark() {
        assert_eq!(kept(JITTER_MS, None), MAX_ENTRY_TTL);
        assert_eq!(kept(JITTER_MS - 1, None), MAX_ENTRY_TTL.saturating_sub(Duration::from_millis(JITTER_MS - 1)));
        assert_eq!(kept(JITTER_MS, Some(100)), Duration::from_secs(100));
        for soon in [2, 0, -100] {
            assert_eq!(kept(JITTER_MS, Some(soon)), FENCE_TTL);
        }
    }

    #[test]
    fn a_key_names_the_table_and_the_record_between_braces() {
        let record = UserKey { id: UserId::parse("auth0|ada").unwrap(), timestamp: Timestamp::parse(7).unwrap() };
        assert_eq!(key("Users", &record), "millrace:1:{Users/auth0|ada/7}");
    }

    #[test]
    fn a_caller_s_name_stays_here() {
        let key = quota_key("jwt https://issuer.example ada@example.com");
        assert!(key.starts_with("millrace:quota:{") && !key.contains("ada"), "{key}");
    }
}
