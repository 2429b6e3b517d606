use aws_sdk_dynamodb::types::AttributeValue;
use proptest::prelude::*;
use time::macros::datetime;

use super::*;
use crate::item::attributes;
use crate::raw_item::RawItem;
use crate::user::json::any_json;

const ADA: &str = r#"{"user_id":{"S":"ada"},"timestamp":{"N":"7"},"name":{"S":"Ada \u00e9"},"email":{"S":"ada@example.com"},
    "status":{"NULL":true},"expires_at":{"N":"1.5e9"},"version":{"N":"12345678901234567890123456789012345678"},
    "created_at":{"S":"2026-11-22T10:00:00.123Z"},"attributes":{"M":{"n":{"N":"1.50"},"l":{"L":[]}}},"more":{"BOOL":true}}"#;

fn refused(item: &str) -> String {
    UserColumns::read(item).unwrap_err().to_string()
}

#[test]
fn column_attributes_are_extracted_without_rounding_numbers() {
    let columns = UserColumns::read(ADA).unwrap();
    assert_eq!(columns.name.as_deref(), Some("Ada é"));
    assert_eq!((columns.email.as_deref(), columns.status.as_deref()), (Some("ada@example.com"), None));
    assert_eq!(columns.expires_at.as_deref(), Some("1.5e9"));
    assert_eq!(columns.version.as_deref(), Some("12345678901234567890123456789012345678"));
    assert_eq!(columns.created_at, Some(datetime!(2026-11-22 10:00:00.123 UTC)));
    assert_eq!(columns.attributes.as_deref(), Some(r#"{"n":1.50,"l":[]}"#));
    assert_eq!(UserColumns::read("{}").unwrap(), UserColumns::default());
}

#[test]
fn an_expiry_that_is_no_number_is_none_as_it_is_for_ttl() {
    for value in [r#"{"M":{}}"#, r#"{"S":"tomorrow"}"#, r#"{"S":"1900000000"}"#, r#"{"NULL":true}"#] {
        let item = format!(r#"{{"name":{{"S":"Ada"}},"expires_at":{value}}}"#);
        let columns = UserColumns::read(&item).unwrap();
        assert_eq!((columns.name.as_deref(), columns.expires_at), (Some("Ada"), None), "{value}");
    }
    for (number, expected) in [
        ("1900000000.5", Some("1900000001")),
        ("1.9E+9", Some("1.9E+9")),
        ("12345678901234567890123456789012345678", Some("12345678901234567890123456789012345678")),
        ("0", None),
        ("0.0", None),
        ("-1", None),
        ("-0.5", None),
    ] {
        let item = format!(r#"{{"expires_at":{{"N":"{number}"}}}}"#);
        assert_eq!(UserColumns::read(&item).unwrap().expires_at.as_deref(), expected, "{number}");
    }
}

#[test]
fn another_type_under_a_column_s_name_is_refused_by_name_and_not_shown() {
    for (name, value) in [
        ("name", r#"{"N":"52"}"#),
        ("email", r#"{"SS":["s3cret"]}"#),
        ("status", r#"{"BOOL":true}"#),
        ("version", r#"{"S":"s3cret"}"#),
        ("version", r#"{"N":"s3cret"}"#),
        ("created_at", r#"{"S":"s3cret"}"#),
        ("updated_at", r#"{"N":"1"}"#),
        ("attributes", r#"{"S":"s3cret"}"#),
        ("attributes", r#"{"L":[]}"#),
        ("attributes", r#"{"M":{"a":{"N":"s3cret"}}}"#),
    ] {
        let said = refused(&format!(r#"{{"user_id":{{"S":"ada"}},"{name}":{value}}}"#));
        assert!(said.contains(name) && !said.contains("s3cret"), "{said}");
    }
    assert!(refused("[]").contains("not a map"));
}

#[test]
fn a_zero_character_is_found_wherever_it_is() {
    for item in [
        r#"{"name":{"S":"a\u0000"}}"#,
        r#"{"name":{"L":[{"M":{"x\u0000":{"S":""}}}]}}"#,
        r#"{"name":{"SS":["a","\u0000"]}}"#,
    ] {
        let other = item.replace("name", "other");
        assert_eq!(refused(&other), RowError::Zero("other".to_owned()).to_string());
        assert!(refused(item).contains("name"));
    }
    // An unpaired surrogate is not valid text. A pair is, and an escaped backslash does not begin an escape.
    assert!(matches!(UserColumns::read(r#"{"a":{"S":"\ud83d"}}"#), Err(RowError::Malformed(_))));
    assert!(UserColumns::read(r#"{"a":{"S":"\ud83d\ude00"},"b":{"S":"\\u0000"}}"#).is_ok());
}

#[test]
fn a_text_that_no_index_holds_is_refused() {
    let item = |length: usize| format!(r#"{{"email":{{"S":"{}"}}}}"#, "x".repeat(length));
    assert!(UserColumns::read(&item(TEXT_BYTES)).is_ok());
    assert!(refused(&item(TEXT_BYTES + 1)).contains("email"));
}

#[test]
fn top_level_reserved_attribute_is_reported() {
    assert_eq!(UserColumns::read(r#"{"a":{"S":"_rev"},"\u005frev":{"S":"a"}}"#).unwrap().reserved, Some("_rev"));
    assert_eq!(UserColumns::read(r#"{"a":{"M":{"_rev":{"S":"x"}}}}"#).unwrap().reserved, None);
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

proptest! {
    #[test]
    fn attributes_are_spelled_as_the_api_shows_them(json in any_json()) {
        let members = [("v".to_owned(), attributes::encode_json(&json))].into();
        let item = RawItem::new([(ATTRIBUTES.to_owned(), AttributeValue::M(members))].into());
        let (text, value) = (item.encode(), item.get(ATTRIBUTES).unwrap().clone());
        let read = UserColumns::read(&text);
        // Items that contain U+0000 are rejected; `a_zero_character_is_found_wherever_it_is` covers them.
        prop_assume!(!matches!(read, Err(RowError::Zero(_))));
        let plain = read.unwrap().attributes.unwrap();
        let shown = serde_json::to_string(&attributes::decode(value).unwrap()).unwrap();
        let read = |json: &str| crate::user::json::JsonValue::parse(json).unwrap();
        prop_assert_eq!(read(&plain), read(&shown));
    }
}

#[test]
fn sets_and_binary_are_spelled_as_the_api_shows_them() {
    let item = r#"{"attributes":{"M":{"s":{"SS":["b","a\n"]},"n":{"NS":["2","10"]},"b":{"B":"AQ=="},
        "c":{"BS":["/w==","AQ=="]},"p":{"N":"+1"},"f":{"BOOL":false}}}}"#;
    let plain = UserColumns::read(item).unwrap().attributes.unwrap();
    let value = RawItem::parse(item).unwrap().take(ATTRIBUTES).unwrap();
    let shown = serde_json::to_value(attributes::decode(value).unwrap()).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&plain).unwrap(), shown);
}
