//! Faults of DynamoDB and of the connection to it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use millrace_local::clients;
use millrace_replicator::ReplicatorHandler;
use millrace_sinks::Sink;
use millrace_sinks::cache::CacheSink;
use millrace_sinks::dynamodb::DynamoDbSink;
use tokio::time::Instant;

use super::proxy::{self, HttpFault, ProxiedCall};
use crate::replication::events::{EventBuilder, event};
use crate::replication::rig::{REPLICA, ReplicationRig, deliver_batch, invocation_within};

/// The replicator, with the faults of `plan` in its writes; other requests pass.
async fn replicator(
    rig: &ReplicationRig,
    attempts: u32,
    plan: impl Fn(&ProxiedCall<'_>) -> HttpFault + Send + Sync + 'static,
) -> ReplicatorHandler {
    let plan = move |call: &ProxiedCall<'_>| if call.operation == "PutItem" { plan(call) } else { HttpFault::None };
    let url = proxy::before(&rig.dynamodb_url, plan).await;
    let retries = RetryConfig::standard().with_max_attempts(attempts).with_initial_backoff(Duration::from_millis(5));
    let config = clients::dynamodb(&url).config().to_builder().retry_config(retries).build();
    rig.replicator_through(aws_sdk_dynamodb::Client::from_conf(config))
}

/// Returns a predicate that is true for the first call with each body.
fn first_of_its_kind() -> impl Fn(&ProxiedCall<'_>) -> bool {
    let seen = Mutex::new(HashSet::new());
    move |call| seen.lock().unwrap().insert(call.body.to_owned())
}

fn users(count: u64) -> Vec<EventBuilder> {
    (1..=count).map(|number| EventBuilder::named(&format!("u{number}."), number, "Ada")).collect()
}

#[tokio::test]
async fn a_throttled_write_is_tried_again_within_the_invocation() {
    let rig = ReplicationRig::start().await;
    let first = first_of_its_kind();
    let throttled = HttpFault::Error(400, "ProvisionedThroughputExceededException");
    let replicator = replicator(&rig, 3, move |call| if first(call) { throttled } else { HttpFault::None }).await;
    assert_eq!(deliver_batch(&replicator, &event(&users(20))).await.identifier(), None);
    assert_eq!(rig.item_count().await, 20);
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_tried_again_and_counts_as_done() {
    let rig = ReplicationRig::start().await;
    let first = first_of_its_kind();
    let replicator =
        replicator(&rig, 3, move |call| if first(call) { HttpFault::ResponseLost } else { HttpFault::None }).await;
    assert_eq!(deliver_batch(&replicator, &event(&users(5))).await.identifier(), None);
    assert_eq!(rig.item_count().await, 5);
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_for_good_is_delivered_again() {
    let rig = ReplicationRig::start().await;
    let first = first_of_its_kind();
    let lost = move |call: &ProxiedCall<'_>| call.body.contains("u2.") && first(call);
    let replicator =
        replicator(&rig, 1, move |call| if lost(call) { HttpFault::ResponseLost } else { HttpFault::None }).await;
    let events = users(3);
    assert_eq!(deliver_batch(&replicator, &event(&events)).await.identifier(), Some("2"));
    let landed = rig.item("u2.", "1").await;
    assert!(landed.is_some(), "it landed, and nobody knew");
    assert_eq!(deliver_batch(&replicator, &event(&events[1..])).await.identifier(), None);
    assert_eq!(rig.item("u2.", "1").await, landed);
}

#[tokio::test]
async fn a_write_that_was_cut_off_before_it_arrived_is_tried_again() {
    let rig = ReplicationRig::start().await;
    let first = first_of_its_kind();
    let replicator =
        replicator(&rig, 3, move |call| if first(call) { HttpFault::CutBefore } else { HttpFault::None }).await;
    assert_eq!(deliver_batch(&replicator, &event(&users(5))).await.identifier(), None);
    assert_eq!(rig.item_count().await, 5);
}

#[tokio::test]
async fn a_zombie_write_that_lands_after_everything_changes_nothing() {
    let late = Duration::from_millis(300);
    for (last, gone) in [(EventBuilder::named("u1.", 2, "Eve"), false), (EventBuilder::deleted("u1.", 2), true)] {
        let rig = ReplicationRig::start().await;
        let first = first_of_its_kind();
        let zombie = move |call: &ProxiedCall<'_>| call.body.contains("Ada") && first(call);
        let mishap = move |call: &ProxiedCall<'_>| if zombie(call) { HttpFault::Zombie(late) } else { HttpFault::None };
        let replicator = replicator(&rig, 1, mishap).await;
        let events = [EventBuilder::named("u1.", 1, "Ada"), last];
        assert_eq!(deliver_batch(&replicator, &event(&events[..1])).await.identifier(), Some("1"));
        assert!(rig.item("u1.", "1").await.is_none(), "it is still on its way");
        assert_eq!(deliver_batch(&replicator, &event(&events[..1])).await.identifier(), None);
        assert_eq!(deliver_batch(&replicator, &event(&events[1..])).await.identifier(), None);
        let before = rig.item("u1.", "1").await;
        assert_eq!(before.as_ref().unwrap().contains_key("_tombstone_expires_at"), gone);
        tokio::time::sleep(late * 2).await;
        assert_eq!(rig.item("u1.", "1").await, before);
    }
}

#[tokio::test]
async fn an_outage_for_one_item_holds_its_position_and_quarantines_nothing() {
    for (status, code) in [(503, "ServiceUnavailable"), (500, "InternalServerError"), (400, "ThrottlingException")] {
        let rig = ReplicationRig::start().await;
        let out = Arc::new(AtomicBool::new(true));
        let still_out = Arc::clone(&out);
        let replicator = replicator(&rig, 2, move |call| {
            let hit = call.body.contains("u3.") && still_out.load(Ordering::Relaxed);
            if hit { HttpFault::Error(status, code) } else { HttpFault::None }
        })
        .await;
        let events = users(6);
        assert_eq!(deliver_batch(&replicator, &event(&events)).await.identifier(), Some("3"), "{code}");
        assert_eq!(rig.item_count().await, 5, "{code}: its neighbours are applied");
        assert!(rig.quarantined().await.is_empty(), "{code}");
        out.store(false, Ordering::Relaxed);
        assert_eq!(deliver_batch(&replicator, &event(&events[2..])).await.identifier(), None, "{code}");
        assert_eq!(rig.item_count().await, 6, "{code}");
    }
}

#[tokio::test]
async fn a_denied_access_holds_the_position_without_trying_every_record() {
    let rig = ReplicationRig::start().await;
    let tried = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tried);
    let replicator = replicator(&rig, 1, move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        HttpFault::Error(400, "AccessDeniedException")
    })
    .await;
    assert_eq!(deliver_batch(&replicator, &event(&users(1_000))).await.identifier(), Some("1"));
    assert!(rig.quarantined().await.is_empty());
    assert!(tried.load(Ordering::Relaxed) < 500, "{tried:?}");
}

#[tokio::test]
async fn a_silent_endpoint_costs_the_deadline_and_the_first_unfinished_position_is_answered() {
    let rig = ReplicationRig::start().await;
    let silent = |call: &ProxiedCall<'_>| call.body.contains("u4.") || call.body.contains("u7.");
    let replicator =
        replicator(&rig, 1, move |call| if silent(call) { HttpFault::Silence } else { HttpFault::None }).await;
    let (started, time) = (Instant::now(), Duration::from_millis(700));
    let response = replicator.handle(&event(&users(9)), &invocation_within(time)).await.unwrap();
    assert_eq!(response.identifier(), Some("4"));
    assert!(started.elapsed() < time + Duration::from_millis(300), "{:?}", started.elapsed());
    assert_eq!(rig.item_count().await, 7, "what did not hang is applied");
}

#[tokio::test]
async fn poison_record_is_quarantined_despite_a_write_without_response() {
    let rig = ReplicationRig::start().await;
    let silent = |call: &ProxiedCall<'_>| if call.body.contains("u4.") { HttpFault::Silence } else { HttpFault::None };
    let replicator = replicator(&rig, 1, silent).await;
    let poison = EventBuilder::image(
        "u2.",
        2,
        r#"{"user_id":{"S":"u2."},"timestamp":{"N":"1"},"_tombstone_expires_at":{"N":"1"}}"#,
    );
    let events = [users(1).remove(0), poison, users(4).remove(3)];
    let (started, time) = (Instant::now(), Duration::from_secs(2));
    let response = replicator.handle(&event(&events), &invocation_within(time)).await.unwrap();
    assert_eq!(
        response.identifier(),
        Some("4"),
        "each delivery ends like this one: the poison must not stay the lowest"
    );
    assert_eq!(rig.quarantined().await.len(), 1);
    assert!(started.elapsed() < time + Duration::from_millis(300), "{:?}", started.elapsed());
}

/// The replicator, whose `DescribeTable` requests fail with this error while `out` is set.
async fn questioning(rig: &ReplicationRig, error: (u16, &'static str), out: &Arc<AtomicBool>) -> ReplicatorHandler {
    let out = Arc::clone(out);
    let plan = move |call: &ProxiedCall<'_>| {
        let hit = call.operation == "DescribeTable" && out.load(Ordering::Relaxed);
        if hit { HttpFault::Error(error.0, error.1) } else { HttpFault::None }
    };
    let url = proxy::before(&rig.dynamodb_url, plan).await;
    let config = clients::dynamodb(&url).config().to_builder().retry_config(RetryConfig::disabled()).build();
    rig.replicator_through(aws_sdk_dynamodb::Client::from_conf(config))
}

#[tokio::test]
async fn a_table_that_is_not_described_for_a_passing_reason_stops_no_start() {
    for error in [(400, "ThrottlingException"), (500, "InternalServerError"), (503, "ServiceUnavailable")] {
        let rig = ReplicationRig::start().await;
        let out = Arc::new(AtomicBool::new(true));
        let replicator = questioning(&rig, error, &out).await;
        assert!(replicator.check().await.is_ok(), "{error:?} is no misconfiguration");
        assert_eq!(deliver_batch(&replicator, &event(&users(3))).await.identifier(), Some("1"), "{error:?}");
        assert!(rig.quarantined().await.is_empty());
        out.store(false, Ordering::Relaxed);
        assert_eq!(deliver_batch(&replicator, &event(&users(3))).await.identifier(), None, "{error:?}");
    }
}

#[tokio::test]
async fn a_table_that_may_not_be_described_stops_the_start_by_name() {
    let rig = ReplicationRig::start().await;
    let denied = questioning(&rig, (400, "AccessDeniedException"), &Arc::new(AtomicBool::new(true))).await;
    let fault = denied.check().await.unwrap_err().to_string();
    assert!(fault.contains("REPLICA_TABLE") && fault.contains("AccessDeniedException"), "{fault}");
}

#[tokio::test]
async fn an_unreachable_endpoint_stops_no_start_and_holds_the_position() {
    let rig = ReplicationRig::start().await;
    // A refused connection, a host name that does not exist, and a server that accepts connections and never responds.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    for endpoint in ["http://127.0.0.1:1", "http://nowhere.invalid:8000", &silent] {
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(Duration::from_millis(300)).build();
        let config = clients::dynamodb(endpoint).config().to_builder();
        let config = config.retry_config(RetryConfig::disabled()).timeout_config(timeouts).build();
        let replicator = rig.replicator_through(aws_sdk_dynamodb::Client::from_conf(config));
        assert!(replicator.check().await.is_ok(), "{endpoint} is out of reach, and that may pass");
        assert_eq!(deliver_batch(&replicator, &event(&users(3))).await.identifier(), Some("1"), "{endpoint}");
        assert!(rig.quarantined().await.is_empty());
    }
}

#[tokio::test]
async fn a_replica_out_of_reach_at_the_start_keeps_nothing_from_the_others() {
    let rig = ReplicationRig::start().await;
    let retries = RetryConfig::disabled();
    let config = clients::dynamodb("http://127.0.0.1:1").config().to_builder().retry_config(retries).build();
    let gone = aws_sdk_dynamodb::Client::from_conf(config);
    let sink = |client| DynamoDbSink::new(client, REPLICA, 8, time::Duration::days(8));
    let nobody = "postgres://millrace@127.0.0.1:1/users";
    let sinks: Vec<Box<dyn Sink>> = vec![
        Box::new(sink(gone)),
        Box::new(crate::relational::store::sink(nobody)),
        Box::new(CacheSink::new(crate::cache::servers::at("redis://127.0.0.1:1"))),
        Box::new(sink(rig.dynamodb.clone())),
    ];
    let replicator = rig.replicator_with(sinks);
    replicator.check().await.unwrap();
    assert_eq!(deliver_batch(&replicator, &event(&users(3))).await.identifier(), Some("1"));
    assert_eq!(rig.item_count().await, 3, "the sink that is well has it all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_connections_or_still_starting_stops_no_start() {
    use crate::relational::store::{RelationalStore, sink};
    let store = RelationalStore::start().await;
    let name = store.url.rsplit('/').next().unwrap();
    // The limit does not apply to superusers.
    store.client.batch_execute(&format!("alter database {name} connection limit 0")).await.unwrap();
    let refused = sink(&store.url).check().await;
    assert!(refused.is_ok(), "{refused:?}");
    store.client.batch_execute(&format!("alter database {name} connection limit -1")).await.unwrap();
    sink(&store.url).check().await.unwrap();
    // Errors that the server reports when it cannot continue, whatever the statement was.
    for code in ["53200", "55P03", "57P03", "58030", "XX000", "40001"] {
        let says = format!(
            "create or replace function unwell() returns trigger language plpgsql as \
             $$ begin raise exception 'unwell' using errcode = '{code}'; end $$; \
             drop trigger if exists unwell on users; \
             create trigger unwell before insert on users execute function unwell()"
        );
        store.client.batch_execute(&says).await.unwrap();
        let checked = sink(&store.url).check().await;
        assert!(checked.is_ok(), "{code}: {checked:?}");
    }
}
