//! The local stack with a table of a document: `millrace up --table … --document … --postgres …`, and the tasks over it.

use std::path::Path;

use aws_sdk_dynamodb::types::AttributeValue;
use millrace::banner;
use millrace_local::stack::{LocalStack, StackOptions};
use millrace_local::table_description::TableDescription;
use millrace_local::task::{self, RunTaskError, StackPorts, TaskOutcome, TaskTarget};
use millrace_local::template::SourceTable;
use millrace_local::tier::TierServer;
use millrace_shared::clock::Clock;
use serde_json::{Value, json};

use crate::postgres::connect;
use crate::relational::store::empty;
use crate::table_shape::ShapeItem;

const DESCRIPTION: &str = include_str!("../../../examples/orders-table.json");

/// The options of a stack for the table of the description, with this document.
pub(crate) fn options(document: Option<&Value>, postgres: TierServer) -> StackOptions {
    let description = TableDescription::parse(DESCRIPTION).unwrap();
    let document = document.map(|document| ("Replication".to_owned(), document.to_string()));
    StackOptions {
        template: Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/replication.yaml"),
        parameters: document.into_iter().collect(),
        source: SourceTable { description: Some(description), ttl_attribute: Some("ttl".to_owned()) },
        postgres,
        ..StackOptions::default()
    }
}

/// A document with a replica in DynamoDB, which is named by an ARN, and one in PostgreSQL.
fn document() -> Value {
    json!({"version": 1, "replicas": [
        {"name": "dr", "sink": "dynamodb", "table": "arn:aws:dynamodb:eu-west-1:111122223333:table/OrdersCopy"},
        {"name": "sql", "sink": "postgres", "table": "orders", "columns": {
            "amount": {"path": "total", "type": "numeric"},
            "city": {"path": "address.city", "type": "text"},
        }},
    ]})
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn key(number: u32) -> ShapeItem {
    [("pk".to_owned(), text("customer-1")), ("sk".to_owned(), AttributeValue::N(number.to_string()))].into()
}

fn order(number: u32, city: &str) -> ShapeItem {
    let mut order = key(number);
    order.insert("total".to_owned(), AttributeValue::N(format!("{number}.5")));
    order.insert("address".to_owned(), AttributeValue::M([("city".to_owned(), text(city))].into()));
    order
}

async fn put(stack: &LocalStack, item: ShapeItem) {
    stack.dynamodb().put_item().table_name("Orders").set_item(Some(item)).send().await.unwrap();
}

fn running(stack: &LocalStack, postgres: Option<&str>) -> TaskTarget {
    let port = |url: &str| url.rsplit(':').next().unwrap().parse().unwrap();
    let ports =
        StackPorts { api: port(stack.api_url()), dynamodb: port(stack.dynamodb_url()), s3: port(stack.s3_url()) };
    TaskTarget::Running { ports, postgres: postgres.map(str::to_owned) }
}

async fn run(target: TaskTarget, request: &str) -> Result<TaskOutcome, RunTaskError> {
    Box::pin(task::run(request, target, &Clock::system())).await
}

const VERIFY: &str = r#"{"task":"verify","recheck_after_seconds":0}"#;

#[tokio::test(flavor = "multi_thread")]
async fn table_of_a_document_is_created_replicated_and_maintained() {
    let (url, folder) = (empty().await, tempfile::tempdir().unwrap());
    let data = Some(folder.path().to_owned());
    let options = || StackOptions { data: data.clone(), ..options(Some(&document()), TierServer::At(url.clone())) };
    let stack = LocalStack::start(options()).await.unwrap();
    let client = connect(&url).await;
    let cities = async || {
        let rows = client.query("select city || ' ' || amount::text from orders_live order by key", &[]).await.unwrap();
        rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join(", ")
    };
    let printed = banner::start_banner(&stack, "http://console", None);
    for part in [
        "replica     dr: table OrdersCopy\n",
        "replica     sql: PostgreSQL table \"orders\", and the view \"orders_live\" without deleted items",
        "get-item --table-name OrdersCopy",
        "select * from \"orders_live\"",
        "task verify",
        &format!("--postgres '{url}'"),
    ] {
        assert!(printed.contains(part), "{part} in {printed}");
    }

    for (number, city) in [(1, "Paris"), (2, "Rome"), (3, "Oslo")] {
        put(&stack, order(number, city)).await;
    }
    stack.dynamodb().delete_item().table_name("Orders").set_key(Some(key(3))).send().await.unwrap();
    stack.wait_until_drained().await;
    assert_eq!(cities().await, "Paris 1.5, Rome 2.5");

    let task = async |request: &str| run(running(&stack, Some(&url)), request).await.unwrap();
    let verified = task(VERIFY).await;
    assert!(verified.is_success(), "{verified}");
    assert_eq!(verified.sinks, ["dr", "sql"]);
    let equal = ["dr.equal", "sql.equal", "dr.tombstones", "sql.tombstones"].map(|count| verified.progress.get(count));
    assert_eq!(equal, [2, 2, 1, 1]);

    client.batch_execute("delete from orders where city = 'Paris'").await.unwrap();
    let filled = task(r#"{"task":"backfill"}"#).await;
    assert_eq!((filled.progress.get("sql.written"), filled.progress.get("dr.written")), (1, 0), "{filled}");
    client.batch_execute("update orders set amount = 0 where city = 'Rome'").await.unwrap();
    let different = task(VERIFY).await;
    assert!(!different.is_success() && different.progress.get("sql.different") == 1, "{different}");
    let repaired = task(r#"{"task":"repair","recheck_after_seconds":0,"dry_run":false}"#).await;
    assert!(repaired.is_success() && repaired.progress.get("sql.repaired") == 1, "{repaired}");
    assert_eq!(cities().await, "Paris 1.5, Rome 2.5");

    // No row stores the first state of this order; it is quarantined for this replica, and redriven once it fits.
    put(&stack, order(4, "zero \u{0}")).await;
    stack.wait_until_drained().await;
    let missing = task(VERIFY).await;
    assert_eq!((missing.progress.get("sql.quarantined"), missing.progress.get("dr.equal")), (1, 3), "{missing}");
    put(&stack, order(4, "Lima")).await;
    stack.wait_until_drained().await;
    let redriven = task(r#"{"task":"redrive","dry_run":false}"#).await;
    assert!(redriven.is_success() && redriven.progress.get("redrive.redriven") == 1, "{redriven}");
    assert_eq!(cities().await, "Paris 1.5, Rome 2.5, Lima 4.5");

    let migrated = task(r#"{"task":"migrate"}"#).await;
    assert!(migrated.is_success() && migrated.progress.get("postgres.migrations_applied") == 0, "{migrated}");
    let refusal = run(running(&stack, None), VERIFY).await.unwrap_err().to_string();
    let expected = "the replica \"sql\" is a table in PostgreSQL: pass the URL of its database with --postgres URL";
    assert!(refusal.contains(expected), "{refusal}");

    // The data folder of a stopped stack.
    stack.stop().await;
    let verified = run(TaskTarget::Own(Box::new(options())), VERIFY).await.unwrap();
    assert!(verified.is_success() && verified.progress.get("sql.equal") == 3, "{verified}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tier_and_document_that_contradict_each_other_are_named_with_an_example() {
    // Nothing listens there: the contradiction is found before the server is reached.
    let nowhere = || TierServer::At("postgres://nobody@127.0.0.1:1/nowhere".to_owned());
    let copy = |table: &str| json!({"version": 1, "replicas": [{"name": "copy", "sink": "dynamodb", "table": table, "region": "eu-west-1"}]});
    let mut same = copy("OrdersCopy");
    let other = json!({"name": "other", "sink": "dynamodb", "table": "OrdersCopy", "region": "eu-west-3"});
    same["replicas"].as_array_mut().unwrap().push(other);
    let entry = r#""name":"sql","sink":"postgres","table":"orders""#;
    for (document, postgres, parts) in [
        (None, nowhere(), ["--postgres: a replication document declares the tables", r#""table":"OrdersReplica""#]),
        (None, nowhere(), ["pass one with --document FILE", entry]),
        (
            Some(copy("OrdersCopy")),
            nowhere(),
            ["no replica of the replication document is a table in PostgreSQL", entry],
        ),
        (Some(document()), TierServer::Off, ["the replica \"sql\"", "set --postgres to auto or to the URL"]),
        (Some(copy("Orders")), TierServer::Off, ["the table Orders of the replica \"copy\"", "that of the source"]),
        (Some(same), TierServer::Off, ["the table OrdersCopy of the replica \"other\"", "the replica \"copy\""]),
        (Some(json!({"version": 7})), nowhere(), ["REPLICATION /version is 7", "REPLICATION /replicas is missing"]),
    ] {
        let error = match LocalStack::start(options(document.as_ref(), postgres)).await {
            Ok(_) => panic!("{document:?} is accepted"),
            Err(error) => error.to_string(),
        };
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn record_that_no_column_stores_is_redriven_once_the_document_lets_it() {
    let (url, folder) = (empty().await, tempfile::tempdir().unwrap());
    let options = |otherwise: &str| {
        let columns = json!({"amount": {"path": "total", "type": "numeric"}});
        let replica =
            json!({"name": "sql", "sink": "postgres", "table": "orders", "columns": columns, "otherwise": otherwise});
        let options = options(Some(&json!({"version": 1, "replicas": [replica]})), TierServer::At(url.clone()));
        StackOptions { data: Some(folder.path().to_owned()), ..options }
    };
    let client = connect(&url).await;
    let rows = async || {
        let sql = "select item->'sk'->>'N' || ' ' || coalesce(amount::text, 'null') from orders_live order by key";
        let rows = client.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join(", ")
    };
    let strict = LocalStack::start(options("quarantine")).await.unwrap();
    let mut unfit = order(2, "Rome");
    unfit.insert("total".to_owned(), text("many"));
    for item in [order(1, "Paris"), unfit, order(3, "Oslo")] {
        put(&strict, item).await;
        strict.wait_until_drained().await;
    }
    assert_eq!(rows().await, "1 1.5, 3 3.5", "its neighbours are stored");
    let task = async |stack: &LocalStack, request: &str| run(running(stack, Some(&url)), request).await.unwrap();
    let redrive = r#"{"task":"redrive","dry_run":false}"#;
    let still = task(&strict, redrive).await;
    assert!(!still.is_success() && still.progress.get("redrive.redriven") == 0, "{still}");
    strict.stop().await;

    let lenient = LocalStack::start(options("null")).await.unwrap();
    let redriven = task(&lenient, redrive).await;
    assert!(redriven.is_success() && redriven.progress.get("redrive.redriven") == 1, "{redriven}");
    assert_eq!(rows().await, "1 1.5, 2 null, 3 3.5");
    let verified = task(&lenient, VERIFY).await;
    assert!(verified.is_success() && verified.progress.get("sql.equal") == 3, "{verified}");
    lenient.stop().await;
}
