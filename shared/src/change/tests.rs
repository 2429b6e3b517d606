//! Keys in all their formats, and the sources of changes.

use proptest::prelude::*;

use super::*;

fn key(json: &str) -> Result<String, KeyError> {
    let raw = RawValue::from_string(json.to_owned()).unwrap();
    ItemKey::parse(&raw).map(|key| key.canonical().to_string())
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
        prop_assert_eq!(CanonicalKey::from_attributes(attributes), CanonicalKey::parse(&json));
    }
}

fn checked(key: &str, image: &str) -> Result<(), ImageKeyError> {
    let (key, image) = [key, image].map(|json| RawValue::from_string(json.to_owned()).unwrap()).into();
    ItemKey::parse(&key).unwrap().check_image(ItemImage::parse(&image).unwrap())
}

#[test]
fn an_image_is_of_its_key_by_value() {
    let key = r#"{"user_id":{"S":"a\"d"},"n":{"N":"1.50"}}"#;
    for image in [
        r#"{"user_id":{"S":"a\"d"},"n":{"N":"1.50"}}"#,
        r#"{"x":{"M":{"n":{"N":"7"}}}, "n" : {"N":"15e-1"},"us\u0065r_id":{ "S" : "\u0061\u0022d"},"y":{"S":"}"}}"#,
    ] {
        assert_eq!(checked(key, image), Ok(()), "{image}");
    }
    assert_eq!(checked(r#"{"b":{"B":"MQ=="}}"#, r#"{"b":{"B":"MQ=="},"c":{"NULL":true}}"#), Ok(()));
}

#[test]
fn an_image_of_another_key_names_the_attribute_and_no_value() {
    use ImageKeyError::{Different, Missing};
    let key = r#"{"k":{"S":"ada"},"n":{"N":"1"}}"#;
    for (image, error) in [
        (r#"{"k":{"S":"ada"},"n":{"N":"2"}}"#, Different("n".into())),
        (r#"{"k":{"S":"bob"},"n":{"N":"1"}}"#, Different("k".into())),
        (r#"{"k":{"S":"Ada"},"n":{"N":"1"}}"#, Different("k".into())),
        (r#"{"k":{"S":"ada"},"n":{"S":"1"}}"#, Different("n".into())),
        (r#"{"k":{"S":"ada"},"n":{"N":"one"}}"#, Different("n".into())),
        (r#"{"k":{"S":"bob"},"k":{"S":"ada"},"n":{"N":"1"}}"#, Different("k".into())),
        // The right key attributes, but nested instead of at the top level.
        (r#"{"m":{"M":{"k":{"S":"ada"},"n":{"N":"1"}}},"k":{"S":"bob"},"n":{"N":"1"}}"#, Different("k".into())),
        (r#"{"m":{"M":{"k":{"S":"ada"},"n":{"N":"1"}}},"n":{"N":"1"}}"#, Missing("k".into())),
        (r#"{"k":{"S":"ada"}}"#, Missing("n".into())),
        ("{}", Missing("k".into())),
    ] {
        assert_eq!(checked(key, image), Err(error.clone()), "{image}");
        assert!(!error.to_string().contains("ada"));
    }
    assert_eq!(checked(r#"{"b":{"B":"MQ=="}}"#, r#"{"b":{"B":"Mg=="}}"#), Err(Different("b".into())));
}

proptest! {
    #[test]
    fn an_image_is_of_its_key_exactly_if_its_own_key_is_the_same(
        one in ("[ab]{1,2}", 0..4_u8), other in ("[ab]{1,2}", 0..4_u8), spelling in prop_oneof![Just(""), Just(".0"), Just("e0")],
        more in "[a-z{}\"\\\\:,]{0,9}",
    ) {
        let key = serde_json::json!({"id": {"S": one.0}, "at": {"N": one.1.to_string()}}).to_string();
        let number = format!("{}{spelling}", other.1);
        let image = serde_json::json!({"more": {"S": more}, "id": {"S": other.0}, "at": {"N": number}, "z": {"L": []}});
        prop_assert_eq!(checked(&key, &image.to_string()).is_ok(), one == other);
    }
}

#[test]
fn a_source_is_read_from_the_stream_arn() {
    let arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/Users/stream/2015-06-27T00:48:05.899";
    let source = StreamSource::parse(arn.into()).unwrap();
    assert_eq!(source.table(), "Users");
    assert_eq!(source.table_arn(), "arn:aws:dynamodb:eu-west-1:123456789012:table/Users");
    assert_eq!(source.label().to_string(), "2015-06-27T00:48:05.899");
}

#[test]
fn another_arn_is_refused() {
    for arn in ["", "arn:aws:sqs:eu-west-1:1:queue", "arn:aws:dynamodb:r:1:table/Users", "x:table//stream/1"] {
        assert!(matches!(StreamSource::parse(arn.into()), Err(StreamArnError::Shape(_))), "{arn}");
    }
    assert!(matches!(StreamSource::parse("x:table/T/stream/now".into()), Err(StreamArnError::Label(_))));
}

#[test]
fn key_of_an_item_is_scanned_or_left_to_a_parser() {
    let names = ["at".to_owned(), "id".to_owned()];
    let scanned = |item: &str| CanonicalKey::from_item_text(item, &names).map(|key| key.to_string());
    let ada = r#"{"at":{"N":"7"},"id":{"S":"ada"}}"#;
    assert_eq!(scanned(r#"{"x":{"M":{"id":{"S":"b"}}},"id":{"S":"ada"},"at":{"N":"7"}}"#).as_deref(), Some(ada));
    assert_eq!(scanned(r#"{"id":{"S":"ada"},"at":{"N":"7.0"}}"#).as_deref(), Some(ada), "in canonical form");
    for item in [
        r#"{"id":{"S":"ada"}}"#,
        r#"{"id":{"S":"ada"},"a\u0074":{"N":"7"}}"#,
        r#"{"id":{"S":"ada"},"at":{"BOOL":true}}"#,
        r#"{"id":{"S":"ada"},"at":{"N":"7"}"#,
        r#"{"id":{"S":"ada"},"at":{"N":"7"}} 1"#,
        "[]",
    ] {
        assert_eq!(scanned(item), None, "{item}");
    }
}

#[test]
fn only_a_json_object_is_an_image() {
    let parsed = |json: &str| OwnedItemImage::parse(serde_json::from_str(json).unwrap());
    assert_eq!(parsed(r#"{ "a" :{"N":"1.50"}}"#).unwrap().as_image().get(), r#"{ "a" :{"N":"1.50"}}"#);
    for json in ["[]", "null", "7"] {
        assert!(parsed(json).is_none(), "{json}");
    }
}
