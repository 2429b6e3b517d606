//! The expiry of a record: the table's TTL attribute.

use time::OffsetDateTime;

use super::InvalidFieldError;
use crate::number;

/// The epoch second from which on a record is absent.
///
/// A value from a client is [parsed](Self::parse) strictly. A stored value may be another program's and is
/// [read](Self::from_stored) as DynamoDB's TTL interprets it: a record is absent if and only if TTL is due to remove
/// it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ExpiresAt(i64);

impl ExpiresAt {
    /// The maximum time between now and a future expiry: 50 years of 365.25 days.
    pub const MAX_AHEAD_SECONDS: i64 = 50 * 31_557_600;
    /// The maximum time between a past expiry and now: 4 years of 365.25 days. DynamoDB's TTL ignores an expiry of more
    /// than five years ago, so such a record would never be removed or archived. The fifth year is the time that TTL
    /// has to remove it.
    pub const MAX_PAST_SECONDS: i64 = 4 * 31_557_600;
    /// The maximum age of an expiry for which DynamoDB's TTL removes the item: 5 years of 365.25 days.
    pub const TTL_SECONDS: i64 = 5 * 31_557_600;
    /// The latest valid stored expiry: the largest integer that every JSON parser represents exactly. A later one, more
    /// than 285 million years ahead, counts as none.
    pub const MAX_STORED_SECONDS: i64 = (1 << 53) - 1;

    /// Parses an expiry from a client: epoch seconds, at most 4 years ago and at most 50 years ahead. With an expiry in
    /// the past the record is absent at once, and TTL removes it, so that it is archived.
    ///
    /// # Errors
    /// The expiry is negative, more than 4 years before `now` or more than 50 years after it.
    pub fn parse(seconds: i64, now: OffsetDateTime) -> Result<Self, InvalidFieldError> {
        let now = now.unix_timestamp();
        let first = now.saturating_sub(Self::MAX_PAST_SECONDS).max(0);
        if (first..=now.saturating_add(Self::MAX_AHEAD_SECONDS)).contains(&seconds) {
            Ok(Self(seconds))
        } else {
            Err(InvalidFieldError(
                "expires_at must be whole seconds since 1970, at most 4 years ago and at most 50 years from now",
            ))
        }
    }

    /// Reads the number of a stored item as DynamoDB's TTL interprets it. Returns `None` if TTL never removes the item.
    ///
    /// A fraction is rounded up: the record is absent from the next second on. TTL ignores zero, negative numbers,
    /// expiries of more than 5 years ago, and values of any type other than Number.
    #[must_use]
    pub fn from_stored(number: &str, now: OffsetDateTime) -> Option<Self> {
        let seconds = whole_seconds(number)?;
        let is_one = Self::last_forgotten(now) < seconds && seconds <= Self::MAX_STORED_SECONDS;
        is_one.then_some(Self(seconds))
    }

    /// Returns the latest expiry, in epoch seconds, that is too old for TTL.
    #[must_use]
    pub fn last_forgotten(now: OffsetDateTime) -> i64 {
        now.unix_timestamp().saturating_sub(Self::TTL_SECONDS).max(0)
    }

    /// Returns whether the record is absent at `now`.
    #[must_use]
    pub fn is_past(self, now: OffsetDateTime) -> bool {
        self.0 <= now.unix_timestamp()
    }

    /// Returns the epoch second.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.0
    }
}

/// Parses a decimal number of seconds and rounds it up. Returns `None` if the text is not a number or exceeds 64 bits.
#[must_use]
pub fn whole_seconds(number: &str) -> Option<i64> {
    let spelled = number::canonical(number)?;
    let Some((digits, power)) = spelled.split_once('E') else {
        return spelled.parse().ok();
    };
    // The canonical form has a positive power only for numbers of more than 40 digits, which exceed 64 bits.
    let fraction = usize::try_from(power.parse::<i64>().ok()?.checked_neg()?).ok()?;
    let (sign, digits) = digits.strip_prefix('-').map_or((1, digits), |digits| (-1, digits));
    let whole = match digits.len().checked_sub(fraction) {
        None | Some(0) => 0,
        Some(whole) => digits[..whole].parse::<i64>().ok()?,
    };
    // The last digit of the canonical form is not zero, so the fraction is not zero.
    if sign < 0 { Some(-whole) } else { whole.checked_add(1) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: OffsetDateTime = time::macros::datetime!(2026-11-22 10:00 UTC);

    #[test]
    fn an_expiry_may_be_past_by_4_years_or_up_to_50_years_ahead() {
        let last = NOW.unix_timestamp() + ExpiresAt::MAX_AHEAD_SECONDS;
        let first = NOW.unix_timestamp() - ExpiresAt::MAX_PAST_SECONDS;
        for seconds in [first, NOW.unix_timestamp(), last] {
            assert_eq!(ExpiresAt::parse(seconds, NOW).unwrap().seconds(), seconds);
        }
        for seconds in [-1, 0, first - 1, last + 1, i64::MAX, NOW.unix_timestamp() * 1_000] {
            assert!(ExpiresAt::parse(seconds, NOW).is_err(), "{seconds}");
        }
    }

    #[test]
    fn a_stored_number_is_read_as_ttl_reads_it() {
        let now = NOW.unix_timestamp();
        let forgotten = now - ExpiresAt::TTL_SECONDS;
        for (number, expected) in [
            (now.to_string(), Some(now)),
            (format!("{now}.000"), Some(now)),
            (format!("{now}.5"), Some(now + 1)),
            (format!("{}.00000000000000000001", now - 1), Some(now)),
            (format!("{}e-1", now * 10 + 1), Some(now + 1)),
            ("2E+9".to_owned(), Some(2_000_000_000)),
            ((now * 1_000).to_string(), Some(now * 1_000)),
            (ExpiresAt::MAX_STORED_SECONDS.to_string(), Some(ExpiresAt::MAX_STORED_SECONDS)),
            ((ExpiresAt::MAX_STORED_SECONDS + 1).to_string(), None),
            ("12345678901234567890123456789012345678".to_owned(), None),
            ("9.9E+125".to_owned(), None),
            ((forgotten + 1).to_string(), Some(forgotten + 1)),
            (format!("{forgotten}.5"), Some(forgotten + 1)),
            (forgotten.to_string(), None),
            ("0".to_owned(), None),
            ("0.5".to_owned(), None),
            ("-1".to_owned(), None),
            ("-0.5".to_owned(), None),
            ("1E-130".to_owned(), None),
            ("tomorrow".to_owned(), None),
        ] {
            assert_eq!(ExpiresAt::from_stored(&number, NOW).map(ExpiresAt::seconds), expected, "{number}");
        }
    }

    #[test]
    fn whole_seconds_are_rounded_up() {
        for (number, expected) in
            [("1.5", Some(2)), ("-1.5", Some(-1)), ("0.1", Some(1)), ("-0.1", Some(0)), ("x", None)]
        {
            assert_eq!(whole_seconds(number), expected, "{number}");
        }
        assert_eq!(whole_seconds("9223372036854775807"), Some(i64::MAX));
        assert_eq!(whole_seconds("9223372036854775807.5"), None);
        assert_eq!(whole_seconds("1E+60"), None);
    }

    proptest! {
        #[test]
        fn accepted_expiry_is_read_back_unchanged(seconds: u32) {
            let given = ExpiresAt::parse(seconds.into(), NOW);
            if let Ok(given) = given {
                prop_assert_eq!(ExpiresAt::from_stored(&seconds.to_string(), NOW), Some(given));
            }
        }

        #[test]
        fn a_fraction_is_the_next_whole_second(seconds in 1..4_000_000_000_i64, fraction in "0{0,20}[1-9]") {
            prop_assert_eq!(whole_seconds(&format!("{seconds}.{fraction}")), Some(seconds + 1));
        }
    }
}
