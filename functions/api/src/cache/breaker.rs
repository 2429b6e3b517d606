//! Circuit breaker: a failed cache is bypassed for a cooldown; then a single call probes it.
//!
//! | state | next state |
//! | --- | --- |
//! | closed: every call is allowed | open after a failed call |
//! | open: no call is allowed | half-open once the cooldown has passed |
//! | half-open: one call, the probe, is allowed | closed if the probe succeeds; otherwise open for another cooldown |

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub(super) struct CircuitBreaker {
    cooldown: Duration,
    /// The end of the cooldown; `None` while the breaker is closed. While it is set, one call per cooldown is allowed.
    open_until: Mutex<Option<Instant>>,
}

impl CircuitBreaker {
    pub(super) fn new(cooldown: Duration) -> Self {
        Self { cooldown, open_until: Mutex::new(None) }
    }

    /// Returns whether a call may be made now.
    ///
    /// This changes the state of a half-open breaker: the call that is allowed is the probe, and the breaker is open
    /// again, for another cooldown, until [`CircuitBreaker::record_success`] closes it. A caller that gets `true` must
    /// therefore make the call and record its result.
    pub(super) fn try_acquire(&self, now: Instant) -> bool {
        let mut until = self.open_until.lock().unwrap_or_else(PoisonError::into_inner);
        match *until {
            None => true,
            Some(moment) if moment > now => false,
            Some(_) => {
                *until = Some(now + self.cooldown);
                true
            }
        }
    }

    /// Opens the breaker for a cooldown from `now` on.
    pub(super) fn record_failure(&self, now: Instant) {
        *self.open_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(now + self.cooldown);
    }

    /// Closes the breaker.
    pub(super) fn record_success(&self) {
        *self.open_until.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_call_per_cooldown_probes_after_a_failure_until_one_succeeds() {
        let cooldown = Duration::from_secs(1);
        let breaker = CircuitBreaker::new(cooldown);
        let start = Instant::now();
        assert!(breaker.try_acquire(start) && breaker.try_acquire(start));
        breaker.record_failure(start);
        assert!(!breaker.try_acquire(start + cooldown / 2));
        assert!(breaker.try_acquire(start + cooldown), "one trial call");
        assert!(!breaker.try_acquire(start + cooldown), "only one trial call");
        breaker.record_failure(start + cooldown);
        assert!(!breaker.try_acquire(start + cooldown + cooldown / 2));
        assert!(breaker.try_acquire(start + cooldown * 2));
        breaker.record_success();
        assert!(breaker.try_acquire(start + cooldown * 2));
    }
}
