//! The size of an item as DynamoDB counts it against its limit of 400 KB: pure.
//!
//! <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html>. That page says
//! "approximately" of numbers; measurements show one byte for every two digits, counted separately before and after the
//! decimal point.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

/// The maximum size of an item, in bytes.
pub const MAX_ITEM_BYTES: usize = 400 * 1024;

/// The overhead of a list or a map, whatever it contains.
const NESTED_BYTES: usize = 3;

pub(super) fn from_attributes(attributes: &HashMap<String, AttributeValue>) -> usize {
    attributes.iter().map(|(name, value)| name.len() + value_bytes(value)).sum()
}

/// Returns the size of a value, in bytes.
#[must_use]
pub fn value_bytes(value: &AttributeValue) -> usize {
    match value {
        AttributeValue::S(text) => text.len(),
        AttributeValue::N(number) => number_size(number),
        AttributeValue::B(bytes) => bytes.as_ref().len(),
        AttributeValue::Ss(texts) => texts.iter().map(String::len).sum(),
        AttributeValue::Ns(numbers) => numbers.iter().map(|number| number_size(number)).sum(),
        AttributeValue::Bs(all) => all.iter().map(|bytes| bytes.as_ref().len()).sum(),
        AttributeValue::L(values) => NESTED_BYTES + values.iter().map(|value| 1 + value_bytes(value)).sum::<usize>(),
        AttributeValue::M(fields) => NESTED_BYTES + fields.len() + from_attributes(fields),
        // A flag, or null.
        _ => 1,
    }
}

fn number_size(text: &str) -> usize {
    let unsigned = text.trim_start_matches(['-', '+']);
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    let significant = digits.trim_start_matches('0');
    let leading = digits.len() - significant.len();
    let significant = significant.trim_end_matches('0').len();
    let signed = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
    // The number of significant digits before the decimal point.
    let before = signed(whole.len()) - signed(leading) + exponent.parse::<i64>().unwrap_or_default();
    let before = usize::try_from(before.clamp(0, signed(significant))).unwrap_or_default();
    let sign = usize::from(text.starts_with('-') && significant > 0);
    before.div_ceil(2) + (significant - before).div_ceil(2) + 1 + sign
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::primitives::Blob;

    use super::*;
    use crate::item::{integer, text};

    #[test]
    fn a_number_takes_a_byte_for_two_digits_on_each_side_of_the_point() {
        for (number, bytes) in [
            ("0", 1),
            ("-0", 1),
            ("7", 2),
            ("42", 2),
            ("-42", 3),
            ("1.5", 3),
            ("1500", 2),
            ("1E+125", 2),
            ("0.001", 2),
            ("1.5e3", 2),
            ("042.0", 2),
            ("123", 3),
            ("0.005", 2),
            ("12345678901234567890123456789012345678", 20),
            ("-1.2345678901234567890123456789012345678", 22),
        ] {
            assert_eq!(number_size(number), bytes, "{number}");
        }
        assert_eq!(number_size(&"9".repeat(38)), 20);
    }

    #[test]
    fn names_values_and_what_nests_them_are_counted() {
        let item = crate::raw_item::RawItem::parse(
            r#"{"k":{"S":"ä"},"f":{"BOOL":true},"z":{"NULL":true},"b":{"B":"AAAA"},"s":{"SS":["a","bc"]},
                "l":{"L":[{"S":"x"},{"N":"1"}]},"m":{"M":{"in":{"S":"y"}}}}"#,
        );
        // Names 7; ä 2, flags 1 and 1, bytes 3, set 3; list 3 + 2 + 1 + 2; map 3 + 1 + 2 + 1.
        assert_eq!(item.unwrap().size_bytes(), 7 + 2 + 1 + 1 + 3 + 3 + 8 + 7);
    }

    #[test]
    fn every_type_has_its_size() {
        let blob = || Blob::new([1, 2]);
        for (value, expected) in [
            (text("é"), 2),
            (AttributeValue::B(blob()), 2),
            (AttributeValue::Bool(true), 1),
            (AttributeValue::Null(true), 1),
            (AttributeValue::Ss(vec!["a".into(), "bc".into()]), 3),
            (AttributeValue::Ns(vec!["1".into(), "23".into()]), 4),
            (AttributeValue::Bs(vec![blob()]), 2),
            (AttributeValue::L(vec![text("a"), integer(1)]), 8),
            (AttributeValue::M(HashMap::from([("name".to_owned(), text("a"))])), 9),
        ] {
            assert_eq!(value_bytes(&value), expected, "{value:?}");
        }
    }
}
