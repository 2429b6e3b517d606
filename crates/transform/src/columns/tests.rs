use proptest::prelude::*;
use serde_json::json;
use time::macros::{date, datetime};

use super::*;

const ALL: [ColumnType; 13] = [
    ColumnType::Text,
    ColumnType::FoldedText,
    ColumnType::Numeric,
    ColumnType::BigInt,
    ColumnType::Boolean,
    ColumnType::Timestamp(TimestampFormat::Rfc3339),
    ColumnType::Timestamp(TimestampFormat::EpochSeconds),
    ColumnType::Timestamp(TimestampFormat::EpochMilliseconds),
    ColumnType::Date,
    ColumnType::Json,
    ColumnType::Bytes,
    ColumnType::TextArray,
    ColumnType::NumericArray,
];

fn columns(definitions: &[(&str, ColumnType)], otherwise: OtherwiseRule) -> TableColumns {
    let column = |(path, kind): &(&str, ColumnType)| ColumnDefinition {
        name: format!("{path} as {kind}"),
        path: AttributePath::parse(path).unwrap(),
        kind: *kind,
    };
    TableColumns::new(definitions.iter().map(column).collect(), otherwise)
}

/// The value of a column of this type; `Err` if the column cannot store it.
fn converted(kind: ColumnType, value: &serde_json::Value) -> Result<Option<ColumnValue<'static>>, ()> {
    let item = json!({ "a": value }).to_string();
    let read = columns(&[("a", kind)], OtherwiseRule::Quarantine).read(&item).map(ColumnValues::into_owned);
    let tolerant = columns(&[("a", kind)], OtherwiseRule::Null).read(&item).unwrap().into_owned();
    match read {
        Ok(read) => {
            assert_eq!(tolerant, read);
            Ok(read.values.into_iter().next().unwrap())
        }
        Err(error) => {
            assert_eq!((tolerant.values, tolerant.replaced_by_null), (vec![None], vec![0]), "{error}");
            let text = error.to_string();
            assert!(text.contains("\"a as") && text.contains(kind.expected()), "{text}");
            Err(())
        }
    }
}

fn numbers(list: &[&str]) -> ColumnValue<'static> {
    ColumnValue::NumericArray(list.iter().map(|text| Cow::Owned((*text).to_owned())).collect())
}

#[test]
fn each_type_stores_its_values_exactly() {
    let digits = "12345678901234567890123456789012345678";
    let text = |text: &str| ColumnValue::Text(Cow::Owned(text.to_owned()));
    let numeric = |text: &str| ColumnValue::Numeric(Cow::Owned(text.to_owned()));
    let texts =
        |list: &[&str]| ColumnValue::TextArray(list.iter().map(|text| Cow::Owned((*text).to_owned())).collect());
    let at = datetime!(2026-11-28 08:00:00.123456 UTC);
    for (kind, value, expected) in [
        (ColumnType::Text, json!({"S": "\"Ada\" \n é"}), text("\"Ada\" \n é")),
        (ColumnType::Text, json!({"S": ""}), text("")),
        (ColumnType::FoldedText, json!({"S": "ada"}), text("ada")),
        (ColumnType::FoldedText, json!({"S": "\"Straße\" ZOE\u{308}"}), text("\"strasse\" zo\u{eb}")),
        (ColumnType::Numeric, json!({"N": digits}), numeric(digits)),
        (ColumnType::Numeric, json!({"N": format!("-0.{digits}")}), numeric(&format!("-{digits}E-38"))),
        (ColumnType::Numeric, json!({"N": "1E+125"}), numeric("1E125")),
        (ColumnType::Numeric, json!({"N": "1.50"}), numeric("15E-1")),
        (ColumnType::BigInt, json!({"N": "-9223372036854775808"}), ColumnValue::BigInt(i64::MIN)),
        (ColumnType::BigInt, json!({"N": "1.0E3"}), ColumnValue::BigInt(1000)),
        (ColumnType::Boolean, json!({"BOOL": false}), ColumnValue::Boolean(false)),
        (
            ColumnType::Timestamp(TimestampFormat::Rfc3339),
            json!({"S": "2026-11-28T09:00:00.1234567+01:00"}),
            ColumnValue::Timestamp(at),
        ),
        (
            ColumnType::Timestamp(TimestampFormat::EpochSeconds),
            json!({"N": "1795852800.123456"}),
            ColumnValue::Timestamp(at),
        ),
        (
            ColumnType::Timestamp(TimestampFormat::EpochMilliseconds),
            json!({"N": "1795852800123.456"}),
            ColumnValue::Timestamp(at),
        ),
        (ColumnType::Date, json!({"S": "2028-02-29"}), ColumnValue::Date(date!(2028 - 02 - 29))),
        (
            ColumnType::Json,
            json!({"M": {"n": {"N": digits}, "s": {"SS": ["b", "a"]}, "x": {"NULL": true}}}),
            ColumnValue::Json(format!(r#"{{"n":{digits},"s":["a","b"],"x":null}}"#)),
        ),
        (ColumnType::Json, json!({"N": "7"}), ColumnValue::Json("7".to_owned())),
        (ColumnType::Bytes, json!({"B": "AAH/"}), ColumnValue::Bytes(vec![0, 1, 255])),
        (ColumnType::TextArray, json!({"SS": ["b", "a,\"{}"]}), texts(&["a,\"{}", "b"])),
        (ColumnType::TextArray, json!({"L": [{"S": "b"}, {"S": "a"}]}), texts(&["b", "a"])),
        (ColumnType::TextArray, json!({"L": []}), texts(&[])),
        (ColumnType::NumericArray, json!({"NS": ["10", "-3", "9.5"]}), numbers(&["-3", "95E-1", "10"])),
        (ColumnType::NumericArray, json!({"L": [{"N": "10"}, {"N": "9"}]}), numbers(&["10", "9"])),
    ] {
        assert_eq!(converted(kind, &value), Ok(Some(expected)), "{kind} {value}");
    }
}

#[test]
fn value_that_does_not_fit_is_never_another_value() {
    for (kind, value) in [
        (ColumnType::Text, json!({"N": "1"})),
        (ColumnType::FoldedText, json!({"N": "1"})),
        (ColumnType::Numeric, json!({"S": "1"})),
        (ColumnType::Numeric, json!({"N": "1E200000"})),
        (ColumnType::Numeric, json!({"N": "NaN"})),
        (ColumnType::BigInt, json!({"N": "1.5"})),
        (ColumnType::BigInt, json!({"N": "9223372036854775808"})),
        (ColumnType::Boolean, json!({"S": "true"})),
        (ColumnType::Timestamp(TimestampFormat::Rfc3339), json!({"S": "2026-02-29T00:00:00Z"})),
        (ColumnType::Timestamp(TimestampFormat::Rfc3339), json!({"S": "2016-12-31T23:59:60Z"})),
        (ColumnType::Timestamp(TimestampFormat::Rfc3339), json!({"S": "2026-11-28"})),
        (ColumnType::Timestamp(TimestampFormat::Rfc3339), json!({"S": "2026-11-28109:00:00Z"})),
        (ColumnType::Timestamp(TimestampFormat::Rfc3339), json!({"S": "2026-11-28x09:00:00Z"})),
        (ColumnType::Timestamp(TimestampFormat::Rfc3339), json!({"N": "1795852800"})),
        // In UTC, these are in the years -1 and 10000.
        (ColumnType::Timestamp(TimestampFormat::Rfc3339), json!({"S": "0000-01-01T00:00:00+00:01"})),
        (ColumnType::Timestamp(TimestampFormat::Rfc3339), json!({"S": "9999-12-31T23:59:59-00:01"})),
        (ColumnType::Timestamp(TimestampFormat::EpochSeconds), json!({"N": "-300000000000"})),
        (ColumnType::Timestamp(TimestampFormat::EpochMilliseconds), json!({"N": "-300000000000000"})),
        // Milliseconds where seconds are declared: the year 58877.
        (ColumnType::Timestamp(TimestampFormat::EpochSeconds), json!({"N": "1795852800123"})),
        (ColumnType::Timestamp(TimestampFormat::EpochSeconds), json!({"S": "1795852800"})),
        (ColumnType::Date, json!({"S": "2026-02-30"})),
        (ColumnType::Date, json!({"S": "2026-11-28T00:00:00Z"})),
        (ColumnType::Bytes, json!({"S": "AAH/"})),
        (ColumnType::Bytes, json!({"B": "not base64"})),
        (ColumnType::TextArray, json!({"NS": ["1"]})),
        (ColumnType::TextArray, json!({"L": [{"S": "a"}, {"N": "1"}]})),
        (ColumnType::NumericArray, json!({"NS": ["1", "x"]})),
        (ColumnType::NumericArray, json!({"L": [{"NULL": true}]})),
        (ColumnType::Json, json!({"X": "unknown"})),
        (ColumnType::Json, json!(["no type tag"])),
        (ColumnType::Text, json!(7)),
    ] {
        assert_eq!(converted(kind, &value), Err(()), "{kind} {value}");
    }
}

#[test]
fn missing_attribute_and_null_are_null_in_every_column() {
    for kind in ALL {
        assert_eq!(converted(kind, &json!({"NULL": true})), Ok(None), "{kind}");
        for path in ["b", "a.b", "a[0]"] {
            let set = columns(&[(path, kind)], OtherwiseRule::Quarantine);
            assert_eq!(set.read(r#"{"a":{"S":"x"}}"#).unwrap().values, [None], "{path} {kind}");
        }
    }
}

#[test]
fn columns_share_a_pass_and_keep_their_order() {
    let kinds = [
        ("address.city", ColumnType::Text),
        ("total", ColumnType::Numeric),
        ("address", ColumnType::Json),
        ("lines[1].sku", ColumnType::Text),
        (r"a\.b", ColumnType::Boolean),
    ];
    let item = r#"{"total":{"N":"1"},"address":{"M":{"city":{"S":"Turin"}}},"lines":{"L":[{"NULL":true},
        {"M":{"sku":{"S":"x"}}}]},"a.b":{"BOOL":true},"other":{"S":"address"},"total":{"N":"2"}}"#;
    let read = columns(&kinds, OtherwiseRule::Quarantine).read(item).unwrap().into_owned();
    let expected = [
        ColumnValue::Text("Turin".into()),
        ColumnValue::Numeric("2".into()),
        ColumnValue::Json(r#"{"city":"Turin"}"#.to_owned()),
        ColumnValue::Text("x".into()),
        ColumnValue::Boolean(true),
    ];
    assert_eq!(read.values, expected.map(Some));
}

#[test]
fn text_that_is_not_an_item_is_an_error_without_its_text() {
    let set = columns(&[("a", ColumnType::Text)], OtherwiseRule::Null);
    for text in ["", "[]", "{\"secret\":", "7"] {
        let error = set.read(text).unwrap_err();
        assert!(matches!(error, ColumnError::Malformed { .. }) && !error.to_string().contains("secret"), "{error}");
    }
}

#[test]
fn names_are_parsed_as_they_are_formatted() {
    for name in ColumnType::NAMES {
        assert_eq!(ColumnType::parse(name).unwrap().name(), name);
    }
    for name in TimestampFormat::NAMES {
        assert_eq!(TimestampFormat::parse(name).unwrap().name(), name);
    }
    for name in OtherwiseRule::NAMES {
        assert_eq!(OtherwiseRule::parse(name).unwrap().name(), name);
    }
    assert_eq!((ColumnType::parse("varchar"), OtherwiseRule::parse("drop")), (None, None));
}

/// A value of any type, also one that `DynamoDB` does not have.
fn any_value() -> impl Strategy<Value = serde_json::Value> {
    let number = prop_oneof!["-?[0-9]{1,40}", "-?[0-9]{1,3}(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,3})?", ".{0,4}"];
    let time = prop_oneof![
        ".{0,8}",
        "20[0-9]{2}-[01][0-9]-[0-3][0-9]",
        "20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\\.[0-9]{1,9})?Z"
    ];
    let leaf = prop_oneof![
        time.prop_map(|text| json!({ "S": text })),
        number.clone().prop_map(|number| json!({ "N": number })),
        any::<bool>().prop_map(|value| json!({ "BOOL": value })),
        Just(json!({"NULL": true})),
        "[A-Za-z0-9+/]{0,8}=?".prop_map(|text| json!({ "B": text })),
        proptest::collection::vec(".{0,4}", 0..4).prop_map(|texts| json!({ "SS": texts })),
        proptest::collection::vec(number, 0..4).prop_map(|numbers| json!({ "NS": numbers })),
        any::<i32>().prop_map(|number| json!(number)),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|values| json!({ "L": values })),
            proptest::collection::hash_map("[a-c]", inner, 0..4).prop_map(|members| json!({ "M": members })),
        ]
    })
}

proptest! {
    #[test]
    fn conversion_is_total(value in any_value(), kind in proptest::sample::select(ALL.to_vec())) {
        let read = converted(kind, &value);
        // The type of the value is the type of the column, and of the source.
        if let Ok(Some(value)) = &read {
            let is_of_type = matches!(
                (kind, value),
                (ColumnType::Text | ColumnType::FoldedText, ColumnValue::Text(_))
                    | (ColumnType::Numeric, ColumnValue::Numeric(_))
                    | (ColumnType::BigInt, ColumnValue::BigInt(_))
                    | (ColumnType::Boolean, ColumnValue::Boolean(_))
                    | (ColumnType::Timestamp(_), ColumnValue::Timestamp(_))
                    | (ColumnType::Date, ColumnValue::Date(_))
                    | (ColumnType::Json, ColumnValue::Json(_))
                    | (ColumnType::Bytes, ColumnValue::Bytes(_))
                    | (ColumnType::TextArray, ColumnValue::TextArray(_))
                    | (ColumnType::NumericArray, ColumnValue::NumericArray(_))
            );
            prop_assert!(is_of_type, "{kind} {value:?}");
        }
        if let Ok(Some(ColumnValue::Json(json))) = &read {
            prop_assert!(serde_json::from_str::<serde_json::Value>(json).is_ok(), "{json}");
        }
    }

    #[test]
    fn a_number_keeps_its_value(digits in "[1-9][0-9]{0,37}", shift in -130_i32..88, negative: bool) {
        let text = format!("{}{digits}E{shift}", if negative { "-" } else { "" });
        let read = converted(ColumnType::Numeric, &json!({ "N": text })).unwrap().unwrap();
        let canonical = millrace_shared::number::canonical(&text).unwrap().into_owned();
        prop_assert_eq!(read, ColumnValue::Numeric(canonical.into()));
    }

    #[test]
    fn the_order_of_a_set_does_not_matter(
        mut texts in proptest::collection::hash_set("[a-d]{0,3}", 0..6).prop_map(|set| set.into_iter().collect::<Vec<_>>()),
        mut numbers in proptest::collection::hash_set(-99..99_i32, 0..6)
            .prop_map(|set| set.into_iter().map(|number| number.to_string()).collect::<Vec<_>>()),
    ) {
        let one = converted(ColumnType::TextArray, &json!({ "SS": texts }));
        texts.reverse();
        prop_assert_eq!(one, converted(ColumnType::TextArray, &json!({ "SS": texts })));
        let one = converted(ColumnType::NumericArray, &json!({ "NS": numbers }));
        numbers.reverse();
        prop_assert_eq!(one, converted(ColumnType::NumericArray, &json!({ "NS": numbers })));
    }

    #[test]
    fn any_text_is_read_or_an_error(text in ".{0,60}") {
        let set = columns(&[("a.b", ColumnType::Text), ("c", ColumnType::Json)], OtherwiseRule::Null);
        let _ = set.read(&text);
    }
}
