//! Correction of a local clock that differs from the service's: [`ClockSkew`].

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

/// The largest difference that is not corrected: such a rejection has another cause. The service accepts 5 minutes.
const TOLERATED: Duration = Duration::from_mins(4);

/// The difference between the service's clock and the local one, in milliseconds; positive if the service is ahead.
#[derive(Debug, Default)]
pub(crate) struct ClockSkew(AtomicI64);

impl ClockSkew {
    /// Returns the service's time at the local time `now`.
    pub(crate) fn apply(&self, now: SystemTime) -> SystemTime {
        let skew = self.0.load(Ordering::Relaxed);
        let distance = Duration::from_millis(skew.unsigned_abs());
        if skew >= 0 { now + distance } else { now - distance }
    }

    /// Compares the time `signed` of a rejected request with the header `Date` of the response, which arrived at the
    /// local time `now`. Returns whether they differ by more than the service accepts; the difference is then applied
    /// to all following requests.
    pub(crate) fn correct(&self, signed: SystemTime, date: Option<&str>, now: SystemTime) -> bool {
        let date = date.and_then(|date| DateTime::from_str(date, Format::HttpDate).ok());
        let Some(server) = date.and_then(|date| SystemTime::try_from(date).ok()) else { return false };
        let is_skewed =
            millis(server, signed).unsigned_abs() > u64::try_from(TOLERATED.as_millis()).unwrap_or(u64::MAX);
        if is_skewed {
            self.0.store(millis(server, now), Ordering::Relaxed);
        }
        is_skewed
    }
}

/// Returns `left - right`.
fn millis(left: SystemTime, right: SystemTime) -> i64 {
    let number = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    match left.duration_since(right) {
        Ok(ahead) => number(ahead),
        Err(behind) => -number(behind.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn at(seconds: i64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(784_111_777 + seconds).unwrap())
    }

    #[test]
    fn clock_that_is_off_by_more_than_four_minutes_is_corrected() {
        for off in [-100_000, -241, 241, 100_000] {
            let skew = ClockSkew::default();
            assert_eq!(skew.apply(at(off)), at(off));
            assert!(skew.correct(at(off), Some(DATE), at(off)), "{off}");
            assert_eq!(skew.apply(at(off + 5)), at(5));
            // A signature with the corrected time is accepted by this check.
            assert!(!skew.correct(at(0), Some(DATE), at(off)));
        }
    }

    #[test]
    fn clock_that_was_set_meanwhile_is_corrected_again() {
        let skew = ClockSkew::default();
        assert!(skew.correct(at(3_600), Some(DATE), at(3_600)));
        assert!(skew.correct(skew.apply(at(0)), Some(DATE), at(0)));
        assert_eq!(skew.apply(at(0)), at(0));
    }

    #[test]
    fn small_difference_and_missing_date_change_nothing() {
        let skew = ClockSkew::default();
        assert!(!skew.correct(at(200), Some(DATE), at(200)));
        assert!(!skew.correct(at(10_000), None, at(10_000)));
        assert!(!skew.correct(at(10_000), Some("yesterday"), at(10_000)));
        assert_eq!(skew.apply(at(7)), at(7));
    }
}
