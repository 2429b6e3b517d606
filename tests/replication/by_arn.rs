//! Tables that are named by ARN, as those of another account are: the stream's functions and the tasks, with the source
//! and the replica by ARN, on the embedded engine.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, Put, TransactWriteItem};
use millrace_local::clients;
use millrace_local::stack::{LocalStack, StackOptions};
use millrace_local::template::SourceTable;
use millrace_maintenance::config::MaintenanceConfig;
use millrace_maintenance::{AwsClients, MaintenanceHandler};
use millrace_shared::environment::Environment;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::maintenance::scene::to_its_end;

const ORDERS_ARN: &str = "arn:aws:dynamodb:dynoxide:000000000000:table/Orders";
const REPLICA_ARN: &str = "arn:aws:dynamodb:dynoxide:000000000000:table/OrdersReplica";

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn order(key: &str, expires: Option<i64>) -> HashMap<String, AttributeValue> {
    let mut item = HashMap::from([("pk".to_owned(), text(key)), ("total".to_owned(), text("7"))]);
    item.extend(expires.map(|expires| ("ttl".to_owned(), AttributeValue::N(expires.to_string()))));
    item
}

/// A stack for the table Orders whose replica is an existing table, by ARN: that which an earlier start created.
async fn start() -> (LocalStack, TempDir) {
    let data = TempDir::new().unwrap();
    let stack = |replica: &[(&str, &str)]| {
        let parameters = [&[("SourceTableName", "Orders"), ("PartitionKey", "pk:S")], replica].concat();
        LocalStack::start(StackOptions {
            template: Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/replication.yaml"),
            parameters: parameters.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            source: SourceTable { description: None, ttl_attribute: Some("ttl".to_owned()) },
            ttl_interval: Duration::from_hours(24),
            data: Some(data.path().to_owned()),
            ..StackOptions::default()
        })
    };
    stack(&[]).await.unwrap().stop().await;
    let started = stack(&[("ReplicaTableArn", REPLICA_ARN)]).await.unwrap();
    (started, data)
}

/// The maintenance function of the stack with the source by ARN.
fn maintenance(stack: &LocalStack) -> MaintenanceHandler {
    let functions = &stack.template().functions;
    let function = functions.iter().find(|function| function.name == "maintenance").unwrap();
    assert_eq!(function.environment["REPLICA_TABLE"], REPLICA_ARN);
    let environment: Environment = function.environment.clone().into_iter().collect();
    let environment = environment.with("SOURCE_TABLE", ORDERS_ARN.to_owned());
    let clients = AwsClients {
        source: stack.dynamodb(),
        replicas: stack.dynamodb().into(),
        signer: None,
        s3: stack.s3(),
        lambda: clients::lambda(stack.api_url()),
    };
    millrace_maintenance::connect(&MaintenanceConfig::parse(&environment).unwrap(), clients)
}

#[tokio::test(flavor = "multi_thread")]
async fn source_and_replica_by_arn_are_replicated_archived_verified_and_restored() {
    let (stack, _data) = start().await;
    let dynamodb = stack.dynamodb();
    for (key, expires) in [("a", None), ("b", None), ("gone", Some(1_700_000_000))] {
        dynamodb.put_item().table_name(ORDERS_ARN).set_item(Some(order(key, expires))).send().await.unwrap();
    }
    let put = Put::builder().table_name(ORDERS_ARN).set_item(Some(order("c", None))).build().unwrap();
    dynamodb.transact_write_items().transact_items(TransactWriteItem::builder().put(put).build()).send().await.unwrap();
    dynamodb.delete_item().table_name(ORDERS_ARN).key("pk", text("b")).send().await.unwrap();
    stack.wait_until_drained().await;
    let keys = ["a", "c"].map(|key| HashMap::from([("pk".to_owned(), text(key))]));
    let request = KeysAndAttributes::builder().set_keys(Some(keys.to_vec())).build().unwrap();
    let read = dynamodb.batch_get_item().request_items(REPLICA_ARN, request).send().await.unwrap();
    assert_eq!(read.responses.unwrap()[REPLICA_ARN].len(), 2, "the response names the table as the request does");

    assert_eq!(stack.run_ttl_sweep().await.unwrap(), 1);
    stack.wait_until_drained().await;
    let maintenance = maintenance(&stack);
    let run = async |order: Value| to_its_end(&maintenance, order, Duration::from_mins(1)).await.unwrap();
    let verify = json!({"task": "verify", "recheck_after_seconds": 0});
    let verified = run(verify.clone()).await;
    let count = |name| verified.progress.get(name);
    assert_eq!(
        (verified.differences, count("source.items"), count("dynamodb.equal")),
        (0, 2, 2),
        "{}",
        verified.progress
    );

    let audited = run(json!({"task": "audit"})).await;
    assert_eq!(audited.differences, 0, "{}", audited.progress);
    let restored =
        run(json!({"task": "restore", "from": "2026-01-01T00:00:00Z", "never_expires": true, "dry_run": false})).await;
    assert_eq!(restored.progress.get("restore.restored"), 1, "{}", restored.progress);
    let item = dynamodb.get_item().table_name(ORDERS_ARN).key("pk", text("gone")).send().await.unwrap().item.unwrap();
    assert_eq!((item["total"].clone(), item.get("ttl")), (text("7"), None), "it never expires");
    stack.wait_until_drained().await;
    let verified = run(verify).await;
    assert_eq!((verified.differences, verified.progress.get("dynamodb.equal")), (0, 3), "{}", verified.progress);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn arn_of_another_account_is_not_a_table_of_the_engine() {
    let (stack, _data) = start().await;
    for arn in [REPLICA_ARN.replace("000000000000", "123456789012"), REPLICA_ARN.replace("OrdersReplica", "Absent")] {
        let read = stack.dynamodb().get_item().table_name(&arn).key("pk", text("a")).send().await;
        assert!(read.is_err(), "{arn}");
    }
    stack.stop().await;
}
