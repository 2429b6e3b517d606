//! A misconfiguration is reported by name and never treated as poison: none of its records is quarantined.

use millrace_replicator::ReplicatorError;
use serde_json::json;
use serde_json::value::RawValue;

use super::events::{EventBuilder, LABEL, event, event_of};
use super::rig::{REPLICA, ReplicationRig, deliver_batch, invocation, sample, without_digests};

#[tokio::test]
async fn a_payload_that_is_no_stream_event_fails_the_invocation() {
    let rig = ReplicationRig::start().await;
    let payload = RawValue::from_string(r#"{"version":"2.0"}"#.to_owned()).unwrap();
    let fault = rig.replicator().handle(&payload, &invocation()).await.unwrap_err();
    assert!(matches!(fault, ReplicatorError::NotAStreamEvent(_)) && fault.to_string().contains("Records"), "{fault}");
}

/// The error that Lambda shows for a failed invocation, converted as the runtime does.
fn shown(fault: &ReplicatorError) -> serde_json::Value {
    serde_json::to_value(millrace_shared::runtime::diagnostic(fault.name(), fault)).unwrap()
}

#[tokio::test]
async fn a_failed_invocation_is_named_by_words_of_our_own() {
    const ORDERS: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/Orders";
    let rig = ReplicationRig::start().await;
    let arn = rig.create_table("Loop", &[("user_id", "S"), ("timestamp", "N")]).await;
    let own = EventBuilder::named("a", 1, "Ada").record();
    let own = own.replace("arn:aws:dynamodb:eu-west-1:123456789012:table/Users", &arn);
    let no_event = RawValue::from_string(r#"{"version":"2.0"}"#.to_owned()).unwrap();
    let no_position = event_of(&[r#"{"eventName":"INSERT"}"#]);
    for (replicator, event, name) in [
        (rig.replicator(), no_event, "NotAStreamEvent"),
        (rig.replicator(), sample("keys-only"), "StreamViewWithoutImages"),
        (rig.replicator_over("Loop"), event_of(&[own]), "SinkMisconfigured"),
        (
            rig.replicator_of(&[("REPLICA_TABLE", REPLICA), ("SOURCE_TABLE_ARN", ORDERS)], rig.dynamodb.clone()),
            sample("user-created"),
            "StreamOfAnotherTable",
        ),
        (rig.replicator_without_a_bucket(), no_position, "QuarantineUnavailable"),
    ] {
        let fault = replicator.handle(&event, &invocation()).await.unwrap_err();
        let shown = shown(&fault);
        assert_eq!(shown["errorType"], name);
        assert_eq!(shown["errorMessage"], fault.to_string());
    }
}

#[tokio::test]
async fn stream_without_new_images_is_an_error_without_quarantine() {
    let rig = ReplicationRig::start().await;
    for view in ["KEYS_ONLY", "OLD_IMAGE"] {
        let event = sample("keys-only").get().replace("KEYS_ONLY", view);
        let event = RawValue::from_string(event).unwrap();
        let fault = rig.replicator().handle(&event, &invocation()).await.unwrap_err().to_string();
        for part in [
            "table/Users/stream",
            view,
            "aws dynamodb update-table --table-name Users --stream-specification StreamEnabled=false",
            "StreamEnabled=true,StreamViewType=NEW_AND_OLD_IMAGES",
            "run the task repair",
        ] {
            assert!(fault.contains(part), "{part}: {fault}");
        }
        assert!(rig.quarantined().await.is_empty());
    }
}

#[tokio::test]
async fn a_missing_table_is_named_at_start_and_holds_the_position_later() {
    let rig = ReplicationRig::start().await;
    let replicator = rig.replicator_over("Absent");
    let fault = replicator.check().await.unwrap_err().to_string();
    assert!(fault.contains("REPLICA_TABLE Absent"), "{fault}");
    let response =
        deliver_batch(&replicator, &event(&[EventBuilder::named("a", 7, "Ada"), EventBuilder::named("b", 8, "Bob")]))
            .await;
    assert_eq!(response.identifier(), Some("7"));
    assert!(rig.quarantined().await.is_empty());
}

#[tokio::test]
async fn a_table_that_vanished_after_the_start_holds_the_position() {
    let rig = ReplicationRig::start().await;
    let replicator = rig.replicator();
    replicator.check().await.unwrap();
    rig.dynamodb.delete_table().table_name(REPLICA).send().await.unwrap();
    let response =
        deliver_batch(&replicator, &event(&[EventBuilder::named("a", 7, "Ada"), EventBuilder::named("b", 8, "Bob")]))
            .await;
    assert_eq!(response.identifier(), Some("7"));
    assert!(rig.quarantined().await.is_empty());
}

#[tokio::test]
async fn replica_with_another_key_schema_blocks_batch_without_quarantine() {
    let rig = ReplicationRig::start().await;
    for (table, key) in [("One", &[("id", "S")][..]), ("Types", &[("user_id", "S"), ("timestamp", "S")])] {
        rig.create_table(table, key).await;
        let replicator = rig.replicator_over(table);
        let response = deliver_batch(
            &replicator,
            &event(&[EventBuilder::named("a", 7, "Ada"), EventBuilder::named("b", 8, "Bob")]),
        )
        .await;
        assert_eq!(response.identifier(), Some("7"), "{table}");
        assert!(rig.quarantined().await.is_empty(), "{table}");
    }
}

#[tokio::test]
async fn record_with_a_mismatched_key_is_quarantined() {
    let rig = ReplicationRig::start().await;
    let corrupt = EventBuilder::named("b", 8, "Bob").record().replace(r#""timestamp""#, r#""time""#);
    assert!(corrupt.contains(r#""Keys":{"time""#), "{corrupt}");
    let records = [EventBuilder::named("a", 7, "Ada").record(), corrupt, EventBuilder::named("c", 9, "Cleo").record()];
    assert_eq!(deliver_batch(&rig.replicator(), &event_of(&records)).await.identifier(), None);
    let name = format!("quarantine/replicator/dynamodb/Users/{LABEL}-8.json");
    assert_eq!(rig.quarantined_positions().await, [name]);
    let reason = rig.quarantine_body(&rig.quarantined().await[0]).await["reason"].to_string();
    assert!(reason.contains("key") && reason.contains("user_id (S), timestamp (N)"), "{reason}");
    assert_eq!(rig.item_count().await, 2);
}

/// A replica of users that stores their keys and names, as a function that just started.
fn masked(rig: &ReplicationRig, include: &[&str]) -> millrace_replicator::ReplicatorHandler {
    let document = json!({"version": 1, "replicas": [
        {"name": "masked", "sink": "dynamodb", "table": REPLICA, "attributes": {"include": include}},
    ]});
    rig.replicator_of(&[("REPLICATION", &document.to_string())], rig.dynamodb.clone())
}

#[tokio::test]
async fn record_with_a_key_that_the_rules_do_not_match_is_quarantined_wherever_it_is_in_the_batch() {
    let rig = ReplicationRig::start().await;
    let good = |number: u64| EventBuilder::named(&format!("u{number}"), number, "Ada").record();
    let corrupt = |number: u64| good(number).replace(r#""timestamp""#, r#""time""#);
    let include = ["user_id", "timestamp", "name"];
    let replicator = masked(&rig, &include);
    replicator.check().await.unwrap();
    let quarantined = async || {
        let mut objects = rig.quarantined().await;
        // The rules are recorded in the same bucket.
        objects.retain(|key| !key.starts_with("transforms/"));
        objects
    };
    let positions = async || without_digests(&quarantined().await);
    // Alone in the first batch, it may show that the table is another one, as without rules.
    assert_eq!(deliver_batch(&replicator, &event_of(&[corrupt(1)])).await.identifier(), Some("1"));
    assert!(quarantined().await.is_empty());
    let batch = event_of(&[corrupt(1), good(2), good(3)]);
    for started in [masked(&rig, &include), replicator] {
        assert_eq!(deliver_batch(&started, &batch).await.identifier(), None);
        assert_eq!(deliver_batch(&started, &event_of(&[corrupt(4)])).await.identifier(), None, "alone");
    }
    let key = |number: u64| format!("quarantine/replicator/masked/Users/{LABEL}-{number}.json");
    assert_eq!(positions().await, [key(1), key(4)]);
    let reason = rig.quarantine_body(&quarantined().await[0]).await["reason"].to_string();
    assert!(reason.contains("REPLICATION /replicas/0/attributes") && reason.contains("time, user_id"), "{reason}");
    assert_eq!(rig.item_count().await, 2);

    // Rules that match no key of the stream are an error of the configuration.
    let wrong = masked(&rig, &["user_id", "name"]);
    let fault = wrong.handle(&event_of(&[good(5), good(6)]), &invocation()).await.unwrap_err().to_string();
    assert!(fault.contains("/replicas/0/attributes/include lacks timestamp"), "{fault}");
    assert_eq!(positions().await, [key(1), key(4)]);
}

#[tokio::test]
async fn recreated_replica_with_another_key_blocks_the_batch_until_fixed() {
    let rig = ReplicationRig::start().await;
    let replicator = rig.replicator();
    replicator.check().await.unwrap();
    rig.dynamodb.delete_table().table_name(REPLICA).send().await.unwrap();
    rig.create_table(REPLICA, &[("id", "S")]).await;
    let batch = event(&[EventBuilder::named("a", 7, "Ada")]);
    assert_eq!(deliver_batch(&replicator, &batch).await.identifier(), Some("7"));
    assert!(rig.quarantined().await.is_empty());

    rig.dynamodb.delete_table().table_name(REPLICA).send().await.unwrap();
    rig.create_table(REPLICA, &[("user_id", "S"), ("timestamp", "N")]).await;
    assert_eq!(deliver_batch(&replicator, &batch).await.identifier(), None, "mended, it needs no restart");
    assert!(rig.item("a", "1").await.is_some());
}

#[tokio::test]
async fn an_image_without_the_key_that_its_record_names_is_poison() {
    let rig = ReplicationRig::start().await;
    let events = [EventBuilder::image("a", 1, r#"{"name":{"S":"Ada"}}"#), EventBuilder::named("b", 2, "Bob")];
    assert_eq!(deliver_batch(&rig.replicator(), &event(&events)).await.identifier(), None);
    assert_eq!(rig.quarantined_positions().await, [format!("quarantine/replicator/read/Users/{LABEL}-1.json")]);
    assert!(rig.item("b", "1").await.is_some());
}

#[tokio::test]
async fn an_image_of_another_item_than_its_record_names_is_poison_and_written_nowhere() {
    let rig = ReplicationRig::start().await;
    let foreign = |number, user: &str, timestamp: &str| {
        EventBuilder::image("a", number, &super::events::user(user, timestamp, "Ada").to_string())
    };
    let deleted = EventBuilder::deleted("d", 5).record().replace(r#""OldImage":{"#, r#""OldImage":{"x":{"S":"y"},"#);
    let deleted = deleted.replace(r#""user_id":{"S":"d"},"version""#, r#""user_id":{"S":"e"},"version""#);
    assert!(deleted.contains(r#""S":"e""#), "{deleted}");
    let records = [
        foreign(1, "intruder", "1").record(),
        foreign(2, "a", "2").record(),
        EventBuilder::named("b", 3, "Bob").record(),
        // The same number in another format is the same item.
        EventBuilder::image("c", 4, &super::events::user("c", "1.0", "Cleo").to_string()).record(),
        deleted,
    ];
    assert_eq!(deliver_batch(&rig.replicator(), &event_of(&records)).await.identifier(), None);
    let key = |number: u64| format!("quarantine/replicator/read/Users/{LABEL}-{number}.json");
    assert_eq!(rig.quarantined_positions().await, [key(1), key(2), key(5)]);
    let reason = rig.quarantine_body(&rig.quarantined().await[0]).await["reason"].to_string();
    assert!(reason.contains("dynamodb.NewImage and dynamodb.Keys differ") && reason.contains("user_id"), "{reason}");
    assert_eq!(rig.item_count().await, 2, "those of b and c");
    assert!(rig.item("b", "1").await.is_some() && rig.item("c", "1").await.is_some());
}

#[tokio::test]
async fn second_of_two_records_with_one_sequence_number_is_quarantined() {
    let rig = ReplicationRig::start().await;
    let records = [
        EventBuilder::named("a", 1, "First").record(),
        EventBuilder::named("a", 1, "Second").record(),
        EventBuilder::deleted("a", 1).record(),
        EventBuilder::named("a", 1, "First").record(),
        EventBuilder::named("b", 2, "Bob").record(),
    ];
    let replicator = rig.replicator();
    for delivery in 1..=2 {
        assert_eq!(deliver_batch(&replicator, &event_of(&records)).await.identifier(), None);
        assert_eq!(rig.item("a", "1").await.unwrap()["name"].as_s().unwrap(), "First", "delivery {delivery}");
        let quarantined = rig.quarantined().await;
        assert_eq!(quarantined.len(), 2, "each under a name of its own, the same each time: {quarantined:?}");
        let mut names = Vec::new();
        for key in quarantined {
            assert!(key.starts_with(&format!("quarantine/replicator/read/Users/{LABEL}-1-")), "{key}");
            let body = rig.quarantine_body(&key).await;
            assert!(body["reason"].as_str().unwrap().contains("same sequence number"), "{body}");
            names.push(body["record"]["eventName"].as_str().unwrap().to_owned());
        }
        names.sort();
        assert_eq!(names, ["MODIFY", "REMOVE"]);
    }
}

#[tokio::test]
async fn of_two_poison_records_of_one_number_neither_overwrites_the_other() {
    let rig = ReplicationRig::start().await;
    let poison = |name: &str| EventBuilder::named("a", 1, name).record().replace("MODIFY", "RENAME");
    let records = [poison("one"), poison("two"), poison("one"), EventBuilder::named("b", 2, "Bob").record()];
    assert_eq!(deliver_batch(&rig.replicator(), &event_of(&records)).await.identifier(), None);
    assert_eq!(rig.quarantined().await.len(), 2);
}

#[tokio::test]
async fn poison_records_of_one_number_in_different_batches_are_different_objects() {
    let rig = ReplicationRig::start().await;
    let unreadable = |user: &str| EventBuilder::named(user, 1, "Ada").record().replace("MODIFY", "RENAME");
    let unfit = |user: &str| {
        let image = format!(r#"{{"user_id":{{"S":"{user}"}},"timestamp":{{"N":"1"}},"_rev":{{"S":"x"}}}}"#);
        EventBuilder::image(user, 2, &image).record()
    };
    // Two shards may number their records alike, and the second half is a redelivery.
    for records in [unreadable("a"), unreadable("b"), unfit("a"), unfit("b")].iter().cycle().take(8) {
        assert_eq!(deliver_batch(&rig.replicator(), &event_of(&[records])).await.identifier(), None);
    }
    let names: Vec<_> = [("dynamodb", 2), ("dynamodb", 2), ("read", 1), ("read", 1)]
        .map(|(sink, number)| format!("quarantine/replicator/{sink}/Users/{LABEL}-{number}.json"))
        .into();
    assert_eq!(rig.quarantined_positions().await, names);
    let mut users = Vec::new();
    for key in rig.quarantined().await {
        let body = rig.quarantine_body(&key).await;
        users.push(body["record"]["dynamodb"]["Keys"]["user_id"]["S"].as_str().unwrap().to_owned());
    }
    users[..2].sort();
    users[2..].sort();
    assert_eq!(users, ["a", "b", "a", "b"], "each record is in its own object, once");
}

#[tokio::test]
async fn a_contradiction_that_the_failure_bucket_does_not_accept_is_redelivered() {
    let rig = ReplicationRig::start().await;
    let events = [
        EventBuilder::named("b", 6, "Bob"),
        EventBuilder::named("a", 7, "First"),
        EventBuilder::named("a", 7, "Second"),
    ];
    let response = deliver_batch(&rig.replicator_without_a_bucket(), &event(&events)).await;
    assert_eq!(response.identifier(), Some("7"));
}

#[tokio::test]
async fn a_replica_that_is_its_own_source_is_refused() {
    let rig = ReplicationRig::start().await;
    let arn = rig.create_table("Loop", &[("user_id", "S"), ("timestamp", "N")]).await;
    let record = EventBuilder::named("a", 1, "Ada").record();
    let record = record.replace("arn:aws:dynamodb:eu-west-1:123456789012:table/Users", &arn);
    let replicator = rig.replicator_over("Loop");
    let fault = replicator.handle(&event_of(&[record]), &invocation()).await.unwrap_err().to_string();
    assert!(fault.contains("is the source") && fault.contains("REPLICA_TABLE"), "{fault}");
    let scan = rig.dynamodb.scan().table_name("Loop").send().await.unwrap();
    assert_eq!(scan.count, 0);
}

#[tokio::test]
async fn poison_that_the_failure_bucket_does_not_accept_is_redelivered() {
    let rig = ReplicationRig::start().await;
    let replicator = rig.replicator_without_a_bucket();
    let poison = EventBuilder::named("b", 8, "Bob").record().replace("MODIFY", "RENAME");
    let records = [EventBuilder::named("a", 7, "Ada").record(), poison, EventBuilder::named("c", 9, "Cleo").record()];
    let response = deliver_batch(&replicator, &event_of(&records)).await;
    assert_eq!(response.identifier(), Some("8"));
    assert!(rig.item("c", "1").await.is_some(), "its neighbours are applied all the same");
}

#[tokio::test]
async fn poison_without_a_position_is_redelivered_from_the_record_before_it_or_fails_the_invocation() {
    let rig = ReplicationRig::start().await;
    let replicator = rig.replicator_without_a_bucket();
    let (good, poison) = (EventBuilder::named("a", 7, "Ada").record(), r#"{"eventName":"INSERT"}"#.to_owned());
    let response = deliver_batch(&replicator, &event_of(&[&good, &poison])).await;
    assert_eq!(response.identifier(), Some("7"));
    let fault = replicator.handle(&event_of(&[&poison, &good]), &invocation()).await.unwrap_err();
    assert!(matches!(fault, ReplicatorError::NoPosition(_)), "{fault}");
}

#[tokio::test]
async fn an_item_in_the_replica_with_a_foreign_revision_is_not_overwritten() {
    use aws_sdk_dynamodb::types::AttributeValue;
    let rig = ReplicationRig::start().await;
    let put = rig.dynamodb.put_item().table_name(REPLICA).item("_rev", AttributeValue::S("7".to_owned()));
    let put = put.item("user_id", AttributeValue::S("a".to_owned()));
    put.item("timestamp", AttributeValue::N("1".to_owned())).send().await.unwrap();
    assert_eq!(
        deliver_batch(&rig.replicator(), &event(&[EventBuilder::named("a", 1, "Ada")])).await.identifier(),
        None
    );
    assert_eq!(rig.quarantined_positions().await, [format!("quarantine/replicator/dynamodb/Users/{LABEL}-1.json")]);
    assert!(!rig.item("a", "1").await.unwrap().contains_key("name"));
}
