//! Keys in all their spellings, and where a change comes from.

use proptest::prelude::*;

use super::*;

fn key(json: &str) -> Result<String, KeyError> {
    let raw = RawValue::from_string(json.to_owned()).unwrap();
    Key::parse(&raw).map(|key| key.canonical().to_string())
}

#[test]
fn keys_of_the_same_item_are_equal() {
    let one = key(r#"{"user_id":{"S":"ada"},"timestamp":{"N":"1"}}"#);
    assert_eq!(one, key(r#"{ "timestamp" : {"N":"1.0"}, "user_id" : {"S":"\u0061da"} }"#));
    assert_eq!(one.unwrap(), r#"{"timestamp":{"N":"1"},"user_id":{"S":"ada"}}"#);
}

#[test]
fn keys_of_different_items_differ() {
    let all = [
        r#"{"k":{"S":"1"}}"#,
        r#"{"k":{"N":"1"}}"#,
        r#"{"k":{"B":"MQ=="}}"#,
        r#"{"j":{"S":"1"}}"#,
        r#"{"k":{"S":"1"},"s":{"S":""}}"#,
        r#"{"k":{"S":"1\"},\"s\":{\"S\":\""}}"#,
    ];
    let mut canonical: Vec<_> = all.iter().map(|json| key(json).unwrap()).collect();
    canonical.sort();
    canonical.dedup();
    assert_eq!(canonical.len(), all.len());
}

#[test]
fn a_wrong_key_names_its_attribute() {
    assert_eq!(key(r#"{"t":{"N":"soon"}}"#), Err(KeyError::Number("t".into())));
    assert_eq!(key(r#"{"b":{"B":"*"}}"#), Err(KeyError::Binary("b".into())));
    assert_eq!(key("{}"), Err(KeyError::Count(0)));
    assert!(matches!(key(r#"{"t":{"BOOL":true}}"#), Err(KeyError::Shape(_))));
    assert!(matches!(key("[]"), Err(KeyError::Shape(_))));
}

proptest! {
    #[test]
    fn a_key_of_attributes_is_the_key_of_their_json(
        texts in prop::collection::btree_map("[a\"\\\\ é]{0,3}", ("[SNB]", "[a1+\"\\\\ é]{0,4}"), 0..4),
    ) {
        let value = |(kind, text): &(String, String)| serde_json::json!({ kind: text }).to_string();
        let values: BTreeMap<&str, String> = texts.iter().map(|(name, its)| (name.as_str(), value(its))).collect();
        let members = |(name, value): (&&str, &String)| format!("{}:{value}", serde_json::json!(name));
        let json = format!("{{{}}}", values.iter().map(members).collect::<Vec<_>>().join(","));
        let attributes = values.iter().map(|(name, value)| (*name, value.as_str()));
        prop_assert_eq!(CanonicalKey::of_attributes(attributes), CanonicalKey::parse(&json));
    }
}

#[test]
fn a_source_is_read_from_the_stream_arn() {
    let arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/Users/stream/2015-06-27T00:48:05.899";
    let source = Source::parse(arn.into()).unwrap();
    assert_eq!(source.table(), "Users");
    assert_eq!(source.table_arn(), "arn:aws:dynamodb:eu-west-1:123456789012:table/Users");
    assert_eq!(source.label().to_string(), "2015-06-27T00:48:05.899");
}

#[test]
fn another_arn_is_refused() {
    for arn in ["", "arn:aws:sqs:eu-west-1:1:queue", "arn:aws:dynamodb:r:1:table/Users", "x:table//stream/1"] {
        assert!(matches!(Source::parse(arn.into()), Err(SourceError::Shape(_))), "{arn}");
    }
    assert!(matches!(Source::parse("x:table/T/stream/now".into()), Err(SourceError::Label(_))));
}
