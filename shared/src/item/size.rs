//! The size of values as DynamoDB counts it, against its 400 KB an item.
//!
//! A text counts its bytes of UTF-8; a number a byte, one more for each two significant digits on either side of the point,
//! and one more if it is negative; a list or a map three bytes, and one more for each element.

use aws_sdk_dynamodb::types::AttributeValue;

use crate::number;

/// The largest item of DynamoDB.
pub const MAX_ITEM_BYTES: usize = 400 * 1_024;

/// The largest value of `attributes` that a record is written with: what is left of 400 KB goes to everything else of a
/// record at its longest, and to `_rev`, which a replica's item has besides.
pub const MAX_ATTRIBUTES_BYTES: usize = 398 * 1_024;

/// The size of a value.
#[must_use]
pub fn size(value: &AttributeValue) -> usize {
    match value {
        AttributeValue::S(text) => text.len(),
        AttributeValue::N(text) => number_size(text),
        AttributeValue::B(bytes) => bytes.as_ref().len(),
        AttributeValue::Ss(set) => set.iter().map(String::len).sum(),
        AttributeValue::Ns(set) => set.iter().map(|text| number_size(text)).sum(),
        AttributeValue::Bs(set) => set.iter().map(|bytes| bytes.as_ref().len()).sum(),
        AttributeValue::L(items) => 3 + items.iter().map(|item| 1 + size(item)).sum::<usize>(),
        AttributeValue::M(members) => {
            3 + members.iter().map(|(name, value)| 1 + name.len() + size(value)).sum::<usize>()
        }
        // NULL and BOOL, and whatever types a later service adds.
        _ => 1,
    }
}

fn number_size(text: &str) -> usize {
    let Some(spelled) = number::canonical(text) else {
        return text.len();
    };
    let (sign, unsigned) = spelled.strip_prefix('-').map_or((0, &*spelled), |unsigned| (1, unsigned));
    let (digits, power) = unsigned.split_once('E').unwrap_or((unsigned, "0"));
    let significant = digits.trim_end_matches('0').len();
    // How many of the digits stand before the point.
    let point = power.parse::<isize>().unwrap_or(0).saturating_add_unsigned(digits.len());
    let whole = usize::try_from(point).unwrap_or(0).min(significant);
    1 + sign + whole.div_ceil(2) + (significant - whole).div_ceil(2)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use aws_sdk_dynamodb::primitives::Blob;
    use time::macros::datetime;

    use super::*;
    use crate::item::{Item, encode, text, whole};
    use crate::user::attributes::Attributes;
    use crate::user::email::Email;
    use crate::user::expiry::ExpiresAt;
    use crate::user::id::UserId;
    use crate::user::name::Name;
    use crate::user::status::Status;
    use crate::user::timestamp::Timestamp;
    use crate::user::{Profile, User, UserKey};

    #[test]
    fn a_number_counts_its_significant_digits_by_twos_on_either_side_of_the_point() {
        for (number, expected) in [
            ("0", 1),
            ("-0", 1),
            ("7", 2),
            ("42", 2),
            ("-42", 3),
            ("042.0", 2),
            ("1500", 2),
            ("123", 3),
            ("1.5", 3),
            ("0.005", 2),
            ("1E+125", 2),
            ("12345678901234567890123456789012345678", 20),
            ("-1.2345678901234567890123456789012345678", 22),
        ] {
            assert_eq!(size(&whole(number)), expected, "{number}");
        }
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
            (AttributeValue::L(vec![text("a"), whole(1)]), 8),
            (AttributeValue::M(HashMap::from([("name".to_owned(), text("a"))])), 9),
        ] {
            assert_eq!(size(&value), expected, "{value:?}");
        }
    }

    /// The name of a replica's revision, and the longest of them.
    const REVISION_BYTES: usize = "_rev".len() + 31;

    #[test]
    fn the_longest_record_leaves_room_for_a_replica_s_revision() {
        let now = datetime!(2026-11-22 10:00 UTC);
        let profile = Profile {
            name: Name::parse("\u{10ffff}".repeat(Name::MAX_CHARS)).unwrap(),
            email: Some(
                Email::parse(format!("a@{}.{}.{}.{}", "b".repeat(63), "c".repeat(63), "d".repeat(63), "e".repeat(60)))
                    .unwrap(),
            ),
            status: Some(Status::parse("\u{10ffff}".repeat(Status::MAX_CHARS)).unwrap()),
            attributes: Some(Attributes::default()),
            expires_at: ExpiresAt::of_stored(&ExpiresAt::MAX_STORED_SECONDS.to_string(), now),
        };
        assert_eq!(profile.email.as_ref().unwrap().as_str().len(), Email::MAX_CHARS);
        let id = UserId::parse("u".repeat(UserId::MAX_CHARS)).unwrap();
        let key = UserKey { id, timestamp: Timestamp::parse(Timestamp::MAX_SECONDS).unwrap() };
        let mut user = User::created(key, profile, now);
        user.version = u64::MAX;
        let item: Item = encode(&user).unwrap();
        let rest: usize = item.iter().map(|(name, value)| name.len() + size(value)).sum();
        // The empty map counts three bytes, which the largest includes.
        assert!(rest - 3 + REVISION_BYTES + MAX_ATTRIBUTES_BYTES <= MAX_ITEM_BYTES, "{rest}");
    }
}
