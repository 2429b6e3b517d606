//! Calls to the cache with a timeout and a circuit breaker, for the record cache and for the rate limiter.
//!
//! A failed call is never an error of the request: its caller continues as if there were no cache.

use std::sync::Arc;
use std::time::Duration;

use millrace_shared::cache::{Cache, CacheConnection, CacheError};
use millrace_shared::metric;
use tokio::time::{Instant, timeout_at};

use super::breaker::CircuitBreaker;

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

/// A client of the cache. Clones share the connection and the circuit breaker.
#[derive(Clone)]
pub(crate) struct CacheClient(Arc<CacheClientInner>);

struct CacheClientInner {
    cache: Cache,
    timeouts: CacheTimeouts,
    breaker: CircuitBreaker,
}

impl std::fmt::Debug for CacheClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CacheClient").field(&self.0.cache).finish()
    }
}

impl CacheClient {
    pub(super) fn new(cache: Cache, timeouts: CacheTimeouts) -> Self {
        Self(Arc::new(CacheClientInner { cache, timeouts, breaker: CircuitBreaker::new(timeouts.cooldown) }))
    }

    /// Connects before the first call. An error is only logged.
    pub(super) async fn connect(&self) {
        if let Err(error) = self.0.cache.connection().await {
            tracing::warn!(%error, "cannot connect to the cache: reading from the table instead");
        }
    }

    /// Makes one call and returns the connection that it used with its result. Returns `None` if the call failed or
    /// timed out, or if the circuit breaker is open.
    pub(crate) async fn call<T>(
        &self,
        work: impl AsyncFnOnce(&CacheConnection) -> Result<T, CacheError>,
    ) -> Option<(CacheConnection, T)> {
        let now = Instant::now();
        if !self.0.breaker.try_acquire(now) {
            return None;
        }
        let deadline = now + self.0.timeouts.call;
        let connection = match timeout_at(deadline, self.0.cache.connection()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return self.record_failure(None, &error),
            Err(_) => return self.record_failure(None, &self.timeout_error()),
        };
        let result = self.result_by(deadline, &connection, work(&connection)).await?;
        self.0.breaker.record_success();
        Some((connection, result))
    }

    /// Makes one call on this connection and never on another one, whatever the state of the circuit breaker. Returns
    /// `None` if the call failed or timed out, or if the connection has been discarded or replaced.
    pub(super) async fn call_on<T>(
        &self,
        connection: &CacheConnection,
        work: impl AsyncFnOnce(&CacheConnection) -> Result<T, CacheError>,
    ) -> Option<T> {
        if !self.0.cache.is_open(connection) {
            return None;
        }
        self.result_by(Instant::now() + self.0.timeouts.call, connection, work(connection)).await
    }

    async fn result_by<T>(
        &self,
        deadline: Instant,
        connection: &CacheConnection,
        call: impl Future<Output = Result<T, CacheError>>,
    ) -> Option<T> {
        match timeout_at(deadline, call).await {
            Ok(Ok(result)) => Some(result),
            Ok(Err(error)) => self.record_failure(Some(connection), &error),
            Err(_) => self.record_failure(Some(connection), &self.timeout_error()),
        }
    }

    /// Opens the circuit breaker, discards the connection, and returns the result of a failed call.
    fn record_failure<T>(&self, connection: Option<&CacheConnection>, error: &CacheError) -> Option<T> {
        if let Some(connection) = connection {
            self.0.cache.discard(connection);
        }
        self.0.breaker.record_failure(Instant::now());
        metric::CACHE_ERRORS.increment([], 1);
        tracing::warn!(%error, "cache call failed: continuing without the cache");
        None
    }

    fn timeout_error(&self) -> CacheError {
        let (endpoint, timeout) = (self.0.cache.endpoint(), self.0.timeouts.call);
        CacheError::Unavailable(format!("the cache at {endpoint} did not respond within {timeout:?}"))
    }
}
