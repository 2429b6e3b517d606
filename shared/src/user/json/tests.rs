use proptest::prelude::*;

use super::*;

fn refusal(text: &str) -> (String, String) {
    let error = Json::parse(text).unwrap_err();
    (error.pointer, error.reason)
}

fn nested(levels: usize) -> String {
    format!("{}{}", "[".repeat(levels), "]".repeat(levels))
}

#[test]
fn json_comes_back_with_its_numbers_as_they_were() {
    let text = r#"{"a":[1,1.50,-1e5,0.12345678901234567890123456789012345678],"b":{"c":null,"d":[true,false,""]},"ü\n":"\u0001"}"#;
    assert_eq!(serde_json::to_string(&Json::parse(text).unwrap()).unwrap(), text);
    assert_eq!(Json::parse(" { } ").unwrap(), Json::Object(BTreeMap::new()));
}

#[test]
fn a_number_that_cannot_be_held_is_pointed_at() {
    let (pointer, reason) = refusal(&format!(r#"{{"a":[0,{{"x/y~z":{}}}]}}"#, "1".repeat(39)));
    assert_eq!(pointer, "/a/1/x~1y~0z");
    assert!(reason.contains("38 significant digits"), "{reason}");
    assert_eq!(refusal(r#"{"a":1e126}"#).0, "/a");
}

#[test]
fn a_member_given_twice_is_refused_at_any_depth() {
    assert_eq!(refusal(r#"{"a":{"b":1,"c":2,"b":1}}"#).0, "/a/b");
    assert_eq!(refusal(r#"[{"a":1,"\u0061":2}]"#).0, "/0/a");
}

#[test]
fn a_name_that_no_attribute_can_have_is_refused() {
    assert_eq!(refusal(r#"{"a":[{"":1}]}"#).0, "/a/0/");
    assert!(Json::parse(&format!(r#"{{"{}":1}}"#, "a".repeat(65_535))).is_ok());
    assert!(refusal(&format!(r#"{{"{}":1}}"#, "a".repeat(65_536))).1.contains("65535"));
}

#[test]
fn nesting_is_limited_to_what_the_table_takes() {
    assert!(Json::parse(&nested(MAX_DEPTH + 1)).is_ok());
    let (pointer, reason) = refusal(&nested(MAX_DEPTH + 2));
    assert_eq!(pointer, "/0".repeat(MAX_DEPTH + 1));
    assert!(reason.contains("32 levels"), "{reason}");
    assert!(Json::parse(&nested(100_000)).is_err());
}

#[test]
fn malformed_json_is_refused_without_a_position_that_would_mislead() {
    for text in ["", "{", "[1,]", "{\"a\":}", "01", "nul", "1 2", "\"\\ud800\"", "{\"\\ud800\":1}"] {
        let (_, reason) = refusal(text);
        assert!(reason.starts_with("malformed JSON: ") && !reason.contains(" line "), "{text}: {reason}");
    }
}

/// Any JSON within the limits, as a tree.
pub(crate) fn any_json() -> impl Strategy<Value = Json> {
    let number = "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,17})?([eE][+-]?[0-9]{1,2})?"
        .prop_filter_map("a number that fits", |text| Number::parse(&text).ok());
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        number.prop_map(Json::Number),
        any::<String>().prop_map(Json::String),
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Json::Array),
            proptest::collection::btree_map(".{1,8}", inner, 0..6).prop_map(Json::Object),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_the_same(json in any_json()) {
        let text = serde_json::to_string(&json).unwrap();
        prop_assert_eq!(Json::parse(&text).unwrap(), json);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in any::<String>()) {
        let _ = Json::parse(&text);
    }
}
