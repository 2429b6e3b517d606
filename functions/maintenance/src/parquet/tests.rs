//! Conversion of an item's values to columns.

use arrow_array::types::Int64Type;
use bytes::Bytes;
use millrace_archive::ItemText;
use millrace_shared::change::CanonicalKey;
use millrace_shared::revision::Revision;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use serde_json::value::RawValue;
use time::macros::datetime;

use super::*;

fn row(item: &str) -> ArchivedRow {
    ArchivedRow {
        key: CanonicalKey::parse(r#"{"user_id":{"S":"ada"},"timestamp":{"N":"1"}}"#).unwrap(),
        revision: Revision::parse("2026-11-01T08:00:00.000#44215845000001").unwrap(),
        removed_at: datetime!(2026-11-22 09:30:00.25 UTC),
        event_id: None,
        item: ItemText::of(&RawValue::from_string(item.to_owned()).unwrap()).unwrap(),
    }
}

/// The schema of a users table.
fn users() -> ParquetSchema {
    ParquetSchema::new(&key(&[("user_id", "S"), ("timestamp", "N")]), &ColumnDefinition::of_users())
}

fn key(attributes: &[(&str, &str)]) -> Vec<(String, String)> {
    attributes.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())).collect()
}

fn columns(items: &[&str]) -> RecordBatch {
    let mut batch = users().batch();
    for item in items {
        batch.push(&row(item));
    }
    assert_eq!((batch.rows(), batch.bytes()), (items.len(), items.iter().map(|item| item.len()).sum()));
    batch.take().unwrap()
}

/// Returns the values of a column as strings, with `null` for an absent value.
fn shown(columns: &RecordBatch, name: &str) -> Vec<String> {
    let column = columns.column_by_name(name).unwrap();
    let value = |row| {
        if column.is_null(row) {
            "null".to_owned()
        } else if let Some(texts) = column.as_string_opt::<i32>() {
            texts.value(row).to_owned()
        } else if let Some(bytes) = column.as_binary_opt::<i32>() {
            format!("{:?}", bytes.value(row))
        } else if let Some(times) = column.as_primitive_opt::<TimestampMicrosecondType>() {
            times.value(row).to_string()
        } else {
            column.as_primitive::<Int64Type>().value(row).to_string()
        }
    };
    (0..columns.num_rows()).map(value).collect()
}

#[test]
fn an_expiry_with_a_fraction_is_the_second_from_which_on_the_item_was_absent() {
    let items = ["1795334399.5", "1.7953344E+9", "0.5", "1E+30"].map(|number| {
        format!(r#"{{"user_id":{{"S":"ada"}},"timestamp":{{"N":"1"}},"expires_at":{{"N":"{number}"}}}}"#)
    });
    let columns = columns(&items.each_ref().map(String::as_str));
    assert_eq!(shown(&columns, "expires_at"), ["1795334400", "1795334400", "1", "null"]);
}

#[test]
fn what_has_a_column_s_type_stands_in_it_and_the_rest_is_null() {
    let whole = r#"{"user_id":{"S":"ada"},"timestamp":{"N":"1795334400"},"name":{"S":"Ada \u0026 Co"},
        "email":{"S":"a@b.cd"},"status":{"S":"new"},"expires_at":{"N":"1.7953344e9"},"version":{"N":"7.0"},
        "created_at":{"S":"2026-11-22T08:00:00.123456789Z"},"updated_at":{"S":"2026-11-22T10:00:00+02:00"},
        "attributes":{"M":{"n":{"N":"0.12345678901234567890123456789012345678"},"l":{"L":[{"NULL":true}]}}}}"#;
    let other = r#"{"user_id":{"N":"1"},"timestamp":{"N":"0.5"},"name":{"NULL":true},"email":{"SS":["a"]},
        "expires_at":{"N":"99999999999999999999"},"version":{"S":"7"},"created_at":{"S":"soon"},
        "attributes":{"S":"text"}}"#;
    let columns = columns(&[whole, other]);
    for (name, expected) in [
        ("user_id", ["ada", "null"]),
        ("timestamp", ["1795334400", "null"]),
        ("name", ["Ada & Co", "null"]),
        ("email", ["a@b.cd", "null"]),
        ("status", ["new", "null"]),
        ("expires_at", ["1795334400", "null"]),
        ("version", ["7", "null"]),
        ("created_at", ["1795334400123456", "null"]),
        ("updated_at", ["1795334400000000", "null"]),
        ("attributes", [r#"{"l":[null],"n":0.12345678901234567890123456789012345678}"#, "\"text\""]),
        ("removed_at", ["1795339800250000", "1795339800250000"]),
        ("revision", ["2026-11-01T08:00:00.000#44215845000001"; 2]),
        ("item", [whole, other]),
    ] {
        assert_eq!(shown(&columns, name), expected, "{name}");
    }
}

#[test]
fn revisions_sort_by_their_bytes_as_by_their_age() {
    let mut batch = users().batch();
    for number in ["9", "10", "11"] {
        let revision = Revision::parse(&format!("2026-11-01T08:00:00.000#{number}")).unwrap();
        batch.push(&ArchivedRow { revision, ..row("{}") });
    }
    let columns = batch.take().unwrap();
    let bytes = columns.column_by_name("revision_bytes").unwrap().as_binary::<i32>();
    assert!(bytes.value(0) < bytes.value(1) && bytes.value(1) < bytes.value(2));
}

#[test]
fn columns_of_another_shape_are_refused_by_name() {
    let whole = columns(&["{}"]);
    let lacking = whole.project(&[0, 1]).unwrap();
    assert_eq!(
        RowsChecksum::default().read(&lacking).unwrap_err().to_string(),
        "column key is missing or has an unexpected type"
    );
}

#[test]
fn the_columns_of_a_key_have_fixed_names_and_the_types_of_its_attributes() {
    let names = |attributes: &[(&str, &str)]| {
        let schema = ParquetSchema::new(&key(attributes), &[]).arrow();
        schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect::<Vec<_>>()
    };
    let rest = [
        "key Utf8",
        "revision Utf8",
        "revision_bytes Binary",
        "removed_at Timestamp(µs, \"UTC\")",
        "event_id Utf8",
        "item Utf8",
    ];
    for (attributes, expected) in [
        (&[("item", "S")][..], &["partition_key Utf8"][..]),
        (&[("Größe", "N")], &["partition_key Utf8", "partition_key_integer Int64"]),
        (&[("user.id", "B"), ("sort key", "S")], &["partition_key Binary", "sort_key Utf8"]),
        (&[("pk", "S"), ("key", "N")], &["partition_key Utf8", "sort_key Utf8", "sort_key_integer Int64"]),
        (
            &[("a", "N"), ("b", "N")],
            &["partition_key Utf8", "partition_key_integer Int64", "sort_key Utf8", "sort_key_integer Int64"],
        ),
    ] {
        assert_eq!(names(attributes), [expected, &rest[..]].concat());
    }
}

#[test]
fn a_key_is_exact_in_its_columns_and_null_if_it_has_another_type() {
    let digits = "12345678901234567890123456789012345678";
    let batch = |schema: &ParquetSchema, keys: &[String]| {
        let mut batch = schema.batch();
        for key in keys {
            batch.push(&ArchivedRow { key: CanonicalKey::parse(key).unwrap(), ..row("{}") });
        }
        batch.take().unwrap()
    };
    let numbers = ParquetSchema::new(&key(&[("_id", "N")]), &[]);
    let of = |number: &str| format!(r#"{{"_id":{{"N":"{number}"}}}}"#);
    let text = r#"{"_id":{"S":"former"}}"#.to_owned();
    let spelled = [digits, "-7.0", "1E125", "-0", "9223372036854775808", "0.5"].map(of);
    let columns = batch(&numbers, &[&spelled[..], &[text]].concat());
    let exact = [digits, "-7", "1E125", "0", "9223372036854775808", "5E-1", "null"];
    assert_eq!(shown(&columns, "partition_key"), exact);
    let integers = ["null", "-7", "null", "0", "null", "null", "null"];
    assert_eq!(shown(&columns, "partition_key_integer"), integers);

    let bytes = ParquetSchema::new(&key(&[("a", "S"), ("b", "B")]), &[]);
    let columns = batch(&bytes, &[r##"{"a":{"S":"#/\"🦀"},"b":{"B":"AP8="}}"##.to_owned()]);
    assert_eq!(shown(&columns, "partition_key"), ["#/\"🦀"]);
    assert_eq!(shown(&columns, "sort_key"), ["[0, 255]"]);
}

#[test]
fn a_description_differs_by_key_and_by_columns() {
    let schema = |attributes: &[(&str, &str)], columns: &[ColumnDefinition]| {
        ParquetSchema::new(&key(attributes), columns).describe()
    };
    let described = [
        schema(&[("pk", "S")], &[]),
        schema(&[("sk", "S")], &[]),
        schema(&[("pk", "N")], &[]),
        schema(&[("pk", "S"), ("sk", "S")], &[]),
        schema(&[("pk", "S")], &[ColumnDefinition::new("total", "total", ColumnType::Number)]),
        schema(&[("pk", "S")], &[ColumnDefinition::new("total", "total", ColumnType::Text)]),
        schema(&[("pk", "S")], &[ColumnDefinition::new("total", "amount", ColumnType::Number)]),
    ];
    for (place, one) in described.iter().enumerate() {
        assert!(one.starts_with(FORMAT) && !described[..place].contains(one), "{one}");
    }
}

proptest! {
    #[test]
    fn a_file_gives_back_what_was_written(texts in prop::collection::vec(".{0,40}", 1..20), whole: i64) {
        let mut batch = users().batch();
        let (mut written, mut read) = (RowsChecksum::default(), RowsChecksum::default());
        for text in &texts {
            let item = serde_json::json!({
                "user_id": {"S": text}, "version": {"N": whole.to_string()}, "extra": {"SS": [text]},
            });
            let row = row(&item.to_string());
            written.push(&row);
            batch.push(&row);
        }
        let mut file = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut file, users().arrow(), Some(users().properties())).unwrap();
        writer.write(&batch.take().unwrap()).unwrap();
        writer.close().unwrap();
        for columns in ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file)).unwrap().build().unwrap() {
            let columns = columns.unwrap();
            prop_assert_eq!(&shown(&columns, "user_id"), &texts);
            prop_assert!(shown(&columns, "version").iter().all(|shown| *shown == whole.to_string()));
            read.read(&columns).unwrap();
        }
        prop_assert_eq!(written.finish(), read.finish());
    }
}
