//! Several DynamoDB replicas in one replicator, as a replication document declares them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::config::Region;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use axum::Router;
use axum::http::StatusCode;
use millrace_local::clients;
use millrace_replicator::ReplicatorHandler;
use millrace_shared::environment::Environment;
use millrace_sinks::config::load_document;
use millrace_sinks::document::REPLICATION;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::events::{EventBuilder, LABEL, event, event_of};
use super::rig::{ReplicationRig, config, deliver_batch, invocation};
use crate::faults::proxy::{self, HttpFault};

const COPY: &str = "UsersCopy";
const STAGING: &str = "UsersStaging";

/// A document with the replicas `copy` and `staging`.
fn document() -> String {
    json!({"version": 1, "replicas": [
        {"name": "copy", "sink": "dynamodb", "table": COPY},
        {"name": "staging", "sink": "dynamodb", "table": STAGING, "max_concurrency": 4},
    ]})
    .to_string()
}

async fn start() -> ReplicationRig {
    let rig = ReplicationRig::start().await;
    for table in [COPY, STAGING] {
        rig.create_table(table, &[("user_id", "S"), ("timestamp", "N")]).await;
    }
    rig
}

fn replicator(rig: &ReplicationRig) -> ReplicatorHandler {
    rig.replicator_of(&[("REPLICATION", &document())], rig.dynamodb.clone())
}

fn users(numbers: impl IntoIterator<Item = u64>) -> Vec<EventBuilder> {
    numbers.into_iter().map(|number| EventBuilder::named(&format!("u{number}"), number, "Ada")).collect()
}

#[tokio::test]
async fn every_replica_of_the_document_receives_every_change() {
    let rig = start().await;
    let replicator = replicator(&rig);
    replicator.check().await.unwrap();
    let events =
        [EventBuilder::named("a", 1, "Ada"), EventBuilder::named("b", 2, "Bob"), EventBuilder::deleted("b", 3)];
    assert_eq!(deliver_batch(&replicator, &event(&events)).await.identifier(), None);
    for table in [COPY, STAGING] {
        assert_eq!(rig.item_in(table, "a", "1").await.unwrap()["name"].as_s().unwrap(), "Ada", "{table}");
        assert!(rig.item_in(table, "b", "1").await.unwrap().contains_key("_tombstone_expires_at"), "{table}");
    }
    assert_eq!(rig.item_count().await, 0, "the table of REPLICA_TABLE is not among them");
}

/// The number of writes that reached each table.
type WriteCounts = Arc<Mutex<BTreeMap<String, usize>>>;

/// The replicator with a proxy that counts the writes of each table, and throttles those to `STAGING` while the flag is
/// set.
async fn counted(rig: &ReplicationRig) -> (ReplicatorHandler, WriteCounts, Arc<AtomicBool>) {
    let (counts, throttled) = (WriteCounts::default(), Arc::new(AtomicBool::new(true)));
    let (seen, flag) = (Arc::clone(&counts), Arc::clone(&throttled));
    let plan = move |call: &proxy::ProxiedCall<'_>| {
        if call.operation != "PutItem" {
            return HttpFault::None;
        }
        let body: Value = serde_json::from_str(call.body).unwrap();
        let table = body["TableName"].as_str().unwrap().to_owned();
        let is_rejected = table == STAGING && flag.load(Ordering::Relaxed);
        *seen.lock().unwrap().entry(table).or_default() += 1;
        if is_rejected { HttpFault::Error(400, "ThrottlingException") } else { HttpFault::None }
    };
    let url = proxy::before(&rig.dynamodb_url, plan).await;
    let config = clients::dynamodb(&url).config().to_builder().retry_config(RetryConfig::disabled()).build();
    let client = aws_sdk_dynamodb::Client::from_conf(config);
    (rig.replicator_of(&[("REPLICATION", &document())], client), counts, throttled)
}

fn writes(counts: &WriteCounts) -> (usize, usize) {
    let counts = std::mem::take(&mut *counts.lock().unwrap());
    (counts.get(COPY).copied().unwrap_or_default(), counts.get(STAGING).copied().unwrap_or_default())
}

#[tokio::test]
async fn a_replica_that_fails_does_not_make_the_others_write_again() {
    let rig = start().await;
    let (replicator, counts, throttled) = counted(&rig).await;
    let batch = event(&users(1..=20));
    assert_eq!(deliver_batch(&replicator, &batch).await.identifier(), Some("1"));
    assert_eq!(writes(&counts), (20, 20));
    for delivery in 2..=5 {
        assert_eq!(deliver_batch(&replicator, &batch).await.identifier(), Some("1"), "delivery {delivery}");
        assert_eq!(writes(&counts), (0, 20), "delivery {delivery}");
    }
    throttled.store(false, Ordering::Relaxed);
    assert_eq!(deliver_batch(&replicator, &batch).await.identifier(), None);
    assert_eq!(writes(&counts), (0, 20));
    for table in [COPY, STAGING] {
        assert!(rig.item_in(table, "u20", "1").await.is_some(), "{table}");
    }
}

#[tokio::test]
async fn each_replica_has_its_own_quarantine_objects() {
    let rig = start().await;
    let replicator = replicator(&rig);
    let poison = EventBuilder::image("a", 1, r#"{"user_id":{"S":"a"},"timestamp":{"N":"1"},"_rev":{"S":"x"}}"#);
    let foreign = aws_sdk_dynamodb::types::AttributeValue::S("7".to_owned());
    let put = rig.dynamodb.put_item().table_name(STAGING).item("_rev", foreign);
    let put = put.item("user_id", aws_sdk_dynamodb::types::AttributeValue::S("b".to_owned()));
    let put = put.item("timestamp", aws_sdk_dynamodb::types::AttributeValue::N("1".to_owned()));
    put.send().await.unwrap();
    // The first item cannot be in any replica, and the second one not in `staging`, where another program wrote it.
    let events = [poison, EventBuilder::named("b", 2, "Bob"), EventBuilder::named("c", 3, "Cleo")];
    assert_eq!(deliver_batch(&replicator, &event(&events)).await.identifier(), None);
    let key = |sink: &str, number: u64| format!("quarantine/replicator/{sink}/Users/{LABEL}-{number}.json");
    assert_eq!(rig.quarantined_positions().await, [key("copy", 1), key("staging", 1), key("staging", 2)]);
    assert!(rig.item_in(COPY, "b", "1").await.unwrap().contains_key("name"));
    assert!(rig.item_in(STAGING, "c", "1").await.is_some());
}

#[tokio::test]
async fn a_misconfigured_replica_is_named_with_its_member_of_the_document() {
    let rig = start().await;
    rig.dynamodb.delete_table().table_name(STAGING).send().await.unwrap();
    let replicator = replicator(&rig);
    let fault = replicator.check().await.unwrap_err().to_string();
    assert!(fault.contains("sink staging: REPLICATION /replicas/1/table UsersStaging"), "{fault}");
    // The other replica gets the changes; the position stays until the table exists.
    assert_eq!(deliver_batch(&replicator, &event(&users(1..=3))).await.identifier(), Some("1"));
    assert!(rig.item_in(COPY, "u3", "1").await.is_some() && rig.quarantined().await.is_empty());

    rig.create_table(STAGING, &[("id", "B")]).await;
    let log = crate::log_capture::logged(async {
        assert_eq!(deliver_batch(&replicator, &event(&users(1..=3))).await.identifier(), Some("1"));
    });
    let log = log.await.join("\n");
    for part in ["staging: ", "key is id (B)", "key is timestamp (N), user_id (S)", "set REPLICATION /replicas/1/table"]
    {
        assert!(log.contains(part), "{part} in {log}");
    }
}

#[tokio::test]
async fn a_replica_that_is_the_source_is_rejected_before_the_first_batch() {
    let rig = start().await;
    let arn = rig.create_table("Orders", &[("user_id", "S"), ("timestamp", "N")]).await;
    let document = json!({"version": 1, "replicas": [
        {"name": "copy", "sink": "dynamodb", "table": COPY},
        {"name": "loop", "sink": "dynamodb", "table": "Orders"},
    ]});
    let variables = [("REPLICATION", &*document.to_string()), ("SOURCE_TABLE_ARN", &*arn)];
    let fault = rig.replicator_of(&variables, rig.dynamodb.clone()).check().await.unwrap_err().to_string();
    assert!(fault.contains("sink loop: the replica") && fault.contains("is the source table"), "{fault}");
    assert!(fault.contains("set REPLICATION /replicas/1/table (parameter Replication) to another table"), "{fault}");
    // Without the ARN, the first batch shows it.
    let record = EventBuilder::named("a", 1, "Ada").record();
    let record = record.replace("arn:aws:dynamodb:eu-west-1:123456789012:table/Users", &arn);
    let replicator = rig.replicator_of(&[("REPLICATION", &*document.to_string())], rig.dynamodb.clone());
    replicator.check().await.unwrap();
    let fault = replicator.handle(&event_of(&[record]), &invocation()).await.unwrap_err();
    assert!(fault.name() == "SinkMisconfigured" && fault.to_string().contains("sink loop"), "{fault}");
}

#[tokio::test]
async fn a_document_in_s3_is_read_once_at_the_start() {
    let rig = start().await;
    rig.s3.create_bucket().bucket("orders-config").send().await.unwrap();
    let environment = |location: &str| {
        let variables = [(REPLICATION, location), ("FAILURE_BUCKET", "users-failures")];
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect::<Environment>()
    };
    let location = "s3://orders-config/replication/v1.json";
    let absent = load_document(environment(location), &rig.s3).await.unwrap_err().to_string();
    assert!(absent.contains("bucket orders-config has no object replication/v1.json: upload the document"), "{absent}");
    let unknown = load_document(environment("s3://elsewhere/v1.json"), &rig.s3).await.unwrap_err().to_string();
    assert!(unknown.contains("object v1.json of bucket elsewhere") && unknown.contains("s3:GetObject"), "{unknown}");

    let put = rig.s3.put_object().bucket("orders-config").key("replication/v1.json");
    put.body(document().into_bytes().into()).send().await.unwrap();
    let loaded = load_document(environment(location), &rig.s3).await.unwrap();
    assert_eq!(loaded.get(REPLICATION), Some(document().as_str()));
    let config = millrace_replicator::config::ReplicatorConfig::parse(&loaded).unwrap();
    let replicator = millrace_replicator::connect(&config, rig.dynamodb.clone(), None, None, rig.s3.clone());
    replicator.check().await.unwrap();
    assert_eq!(deliver_batch(&replicator, &event(&users(1..=2))).await.identifier(), None);
    assert!(rig.item_in(STAGING, "u2", "1").await.is_some());
}

/// The role that is assumed for the replica of [`check_behind`].
const ROLE: &str = "arn:aws:iam::111122223333:role/replication";

/// The check at start of a replica to whose role STS responds with this status and error code.
pub(super) async fn check_with_role(status: StatusCode, code: &'static str) -> Result<(), String> {
    let respond = move || async move {
        let error = format!("<Error><Type>Sender</Type><Code>{code}</Code><Message>no</Message></Error>");
        (status, format!("<ErrorResponse>{error}<RequestId>1</RequestId></ErrorResponse>"))
    };
    check_behind(Router::new().fallback(respond), Some(ROLE)).await
}

/// The check at start of a replica with this role, in which this server takes the place of DynamoDB and STS.
async fn check_behind(server: Router, role: Option<&str>) -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, server).await });
    let credentials = aws_sdk_dynamodb::config::Credentials::new("local", "local", None, None, "local");
    let sdk = aws_config::defaults(aws_config::BehaviorVersion::latest())
        .region(Region::from_static("eu-west-1"))
        .credentials_provider(credentials)
        .endpoint_url(url)
        .retry_config(RetryConfig::disabled())
        .load()
        .await;
    let mut replica = json!({"name": "staging", "sink": "dynamodb", "table": STAGING, "region": "us-east-1"});
    if let Some(role) = role {
        replica["role_arn"] = role.into();
    }
    let document = json!({"version": 1, "replicas": [replica]});
    let config = config(&[("REPLICATION", &document.to_string())]);
    let clients = config.sinks.replica_clients(&sdk).await;
    let replicator = millrace_replicator::connect(&config, clients, None, None, clients::s3("http://127.0.0.1:1"));
    replicator.check().await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_role_that_may_not_be_assumed_is_named_with_the_permission() {
    let fault = check_with_role(StatusCode::FORBIDDEN, "AccessDenied").await.unwrap_err();
    for part in [
        "sink staging: role arn:aws:iam::111122223333:role/replication",
        "sts:AssumeRole",
        "trust policy",
        "AccessDenied",
    ] {
        assert!(fault.contains(part), "{part} in {fault}");
    }
}

#[tokio::test]
async fn a_role_that_sts_does_not_serve_at_present_stops_no_start() {
    let log = crate::log_capture::logged(async {
        let checked = Box::pin(check_with_role(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable")).await;
        assert_eq!(checked, Ok(()));
    });
    let log = log.await.join("\n");
    assert!(log.contains("role/replication was not assumed") && log.contains("a route to STS"), "{log}");
}

/// A network without a route drops every packet.
#[tokio::test]
async fn unreachable_replica_or_role_does_not_fail_the_start_and_is_logged_with_the_missing_route() {
    for (role, parts) in [
        (Some(ROLE), ["role/replication was not assumed", "a route to STS"]),
        (None, ["did not respond to DescribeTable in time", "reaches another Region only through a NAT gateway"]),
    ] {
        let log = crate::log_capture::logged(async {
            let silent = Router::new().fallback(std::future::pending::<StatusCode>);
            assert_eq!(Box::pin(check_behind(silent, role)).await, Ok(()));
        });
        let log = log.await.join("\n");
        assert!(parts.iter().all(|part| log.contains(part)), "{log}");
    }
}

#[tokio::test]
async fn a_replica_that_hangs_holds_the_position_and_not_the_others() {
    let rig = start().await;
    let hangs = |call: &proxy::ProxiedCall<'_>| {
        if call.operation == "PutItem" && call.body.contains(STAGING) { HttpFault::Silence } else { HttpFault::None }
    };
    let url = proxy::before(&rig.dynamodb_url, hangs).await;
    let replicator = rig.replicator_of(&[("REPLICATION", &document())], clients::dynamodb(&url));
    let time = Duration::from_secs(2);
    let response = replicator.handle(&event(&users(1..=5)), &super::rig::invocation_within(time)).await.unwrap();
    assert_eq!(response.identifier(), Some("1"));
    assert!(rig.item_in(COPY, "u5", "1").await.is_some() && rig.item_in(STAGING, "u5", "1").await.is_none());
}
