use aws_sdk_dynamodb::types::AttributeValue;
use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;
use crate::item::{ATTRIBUTES, attributes};
use crate::raw_item::RawItem;
use crate::replica_item::RESERVED;
use crate::user::json::any_json;

#[test]
fn a_zero_character_is_found_wherever_it_is() {
    for item in [
        r#"{"name":{"S":"a\u0000"}}"#,
        r#"{"name":{"L":[{"M":{"x\u0000":{"S":""}}}]}}"#,
        r#"{"name":{"SS":["a","\u0000"]}}"#,
    ] {
        let other = item.replace("name", "other");
        assert_eq!(first_attribute_with_nul(&other), Ok(Some("other".to_owned())));
        assert_eq!(first_attribute_with_nul(item), Ok(Some("name".to_owned())));
    }
    // An unpaired surrogate is not valid text. A pair is, and an escaped backslash does not begin an escape.
    assert!(matches!(first_attribute_with_nul(r#"{"a":{"S":"\ud83d"}}"#), Err(RowError::Malformed(_))));
    assert_eq!(first_attribute_with_nul(r#"{"a":{"S":"\ud83d\ude00"},"b":{"S":"\\u0000"}}"#), Ok(None));
}

#[test]
fn top_level_reserved_attribute_is_reported() {
    let reserved = first_reserved_attribute;
    for item in [r#"{"a":{"S":"_rev"},"\u005frev":{"S":"a"}}"#, r#"{"a":{"S":""}, "_rev":{"S":"a"}}"#] {
        assert_eq!(reserved(item), Ok(Some("_rev")), "{item}");
    }
    for item in [r#"{"a":{"M":{"_rev":{"S":"x"}}}}"#, r#"{"a":{"S":"_rev"}}"#, r#"{"a_rev":{"S":"x"}}"#, "{}"] {
        assert_eq!(reserved(item), Ok(None), "{item}");
    }
    assert!(RESERVED.into_iter().all(|name| name.starts_with('_')));
    assert!(matches!(reserved(r#"["_rev"]"#), Err(RowError::Malformed(_))));
}

#[test]
fn a_key_is_a_user_s_or_none() {
    let of = |json| {
        let key = CanonicalKey::parse(json).unwrap();
        super::key(&key).map(|(id, second)| (id.into_owned(), second.into_owned()))
    };
    assert_eq!(of(r#"{"user_id":{"S":"ada\""},"timestamp":{"N":"7.0"}}"#), Ok(("ada\"".to_owned(), "7".to_owned())));
    for json in [
        r#"{"user_id":{"S":"ada"}}"#,
        r#"{"user_id":{"N":"1"},"timestamp":{"N":"7"}}"#,
        r#"{"user_id":{"S":"ada"},"time":{"N":"7"}}"#,
    ] {
        assert_eq!(of(json), Err(RowError::Key), "{json}");
    }
    assert!(matches!(of(r#"{"user_id":{"S":"\u0000"},"timestamp":{"N":"7"}}"#), Err(RowError::Zero(_))));
}

/// Returns the attributes of an item as the column stores them.
fn plain_attributes(item: &str) -> String {
    let item: BTreeMap<String, &RawValue> = serde_json::from_str(item).unwrap();
    plain::any(item[ATTRIBUTES]).unwrap().unwrap()
}

proptest! {
    #[test]
    fn attributes_are_spelled_as_the_api_shows_them(json in any_json()) {
        let members = [("v".to_owned(), attributes::encode_json(&json))].into();
        let item = RawItem::new([(ATTRIBUTES.to_owned(), AttributeValue::M(members))].into());
        let (text, value) = (item.encode(), item.get(ATTRIBUTES).unwrap().clone());
        // Items that contain U+0000 are rejected; `a_zero_character_is_found_wherever_it_is` covers them.
        prop_assume!(first_attribute_with_nul(&text) == Ok(None));
        let plain = plain_attributes(&text);
        let shown = serde_json::to_string(&attributes::decode(value).unwrap()).unwrap();
        let read = |json: &str| crate::user::json::JsonValue::parse(json).unwrap();
        prop_assert_eq!(read(&plain), read(&shown));
    }
}

#[test]
fn sets_and_binary_are_spelled_as_the_api_shows_them() {
    let item = r#"{"attributes":{"M":{"s":{"SS":["b","a\n"]},"n":{"NS":["2","10"]},"b":{"B":"AQ=="},
        "c":{"BS":["/w==","AQ=="]},"p":{"N":"+1"},"f":{"BOOL":false}}}}"#;
    let plain = plain_attributes(item);
    let value = RawItem::parse(item).unwrap().take(ATTRIBUTES).unwrap();
    let shown = serde_json::to_value(attributes::decode(value).unwrap()).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&plain).unwrap(), shown);
}
