//! A task treats the sinks that it is configured with as complete only if the deployment confirms it.

use std::time::Duration;

use axum::Router;
use axum::http::{HeaderName, StatusCode};
use axum::routing::get;
use millrace::banner;
use millrace_local::clients;
use millrace_local::task::{RunTaskError, StackPorts, TaskOutcome, TaskTarget};
use millrace_local::tier::TierServer;
use millrace_maintenance::MaintenanceHandler;
use millrace_maintenance::deployment::DeployedReplicator;
use millrace_shared::clock::Clock;
use millrace_sinks::SINK_SETTINGS;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::scene::{FORMER, MaintenanceScene, REPLICA, SOURCE, invoke, record, text, user};
use crate::relational::store::{empty, sink};
use crate::replication::events::EventBuilder;

/// Runs `millrace task`, with the URL of PostgreSQL or without.
async fn task(scene: &MaintenanceScene, order: Value, postgres: Option<&str>) -> Result<TaskOutcome, RunTaskError> {
    let port = |url: &str| url.rsplit(':').next().unwrap().parse().unwrap();
    let stack = &scene.stack;
    let ports =
        StackPorts { api: port(stack.api_url()), dynamodb: port(stack.dynamodb_url()), s3: port(stack.s3_url()) };
    let target = TaskTarget::Running { ports, postgres: postgres.map(str::to_owned) };
    Box::pin(millrace_local::task::run(&order.to_string(), target, &Clock::system())).await
}

fn why<'r>(report: &'r [Value], object: &str, outcome: &str) -> &'r str {
    let line = report.iter().find(|line| line["object"] == object).unwrap();
    assert_eq!(line["outcome"], outcome);
    line["reason"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_keeps_what_failed_in_a_sink_that_it_does_not_know_and_names_the_setting() {
    let url = empty().await;
    let scene = MaintenanceScene::with_postgres(TierServer::At(url.clone())).await;
    // PostgreSQL text cannot store a NUL character (U+0000).
    scene.put(SOURCE, user("zero", "a\u{0}b")).await;
    scene.put(SOURCE, user("ada", "Now")).await;
    scene.stack.wait_until_drained().await;
    let [poison] = &scene.objects("quarantine/replicator/postgres/").await[..] else { panic!("one poison record") };
    let batch = scene.give_up("replicator", vec![record(EventBuilder::named("ada", 5, "Then"), FORMER)], false).await;
    let own = "quarantine/replicator/dynamodb/Users/x-6.json".to_owned();
    let body = json!({"format": 1, "reason": "once", "record": record(EventBuilder::named("ada", 6, "Then"), FORMER)});
    scene.put_object(&own, body.to_string()).await;

    for dry_run in [true, false] {
        let run = format!("partial-{dry_run}");
        let order = json!({"task": "redrive", "run_id": run, "dry_run": dry_run});
        let outcome = task(&scene, order, None).await.unwrap();
        let skipped = if dry_run { "would_skip" } else { "skipped" };
        assert_eq!((outcome.problems, outcome.progress.get(&format!("redrive.{skipped}"))), (2, 2), "{outcome}");
        assert!(!outcome.is_success());
        let report = scene.report(&run).await;
        for object in [poison, &batch] {
            let why = why(&report, object, skipped);
            assert!(why.contains("sink postgres") && why.contains("POSTGRES_URL"), "{why}");
            assert!(why.contains("--postgres"), "{why}");
            assert_eq!(scene.objects(object).await, [object.as_str()]);
        }
    }
    assert!(scene.objects(&own).await.is_empty(), "what failed in its own sink alone is its business");

    // With the option that the reason names, the redrive succeeds once the cause is removed.
    scene.put(SOURCE, user("zero", "mended")).await;
    scene.stack.wait_until_drained().await;
    let order = json!({"task": "redrive", "run_id": "whole", "dry_run": false});
    let outcome = task(&scene, order, Some(&url)).await.unwrap();
    assert!(outcome.is_success() && outcome.progress.get("redrive.redriven") == 2, "{outcome}");
    assert!(scene.objects("quarantine/").await.is_empty() && scene.objects("aws/").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_would_pass_a_sink_over_is_refused_and_the_banner_s_command_is_not() {
    let url = empty().await;
    let scene = MaintenanceScene::with_postgres(TierServer::At(url.clone())).await;
    scene.put(SOURCE, user("ada", "Ada")).await;
    scene.stack.wait_until_drained().await;
    for order in [
        json!({"task": "verify", "recheck_after_seconds": 0}),
        json!({"task": "repair", "recheck_after_seconds": 0, "dry_run": false}),
        json!({"task": "backfill"}),
    ] {
        let refusal = task(&scene, order.clone(), None).await.unwrap_err();
        assert!(!refusal.is_failure(), "it is refused, and has not failed");
        let message = refusal.to_string();
        assert!(
            message.contains("sink postgres") && message.contains("POSTGRES_URL") && message.contains("--postgres"),
            "{message}"
        );
        let outcome = task(&scene, order, Some(&url)).await.unwrap();
        assert!(outcome.is_success(), "{outcome}");
    }
    let printed = banner::start_banner(&scene.stack, "http://127.0.0.1:1", None);
    let command = printed.lines().find(|line| line.contains("-- task")).unwrap();
    assert!(command.contains(&format!("--postgres '{url}'")), "{command}");
    assert!(
        !banner::start_banner(&MaintenanceScene::start().await.stack, "http://127.0.0.1:1", None)
            .contains("--postgres")
    );
}

/// The maintenance function of the stack, for which Lambda returns this response about the replicator.
async fn maintenance_with(
    scene: &MaintenanceScene,
    status: StatusCode,
    error: &'static str,
    body: Value,
) -> MaintenanceHandler {
    let respond =
        move || async move { (status, [(HeaderName::from_static("x-amzn-errortype"), error)], axum::Json(body)) };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = clients::lambda(&format!("http://{}", listener.local_addr().unwrap()));
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(get(respond))).await });
    let mut maintenance = scene.maintenance();
    maintenance.deployment = DeployedReplicator::new(client, "replicator".to_owned(), SINK_SETTINGS.to_vec());
    maintenance
}

#[tokio::test(flavor = "multi_thread")]
async fn task_fails_if_the_deployed_sinks_cannot_be_determined() {
    let scene = MaintenanceScene::start().await;
    scene.put(SOURCE, user("ada", "Ada")).await;
    scene.stack.wait_until_drained().await;
    let batch = scene.give_up("replicator", vec![record(EventBuilder::named("ada", 5, "Then"), FORMER)], false).await;
    let encrypted =
        json!({"Environment": {"Error": {"ErrorCode": "AccessDeniedException", "Message": "no kms:Decrypt"}}});
    for (status, error, body, name, message) in [
        (
            StatusCode::FORBIDDEN,
            "AccessDeniedException",
            json!({"Message": "no"}),
            "TaskPreconditionFailed",
            "lambda:GetFunctionConfiguration",
        ),
        (
            StatusCode::NOT_FOUND,
            "ResourceNotFoundException",
            json!({}),
            "TaskPreconditionFailed",
            "the function replicator in REPLICATOR_FUNCTION does not exist",
        ),
        (StatusCode::OK, "", encrypted, "TaskPreconditionFailed", "no kms:Decrypt"),
        (StatusCode::INTERNAL_SERVER_ERROR, "ServiceException", json!({}), "TaskFailed", "cannot determine the sinks"),
    ] {
        let maintenance = maintenance_with(&scene, status, error, body).await;
        let fault = invoke(&maintenance, &json!({"task": "verify"}), Duration::from_mins(1)).await.unwrap_err();
        assert!(fault.kind().as_str() == name && fault.to_string().contains(message), "{fault}");
        let order = json!({"task": "redrive", "run_id": error, "dry_run": false});
        let order =
            if error.is_empty() { json!({"task": "redrive", "run_id": "encrypted", "dry_run": false}) } else { order };
        let redriven = invoke(&maintenance, &order, Duration::from_mins(1)).await;
        if name == "TaskFailed" {
            assert_eq!(redriven.unwrap_err().kind().as_str(), name);
        } else {
            assert_eq!(redriven.unwrap().progress.get("redrive.skipped"), 1);
            let report = scene.report(order["run_id"].as_str().unwrap()).await;
            assert!(why(&report, &batch, "skipped").contains(message), "{report:?}");
        }
        assert_eq!(scene.objects("aws/").await, [batch.as_str()]);
    }
    // Entries of a cache expire, so maintenance ignores the cache.
    let on =
        json!({"Environment": {"Variables": {"REPLICA_TABLE": REPLICA, "CACHE_URL": "redis://c", "POSTGRES_URL": ""}}});
    let maintenance = maintenance_with(&scene, StatusCode::OK, "", on.clone()).await;
    let order = json!({"task": "redrive", "run_id": "cache", "dry_run": false});
    assert_eq!(invoke(&maintenance, &order, Duration::from_mins(1)).await.unwrap().progress.get("redrive.redriven"), 1);
    assert_eq!(scene.item(REPLICA, "ada").await.unwrap()["name"], text("Ada"));

    // A second replica that the deployment does not write to, or not yet, is not an error.
    let mut more = maintenance_with(&scene, StatusCode::OK, "", on).await;
    more.replicas.push(Box::new(sink(&empty_and_migrated().await)));
    let response = invoke(&more, &json!({"task": "backfill"}), Duration::from_mins(1)).await.unwrap();
    assert_eq!(response.progress.get("postgres.written"), 1);
}

async fn empty_and_migrated() -> String {
    crate::relational::store::RelationalStore::start().await.url
}
