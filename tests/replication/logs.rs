//! Log lines about a batch: they contain positions and counts, and never the values of an item.

use serde_json::Value;

use super::events::{EventBuilder, LABEL, event_of};
use super::rig::{ReplicationRig, deliver_batch};
use crate::log_capture::logged;

/// Personal data that poison records contain at positions that an error message would quote.
const SECRET: &str = "ada@example.com";

#[tokio::test]
async fn values_of_a_poison_record_are_quarantined_and_never_logged() {
    let rig = ReplicationRig::start().await;
    let image = |user_id: &str, score: &str| {
        format!(r#"{{"user_id":{{"S":"{user_id}"}},"timestamp":{{"N":"1"}},"score":{score}}}"#)
    };
    let records = [
        // serde quotes an unknown variant, and DynamoDB quotes text that is not a number and the members of a set.
        EventBuilder::named(SECRET, 1, "Ada")
            .record()
            .replace(&format!(r#"{{"S":"{SECRET}"}}"#), &format!(r#""{SECRET}""#)),
        EventBuilder::image("b", 2, &image("b", &format!(r#"{{"N":"{SECRET}"}}"#))).record(),
        EventBuilder::image("c", 3, &image("c", &format!(r#"{{"SS":["{SECRET}","{SECRET}"]}}"#))).record(),
        EventBuilder::named("d", 4, "Dan")
            .record()
            .replace(r#""userIdentity":null"#, &format!(r#""userIdentity":"{SECRET}""#)),
    ];
    let log = logged(async {
        assert_eq!(deliver_batch(&rig.replicator(), &event_of(&records)).await.identifier(), None);
    });
    let log = log.await.join("\n");
    let keys = rig.quarantined().await;
    assert_eq!(keys.len(), 4, "{keys:?}");
    assert!(keys.iter().all(|key| key.contains(LABEL) && log.contains(key.as_str())), "{keys:?} in {log}");
    assert!(!log.contains(SECRET), "{log}");
    let body = rig.quarantine_body(&keys[1]).await;
    assert!(body["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "the entry has a reason");
}

#[tokio::test]
async fn redelivered_batch_is_logged_as_a_warning_with_its_error() {
    let rig = ReplicationRig::start().await;
    let log = logged(async {
        let absent = rig.replicator_over("Absent");
        let response = deliver_batch(&absent, &event_of(&[EventBuilder::named("a", 7, "Ada").record()])).await;
        assert_eq!(response.identifier(), Some("7"));
    });
    let log: Vec<Value> = log.await.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = log.iter().find(|line| !line["batch.retry_all"].is_null()).unwrap_or_else(|| panic!("{log:?}"));
    assert_eq!((&line["level"], &line["request_id"]), (&"WARN".into(), &"request-1".into()), "{line}");
    assert_eq!((&line["batch.retry_from_sequence"], &line["batch.retry_all"]), (&"7".into(), &false.into()), "{line}");
    assert_eq!(line["batch.failed"], 1, "{line}");
    let error = line["error"].as_str().unwrap();
    for part in ["dynamodb: REPLICA_TABLE Absent", "ResourceNotFoundException"] {
        assert!(error.contains(part), "{part} in {error}");
    }
}
