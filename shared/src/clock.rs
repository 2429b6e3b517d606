//! The time, as a value that is handed over: code that decides never asks the machine for it.

use std::fmt;
use std::sync::Arc;

use time::OffsetDateTime;

/// Tells the time in UTC. A clone tells the same time.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> OffsetDateTime + Send + Sync>);

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one place where the machine's clock is read")]
        Self(Arc::new(OffsetDateTime::now_utc))
    }

    /// A clock that stands still.
    #[must_use]
    pub fn fixed(time: OffsetDateTime) -> Self {
        Self(Arc::new(move || time))
    }

    /// The time now.
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
    fn a_fixed_clock_stands_still() {
        let clock = Clock::fixed(OffsetDateTime::UNIX_EPOCH);
        assert_eq!((clock.now(), clock.clone().now()), (OffsetDateTime::UNIX_EPOCH, OffsetDateTime::UNIX_EPOCH));
    }

    #[test]
    fn the_system_clock_is_past_this_line_s_writing() {
        assert!(Clock::system().now().year() >= 2026);
    }
}
