//! Batches of the replicator on real engines: changes of one user, poison records, several replicas, and
//! misconfigurations.

mod bad_input;
mod by_arn;
pub(crate) mod events;
mod items;
mod lag;
mod logs;
mod refusals;
mod replicas;
pub(crate) mod rig;
mod stack;

use aws_sdk_dynamodb::types::AttributeValue;
use events::{EventBuilder, LABEL, event, event_of};
use millrace_shared::item::size::MAX_ATTRIBUTES_BYTES;
use millrace_shared::raw_item::RawItem;
use millrace_shared::revision::Revision;
use rig::{NOW, ReplicationRig, RigItem, deliver_batch, sample};

use crate::users_api::service::{UsersService, longest};

fn text<'i>(item: &'i RigItem, name: &str) -> &'i str {
    item[name].as_s().unwrap()
}

fn revision(item: &RigItem) -> String {
    Revision::decode(item["_rev"].as_b().unwrap().as_ref()).unwrap().to_string()
}

#[tokio::test]
async fn a_user_is_created_renamed_and_deleted_in_the_replica() {
    let rig = ReplicationRig::start().await;
    let replicator = rig.replicator();
    replicator.check().await.unwrap();

    assert_eq!(deliver_batch(&replicator, &sample("user-created")).await.identifier(), None);
    let created = rig.item("ada", "1795334400").await.unwrap();
    assert_eq!(revision(&created), format!("{LABEL}#4421584500000000017450439092"));

    assert_eq!(deliver_batch(&replicator, &sample("user-renamed")).await.identifier(), None);
    let renamed = rig.item("ada", "1795334400").await.unwrap();
    assert_ne!(text(&created, "name"), text(&renamed, "name"));

    assert_eq!(deliver_batch(&replicator, &sample("user-deleted")).await.identifier(), None);
    let tombstone = rig.item("ada", "1795334400").await.unwrap();
    let mut names: Vec<_> = tombstone.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["_rev", "_tombstone_expires_at", "timestamp", "user_id"], "nothing of the user is left");
    assert_eq!(tombstone["_tombstone_expires_at"], AttributeValue::N((NOW + 8 * 86_400).to_string()));
}

#[tokio::test]
async fn expired_user_leaves_a_tombstone_marked_as_deleted_by_ttl() {
    let rig = ReplicationRig::start().await;
    deliver_batch(&rig.replicator(), &sample("user-expired")).await;
    let tombstone = rig.item("bob", "1795334460").await.unwrap();
    assert_eq!(tombstone["_deleted_by_ttl"], AttributeValue::Bool(true));
    assert!(tombstone.contains_key("_tombstone_expires_at"));
}

#[tokio::test]
async fn an_expired_user_without_its_last_image_leaves_a_tombstone_all_the_same() {
    let rig = ReplicationRig::start().await;
    deliver_batch(&rig.replicator(), &event(&[EventBuilder::named("bob", 1, "Bob")])).await;
    let expired = EventBuilder::expired("bob", 2).record().replace("OldImage", "LostImage");
    assert_eq!(deliver_batch(&rig.replicator(), &event_of(&[expired])).await.identifier(), None);
    assert!(
        rig.item("bob", "1").await.unwrap().contains_key("_tombstone_expires_at"),
        "a removal needs no more than its key"
    );
    assert!(rig.quarantined().await.is_empty());
}

#[tokio::test]
async fn a_replayed_story_brings_nothing_back() {
    let rig = ReplicationRig::start().await;
    let replicator = rig.replicator();
    for name in ["user-created", "user-renamed", "user-deleted"] {
        deliver_batch(&replicator, &sample(name)).await;
    }
    let end = rig.item("ada", "1795334400").await;
    for name in ["user-renamed", "user-created", "user-deleted"] {
        assert_eq!(deliver_batch(&replicator, &sample(name)).await.identifier(), None, "a refusal is success");
        assert_eq!(rig.item("ada", "1795334400").await, end);
    }
}

#[tokio::test]
async fn many_changes_of_a_user_in_a_batch_end_in_the_last() {
    let rig = ReplicationRig::start().await;
    deliver_batch(&rig.replicator(), &sample("user-many-times")).await;
    let cleo = rig.item("cleo", "1795334520").await.unwrap();
    assert_eq!(revision(&cleo), format!("{LABEL}#4421584500000000017450439195"));
    assert!(rig.item("dan", "1795334525").await.unwrap().contains_key("_tombstone_expires_at"));
    assert_eq!(rig.item_count().await, 2);
}

#[tokio::test]
async fn unreadable_record_is_quarantined_and_its_neighbours_are_applied() {
    let rig = ReplicationRig::start().await;
    let response = deliver_batch(&rig.replicator(), &sample("unreadable-in-the-middle")).await;
    assert_eq!(response.identifier(), None);
    let name = format!("quarantine/replicator/read/Users/{LABEL}-4421584500000000017450439103.json");
    assert_eq!(rig.quarantined_positions().await, [name]);
    let body = rig.quarantine_body(&rig.quarantined().await[0]).await;
    assert_eq!(body["format"], 1);
    assert_eq!(body["record"]["eventName"], "RENAME", "the whole record is kept");
    assert!(body["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
    assert!(rig.item("eve", "1795334580").await.is_some() && rig.item("fay", "1795334581").await.is_some());
}

#[tokio::test]
async fn record_without_a_sequence_number_is_quarantined_under_its_digest() {
    let rig = ReplicationRig::start().await;
    let records = [r#"{"eventName":"INSERT"}"#.to_owned(), "7".to_owned(), EventBuilder::named("a", 1, "Ada").record()];
    assert_eq!(deliver_batch(&rig.replicator(), &event_of(&records)).await.identifier(), None);
    let keys = rig.quarantined().await;
    assert_eq!(keys.len(), 2);
    assert!(keys.iter().all(|key| key.starts_with("quarantine/replicator/read/unknown/")), "{keys:?}");
    assert!(rig.item("a", "1").await.is_some());
}

#[tokio::test]
async fn item_too_large_with_revision_is_quarantined_and_neighbours_applied() {
    let rig = ReplicationRig::start().await;
    // Exactly 400 KB without `_rev`: the source can store it.
    let fixed = "user_id".len() + "big".len() + "timestamp".len() + 2 + "filling".len();
    let image = format!(
        r#"{{"user_id":{{"S":"big"}},"timestamp":{{"N":"1"}},"filling":{{"S":"{}"}}}}"#,
        "x".repeat(400 * 1024 - fixed)
    );
    let changes = [
        EventBuilder::named("a", 1, "Ada"),
        EventBuilder::image("big", 2, &image),
        EventBuilder::named("c", 3, "Cleo"),
    ];
    assert_eq!(deliver_batch(&rig.replicator(), &event(&changes)).await.identifier(), None);
    let name = format!("quarantine/replicator/dynamodb/Users/{LABEL}-2.json");
    assert_eq!(rig.quarantined_positions().await, [name]);
    let reason = rig.quarantine_body(&rig.quarantined().await[0]).await["reason"].to_string();
    assert!(reason.contains("size"), "{reason}");
    assert!(rig.item("a", "1").await.is_some() && rig.item("c", "1").await.is_some());
    assert_eq!(rig.item("big", "1").await, None);
}

#[tokio::test]
async fn the_largest_record_that_the_api_takes_is_replicated() {
    let (service, rig) = (UsersService::start().await, ReplicationRig::start().await);
    let user_id = "u".repeat(128);
    let path = format!("/users/{user_id}/253402300799");
    let written = service.api().put(&path, &longest(MAX_ATTRIBUTES_BYTES).to_string()).await;
    assert_eq!(written.status, 201, "{}", written.json["detail"]);
    let item = service.item(&user_id, 253_402_300_799).await.unwrap();
    let image = RawItem::new(item).encode();
    let changes = [EventBuilder::image(&user_id, 1, &image).at("253402300799")];
    assert_eq!(deliver_batch(&rig.replicator(), &event(&changes)).await.identifier(), None);
    assert_eq!(rig.quarantined().await, [""; 0]);
    assert!(rig.item(&user_id, "253402300799").await.is_some());
}

#[tokio::test]
async fn an_empty_batch_is_done() {
    let rig = ReplicationRig::start().await;
    assert_eq!(deliver_batch(&rig.replicator(), &event(&[])).await.identifier(), None);
}

#[tokio::test]
async fn a_batch_larger_than_what_is_in_flight_is_applied_whole() {
    let rig = ReplicationRig::start().await;
    let changes: Vec<_> = (0..400).map(|n| EventBuilder::named(&format!("u{n}"), n + 1, "Many")).collect();
    assert_eq!(deliver_batch(&rig.replicator(), &event(&changes)).await.identifier(), None);
    assert_eq!(rig.item_count().await, 400);
}
