//! Conversion between JSON and DynamoDB values. A number keeps its text in both directions.
//!
//! DynamoDB has types that JSON lacks, and another program may have stored them in `attributes`: a set is read as a
//! list in a fixed order, and binary data as base64 text. [`merge`] works on DynamoDB values, so a patch does not
//! change the types of members that it does not name.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::user::attributes::UserAttributes;
use crate::user::json::{JsonNumber, JsonValue};
use crate::user::{AttributesPatch, InvalidFieldError};

/// Encodes attributes as a map.
#[must_use]
pub fn encode(attributes: &UserAttributes) -> AttributeValue {
    AttributeValue::M(attributes.members().iter().map(|(name, json)| (name.clone(), encode_json(json))).collect())
}

/// Encodes any JSON value.
#[must_use]
pub fn encode_json(json: &JsonValue) -> AttributeValue {
    match json {
        JsonValue::Null => AttributeValue::Null(true),
        JsonValue::Bool(value) => AttributeValue::Bool(*value),
        JsonValue::Number(number) => AttributeValue::N(number.as_str().to_owned()),
        JsonValue::String(text) => AttributeValue::S(text.clone()),
        JsonValue::Array(items) => AttributeValue::L(items.iter().map(encode_json).collect()),
        JsonValue::Object(members) => {
            AttributeValue::M(members.iter().map(|(name, json)| (name.clone(), encode_json(json))).collect())
        }
    }
}

/// Decodes attributes.
///
/// # Errors
/// The value is not a map, contains a type that this version of the SDK does not know, or contains a number that is not
/// valid.
pub fn decode(value: AttributeValue) -> Result<UserAttributes, InvalidFieldError> {
    match decode_json(value)? {
        JsonValue::Object(members) => Ok(UserAttributes::new(members)),
        _ => Err(InvalidFieldError("must be a map")),
    }
}

/// Decodes any value as JSON.
///
/// # Errors
/// The value contains a type that this version of the SDK does not know, or a number that is not valid.
pub fn decode_json(value: AttributeValue) -> Result<JsonValue, InvalidFieldError> {
    let number = |text: String| JsonNumber::parse(&text).map(JsonValue::Number);
    let binary = |blob: &aws_sdk_dynamodb::primitives::Blob| JsonValue::String(STANDARD.encode(blob));
    Ok(match value {
        AttributeValue::Null(_) => JsonValue::Null,
        AttributeValue::Bool(value) => JsonValue::Bool(value),
        AttributeValue::N(text) => number(text)?,
        AttributeValue::S(text) => JsonValue::String(text),
        AttributeValue::L(items) => JsonValue::Array(items.into_iter().map(decode_json).collect::<Result<_, _>>()?),
        AttributeValue::M(members) => JsonValue::Object(
            members
                .into_iter()
                .map(|(name, value)| Ok((name, decode_json(value)?)))
                .collect::<Result<_, InvalidFieldError>>()?,
        ),
        AttributeValue::B(blob) => binary(&blob),
        AttributeValue::Ss(mut texts) => {
            texts.sort_unstable();
            JsonValue::Array(texts.into_iter().map(JsonValue::String).collect())
        }
        AttributeValue::Ns(mut texts) => {
            texts.sort_unstable();
            JsonValue::Array(texts.into_iter().map(number).collect::<Result<_, _>>()?)
        }
        AttributeValue::Bs(mut blobs) => {
            blobs.sort_unstable_by(|one, other| one.as_ref().cmp(other.as_ref()));
            JsonValue::Array(blobs.iter().map(binary).collect())
        }
        _ => return Err(InvalidFieldError("has a type that this version does not support")),
    })
}

/// Returns the value to store after applying a merge patch to the stored value (RFC 7396, section 2).
#[must_use]
pub fn merge(stored: Option<AttributeValue>, patch: &AttributesPatch) -> AttributeValue {
    merge_json(stored, patch.json())
}

fn merge_json(stored: Option<AttributeValue>, patch: &JsonValue) -> AttributeValue {
    let JsonValue::Object(patch) = patch else {
        return encode_json(patch);
    };
    let mut members = match stored {
        Some(AttributeValue::M(members)) => members,
        _ => HashMap::new(),
    };
    for (name, change) in patch {
        let before = members.remove(name);
        if *change != JsonValue::Null {
            members.insert(name.clone(), merge_json(before, change));
        }
    }
    AttributeValue::M(members)
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::primitives::Blob;
    use proptest::prelude::*;

    use super::*;
    use crate::user::json::any_json;

    fn json(text: &str) -> JsonValue {
        JsonValue::parse(text).unwrap()
    }

    fn merged(target: &str, patch: &str) -> String {
        let merged = merge_json(Some(encode_json(&json(target))), &json(patch));
        serde_json::to_string(&decode_json(merged).unwrap()).unwrap()
    }

    #[test]
    fn a_merge_gives_the_results_of_rfc_7396_appendix_a() {
        for (target, patch, result) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, r"{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
            (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
            (r#"{"a":"foo"}"#, "null", "null"),
            (r#"{"a":"foo"}"#, r#""bar""#, r#""bar""#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"a":1,"e":null}"#),
            ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            assert_eq!(merged(target, patch), result, "{target} patched with {patch}");
        }
    }

    #[test]
    fn a_merge_leaves_foreign_types_that_it_does_not_name() {
        let set = AttributeValue::Ss(vec!["x".into()]);
        let stored = AttributeValue::M(HashMap::from([("set".to_owned(), set.clone())]));
        let patch = AttributesPatch::new(UserAttributes::parse(r#"{"n": 1}"#).unwrap());
        let merged = merge(Some(stored), &patch);
        assert_eq!(merged.as_m().unwrap()["set"], set);
        assert_eq!(merged.as_m().unwrap()["n"], AttributeValue::N("1".into()));
        assert_eq!(merge(None, &patch).as_m().unwrap().len(), 1);
    }

    #[test]
    fn a_number_reaches_dynamodb_as_it_was_typed() {
        let text = "0.12345678901234567890123456789012345678";
        assert_eq!(encode_json(&json(text)), AttributeValue::N(text.into()));
        assert_eq!(decode_json(AttributeValue::N("1E+125".into())).unwrap(), json("1E+125"));
    }

    #[test]
    fn types_that_json_lacks_are_read_in_a_fixed_order() {
        let blob = |byte| Blob::new([byte]);
        for (value, text) in [
            (AttributeValue::Ss(vec!["b".into(), "a".into()]), r#"["a","b"]"#),
            (AttributeValue::Ns(vec!["2".into(), "1".into()]), "[1,2]"),
            (AttributeValue::Bs(vec![blob(2), blob(1)]), r#"["AQ==","Ag=="]"#),
            (AttributeValue::B(blob(255)), r#""/w==""#),
        ] {
            assert_eq!(decode_json(value).unwrap(), json(text));
        }
        assert!(decode(AttributeValue::S("no map".into())).is_err());
        assert!(decode_json(AttributeValue::N("NaN".into())).is_err());
    }

    proptest! {
        #[test]
        fn json_survives_the_way_to_dynamodb_and_back(json in any_json()) {
            prop_assert_eq!(decode_json(encode_json(&json)).unwrap(), json);
        }

        #[test]
        fn a_patch_applied_twice_is_a_patch_applied_once(stored in any_json(), patch in any_json()) {
            let once = merge_json(Some(encode_json(&stored)), &patch);
            prop_assert_eq!(merge_json(Some(once.clone()), &patch), once);
        }

        #[test]
        fn an_empty_patch_changes_no_object(members in proptest::collection::btree_map(".{1,8}", any_json(), 0..5)) {
            let stored = encode_json(&JsonValue::Object(members));
            prop_assert_eq!(merge_json(Some(stored.clone()), &json("{}")), stored);
        }
    }
}
