//! The key and the version of a user's item, read directly from its JSON in a stream record. Nothing else is parsed.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::ItemParseError;
use crate::change::{CanonicalKey, ItemImage};
use crate::user::id::UserId;
use crate::user::{Timestamp, UserKey};

/// A number in DynamoDB JSON.
#[derive(Deserialize)]
struct NumberAttribute<'a> {
    #[serde(rename = "N", borrow)]
    digits: &'a str,
}

/// A string in DynamoDB JSON.
#[derive(Deserialize)]
struct StringAttribute {
    #[serde(rename = "S")]
    text: String,
}

/// Returns the version of an item, or 0 if it has none or an invalid one. Returns `None` if the text is not an item.
#[must_use]
pub fn image_version(image: ItemImage<'_>) -> Option<u64> {
    #[derive(Deserialize)]
    struct Versioned<'a> {
        #[serde(borrow)]
        version: Option<&'a RawValue>,
    }
    let item: Versioned<'_> = serde_json::from_str(image.get()).ok()?;
    let number = item.version.and_then(|raw| serde_json::from_str::<NumberAttribute<'_>>(raw.get()).ok());
    Some(number.and_then(|number| number.digits.parse().ok()).unwrap_or(0))
}

/// Parses the key of a user record.
///
/// # Errors
/// The key is not that of a record of the API.
pub fn image_key(key: &CanonicalKey) -> Result<UserKey, ItemParseError> {
    #[derive(Deserialize)]
    struct Wire<'a> {
        user_id: StringAttribute,
        #[serde(borrow)]
        timestamp: NumberAttribute<'a>,
    }
    let refused = |attribute, reason: String| ItemParseError { attribute, reason };
    let wire: Wire<'_> = serde_json::from_str(key.as_str())
        .map_err(|_| refused(super::USER_ID, "a key attribute is missing or has the wrong type".into()))?;
    let id = UserId::parse(wire.user_id.text).map_err(|error| refused(super::USER_ID, error.to_string()))?;
    let seconds = wire.timestamp.digits.parse().ok();
    let timestamp = seconds.and_then(|seconds| Timestamp::parse(seconds).ok());
    let timestamp = timestamp.ok_or_else(|| refused(super::TIMESTAMP, "not a timestamp in seconds".into()))?;
    Ok(UserKey { id, timestamp })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(json: &str) -> Option<u64> {
        let raw = RawValue::from_string(json.to_owned()).unwrap();
        image_version(ItemImage::parse(&raw).unwrap())
    }

    #[test]
    fn a_version_is_read_past_everything_else() {
        assert_eq!(
            version(r#"{"a":{"M":{"version":{"N":"1"}}},"version":{"N":"18446744073709551615"}}"#),
            Some(u64::MAX)
        );
        for none in [r"{}", r#"{"version":{"S":"7"}}"#, r#"{"version":{"N":"-7"}}"#, r#"{"version":{"N":"1.5"}}"#] {
            assert_eq!(version(none), Some(0), "{none}");
        }
        assert_eq!(version(r#"{"version":{"N":"1"},"version":{"N":"2"}}"#), None, "a duplicate attribute is ambiguous");
    }

    #[test]
    fn a_key_is_a_record_s_or_refused() {
        let of = |json: &str| image_key(&CanonicalKey::parse(json).unwrap());
        let key = of(r#"{"timestamp":{"N":"7.0"},"user_id":{"S":"auth0|ada"}}"#).unwrap();
        assert_eq!((key.id.as_str(), key.timestamp.seconds()), ("auth0|ada", 7));
        for other in [
            r#"{"id":{"S":"ada"}}"#,
            r#"{"timestamp":{"S":"7"},"user_id":{"S":"ada"}}"#,
            r#"{"timestamp":{"N":"-7"},"user_id":{"S":"ada"}}"#,
            r#"{"timestamp":{"N":"7"},"user_id":{"S":"a d a"}}"#,
        ] {
            assert!(of(other).is_err(), "{other}");
        }
    }
}
