//! A decimal number as text: exact, and within the range of DynamoDB's type N.

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::number::canonical;
use crate::user::InvalidFieldError;

/// The maximum number of significant digits in DynamoDB.
const MAX_DIGITS: usize = 38;
/// The power of ten of a number's first digit. DynamoDB stores magnitudes from 1E-130 to 9.99…E+125, of either sign,
/// and zero.
const MAGNITUDES: std::ops::RangeInclusive<i64> = -130..=125;
/// The maximum length of a preserved format, in bytes. A longer text is replaced by its canonical form, which is short.
const MAX_SPELLING: usize = 64;

/// A number in JSON syntax. Its format is preserved where possible: `1.50` stays `1.50` until it is written to the
/// table, which stores the value and returns `1.5`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JsonNumber(String);

impl JsonNumber {
    /// Parses a number in the syntax of JSON or of DynamoDB, which also allows `.5` and `+5`.
    ///
    /// # Errors
    /// The text is not a number, has more than 38 significant digits, or is out of range.
    pub fn parse(text: &str) -> Result<Self, InvalidFieldError> {
        const MAGNITUDE: InvalidFieldError =
            InvalidFieldError("number out of range: its magnitude must be between 1E-130 and 1E+126");
        let Some(spelling) = canonical(text) else {
            // An exponent that is too large for an integer is out of range, unless the number is zero.
            return match mantissa_of_monstrous_exponent(text).as_deref() {
                Some("0") => Ok(Self("0".into())),
                Some(_) => Err(MAGNITUDE),
                None => Err(InvalidFieldError("not a number")),
            };
        };
        if spelling == "0" {
            return Ok(Self("0".into()));
        }
        let unsigned = spelling.strip_prefix('-').unwrap_or(&spelling);
        let (digits, power) = match unsigned.split_once('E') {
            Some((digits, power)) => (digits, power.parse().map_err(|_| MAGNITUDE)?),
            None => (unsigned, 0_i64),
        };
        if digits.trim_end_matches('0').len() > MAX_DIGITS {
            return Err(InvalidFieldError(
                "number too precise: at most 38 significant digits can be stored; send it as a string",
            ));
        }
        let first = i64::try_from(digits.len()).unwrap_or(i64::MAX).saturating_add(power) - 1;
        if !MAGNITUDES.contains(&first) {
            return Err(MAGNITUDE);
        }
        let keep = text.len() <= MAX_SPELLING && serde_json::from_str::<&RawValue>(text).is_ok();
        Ok(Self(if keep { text.trim().to_owned() } else { spelling.into_owned() }))
    }

    /// Returns the number as text that is valid in JSON and in DynamoDB.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the number as text.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

fn mantissa_of_monstrous_exponent(text: &str) -> Option<Cow<'_, str>> {
    let (mantissa, exponent) = text.split_once(['e', 'E'])?;
    let digits = exponent.trim_start_matches(['+', '-']);
    let is_exponent = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    canonical(mantissa).filter(|_| is_exponent)
}

impl Serialize for JsonNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match RawValue::from_string(self.0.clone()) {
            Ok(raw) => raw.serialize(serializer),
            Err(error) => Err(serde::ser::Error::custom(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_keeps_its_spelling_where_json_can_read_it() {
        for text in ["0e99999999999", "-0.0E-99999999999"] {
            assert_eq!(JsonNumber::parse(text).unwrap().as_str(), "0", "{text}");
        }
        for text in ["0", "1.50", "-1e5", "1E+125", "1e-130", "12345678901234567890123456789012345678"] {
            assert_eq!(JsonNumber::parse(text).unwrap().as_str(), text);
        }
        for (text, kept) in [("-0", "0"), ("0e999", "0"), (".5", "5E-1"), ("+5", "5"), ("007", "7"), ("5.", "5")] {
            assert_eq!(JsonNumber::parse(text).unwrap().as_str(), kept);
        }
        let long = format!("1.{}", "0".repeat(500));
        assert_eq!(JsonNumber::parse(&long).unwrap().as_str(), "1");
    }

    #[test]
    fn a_number_of_38_digits_fits_and_one_of_39_is_too_precise() {
        for digits in ["9".repeat(38), format!("0.{}", "9".repeat(38)), format!("{}00", "9".repeat(38))] {
            assert!(JsonNumber::parse(&digits).is_ok(), "{digits}");
        }
        for digits in ["9".repeat(39), format!("0.{}", "9".repeat(39)), format!("1{}1", "0".repeat(37))] {
            assert!(JsonNumber::parse(&digits).unwrap_err().to_string().contains("38 significant"), "{digits}");
        }
    }

    #[test]
    fn the_magnitudes_are_dynamodb_s() {
        for text in ["9.99e125", "-9.99e125", "1e-130", "0.1e-129", "1234e-130"] {
            assert!(JsonNumber::parse(text).is_ok(), "{text}");
        }
        for text in ["1e126", "-1e126", "9e-131", "0.9e-130", "1e400", "1e-400", "1e99999999999999999999"] {
            assert!(JsonNumber::parse(text).unwrap_err().to_string().contains("out of range"), "{text}");
        }
        for text in ["", "-", "NaN", "Infinity", "1e", "0x1", "1,5"] {
            assert_eq!(JsonNumber::parse(text).unwrap_err().to_string(), "not a number", "{text}");
        }
    }
}
