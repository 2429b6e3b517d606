//! The timestamp of a record, which is the sort key of the table.

use super::InvalidField;

/// A timestamp in epoch seconds, up to the end of the year 9999. The upper bound detects the most frequent mistake, a
/// time in milliseconds.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 9999-12-31T23:59:59Z.
    pub const MAX_SECONDS: i64 = 253_402_300_799;

    /// Parses a timestamp.
    ///
    /// # Errors
    /// The timestamp is negative or after the year 9999.
    pub fn parse(seconds: i64) -> Result<Self, InvalidField> {
        if (0..=Self::MAX_SECONDS).contains(&seconds) {
            Ok(Self(seconds))
        } else {
            Err(InvalidField("timestamp must be whole seconds since 1970, from 0 to 253402300799 (the year 9999)"))
        }
    }

    /// Returns the epoch second.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_from_1970_to_9999_is_a_timestamp() {
        for seconds in [0, 1, 1_700_000_000, Timestamp::MAX_SECONDS] {
            assert_eq!(Timestamp::parse(seconds).unwrap().seconds(), seconds);
        }
    }

    #[test]
    fn a_negative_second_or_a_millisecond_cannot_be_built() {
        for seconds in [-1, i64::MIN, 1_700_000_000_000, i64::MAX] {
            assert!(Timestamp::parse(seconds).is_err(), "{seconds}");
        }
    }
}
