//! The clock as an argument: code that makes decisions never reads the system clock.

use std::fmt;
use std::sync::Arc;

use time::OffsetDateTime;
use uuid::{NoContext, Timestamp, Uuid};

/// Returns a new UUID version 7 with this time (RFC 9562, section 5.7). IDs of later times sort after it.
#[must_use]
pub fn new_uuid(now: OffsetDateTime) -> Uuid {
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, now.nanosecond()))
}

/// A clock that returns the time in UTC. Clones return the same time.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> OffsetDateTime + Send + Sync>);

impl Clock {
    /// Returns the system clock.
    #[must_use]
    pub fn system() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the only code that reads the system clock")]
        Self(Arc::new(OffsetDateTime::now_utc))
    }

    /// Returns a clock that always returns this time.
    #[must_use]
    pub fn fixed(time: OffsetDateTime) -> Self {
        Self(Arc::new(move || time))
    }

    /// Returns the current time.
    #[must_use]
    pub fn now(&self) -> OffsetDateTime {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_clock_does_not_advance() {
        let clock = Clock::fixed(OffsetDateTime::UNIX_EPOCH);
        assert_eq!((clock.now(), clock.clone().now()), (OffsetDateTime::UNIX_EPOCH, OffsetDateTime::UNIX_EPOCH));
    }

    #[test]
    fn the_system_clock_is_past_this_line_s_writing() {
        assert!(Clock::system().now().year() >= 2026);
    }
}
