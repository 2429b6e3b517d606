use std::io::Write as _;
use std::path::Path;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use flate2::write::GzEncoder;
use millrace_shared::raw_item::RawItem;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::*;
use crate::clients;
use crate::dynamodb::DynamoDbEngine;
use crate::template::{AttributeType, KeyDefinition};

const TABLE: &str = "Orders";

fn orders() -> TableResource {
    let key = |name: &str, role: &str| KeyDefinition { name: name.to_owned(), role: role.to_owned() };
    let attribute = |name: &str, kind: &str| AttributeType { name: name.to_owned(), kind: kind.to_owned() };
    TableResource {
        logical_id: "SourceTable".to_owned(),
        name: TABLE.to_owned(),
        keys: vec![key("pk", "HASH"), key("sk", "RANGE")],
        attributes: vec![attribute("pk", "S"), attribute("sk", "N")],
        indexes: Vec::new(),
        local_indexes: Vec::new(),
        ttl_attribute: None,
        stream_view: Some("NEW_AND_OLD_IMAGES".to_owned()),
    }
}

/// An engine with the table, and a folder for the files.
struct ImportScene {
    engine: DynamoDbEngine,
    client: Client,
    folder: TempDir,
}

impl ImportScene {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let engine = DynamoDbEngine::start(listener, None).await.unwrap();
        engine.create_tables(&[orders()]).unwrap();
        let client = clients::dynamodb(engine.endpoint());
        Self { engine, client, folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Imports the file or folder with this name; an error is returned as its text.
    async fn import(&self, name: &str) -> Result<ImportOutcome, String> {
        let path = self.folder.path().join(name);
        let source = ImportSource::open(&path).map_err(|error| self.without_folder(&error.to_string()))?;
        let outcome = import(source, &self.client, &orders(), ImportProgress::Count(std::sync::Arc::default())).await;
        outcome.map_err(|error| self.without_folder(&error.to_string()))
    }

    fn without_folder(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.folder.path().display()), "")
    }

    /// Imports a file with these lines.
    async fn import_lines(&self, lines: &[&str]) -> Result<ImportOutcome, String> {
        self.file("items.ndjson", lines.join("\n"));
        self.import("items.ndjson").await
    }

    async fn item(&self, pk: &str, sk: &str) -> Option<Attributes> {
        let get = self.client.get_item().table_name(TABLE).consistent_read(true);
        let get = get.key("pk", AttributeValue::S(pk.to_owned())).key("sk", AttributeValue::N(sk.to_owned()));
        get.send().await.unwrap().item
    }

    async fn count(&self) -> usize {
        let mut pages = self.client.scan().table_name(TABLE).consistent_read(true).into_paginator().items().send();
        let mut count = 0;
        while let Some(item) = pages.next().await {
            item.unwrap();
            count += 1;
        }
        count
    }
}

fn line(number: u32) -> String {
    format!(r#"{{"Item":{{"pk":{{"S":"order-{number}"}},"sk":{{"N":"{number}"}},"total":{{"N":"1.50"}}}}}}"#)
}

fn lines(numbers: std::ops::Range<u32>) -> String {
    numbers.map(|number| line(number) + "\n").collect()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn items_with_and_without_wrapper_are_imported_and_read_back() {
    let scene = ImportScene::start().await;
    let outcome = scene.import_lines(&[
        "\u{FEFF}{\"pk\":{\"S\":\"a\"},\"sk\":{\"N\":\"1\"},\"tags\":{\"SS\":[\"x\",\"y\"]},\"Item\":{\"S\":\"z\"}}\r",
        "",
        concat!(
            r#"  { "Item" : { "pk":{"S":"b"}, "sk":{"N":"2.0"}, "raw":{"B":"AP8="}, "#,
            r#""deep":{"M":{"l":{"L":[{"NULL":true}]}}} } }"#
        ),
    ]);
    let outcome = outcome.await.unwrap();
    assert_eq!((outcome.items, outcome.replaced), (2, 0));
    let first = RawItem::new(scene.item("a", "1").await.unwrap());
    let wanted = r#"{"pk":{"S":"a"},"sk":{"N":"1"},"tags":{"SS":["y","x"]},"Item":{"S":"z"}}"#;
    assert!(first.eq_by_value(&RawItem::parse(wanted).unwrap()));
    let second = scene.item("b", "2").await.unwrap();
    assert_eq!(second["raw"].as_b().unwrap().as_ref(), [0, 255]);
    assert_eq!(second["deep"].as_m().unwrap()["l"].as_l().unwrap()[0], AttributeValue::Null(true));
}

#[tokio::test]
async fn files_of_every_compression_and_folder_layout_are_imported() {
    let scene = ImportScene::start().await;
    scene.file("plain.ndjson", lines(0..60));
    // Two members of gzip are one file.
    scene.file("packed.json.gz", [gzip(&lines(60..70)), gzip(&lines(70..80))].concat());
    scene.file("packed.jsonl.zst", zstd::encode_all(lines(80..90).as_bytes(), 3).unwrap());
    scene.file("folder/b.json.gz", gzip(&lines(90..95)));
    scene.file("folder/a.ndjson", lines(95..100));
    scene.file("folder/notes.txt", "no item");
    for (name, items) in [("plain.ndjson", 60), ("packed.json.gz", 20), ("packed.jsonl.zst", 10), ("folder", 10)] {
        assert_eq!(scene.import(name).await.unwrap().items, items, "{name}");
    }
    assert_eq!(scene.count().await, 100);
}

#[tokio::test]
async fn export_is_imported_by_its_manifest_and_compared_with_it() {
    let scene = ImportScene::start().await;
    let entry = |name: &str, items: u32| {
        let key = format!("exports/AWSDynamoDB/01695353076000-06e2188f/data/{name}");
        json!({"itemCount": items, "md5Checksum": "x", "etag": "y", "dataFileS3Key": key}).to_string() + "\n"
    };
    let summary =
        |format: &str, kind: &str| json!({"version": "2023-08-01", "outputFormat": format, "exportType": kind});
    let folder = "AWSDynamoDB/01695353076000-06e2188f";
    scene.file(&format!("{folder}/data/one.json.gz"), gzip(&lines(0..30)));
    scene.file(&format!("{folder}/data/two.json.gz"), gzip(&lines(30..40)));
    scene.file(&format!("{folder}/data/no-part-of-it.json.gz"), gzip("{"));
    scene.file(&format!("{folder}/manifest-summary.json"), summary("DYNAMODB_JSON", "FULL_EXPORT").to_string());
    scene.file(&format!("{folder}/manifest-files.json"), entry("one.json.gz", 30) + &entry("two.json.gz", 10));
    assert_eq!(scene.import(folder).await.unwrap().items, 40);
    let message = scene.import("").await.unwrap_err();
    assert!(message.ends_with(&format!("pass the folder of one export, {folder}")), "{message}");

    scene.file(&format!("{folder}/manifest-files.json"), entry("one.json.gz", 31) + &entry("two.json.gz", 10));
    let message = scene.import(folder).await.unwrap_err();
    let count =
        "one.json.gz has 30 items, but manifest-files.json says 31: copy it again; 30 items were written before";
    assert!(message.ends_with(count), "{message}");
    scene.file(&format!("{folder}/manifest-files.json"), entry("three.json.gz", 1));
    let message = scene.import(folder).await.unwrap_err();
    assert!(message.contains("manifest-files.json: the data file three.json.gz is missing"), "{message}");
    for (format, kind, fix) in [
        ("ION", "FULL_EXPORT", "--export-format DYNAMODB_JSON"),
        ("DYNAMODB_JSON", "INCREMENTAL_EXPORT", "--export-type FULL_EXPORT"),
    ] {
        scene.file(&format!("{folder}/manifest-summary.json"), summary(format, kind).to_string());
        let message = scene.import(folder).await.unwrap_err();
        assert!(message.contains("manifest-summary.json: ") && message.contains(fix), "{message}");
    }
}

#[tokio::test]
async fn last_line_of_a_key_wins_and_replaced_items_are_counted() {
    let scene = ImportScene::start().await;
    // In one batch, and in batches far from each other; numbers are equal by value.
    let text = lines(0..100)
        + &line(7).replace("1.50", "2")
        + "\n"
        + &line(7).replace("1.50", "3").replace("\"7\"", "\"7.0\"")
        + "\n"
        + &line(99).replace("1.50", "4");
    scene.file("items.ndjson", text);
    let outcome = scene.import("items.ndjson").await.unwrap();
    assert_eq!((outcome.items, outcome.replaced, scene.count().await), (103, 3, 100));
    for (number, total) in [("7", "3"), ("99", "4")] {
        let item = scene.item(&format!("order-{number}"), number).await.unwrap();
        assert_eq!(item["total"], AttributeValue::N(total.to_owned()));
    }
}

#[tokio::test]
async fn invalid_line_is_named_with_its_attribute_and_fix() {
    let scene = ImportScene::start().await;
    for (line, problem) in [
        ("{\"pk\"", "not JSON (EOF while parsing an object at column 5)"),
        ("pk,sk", "not JSON (expected value at column 1): write one item in DynamoDB JSON on each line"),
        ("{", "one JSON document, not one item per line: convert it with jq -c '.Items[]' FILE"),
        ("[{\"pk\":{\"S\":\"a\"}}]", "convert it with jq -c '.[]' FILE"),
        (r#"{"Items":[],"Count":0}"#, "convert it with jq -c '.Items[]' FILE"),
        ("7", "not an item but 7: "),
        (r#"{"Item":7}"#, "not an item but \"Item\": 7: "),
        (r#"{"Metadata":{},"Keys":{},"NewImage":{}}"#, "--export-type FULL_EXPORT"),
        (
            r#"{"pk":"a","sk":1}"#,
            r#""pk" is plain JSON ("a"): write the value with its type, as in DynamoDB JSON, such as {"S":"a"}"#,
        ),
        (
            r#"{"pk":{"S":"a"},"sk":{"N":"1"},"x":7}"#,
            r#"attribute "x" is plain JSON (7): write the value with its type, as in DynamoDB JSON, such as {"N":"7"}"#,
        ),
        (
            r#"{"pk":{"S":"a"},"sk":{"N":"1"},"x":{"N":7}}"#,
            r#"attribute "x" is not DynamoDB JSON ({"N":7}): expected one of the types S, N,"#,
        ),
        (r#"{"pk":{"S":"a"},"sk":{"N":"1"},"x":{"B":"*"}}"#, "attribute \"x\" is not DynamoDB JSON"),
        (r#"{"pk":{"S":"a"},"sk":{"N":"1"},"x":{"S":"a"},"x":{"S":"b"}}"#, "attribute \"x\" occurs twice"),
        (r#"{"pk":{"S":"a"}}"#, r#"attribute "sk" is missing, which is the table's sort key (N): add it"#),
        (
            r#"{"pk":{"S":"a"},"sk":{"S":"1"}}"#,
            r#"attribute "sk" has the type S, but the table's sort key has the type N"#,
        ),
        (r#"{"pk":{"S":""},"sk":{"N":"1"}}"#, "attribute \"pk\" is empty, but it is the table's partition key"),
        (
            r#"{"pk":{"S":"a"},"sk":{"N":"x"}}"#,
            "attribute \"sk\" is not a number (\"x\"), but it is the table's sort key",
        ),
        (r#"{"pk":{"S":"a"},"sk":{"N":"1"},"x":{"SS":[]}}"#, "the table rejects the item ("),
        (r#"{"pk":{"S":"a"},"sk":{"N":"1"},"x":{"N":"one"}}"#, "the table rejects the item ("),
    ] {
        let message = scene.import_lines(&[&self::line(1), "", line, &self::line(2)]).await.unwrap_err();
        assert!(message.starts_with("items.ndjson:3: ") && message.contains(problem), "{line}: {message}");
        assert!(message.ends_with("; 1 item was written before"), "{message}");
    }
    let large = format!(r#"{{"pk":{{"S":"a"}},"sk":{{"N":"1"}},"x":{{"S":"{}"}}}}"#, "x".repeat(410_000));
    let message = scene.import_lines(&[&large]).await.unwrap_err();
    let problem =
        "items.ndjson:1: the item has 410008 bytes, but an item may have 409600: remove or shorten attributes";
    assert_eq!(message, format!("{problem}; no item was written"));
    assert_eq!(scene.count().await, 1, "nothing after the invalid line is written");
}

#[tokio::test]
async fn item_that_the_table_rejects_is_found_within_its_batch() {
    let scene = ImportScene::start().await;
    let rejected = line(40).replace("\"1.50\"", "\"1e999\"");
    scene.file("items.ndjson", lines(0..40) + &rejected + "\n" + &lines(41..60));
    let message = scene.import("items.ndjson").await.unwrap_err();
    assert!(message.starts_with("items.ndjson:41: the table rejects the item ("), "{message}");
    assert!(message.ends_with("; 40 items were written before"), "{message}");
    assert_eq!(scene.count().await, 40);
}

#[tokio::test]
async fn file_that_cannot_be_read_is_named_with_the_number_of_items_before() {
    let scene = ImportScene::start().await;
    let whole = gzip(&lines(0..3000));
    scene.file("cut.json.gz", &whole[..whole.len() - 9]);
    let mut altered = whole.clone();
    let end = altered.len() - 900;
    altered[end..end + 40].fill(0);
    scene.file("altered.json.gz", altered);
    for name in ["cut.json.gz", "altered.json.gz"] {
        let message = scene.import(name).await.unwrap_err();
        assert!(message.starts_with(&format!("{name} is corrupt or incomplete after line ")), "{message}");
        assert!(message.contains(": copy it again; ") && message.ends_with(" items were written before"), "{message}");
        let written: usize = message.rsplit_once("; ").unwrap().1.split(' ').next().unwrap().parse().unwrap();
        let after: usize = message.split("after line ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert_eq!(written, after, "{message}");
    }
    scene.file("long.ndjson", "x".repeat(9 * 1024 * 1024));
    scene.file("latin.ndjson", b"{\"pk\":{\"S\":\"\xE9\"}}");
    scene.file("items.ion.gz", gzip("$ion_1_0 {Item:{pk:\"a\"}}"));
    scene.file("items.parquet", "PAR1");
    scene.file("empty/readme.txt", "");
    for (name, problem) in [
        ("nothing.ndjson", "cannot read nothing.ndjson: No such file or directory"),
        ("long.ndjson", "long.ndjson:1: the line is longer than 8388608 bytes"),
        ("latin.ndjson", "latin.ndjson:1: not UTF-8"),
        ("items.ion.gz", "items.ion.gz is Amazon Ion: export the table with --export-format DYNAMODB_JSON"),
        ("items.parquet", "items.parquet is Parquet: "),
        ("empty", "empty contains no manifest-files.json and no file that ends in .json, .ndjson or .jsonl"),
    ] {
        let message = scene.import(name).await.unwrap_err();
        assert!(message.starts_with(problem) && message.lines().count() == 1, "{message}");
    }
}

#[tokio::test]
async fn table_that_is_gone_ends_the_import() {
    let scene = ImportScene::start().await;
    scene.client.delete_table().table_name(TABLE).send().await.unwrap();
    let message = scene.import_lines(&[&line(1)]).await.unwrap_err();
    assert!(
        message.starts_with("cannot write to table Orders: ") && message.ends_with("; no item was written"),
        "{message}"
    );
    scene.engine.stop().await;
}

#[test]
fn member_item_is_the_wrapper_unless_it_is_the_key() {
    let keys = |name: &str| {
        let mut table = orders();
        table.keys.truncate(1);
        name.clone_into(&mut table.keys[0].name);
        table.attributes = vec![AttributeType { name: name.to_owned(), kind: "S".to_owned() }];
        KeyAttributes::from_table(&table)
    };
    let parse =
        |line: &str, name: &str| ImportedItem::parse(line, &keys(name)).map(|item| item.unwrap().key.to_string());
    assert_eq!(parse(r#"{"Item":{"S":"a"}}"#, "Item").unwrap(), r#"{"Item":{"S":"a"}}"#);
    assert_eq!(parse(r#"{"Item":{"Item":{"S":"a"}}}"#, "Item").unwrap(), r#"{"Item":{"S":"a"}}"#);
    assert_eq!(parse(r#"{"Item":{"S":{"S":"a"}}}"#, "S").unwrap(), r#"{"S":{"S":"a"}}"#);
    assert_eq!(parse(r#"{"Item":{"pk":{"S":"a"},"Item":{"N":"1"}}}"#, "pk").unwrap(), r#"{"pk":{"S":"a"}}"#);
}

/// A value in DynamoDB JSON; some are rejected by DynamoDB, such as numbers of more than 38 digits.
fn values() -> impl Strategy<Value = Value> {
    let number = || "-?[1-9][0-9]{0,40}(\\.[0-9]{1,6})?(E-?[0-9]{1,2})?";
    let base64 = || "([A-Za-z0-9+/]{4}){1,5}";
    let leaf = prop_oneof![
        any::<String>().prop_map(|text| json!({"S": text})),
        number().prop_map(|number| json!({"N": number})),
        base64().prop_map(|bytes| json!({"B": bytes})),
        any::<bool>().prop_map(|flag| json!({"BOOL": flag})),
        Just(json!({"NULL": true})),
        proptest::collection::btree_set(".{1,6}", 0..4).prop_map(|set| json!({"SS": set})),
        proptest::collection::btree_set(0..1000_i32, 1..4)
            .prop_map(|set| json!({"NS": set.iter().map(ToString::to_string).collect::<Vec<_>>()})),
        proptest::collection::btree_set(base64(), 1..4).prop_map(|set| json!({"BS": set})),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|list| json!({"L": list})),
            proptest::collection::btree_map(".{1,6}", inner, 0..4).prop_map(|map| json!({"M": map})),
        ]
    })
}

#[test]
fn any_item_that_is_imported_is_read_back_equal() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let scene = runtime.block_on(ImportScene::start());
    let item = (any::<String>(), -1_000_000..1_000_000_i32, proptest::collection::btree_map(".{1,8}", values(), 0..5));
    let imported = std::cell::Cell::new(0);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(300));
    let result = runner.run(&(item, any::<bool>()), |((pk, sk, attributes), is_wrapped)| {
        let mut item: Value = json!(attributes);
        item["pk"] = json!({"S": pk});
        item["sk"] = json!({"N": sk.to_string()});
        let wanted = RawItem::parse(&item.to_string()).unwrap();
        let line = if is_wrapped { json!({"Item": item}).to_string() } else { item.to_string() };
        let before = runtime.block_on(scene.count());
        match runtime.block_on(scene.import_lines(&[&line])) {
            Ok(outcome) => {
                prop_assert_eq!(outcome.items, 1);
                imported.set(imported.get() + 1);
                let stored = runtime.block_on(scene.item(&pk, &sk.to_string()));
                prop_assert!(RawItem::new(stored.unwrap()).eq_by_value(&wanted), "{}", line);
            }
            Err(message) => {
                prop_assert!(
                    message.starts_with("items.ndjson:1: ") && message.ends_with("; no item was written"),
                    "{}",
                    message
                );
                prop_assert_eq!(runtime.block_on(scene.count()), before);
            }
        }
        Ok(())
    });
    result.unwrap();
    assert!(imported.get() > 50, "only {} of 300 items were imported", imported.get());
}

#[test]
fn a_file_is_read_as_a_stream() {
    let folder = tempfile::tempdir().unwrap();
    let path: &Path = &folder.path().join("items.ndjson");
    std::fs::write(path, lines(0..20_000)).unwrap();
    let mut source = ImportSource::open(path).unwrap();
    source.next_line().unwrap().unwrap();
    assert!(source.bytes_read() < source.bytes() / 2, "{} of {}", source.bytes_read(), source.bytes());
}
