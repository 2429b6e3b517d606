//! Circuit breaker: a failed cache is bypassed for a cooldown; then a single call probes it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub(super) struct CircuitBreaker {
    rest: Duration,
    /// While this is set, only one call per cooldown is allowed.
    open_until: Mutex<Option<Instant>>,
}

impl CircuitBreaker {
    pub(super) fn new(rest: Duration) -> Self {
        Self { rest, open_until: Mutex::new(None) }
    }

    /// Returns whether a call may be made now.
    pub(super) fn allows_call(&self, now: Instant) -> bool {
        let mut until = self.open_until.lock().unwrap_or_else(PoisonError::into_inner);
        match *until {
            None => true,
            Some(moment) if moment > now => false,
            Some(_) => {
                // This call probes the cache; the others are rejected until it succeeds or another cooldown has passed.
                *until = Some(now + self.rest);
                true
            }
        }
    }

    pub(super) fn record_failure(&self, now: Instant) {
        *self.open_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(now + self.rest);
    }

    pub(super) fn record_success(&self) {
        *self.open_until.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn after_a_failure_one_call_in_each_rest_tries_until_one_succeeds() {
        let rest = Duration::from_secs(1);
        let breaker = CircuitBreaker::new(rest);
        let start = Instant::now();
        assert!(breaker.allows_call(start) && breaker.allows_call(start));
        breaker.record_failure(start);
        assert!(!breaker.allows_call(start + rest / 2));
        assert!(breaker.allows_call(start + rest), "one trial call");
        assert!(!breaker.allows_call(start + rest), "only one trial call");
        breaker.record_failure(start + rest);
        assert!(!breaker.allows_call(start + rest + rest / 2));
        assert!(breaker.allows_call(start + rest * 2));
        breaker.record_success();
        assert!(breaker.allows_call(start + rest * 2));
    }
}
