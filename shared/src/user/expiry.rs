//! When a record ends: the table's TTL attribute.

use time::OffsetDateTime;

use super::Invalid;

/// Whole seconds since 1970, at most 4 years ago and at most 50 years from now. A past second is allowed: it
/// ends the record at once, and TTL then hands it to the archive.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ExpiresAt(i64);

impl ExpiresAt {
    /// How far ahead an expiry may lie: 50 years of 365.25 days.
    pub const MAX_AHEAD_SECONDS: i64 = 50 * 31_557_600;
    /// How long ago an expiry may lie: 4 years of 365.25 days. DynamoDB's TTL leaves alone what ended more than five
    /// years ago, so such a record would be absent and yet never be removed or archived; TTL has the fifth year to act.
    pub const MAX_PAST_SECONDS: i64 = 4 * 31_557_600;

    /// Reads an expiry.
    ///
    /// # Errors
    /// It is negative, more than 4 years before `now` or more than 50 years after it.
    pub fn parse(seconds: i64, now: OffsetDateTime) -> Result<Self, Invalid> {
        let now = now.unix_timestamp();
        let first = now.saturating_sub(Self::MAX_PAST_SECONDS).max(0);
        if (first..=now.saturating_add(Self::MAX_AHEAD_SECONDS)).contains(&seconds) {
            Ok(Self(seconds))
        } else {
            Err(Invalid(
                "expires_at must be whole seconds since 1970, at most 4 years ago and at most 50 years from now",
            ))
        }
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
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
}
