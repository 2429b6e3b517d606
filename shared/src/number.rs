//! The canonical format of DynamoDB numbers, for comparison by value: `1`, `1.0` and `1e0` are the same number.
//!
//! A number of 38 digits does not fit into a float or into an `i128` with an exponent, so the text itself is converted,
//! without rounding. The canonical format is used wherever numbers are grouped, compared or hashed.

use std::borrow::Cow;

/// The maximum number of digits of an integer without an exponent.
const PLAIN_DIGITS: i64 = 40;

/// Returns the canonical format of a decimal number, or `None` if the text is not a number.
///
/// Zero is `0`. An integer of up to 40 digits is written in full. Any other number is its significant digits, `E`, and
/// the power of ten of the last digit.
#[must_use]
pub fn canonical(text: &str) -> Option<Cow<'_, str>> {
    if is_plain_integer(text) {
        return Some(Cow::Borrowed(text));
    }
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return Some(Cow::Borrowed("0"));
    }
    let trailing = digits.len() - digits.trim_end_matches('0').len();
    let power = i64::from(exponent) + i64::try_from(trailing).ok()? - i64::try_from(fraction.len()).ok()?;
    let sign = if negative { "-" } else { "" };
    let length = i64::try_from(significant.len()).ok()? + power;
    Some(Cow::Owned(match usize::try_from(power) {
        Ok(zeros) if length <= PLAIN_DIGITS => format!("{sign}{significant}{}", "0".repeat(zeros)),
        _ => format!("{sign}{significant}E{power}"),
    }))
}

/// Returns whether DynamoDB can store a number of this canonical format: its magnitude is 0, or from 1E-130 to less than
/// 1E+126.
///
/// Source: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html>
pub(crate) fn is_in_range(canonical: &str) -> bool {
    // Without an exponent, a canonical number is an integer of at most 40 digits.
    canonical.split_once('E').is_none_or(|(digits, power)| {
        let digits = digits.trim_start_matches('-').len();
        let (Ok(digits), Ok(power)) = (i64::try_from(digits), power.parse::<i64>()) else { return false };
        (-130..=125).contains(&(digits + power - 1))
    })
}

/// Returns whether the text is a non-negative integer in canonical format, as in nearly every key.
pub(crate) fn is_plain_integer(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= 40 && bytes.iter().all(u8::is_ascii_digit) && matches!(bytes, [b'0'] | [b'1'..=b'9', ..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_spelling_of_a_number_is_one() {
        for spellings in [
            ["1", "1.0", "1e0", "+1", "0.1E1", "10e-1", "001.000"],
            ["0", "0.0", "-0", "0e9", "00", "+0", "-0.0e-3"],
            ["-1500", "-1.5e3", "-15E2", "-1500.0", "-01500", "-0.15e4", "-15000e-1"],
        ] {
            for spelling in spellings {
                assert_eq!(canonical(spelling).unwrap(), spellings[0], "{spelling}");
            }
        }
        assert_eq!(canonical("0.5").unwrap(), canonical("5e-1").unwrap());
        assert_eq!(canonical("1e125").unwrap(), canonical("10e124").unwrap());
    }

    #[test]
    fn thirty_eight_digits_are_kept() {
        let digits = "12345678901234567890123456789012345678";
        assert_eq!(canonical(digits).unwrap(), digits);
        assert_eq!(canonical(&format!("{digits}.0")).unwrap(), digits);
        assert_ne!(canonical(&format!("0.{digits}")), canonical("0.12345678901234567890123456789012345679"));
    }

    #[test]
    fn non_number_has_no_canonical_form() {
        for text in ["", "-", ".", "e5", "1e", "1.2.3", "NaN", "0x10", " 1", "1e99999999999", "--1"] {
            assert_eq!(canonical(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_range_is_that_of_dynamodb() {
        for (text, expected) in [
            ("0", true),
            ("-12345678901234567890123456789012345678", true),
            ("9.9999999999999999999999999999999999999E+125", true),
            ("-1E-130", true),
            ("1E126", false),
            ("9E-131", false),
            ("1E400", false),
        ] {
            assert_eq!(is_in_range(&canonical(text).unwrap()), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn canonical_form_is_independent_of_the_decimal_point_position(
            digits in "[1-9][0-9]{0,37}", shift in -60_i32..60, negative: bool,
        ) {
            let sign = if negative { "-" } else { "" };
            let one = format!("{sign}{digits}e{shift}");
            let other = format!("{sign}0.{digits}e{}", shift + i32::try_from(digits.len()).unwrap());
            let longer = format!("{sign}{digits}00.0e{}", shift - 2);
            prop_assert_eq!(canonical(&one), canonical(&other));
            prop_assert_eq!(canonical(&one), canonical(&longer));
        }

        #[test]
        fn a_canonical_number_is_its_own_spelling(text in "-?[0-9]{1,30}(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?") {
            let once = canonical(&text).unwrap().into_owned();
            prop_assert_eq!(canonical(&once).unwrap().into_owned(), once.clone());
        }

        #[test]
        fn integers_are_compared_by_value(a: i64, b: i64) {
            let same = canonical(&a.to_string()) == canonical(&format!("{b}.0"));
            prop_assert_eq!(same, a == b);
        }
    }
}
