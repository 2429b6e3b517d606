//! Conversion of an item's values to columns.

use arrow_array::types::{Date32Type, Int64Type};
use bytes::Bytes;
use millrace_archive::ItemText;
use millrace_shared::change::CanonicalKey;
use millrace_shared::revision::Revision;
use millrace_transform::AttributePath;
use millrace_transform::columns::{OtherwiseRule, TimestampFormat};
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
        item: ItemText::from_json(&RawValue::from_string(item.to_owned()).unwrap()).unwrap(),
    }
}

/// The schema of a users table.
fn users() -> ParquetSchema {
    ParquetSchema::new(&key(&[("user_id", "S"), ("timestamp", "N")]), &ColumnDefinition::for_users())
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
fn values_of_the_column_type_are_written_and_others_are_null() {
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
    for (position, one) in described.iter().enumerate() {
        assert!(one.starts_with(FORMAT) && !described[..position].contains(one), "{one}");
    }
}

/// The columns that a document declares: name, path and type.
fn declared(columns: &[(&str, &str, DeclaredType)]) -> TableColumns {
    let column = |(name, path, kind): &(&str, &str, DeclaredType)| millrace_transform::columns::ColumnDefinition {
        name: (*name).to_owned(),
        path: AttributePath::parse(path).unwrap(),
        kind: *kind,
    };
    TableColumns::new(columns.iter().map(column).collect(), OtherwiseRule::Null)
}

/// One column of each type.
fn of_each_type() -> TableColumns {
    declared(&[
        ("city", "address.city", DeclaredType::Text),
        ("amount", "total", DeclaredType::Numeric),
        ("quantity", "lines[0].quantity", DeclaredType::BigInt),
        ("paid", "paid", DeclaredType::Boolean),
        ("placed_at", "placedAt", DeclaredType::Timestamp(TimestampFormat::Rfc3339)),
        ("ends_at", "ttl", DeclaredType::Timestamp(TimestampFormat::EpochSeconds)),
        ("due", "due", DeclaredType::Date),
        ("address", "address", DeclaredType::Json),
        ("digest", "digest", DeclaredType::Bytes),
        ("tags", "tags", DeclaredType::TextArray),
        ("prices", "prices", DeclaredType::NumericArray),
    ])
}

#[test]
fn column_of_each_declared_type_has_the_value_of_its_path_or_null() {
    let fits = r#"{"address":{"M":{"city":{"S":"Łódź"}}},"total":{"N":"0.12345678901234567890123456789012345678"},
        "lines":{"L":[{"M":{"quantity":{"N":"9223372036854775807"}}}]},"paid":{"BOOL":true},
        "placedAt":{"S":"2026-11-22T10:00:00.1234567+02:00"},"ttl":{"N":"-0.5"},"due":{"S":"1969-12-31"},
        "digest":{"B":"AP8="},"tags":{"SS":["b","a"]},"prices":{"L":[{"N":"2.50"},{"N":"1E125"}]}}"#;
    let does_not = r#"{"address":{"S":"x"},"total":{"S":"7"},"lines":{"L":[{"M":{"quantity":{"N":"0.5"}}}]},
        "paid":{"S":"true"},"placedAt":{"S":"soon"},"ttl":{"N":"1E125"},"due":{"S":"2026-02-30"},"digest":{"S":"x"},
        "tags":{"L":[{"N":"1"}]},"prices":{"SS":["1"]}}"#;
    let schema = ParquetSchema::new(&key(&[("pk", "S")]), &[]).with_declared(of_each_type());
    let mut batch = schema.batch();
    for item in [fits, does_not, "{}", r#"{"tags":{"NULL":true},"total":7}"#] {
        batch.push(&row(item));
    }
    let unfit = batch.unfit().to_vec();
    let columns = batch.take().unwrap();
    for (name, expected) in [
        ("city", "Łódź"),
        ("amount", "0.12345678901234567890123456789012345678"),
        ("quantity", "9223372036854775807"),
        ("placed_at", "1795334400123456"),
        ("ends_at", "-500000"),
        ("address", r#"{"city":"Łódź"}"#),
        ("digest", "[0, 255]"),
    ] {
        let second = if name == "address" { "\"x\"" } else { "null" };
        assert_eq!(shown(&columns, name), [expected, second, "null", "null"], "{name}");
    }
    assert!(columns.column_by_name("paid").unwrap().as_boolean().value(0));
    assert_eq!(columns.column_by_name("due").unwrap().as_primitive::<Date32Type>().value(0), -1);
    let list = |name: &str| {
        let texts = columns.column_by_name(name).unwrap().as_list::<i32>().value(0);
        texts.as_string::<i32>().iter().flatten().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        (list("tags"), list("prices")),
        (vec!["a".into(), "b".into()], vec!["2.5".into(), format!("1{}", "0".repeat(125))])
    );
    for name in ["paid", "due", "tags", "prices"] {
        let column = columns.column_by_name(name).unwrap();
        assert_eq!([1, 2, 3].map(|row| column.is_null(row)), [true; 3], "{name}");
    }
    // A path through a text is not an attribute, and a JSON column stores any value.
    let counted = schema.declared_names().into_iter().zip(unfit).collect::<Vec<_>>();
    for (name, count) in counted {
        let expected = match name.as_str() {
            "city" | "address" => 0,
            "amount" => 2,
            _ => 1,
        };
        assert_eq!(count, expected, "{name}");
    }
}

#[test]
fn declared_columns_change_the_description_and_the_table_of_athena() {
    let plain = ParquetSchema::new(&key(&[("pk", "S"), ("sk", "N")]), &[]);
    let of = |kind| plain.clone().with_declared(declared(&[("at", "at", kind)])).describe();
    let described = [
        plain.describe(),
        of(DeclaredType::Text),
        of(DeclaredType::Timestamp(TimestampFormat::EpochSeconds)),
        of(DeclaredType::Timestamp(TimestampFormat::EpochMilliseconds)),
        plain.clone().with_declared(declared(&[("at", "a.t", DeclaredType::Text)])).describe(),
    ];
    for (index, one) in described.iter().enumerate() {
        assert!(!described[..index].contains(one), "{one}");
    }
    let schema = plain.with_declared(of_each_type());
    let names: Vec<String> = schema.arrow().fields().iter().map(|field| field.name().clone()).collect();
    let columns = schema.athena_columns();
    assert_eq!(columns.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), names);
    let table = AthenaTable {
        database: "my`archive",
        name: "expired_items_typed",
        bucket: "orders-archive",
        source_table: "Orders",
        schema: &schema,
    };
    let statement = table.to_string();
    for part in [
        "CREATE EXTERNAL TABLE `my``archive`.`expired_items_typed` (\n  `partition_key` string,\n",
        "  `sort_key_integer` bigint,\n  `city` string,\n  `amount` string,\n  `quantity` bigint,\n  `paid` boolean,\n",
        "  `placed_at` timestamp,\n  `ends_at` timestamp,\n  `due` date,\n  `address` string,\n  `digest` binary,\n",
        "  `tags` array<string>,\n  `prices` array<string>,\n  `key` string,\n",
        "  `item` string\n)\nPARTITIONED BY (`dt` string)\nSTORED AS PARQUET\n",
        "LOCATION 's3://orders-archive/parquet/Orders/'\n",
        "'storage.location.template' = 's3://orders-archive/parquet/Orders/dt=${dt}/'\n);\n",
    ] {
        assert!(statement.contains(part), "{part}\n{statement}");
    }
}

#[test]
fn declared_columns_survive_a_file() {
    let schema = ParquetSchema::new(&key(&[("pk", "S")]), &[]).with_declared(of_each_type());
    let mut batch = schema.batch();
    batch.push(&row(r#"{"tags":{"SS":["a"]},"address":{"M":{"city":{"S":"Paris"}}},"due":{"S":"2026-11-22"}}"#));
    batch.push(&row("{}"));
    let columns = batch.take().unwrap();
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, schema.arrow(), Some(schema.properties())).unwrap();
    writer.write(&columns).unwrap();
    writer.close().unwrap();
    let mut read = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file)).unwrap().build().unwrap();
    assert_eq!(read.next().unwrap().unwrap().columns(), columns.columns());
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
