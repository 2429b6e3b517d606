use proptest::prelude::*;

use super::*;

fn refusal(text: &str) -> (String, String) {
    let error = JsonValue::parse(text).unwrap_err();
    (error.pointer, error.reason)
}

fn nested(levels: usize) -> String {
    format!("{}{}", "[".repeat(levels), "]".repeat(levels))
}

#[test]
fn json_comes_back_with_its_numbers_as_they_were() {
    let text = r#"{"a":[1,1.50,-1e5,0.12345678901234567890123456789012345678],"b":{"c":null,"d":[true,false,""]},"ü\n":"\u0001"}"#;
    assert_eq!(serde_json::to_string(&JsonValue::parse(text).unwrap()).unwrap(), text);
    assert_eq!(JsonValue::parse(" { } ").unwrap(), JsonValue::Object(BTreeMap::new()));
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
    assert!(JsonValue::parse(&format!(r#"{{"{}":1}}"#, "a".repeat(65_535))).is_ok());
    assert!(refusal(&format!(r#"{{"{}":1}}"#, "a".repeat(65_536))).1.contains("65535"));
}

#[test]
fn nesting_is_limited_to_what_the_table_takes() {
    assert!(JsonValue::parse(&nested(MAX_DEPTH + 1)).is_ok());
    let (pointer, reason) = refusal(&nested(MAX_DEPTH + 2));
    assert_eq!(pointer, "/0".repeat(MAX_DEPTH + 1));
    assert!(reason.contains("32 levels"), "{reason}");
    assert!(JsonValue::parse(&nested(100_000)).is_err());
}

#[test]
fn malformed_json_is_refused_without_a_position_that_would_mislead() {
    for text in ["", "{", "[1,]", "{\"a\":}", "01", "nul", "1 2", "\"\\ud800\"", "{\"\\ud800\":1}"] {
        let (_, reason) = refusal(text);
        assert!(reason.starts_with("malformed JSON: ") && !reason.contains(" line "), "{text}: {reason}");
    }
}

/// Returns a strategy for any JSON value within the limits.
pub(crate) fn any_json() -> impl Strategy<Value = JsonValue> {
    let number = "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,17})?([eE][+-]?[0-9]{1,2})?"
        .prop_filter_map("a number that fits", |text| JsonNumber::parse(&text).ok());
    let leaf = prop_oneof![
        Just(JsonValue::Null),
        any::<bool>().prop_map(JsonValue::Bool),
        number.prop_map(JsonValue::Number),
        any::<String>().prop_map(JsonValue::String),
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(JsonValue::Array),
            proptest::collection::btree_map(".{1,8}", inner, 0..6).prop_map(JsonValue::Object),
        ]
    })
}

/// Returns whether two values are equal. Numbers are compared by value.
fn same(one: &JsonValue, other: &JsonValue) -> bool {
    match (one, other) {
        (JsonValue::Number(one), JsonValue::Number(other)) => canonical(one.as_str()) == canonical(other.as_str()),
        (JsonValue::Array(one), JsonValue::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (JsonValue::Object(one), JsonValue::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|((name, one), (other_name, other))| name == other_name && same(one, other))
        }
        _ => one == other,
    }
}

fn canonical_form(json: &JsonValue) -> String {
    let mut text = String::new();
    json.write_canonical(&mut text);
    text
}

#[test]
fn one_value_has_one_canonical_form() {
    let canonical = |text: &str| canonical_form(&JsonValue::parse(text).unwrap());
    for same in [
        [r#"{"a":1,"b":[2,"x"]}"#, " { \"b\" : [ 2.0 , \"\\u0078\" ] , \"\\u0061\" : 10e-1 } "],
        [r#"["\/","\n","\u00e9",-0,1.50]"#, "[\"/\",\"\\u000a\",\"\u{e9}\",0,15E-1]"],
    ] {
        assert_eq!(canonical(same[0]), canonical(same[1]));
    }
    let different =
        ["1", "\"1\"", "[1]", "{\"1\":1}", "true", "null", "\"null\"", "\"\\\"\"", "\"\\\\\"", "1.1", "[]", "{}"];
    let forms: std::collections::BTreeSet<String> = different.iter().map(|text| canonical(text)).collect();
    assert_eq!(forms.len(), different.len());
}

proptest! {
    #[test]
    fn a_canonical_form_is_json_of_the_same_value(json in any_json()) {
        let form = canonical_form(&json);
        let read = JsonValue::parse(&form).unwrap();
        prop_assert_eq!(canonical_form(&read), form);
        // The text of another JSON writer has the same canonical form.
        let other = JsonValue::parse(&serde_json::to_string_pretty(&json).unwrap()).unwrap();
        prop_assert_eq!(canonical_form(&other), canonical_form(&json));
    }

    #[test]
    fn values_that_differ_have_different_forms(one in any_json(), other in any_json()) {
        let by_value = |json: &JsonValue| canonical_form(json);
        prop_assert_eq!(by_value(&one) == by_value(&other), same(&one, &other));
    }

    #[test]
    fn serialized_json_value_is_parsed_unchanged(json in any_json()) {
        let text = serde_json::to_string(&json).unwrap();
        prop_assert_eq!(JsonValue::parse(&text).unwrap(), json);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in any::<String>()) {
        let _ = JsonValue::parse(&text);
    }
}
