//! Conversion of a `DynamoDB` value to the value of a column: [`value`].

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use millrace_shared::folding::fold_case;
use millrace_shared::item::columns::plain;
use millrace_shared::number;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime, UtcOffset};

use super::{ColumnType, ColumnValue, TimestampFormat};

/// The maximum number of digits before and after the decimal point of a PostgreSQL `numeric`.
const DIGITS_BEFORE_POINT: i64 = 131_072;
const DIGITS_AFTER_POINT: i64 = 16_383;

/// The years of a point in time, in UTC. PostgreSQL stores none before 4714 BC, and [`OffsetDateTime`] starts earlier.
const YEARS: RangeInclusive<i32> = 0..=9_999;

const DATE: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");

/// A value that the column cannot store.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnfitValue;

/// A string that borrows from its JSON unless it contains an escape.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(transparent)]
pub(super) struct BorrowedText<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// A value with its type tag, of which only the parts that a column can contain are read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum TypedValue<'a> {
    S(#[serde(borrow)] BorrowedText<'a>),
    N(#[serde(borrow)] BorrowedText<'a>),
    B(#[serde(borrow)] BorrowedText<'a>),
    Bool(bool),
    Null(IgnoredAny),
    Ss(#[serde(borrow)] Vec<BorrowedText<'a>>),
    Ns(#[serde(borrow)] Vec<BorrowedText<'a>>),
    Bs(IgnoredAny),
    L(#[serde(borrow)] Vec<&'a RawValue>),
    M(IgnoredAny),
}

/// Converts a value to the type of a column; a NULL has no value.
pub(super) fn value(value: &RawValue, kind: ColumnType) -> Result<Option<ColumnValue<'_>>, UnfitValue> {
    if kind == ColumnType::Json {
        return plain::any(value).map(|json| json.map(ColumnValue::Json)).ok_or(UnfitValue);
    }
    let typed: TypedValue<'_> = serde_json::from_str(value.get()).map_err(|_| UnfitValue)?;
    let converted = match (kind, typed) {
        (_, TypedValue::Null(_)) => return Ok(None),
        (ColumnType::Text, TypedValue::S(text)) => Some(ColumnValue::Text(text.0)),
        (ColumnType::FoldedText, TypedValue::S(text)) => Some(ColumnValue::Text(folded(text.0))),
        (ColumnType::Numeric, TypedValue::N(number)) => numeric(number.0).map(ColumnValue::Numeric),
        (ColumnType::BigInt, TypedValue::N(number)) => {
            number::canonical(&number.0).and_then(|number| number.parse().ok()).map(ColumnValue::BigInt)
        }
        (ColumnType::Boolean, TypedValue::Bool(value)) => Some(ColumnValue::Boolean(value)),
        (ColumnType::Timestamp(TimestampFormat::Rfc3339), TypedValue::S(text)) => {
            rfc3339(&text.0).map(ColumnValue::Timestamp)
        }
        (ColumnType::Timestamp(TimestampFormat::EpochSeconds), TypedValue::N(number)) => {
            since_epoch(&number.0, 6).map(ColumnValue::Timestamp)
        }
        (ColumnType::Timestamp(TimestampFormat::EpochMilliseconds), TypedValue::N(number)) => {
            since_epoch(&number.0, 3).map(ColumnValue::Timestamp)
        }
        (ColumnType::Date, TypedValue::S(text)) => date(&text.0).map(ColumnValue::Date),
        (ColumnType::Bytes, TypedValue::B(text)) => BASE64.decode(text.0.as_bytes()).ok().map(ColumnValue::Bytes),
        (ColumnType::TextArray, TypedValue::Ss(mut texts)) => {
            texts.sort_unstable();
            Some(ColumnValue::TextArray(texts.into_iter().map(|text| text.0).collect()))
        }
        (ColumnType::TextArray, TypedValue::L(elements)) => {
            let text = |element: TypedValue<'_>| match element {
                TypedValue::S(text) => Some(Cow::Owned(text.0.into_owned())),
                _ => None,
            };
            elements_of(&elements, text).map(ColumnValue::TextArray)
        }
        (ColumnType::NumericArray, TypedValue::Ns(numbers)) => {
            let numbers: Option<Vec<_>> = numbers.into_iter().map(|number| numeric(number.0)).collect();
            numbers.map(|mut numbers| {
                numbers.sort_unstable_by(|one, other| compare(one, other));
                ColumnValue::NumericArray(numbers)
            })
        }
        (ColumnType::NumericArray, TypedValue::L(elements)) => {
            let number = |element: TypedValue<'_>| match element {
                TypedValue::N(number) => numeric(Cow::Owned(number.0.into_owned())),
                _ => None,
            };
            elements_of(&elements, number).map(ColumnValue::NumericArray)
        }
        _ => None,
    };
    converted.map(Some).ok_or(UnfitValue)
}

/// Returns the folded text. It borrows if the text is borrowed and folding leaves it unchanged.
fn folded(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => fold_case(text),
        Cow::Owned(text) => Cow::Owned(fold_case(&text).into_owned()),
    }
}

/// Converts the elements of a list, in their order; returns `None` if one of them has another type.
fn elements_of<T>(elements: &[&RawValue], convert: impl Fn(TypedValue<'_>) -> Option<T>) -> Option<Vec<T>> {
    elements.iter().map(|element| convert(serde_json::from_str(element.get()).ok()?)).collect()
}

/// Returns the canonical format of a number that PostgreSQL can store.
fn numeric(text: Cow<'_, str>) -> Option<Cow<'_, str>> {
    let canonical = match text {
        Cow::Borrowed(text) => number::canonical(text)?,
        Cow::Owned(text) => Cow::Owned(number::canonical(&text)?.into_owned()),
    };
    let (_, digits, power) = parts(&canonical);
    let fits = power >= -DIGITS_AFTER_POINT && i64::try_from(digits.len()).ok()? + power <= DIGITS_BEFORE_POINT;
    fits.then_some(canonical)
}

/// Returns the sign, the digits and the power of ten of the last digit of a number in canonical format.
fn parts(canonical: &str) -> (bool, &str, i64) {
    let (negative, unsigned) = canonical.strip_prefix('-').map_or((false, canonical), |unsigned| (true, unsigned));
    let (digits, power) = unsigned.split_once('E').unwrap_or((unsigned, "0"));
    (negative, digits, power.parse().unwrap_or_default())
}

/// Compares two numbers in canonical format by value.
fn compare(one: &str, other: &str) -> Ordering {
    let ((negative, digits, power), (is_negative, other_digits, other_power)) = (parts(one), parts(other));
    // Zero is not negative in canonical format.
    let sign = |negative: bool, digits: &str| if digits == "0" { 0 } else { 1 - 2 * i8::from(negative) };
    let signs = (sign(negative, digits), sign(is_negative, other_digits));
    if signs.0 != signs.1 || signs.0 == 0 {
        return signs.0.cmp(&signs.1);
    }
    let magnitude = |digits: &str, power: i64| i64::try_from(digits.len()).unwrap_or(i64::MAX).saturating_add(power);
    let by_magnitude = magnitude(digits, power).cmp(&magnitude(other_digits, other_power));
    // Of the same magnitude, the digits are compared from the first one on; trailing zeros change nothing.
    let digits = digits.trim_end_matches('0').cmp(other_digits.trim_end_matches('0'));
    let ordering = by_magnitude.then(digits);
    if negative { ordering.reverse() } else { ordering }
}

/// Parses an RFC 3339 time. A leap second has no representation. Between the date and the time, the parser accepts any
/// character, and RFC 3339 `T`, or a space (section 5.6).
fn rfc3339(text: &str) -> Option<OffsetDateTime> {
    if !matches!(text.as_bytes().get(10), Some(b'T' | b't' | b' ')) {
        return None;
    }
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let is_leap_second = text.as_bytes().get(17..19) == Some(b"60");
    if is_leap_second { None } else { within_years(whole_micros(time)?) }
}

/// Cuts off what is finer than a microsecond, the resolution of PostgreSQL.
fn whole_micros(time: OffsetDateTime) -> Option<OffsetDateTime> {
    time.replace_nanosecond(time.nanosecond() / 1_000 * 1_000).ok()
}

/// Returns the time in UTC if its year there is one of [`YEARS`].
fn within_years(time: OffsetDateTime) -> Option<OffsetDateTime> {
    time.checked_to_offset(UtcOffset::UTC).filter(|time| YEARS.contains(&time.year()))
}

/// Converts a number of units since 1970, of which one microsecond is `10^-digits`.
fn since_epoch(text: &str, digits: i64) -> Option<OffsetDateTime> {
    let canonical = number::canonical(text)?;
    let (negative, significant, power) = parts(&canonical);
    let shift = power + digits;
    let number: i128 = significant.parse().ok()?;
    let number = if negative { -number } else { number };
    let scale = |power: i64| u32::try_from(power).ok().and_then(|power| 10_i128.checked_pow(power));
    let micros = if shift >= 0 {
        number.checked_mul(scale(shift)?)?
    } else {
        // Beyond 38 places, less than a microsecond is left.
        scale(-shift).map_or_else(|| number.signum().min(0), |scale| number.div_euclid(scale))
    };
    within_years(OffsetDateTime::from_unix_timestamp_nanos(micros.checked_mul(1_000)?).ok()?)
}

fn date(text: &str) -> Option<Date> {
    (text.len() == 10).then(|| Date::parse(text, DATE).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_compared_by_value() {
        let ascending =
            ["-1E125", "-15", "-10", "-9", "-1E-130", "0", "1E-130", "5E-1", "9", "10", "15", "150", "1E125"];
        for (index, one) in ascending.iter().enumerate() {
            for (at, other) in ascending.iter().enumerate() {
                let (one, other) = (number::canonical(one).unwrap(), number::canonical(other).unwrap());
                assert_eq!(compare(&one, &other), index.cmp(&at), "{one} {other}");
            }
        }
    }

    #[test]
    fn epoch_is_cut_to_the_microsecond_towards_the_past() {
        let of = |text, digits| since_epoch(text, digits).map(OffsetDateTime::unix_timestamp_nanos);
        assert_eq!(of("1700000000.1234567", 6), Some(1_700_000_000_123_456_000));
        assert_eq!(of("1700000000123.4567", 3), Some(1_700_000_000_123_456_000));
        assert_eq!(of("-0.0000001", 6), Some(-1_000));
        assert_eq!((of("1E-130", 6), of("-1E-130", 6)), (Some(0), Some(-1_000)));
        assert_eq!((of("1.7e9", 6), of("0", 3)), (Some(1_700_000_000_000_000_000), Some(0)));
        assert_eq!(of("-62167219200", 6), Some(-62_167_219_200_000_000_000));
        for far in [
            "253402300800",
            "-62167219200.000001",
            "-300000000000",
            "1E125",
            "99999999999999999999999999999999999999",
            "x",
        ] {
            assert_eq!(of(far, 6), None, "{far}");
        }
    }

    proptest! {
        #[test]
        fn order_of_integers_is_the_order_of_their_texts(one: i64, other: i64) {
            let canonical = |number: i64| number::canonical(&number.to_string()).unwrap().into_owned();
            prop_assert_eq!(compare(&canonical(one), &canonical(other)), one.cmp(&other));
        }

        #[test]
        fn epoch_milliseconds_are_exact(millis in -62_135_596_800_000_i64..253_402_300_800_000) {
            let by_millis = since_epoch(&millis.to_string(), 3).unwrap();
            prop_assert_eq!(by_millis.unix_timestamp_nanos(), i128::from(millis) * 1_000_000);
            let seconds = format!("{millis}E-3");
            prop_assert_eq!(since_epoch(&seconds, 6).unwrap(), by_millis);
        }
    }
}
