//! The schema of a declared table: creation, additions, names, the view, and the reader role.

use millrace_shared::change::CanonicalKey;
use millrace_sinks::postgres::migrate_table;
use millrace_sinks::{Replica as _, Sink as _};
use serde_json::{Value, json};

use super::{TableStore, declared, table_sink};
use crate::relational::store::{apply, empty, soon};
use crate::replication::events::EventBuilder;

#[tokio::test]
async fn a_table_that_is_not_migrated_is_named_with_the_task() {
    let (url, table) = (empty().await, declared("orders", &json!({}), "null"));
    let sink = table_sink(&url, &table);
    let message = sink.check().await.unwrap_err().to_string();
    assert!(message.contains("sink sql") && message.contains("orders: create the table"), "{message}");
    assert!(message.contains("run the maintenance task migrate"), "{message}");
    let steps = migrate_table(sink.database(), &table, soon()).await.unwrap();
    assert_eq!(steps, ["orders: create the table", "orders: create the view orders_live"]);
    assert_eq!(
        migrate_table(sink.database(), &table, soon()).await.unwrap(),
        [""; 0],
        "a second time nothing is missing"
    );
    sink.check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_migrations_at_once_create_the_table_once() {
    let (url, table) = (empty().await, declared("orders", &json!({}), "null"));
    let migrate = async || migrate_table(table_sink(&url, &table).database(), &table, soon()).await.unwrap().len();
    let (one, other) = tokio::join!(migrate(), migrate());
    assert_eq!(one.max(other), 2);
    assert_eq!(one.min(other), 0);
}

#[tokio::test]
async fn any_name_is_an_identifier_and_never_sql() {
    let odd = [
        r#"a"b"#,
        "select",
        "placed at",
        "Größe",
        "注文",
        "$1",
        "a'b",
        "a;--",
        "c1",
        "k1",
        "told",
        "excluded",
        "stored",
        "place",
        "expected",
        "standing",
        "%s",
        "{x}",
        r"back\slash",
        "$$",
        "user",
        "list",
    ];
    let columns: serde_json::Map<String, Value> =
        odd.iter().map(|name| ((*name).to_owned(), json!({"path": "name", "type": "text"}))).collect();
    for name in [r#"order"; drop table users; --"#, "told", "select", "Bestellungen in Größe", "'", "list", "$$"] {
        let store = TableStore::with_table(declared(name, &Value::Object(columns.clone()), "null")).await;
        store.sink.check().await.unwrap();
        assert_eq!(apply(&store.sink, &[EventBuilder::named("a", 1, "Ada")]).await.applied, 1, "{name}");
        let view = store.table.view().quoted();
        let stored = store.client.query(&format!("select * from public.{view}"), &[]).await.unwrap();
        let names: Vec<&str> = stored[0].columns().iter().map(tokio_postgres::Column::name).collect();
        let mut expected = vec!["key", "item", "revision", "changed_at"];
        expected.extend(store.table.columns.definitions().iter().map(|column| column.name.as_str()));
        assert_eq!(names, expected);
        for (index, column) in names.iter().enumerate().skip(4) {
            assert_eq!(stored[0].get::<_, &str>(index), "Ada", "{name}: {column}");
        }
    }
}

#[tokio::test]
async fn the_view_leaves_tombstones_out_and_its_reader_reads_nothing_else() {
    let store = TableStore::start(&json!({"name": {"path": "name", "type": "text"}})).await;
    let events = [EventBuilder::named("a", 1, "Ada"), EventBuilder::deleted("b", 2)];
    assert_eq!(apply(&store.sink, &events).await.applied, 2);
    assert_eq!((store.count("orders").await, store.count("orders_live").await), (2, 1));
    let comments = "select col_description('orders'::regclass, attnum) from pg_attribute \
        where attrelid = 'orders'::regclass and attname = ";
    assert_eq!(store.text(&format!("{comments}'name'")).await.unwrap(), "DynamoDB attribute name");
    assert!(store.text(&format!("{comments}'item'")).await.unwrap().contains("null in a tombstone"));
    let may = |object: &str, right: &str| {
        format!("select has_table_privilege('millrace_orders_reader', '{object}', '{right}')::text")
    };
    for (object, right, expected) in
        [("orders_live", "select", "true"), ("orders", "select", "false"), ("orders_live", "insert", "false")]
    {
        assert_eq!(store.text(&may(object, right)).await.unwrap(), expected, "{object} {right}");
    }
}

async fn differs(store: &TableStore, sink: &millrace_sinks::postgres::PostgresSink) -> Vec<bool> {
    let key = CanonicalKey::parse(r#"{"timestamp":{"N":"1"},"user_id":{"S":"a"}}"#).unwrap();
    let read = sink.read(&[key]).await.unwrap().items;
    let segment = millrace_shared::table_reader::ScanSegment { segment: 0, total_segments: 1 };
    let scanned = sink.scan(segment, None).await.unwrap().items;
    assert_eq!(scanned.len(), 1, "{}", store.url);
    [read[0].as_ref().unwrap(), &scanned[0].1].map(|held| held.columns_differ).to_vec()
}

#[tokio::test]
async fn a_column_that_is_added_differs_until_its_rows_are_written_again() {
    let store = TableStore::start(&json!({"name": {"path": "name", "type": "text"}})).await;
    assert_eq!(apply(&store.sink, &[EventBuilder::named("a", 1, "Ada")]).await.applied, 1);
    assert_eq!(differs(&store, &store.sink).await, [false, false]);
    let wider = declared(
        "orders",
        &json!({"email": {"path": "email", "type": "text"}, "name": {"path": "name", "type": "text"}}),
        "null",
    );
    let sink = table_sink(&store.url, &wider);
    let message = sink.check().await.unwrap_err().to_string();
    assert!(message.contains("orders: add the column email, which a repair fills"), "{message}");
    let steps = migrate_table(sink.database(), &wider, soon()).await.unwrap();
    assert_eq!(steps.len(), 2, "the column and the view: {steps:?}");
    sink.check().await.unwrap();
    assert_eq!(differs(&store, &sink).await, [true, true]);
    assert_eq!(apply(&sink, &[EventBuilder::named("a", 2, "Ada")]).await.applied, 1);
    assert_eq!(differs(&store, &sink).await, [false, false]);
    assert_eq!(store.text("select email from orders_live").await.unwrap(), "a@example.com");
    // A column that somebody has changed by hand.
    store.client.batch_execute("update orders set name = 'Eve'").await.unwrap();
    assert_eq!(differs(&store, &sink).await, [true, true]);

    // The document of before, which no longer declares the column.
    let message = store.sink.check().await.unwrap_err().to_string();
    assert!(message.contains("column \"email\", which the replication document no longer declares"), "{message}");
    store.client.batch_execute(r#"alter table public."orders" drop column "email" cascade"#).await.unwrap();
    let steps = migrate_table(store.sink.database(), &store.table, soon()).await.unwrap();
    assert_eq!(steps, ["orders: create the view orders_live"]);
    store.sink.check().await.unwrap();
}

#[tokio::test]
async fn a_table_of_another_program_is_left_alone() {
    let url = empty().await;
    let table = declared("orders", &json!({}), "null");
    let sink = table_sink(&url, &table);
    let client = crate::postgres::connect(&url).await;
    client.batch_execute("create table orders (id int)").await.unwrap();
    let message = migrate_table(sink.database(), &table, soon()).await.unwrap_err().to_string();
    assert!(
        message.contains("the table orders exists and is not a replica") && message.contains("another table"),
        "{message}"
    );
    assert!(sink.check().await.unwrap_err().to_string().contains("is not a replica"));
}

#[tokio::test]
async fn a_database_of_another_encoding_is_refused_by_name() {
    let url = empty().await;
    let (base, name) = url.rsplit_once('/').unwrap();
    let latin = format!("{name}_latin");
    let create = format!("create database {latin} encoding 'LATIN1' locale 'C' template template0 owner millrace");
    crate::postgres::connect(&url.replace("millrace@", "postgres@")).await.batch_execute(&create).await.unwrap();
    let table = declared("orders", &json!({}), "null");
    let sink = table_sink(&format!("{base}/{latin}"), &table);
    let message = sink.check().await.unwrap_err().to_string();
    assert!(message.contains("has the encoding LATIN1: create a database with UTF8"), "{message}");
}
