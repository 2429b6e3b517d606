//! Requests that cannot be carried out are rejected with an error that names the cause.

use std::path::Path;
use std::time::Duration;

use aws_sdk_dynamodb::types::{StreamSpecification, StreamViewType};
use axum::Router;
use axum::http::Uri;
use axum::routing::get;
use millrace_local::stack::{LocalStack, StackOptions};
use millrace_maintenance::MaintenanceHandler;
use millrace_maintenance::deployment::DeployedReplicator;
use millrace_maintenance::failure_bucket::FailureBucket;
use millrace_shared::table_reader::TableReader;
use millrace_sinks::SINK_SETTINGS;
use millrace_sinks::dynamodb::DynamoDbSink;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::scene::{FORMER, MaintenanceScene, REPLICA, SOURCE, invoke, record as record_of, to_its_end, user};
use crate::replication::events::EventBuilder;
use crate::replication::rig::create_table;

async fn refused(maintenance: &MaintenanceHandler, order: Value) -> (&'static str, String) {
    let fault = invoke(maintenance, &order, Duration::from_mins(1)).await.unwrap_err();
    (fault.kind().as_str(), fault.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_order_is_refused_before_anything_is_done() {
    let scene = MaintenanceScene::start().await;
    let maintenance = scene.maintenance();
    let cursor = json!({"task": "verify", "run_id": "r", "segment": 0, "segments": 1, "part": 0, "progress": {},
            "differences": 0, "problems": 0, "at": "x"});
    for (order, message) in [
        (json!({"task": "restart"}), "unknown task \"restart\": expected one of"),
        (json!({"task": "redrive", "cursor": cursor}), "the cursor belongs to verify"),
        (json!({"task": "verify", "cursor": cursor}), "the cursor is not a cursor of verify"),
        (json!("verify"), "invalid task request"),
    ] {
        let (name, fault) = refused(&maintenance, order).await;
        assert!(fault.contains(message), "{fault}");
        assert_eq!(name, "TaskInvalid");
    }
    assert!(scene.objects("").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_or_bucket_that_is_not_there_is_named_with_its_variable() {
    let scene = MaintenanceScene::start().await;
    scene.put(SOURCE, user("ada", "Ada")).await;
    scene.stack.wait_until_drained().await;
    let mut without_table = scene.maintenance();
    without_table.source = TableReader::new(scene.dynamodb.clone(), "Uesrs");
    let (name, fault) = refused(&without_table, json!({"task": "verify"})).await;
    assert!(fault.contains("SOURCE_TABLE") && fault.contains("Uesrs"), "{fault}");
    assert_eq!(name, "TaskFailed");

    let mut without_bucket = scene.maintenance();
    without_bucket.failures = FailureBucket::new(scene.s3.clone(), "no-such-bucket".to_owned());
    let (_, fault) = refused(&without_bucket, json!({"task": "redrive"})).await;
    assert!(fault.contains("FAILURE_BUCKET no-such-bucket") && fault.contains("NoSuchBucket"), "{fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_without_a_stream_is_refused_by_name() {
    let scene = MaintenanceScene::start().await;
    let mut streamless = scene.maintenance();
    streamless.source = TableReader::new(scene.dynamodb.clone(), super::scene::REPLICA);
    // A table that the stream does not feed, so that there is a difference to repair.
    create_table(&scene.dynamodb, "Elsewhere", &[("user_id", "S"), ("timestamp", "N")]).await;
    streamless.replicas =
        vec![Box::new(DynamoDbSink::new(scene.dynamodb.clone(), "Elsewhere", 1, time::Duration::days(8)))];
    scene.put(super::scene::REPLICA, user("ada", "Ada")).await;
    for order in [json!({"task": "backfill"}), json!({"task": "repair", "dry_run": false, "recheck_after_seconds": 0})]
    {
        let (name, fault) = refused(&streamless, order).await;
        assert!(fault.contains("UsersReplica has no stream"), "{fault}");
        assert!(
            fault.contains("update-table --table-name UsersReplica --stream-specification StreamEnabled=true"),
            "{fault}"
        );
        assert_eq!(name, "TaskPreconditionFailed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn archive_tasks_are_refused_without_an_archive_and_the_others_run() {
    let scene = MaintenanceScene::start().await;
    scene.put(SOURCE, user("ada", "Ada")).await;
    scene.stack.wait_until_drained().await;
    let mut off = scene.maintenance();
    off.archive = None;
    for order in [
        json!({"task": "compact"}),
        json!({"task": "export-parquet"}),
        json!({"task": "restore", "user_id": "ada", "never_expires": true}),
        json!({"task": "export-import-table"}),
        json!({"task": "audit"}),
        json!({"task": "audit", "keys": [{"user_id": {"S": "ada"}, "timestamp": {"N": "1"}}]}),
    ] {
        let (name, fault) = refused(&off, order).await;
        assert!(fault.contains("the archive is off") && fault.contains("deploy with Archive=separate"), "{fault}");
        assert_eq!(name, "TaskPreconditionFailed");
    }
    // A record of the archiver, from before the archive was turned off, stays in the failure bucket.
    let record = record_of(EventBuilder::expired("ada", 1), FORMER);
    let key = "quarantine/archiver/s3/Users/1.json";
    scene.put_object(key, json!({"format": 1, "reason": "too large", "record": record}).to_string()).await;
    let redriven = json!({"task": "redrive", "dry_run": false, "run_id": "off"});
    let redriven = to_its_end(&off, redriven, Duration::from_mins(1)).await.unwrap();
    assert_eq!(redriven.progress.get("redrive.skipped"), 1, "{}", redriven.progress);
    assert!(scene.report("off").await[0]["reason"].as_str().unwrap().contains("the archive is off"));
    assert_eq!(scene.objects("quarantine/").await, [key]);
    for order in [json!({"task": "verify", "recheck_after_seconds": 0}), json!({"task": "backfill"})] {
        let done = to_its_end(&off, order, Duration::from_mins(1)).await.unwrap();
        assert_eq!((done.differences, done.problems), (0, 0), "{}", done.progress);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_from_a_stream_without_new_images_is_refused_with_the_commands() {
    let scene = MaintenanceScene::start().await;
    create_table(&scene.dynamodb, "Orders", &[("user_id", "S"), ("timestamp", "N")]).await;
    let mut maintenance = scene.maintenance();
    maintenance.source = TableReader::new(scene.dynamodb.clone(), "Orders");
    let stream = async |view: Option<StreamViewType>| {
        let stream = StreamSpecification::builder().stream_enabled(view.is_some()).set_stream_view_type(view);
        let update = scene.dynamodb.update_table().table_name("Orders");
        update.stream_specification(stream.build().unwrap()).send().await.unwrap();
    };
    let on =
        "update-table --table-name Orders --stream-specification StreamEnabled=true,StreamViewType=NEW_AND_OLD_IMAGES";
    for view in [StreamViewType::KeysOnly, StreamViewType::OldImage] {
        stream(Some(view.clone())).await;
        let (name, fault) = refused(&maintenance, json!({"task": "backfill"})).await;
        let off = "update-table --table-name Orders --stream-specification StreamEnabled=false";
        for part in ["SOURCE_TABLE", view.as_str(), off, on] {
            assert!(fault.contains(part), "{part}: {fault}");
        }
        assert_eq!(name, "TaskPreconditionFailed");
        stream(None).await;
        let (name, fault) = refused(&maintenance, json!({"task": "backfill"})).await;
        assert!(fault.contains("table Orders has no stream") && fault.contains(on), "{fault}");
        assert_eq!(name, "TaskPreconditionFailed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_of_another_key_schema_is_refused_with_both_schemas() {
    let scene = MaintenanceScene::start().await;
    scene.put(SOURCE, user("ada", "Ada")).await;
    scene.stack.wait_until_drained().await;
    for (table, key, named) in [
        ("Single", &[("user_id", "S")][..], "user_id (S), but"),
        ("Other", &[("pk", "S"), ("sk", "N")], "pk (S), sk (N), but"),
        ("Types", &[("user_id", "S"), ("timestamp", "S")], "user_id (S), timestamp (S), but"),
        ("Swapped", &[("timestamp", "N"), ("user_id", "S")], "timestamp (N), user_id (S), but"),
    ] {
        create_table(&scene.dynamodb, table, key).await;
        let mut maintenance = scene.maintenance();
        maintenance.replicas =
            vec![Box::new(DynamoDbSink::new(scene.dynamodb.clone(), table, 1, time::Duration::days(8)))];
        for task in ["backfill", "verify", "repair", "redrive"] {
            let (name, fault) = refused(&maintenance, json!({"task": task})).await;
            let create = "aws dynamodb create-table --table-name NAME";
            let set = "set REPLICA_TABLE (parameter ReplicaTableArn)";
            for part in [named, "the source's key is user_id (S), timestamp (N)", set, create] {
                assert!(fault.contains(part), "{task}: {fault}");
            }
            assert_eq!(name, "TaskPreconditionFailed");
        }
        assert_eq!(scene.items(table).await.len(), 0);
    }
}

/// The maintenance function of the stack, for which Lambda reports that a function with these variables reads the
/// stream of the replica.
async fn with_a_reader_of_the_replica(scene: &MaintenanceScene, variables: Value) -> (MaintenanceHandler, String) {
    let stream = StreamSpecification::builder().stream_enabled(true).stream_view_type(StreamViewType::NewAndOldImages);
    let update = scene.dynamodb.update_table().table_name(REPLICA).stream_specification(stream.build().unwrap());
    let stream = update.send().await.unwrap().table_description.unwrap().latest_stream_arn.unwrap();
    let listed = stream.clone();
    let respond = move |uri: Uri| async move {
        let configuration = |variables| {
            json!({
                "FunctionName": "x", "FunctionArn": "arn:aws:lambda:dynoxide:000000000000:function:x",
                "Environment": {"Variables": variables},
            })
        };
        axum::Json(match uri.path() {
            path if path.contains("/functions/replicator/") => configuration(json!({"REPLICA_TABLE": REPLICA})),
            path if path.contains("/functions/back-ReplicatorFunction-1/") => configuration(variables),
            _ if uri.query().is_some_and(|query| query.contains("UsersReplica")) => json!({"EventSourceMappings": [{
                "UUID": "u-2", "EventSourceArn": listed, "State": "Enabled",
                "FunctionArn": "arn:aws:lambda:dynoxide:000000000000:function:back-ReplicatorFunction-1",
            }]}),
            _ => json!({"EventSourceMappings": []}),
        })
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = millrace_local::clients::lambda(&format!("http://{}", listener.local_addr().unwrap()));
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(get(respond))).await });
    let mut maintenance = scene.maintenance();
    maintenance.deployment = DeployedReplicator::new(client, "replicator".to_owned(), SINK_SETTINGS.to_vec())
        .with_documents(scene.s3.clone());
    (maintenance, stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_another_replicator_copies_back_is_refused_with_the_command() {
    let scene = MaintenanceScene::start().await;
    scene.put(SOURCE, user("ada", "Ada")).await;
    scene.stack.wait_until_drained().await;
    let described = scene.dynamodb.describe_table().table_name(SOURCE).send().await.unwrap().table.unwrap();
    let source_arn = described.table_arn.unwrap();
    let document = json!({"version": 1, "replicas": [{"name": "a", "sink": "dynamodb", "table": source_arn}]});
    for variables in [
        json!({"REPLICA_TABLE": SOURCE}),
        json!({"REPLICA_TABLE": source_arn}),
        json!({"REPLICATION": document.to_string()}),
    ] {
        let (maintenance, stream) = with_a_reader_of_the_replica(&scene, variables).await;
        for task in ["backfill", "verify", "repair", "redrive", "audit"] {
            let (name, fault) = refused(&maintenance, json!({"task": task})).await;
            for part in [
                "sink dynamodb: back-ReplicatorFunction-1 reads",
                &stream,
                "replicated in a loop",
                "aws lambda delete-event-source-mapping --region dynoxide --uuid u-2",
                &format!("millrace attach {source_arn} --replica-table ARN"),
            ] {
                assert!(fault.contains(part), "{task}: {part}: {fault}");
            }
            assert_eq!(name, "TaskPreconditionFailed");
        }
    }
    for variables in [json!({"REPLICA_TABLE": "Elsewhere"}), json!({"TABLE": SOURCE})] {
        let (maintenance, _) = with_a_reader_of_the_replica(&scene, variables).await;
        let order = json!({"task": "verify", "recheck_after_seconds": 0});
        let done = to_its_end(&maintenance, order, Duration::from_mins(1)).await.unwrap();
        assert_eq!((done.differences, done.problems), (0, 0), "{}", done.progress);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_does_not_start_with_a_replica_of_another_key_schema() {
    let data = tempfile::TempDir::new().unwrap();
    let stack = |more: &[(&str, &str)]| {
        let parameters = [&[("SourceTableName", "Orders"), ("PartitionKey", "pk:S")], more].concat();
        LocalStack::start(StackOptions {
            template: Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/replication.yaml"),
            parameters: parameters.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            data: Some(data.path().to_owned()),
            ..StackOptions::default()
        })
    };
    let first = stack(&[]).await.unwrap();
    create_table(&first.dynamodb(), "Other", &[("pk", "S"), ("sk", "N")]).await;
    first.stop().await;
    let arn = "arn:aws:dynamodb:dynoxide:000000000000:table/Other";
    let Err(refused) = Box::pin(stack(&[("ReplicaTableArn", arn)])).await else { panic!("the stack started") };
    let message = refused.to_string();
    for part in [
        "the replica's key is pk (S), sk (N), but the source's key is pk (S)",
        "set REPLICA_TABLE (parameter ReplicaTableArn) to a table",
        "aws dynamodb create-table --table-name NAME --billing-mode PAY_PER_REQUEST --key-schema \
         '[{\"AttributeName\":\"pk\",\"KeyType\":\"HASH\"}]'",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
}
