//! A dry run predicts the outcome of the real run: both run on the same state, and every outcome is compared.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use millrace_maintenance::MaintenanceHandler;
use millrace_maintenance::task::TaskResponse;
use millrace_shared::clock::Clock;
use millrace_shared::table::{NonceSource, RestoreTable};
use serde_json::{Value, json};

use super::restores::expired;
use super::scene::{FORMER, MaintenanceScene, REPLICA, SOURCE, SceneItem, record, text, to_its_end, user};
use crate::relational::store::RelationalStore;
use crate::replication::events::EventBuilder;

async fn run(maintenance: &MaintenanceHandler, order: &Value, dry_run: bool) -> TaskResponse {
    let mut order = order.clone();
    order["dry_run"] = json!(dry_run);
    order["run_id"] = json!(if dry_run { "dry" } else { "real" });
    to_its_end(maintenance, order, Duration::from_mins(1)).await.unwrap()
}

/// The outcome and the reason of each report entry of a run; outcomes of a dry run are translated to those of the real
/// run.
async fn outcomes(scene: &MaintenanceScene, run: &str, of: &str) -> BTreeMap<String, (String, String)> {
    let outcomes = [
        ("would_redrive", "redriven"),
        ("would_skip", "skipped"),
        ("would_repair", "repaired"),
        ("would_fail", "failed"),
        ("would_restore", "restored"),
        ("would_refuse", "refused"),
    ];
    let line = |line: Value| {
        let done = line["outcome"].as_str().unwrap_or_default();
        let done = outcomes.iter().find(|(dry, _)| *dry == done).map_or(done, |(_, real)| real);
        // The reason for an item that is too large is its size, or the table's error message.
        let why = line["reason"].as_str().unwrap_or_default();
        let why = if why.contains("bytes") || why.contains("size") { "its size" } else { why };
        (format!("{}{}", line[of], line["sink"]), (done.to_owned(), why.to_owned()))
    };
    scene.report(run).await.into_iter().map(line).collect()
}

fn counted(outcomes: &BTreeMap<String, (String, String)>, done: &str) -> usize {
    outcomes.values().filter(|(what, _)| what == done).count()
}

/// An item that has no room for the attributes that a replica adds.
fn full(user_id: &str) -> SceneItem {
    let mut item = user(user_id, "");
    let size = millrace_shared::raw_item::RawItem::new(item.clone()).size_bytes();
    item.insert("name".to_owned(), text(&"x".repeat(millrace_shared::raw_item::MAX_ITEM_BYTES - size - 10)));
    item
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_run_of_a_redrive_reports_the_outcome_of_each_object() {
    let (scene, store) = (MaintenanceScene::start().await, RelationalStore::start().await);
    let mut maintenance = scene.maintenance();
    maintenance.replicas.push(Box::new(store.sink));
    scene.put(SOURCE, user("well", "Now")).await;
    for (name, attribute) in [("rev", "_rev"), ("gone", "_tombstone_expires_at"), ("mended", "_rev")] {
        let mut poison = user(name, "Poison");
        poison.insert(attribute.to_owned(), text("mine"));
        scene.put(SOURCE, poison).await;
    }
    scene.put(SOURCE, full("full")).await;
    scene.put(SOURCE, user("zero", "a\u{0}b")).await;
    scene.put(SOURCE, user("foreign", "Now")).await;
    scene.stack.wait_until_drained().await;
    scene.put(SOURCE, user("mended", "Now")).await;
    scene.stack.wait_until_drained().await;
    let mut foreign = user("foreign", "Wrong");
    foreign.insert("_rev".to_owned(), AttributeValue::S("7".to_owned()));
    scene.put(REPLICA, foreign).await;
    let old = |name: &str, number| record(EventBuilder::named(name, number, "Then"), FORMER);
    for (number, name) in ["well", "rev", "full", "zero", "foreign", "deleted"].into_iter().enumerate() {
        scene.give_up("replicator", vec![old(name, number as u64 + 1)], number % 2 == 0).await;
    }
    scene.give_up("replicator", vec![old("well", 20), old("rev", 21)], false).await;
    scene.give_up("somebody", vec![old("well", 22)], false).await;
    scene.give_up("replicator", vec![json!({"eventName": "INSERT"})], false).await;
    scene.give_up("archiver", vec![record(EventBuilder::expired("once", 23), FORMER)], false).await;
    let mut timeless = record(EventBuilder::expired("never", 24), FORMER);
    timeless["dynamodb"]["ApproximateCreationDateTime"] = json!(0);
    scene.give_up("archiver", vec![timeless], false).await;
    let body = json!({"format": 1, "reason": "once", "record": old("well", 25)});
    for sink in ["postgres", "dynamodb", "oracle", "cache", "read"] {
        scene.put_object(&format!("quarantine/replicator/{sink}/Users/x-25.json"), body.to_string()).await;
    }

    let order = json!({"task": "redrive"});
    let before = scene.objects("").await;
    let dry = run(&maintenance, &order, true).await;
    let after: Vec<String> = scene.objects("").await.into_iter().filter(|key| !key.starts_with("reports/")).collect();
    assert_eq!(after, before, "it moves nothing");
    let real = run(&maintenance, &order, false).await;
    let (predicted, done) = (outcomes(&scene, "dry", "object").await, outcomes(&scene, "real", "object").await);
    assert_eq!(predicted, done);
    assert_eq!(dry.progress.get("redrive.would_redrive"), real.progress.get("redrive.redriven"));
    assert_eq!(dry.progress.get("redrive.would_skip"), real.progress.get("redrive.skipped"));
    assert_eq!((dry.differences, dry.problems), (0, real.progress.get("redrive.skipped")));
    assert_eq!((real.differences, real.problems), (0, real.progress.get("redrive.skipped")));
    assert!(counted(&done, "skipped") >= 10 && counted(&done, "redriven") >= 8, "{done:?}");
    let of_rev: Vec<_> = done.values().filter(|(_, why)| why.contains("_rev, which is reserved")).collect();
    assert!(of_rev.len() >= 3, "poison whose source carries _rev still: {done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_run_of_a_repair_reports_the_outcome_of_each_key() {
    let scene = MaintenanceScene::start().await;
    for name in ["same", "missing", "different", "resurrected"] {
        scene.put(SOURCE, user(name, "Created")).await;
    }
    let mut poison = user("rev", "Poison");
    poison.insert("_rev".to_owned(), text("mine"));
    scene.put(SOURCE, poison).await;
    scene.put(SOURCE, full("full")).await;
    scene.stack.wait_until_drained().await;
    let ghost = scene.item(REPLICA, "resurrected").await.unwrap();
    scene.delete(SOURCE, "resurrected").await;
    scene.stack.wait_until_drained().await;
    scene.put(REPLICA, ghost).await;
    scene.delete(REPLICA, "missing").await;
    let mut different = scene.item(REPLICA, "different").await.unwrap();
    different.insert("name".to_owned(), text("Wrong"));
    scene.put(REPLICA, different).await;
    scene.put(REPLICA, user("extra", "Stranger")).await;
    let mut foreign = user("same", "Wrong");
    foreign.insert("_rev".to_owned(), AttributeValue::S("7".to_owned()));
    scene.put(REPLICA, foreign).await;
    let maintenance = scene.maintenance();

    let order = json!({"task": "repair", "recheck_after_seconds": 0});
    let dry = run(&maintenance, &order, true).await;
    let real = run(&maintenance, &order, false).await;
    let (predicted, done) = (outcomes(&scene, "dry", "key").await, outcomes(&scene, "real", "key").await);
    assert_eq!(predicted, done);
    assert_eq!((counted(&done, "repaired"), counted(&done, "failed")), (4, 3), "{done:?}");
    assert_eq!((dry.progress.sum(".repaired"), dry.progress.sum(".failed")), (0, 0));
    assert_eq!((dry.progress.sum(".would_repair"), dry.progress.sum(".would_fail")), (4, 3));
    assert_eq!((real.progress.sum(".repaired"), real.progress.sum(".failed")), (4, 3));
    assert_eq!((dry.problems, real.problems), (3, 3));
}

fn expiring(mut item: SceneItem) -> SceneItem {
    let past = (Clock::system().now() - time::Duration::days(30)).unix_timestamp();
    item.insert("expires_at".to_owned(), AttributeValue::N(past.to_string()));
    item
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_run_of_a_restore_reports_the_outcome_of_each_key() {
    for (overwrite, rows) in [(false, "latest"), (true, "latest"), (true, "all"), (false, "all")] {
        let scene = MaintenanceScene::start().await;
        let mut maintenance = scene.maintenance();
        maintenance.restore_table = RestoreTable::new(scene.dynamodb.clone(), SOURCE.to_owned())
            .with_unique_emails(Some("Emails"), NonceSource::new(Clock::system()));
        let with_email = |name: &str, email: &str| {
            let mut item = user(name, "Then");
            item.insert("email".to_owned(), text(email));
            item
        };
        expired(&scene, &["back", "live", "dead"], "First").await;
        expired(&scene, &["back", "twice"], "Second").await;
        // Without a version, the item has no room for one, nor for a later expiry with more digits.
        let mut large = user("large", "");
        let size = millrace_shared::raw_item::RawItem::new(expiring(large.clone())).size_bytes();
        large.insert("name".to_owned(), text(&"x".repeat(millrace_shared::raw_item::MAX_ITEM_BYTES - size)));
        for item in [large, with_email("ada", "one@example.com"), with_email("no user", "two@example.com")] {
            scene.put(SOURCE, expiring(item)).await;
        }
        for name in ["first", "second", "third"] {
            scene.put(SOURCE, expiring(with_email(name, "same@example.com"))).await;
        }
        assert_eq!(scene.stack.run_ttl_sweep().await.unwrap(), 6);
        scene.stack.wait_until_drained().await;
        scene.put(SOURCE, user("live", "Now")).await;
        scene.put(SOURCE, expiring(user("dead", "Now"))).await;
        let order = json!({
            "task": "restore", "from": "2026-01-01T00:00:00Z", "expires_in_seconds": 3600, "overwrite": overwrite,
            "versions": rows,
        });
        let dry = run(&maintenance, &order, true).await;
        let real = run(&maintenance, &order, false).await;
        assert_eq!(
            dry.progress.get("restore.would_restore"),
            real.progress.get("restore.restored"),
            "{overwrite} {rows}"
        );
        for (predicted, name) in [
            ("restore.would_refuse", "restore.refused"),
            ("restore.already_restored", "restore.already_restored"),
            ("restore.rows", "restore.rows"),
        ] {
            assert_eq!(dry.progress.get(predicted), real.progress.get(name), "{name} {overwrite} {rows}");
        }
        assert_eq!((dry.problems, real.problems), (real.progress.get("restore.refused"), dry.problems));
        let (mut predicted, mut done) = (outcomes(&scene, "dry", "key").await, outcomes(&scene, "real", "key").await);
        // One of the three gets the email that all of them had; the run decides which one.
        let one_of_three = |key: &String| ["first", "second", "third"].iter().any(|name| key.contains(name));
        for outcomes in [&mut predicted, &mut done] {
            let of_the_three = |what: &str| {
                outcomes.iter().filter(|(key, _)| one_of_three(key)).filter(|(_, (done, _))| done == what).count()
            };
            assert_eq!((of_the_three("restored"), of_the_three("refused")), (1, 2));
            outcomes.retain(|key, _| !one_of_three(key));
        }
        assert_eq!(predicted, done, "{overwrite} {rows}");
        let refused = |why: &str| done.values().any(|(_, reason)| reason.contains(why));
        assert!(refused("its size") || refused("400 KB"), "{done:?}");
        assert!(refused("its key is not a valid user key"), "{done:?}");
        assert_eq!(refused("a live item"), !overwrite);
    }
}
