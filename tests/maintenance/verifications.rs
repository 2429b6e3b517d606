//! Comparisons: the differences that a `verify` finds, and the cases that it does not report as differences.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};

use super::scene::{MaintenanceScene, REPLICA, SOURCE, invoke, text, to_its_end, user};

/// A scene whose replica is up to date with these users.
async fn replicated(users: &[&str]) -> MaintenanceScene {
    let scene = MaintenanceScene::start().await;
    for name in users {
        scene.put(SOURCE, user(name, "Created")).await;
    }
    scene.stack.wait_until_drained().await;
    scene
}

fn by_kind<'r>(report: &'r [Value], kind: &str) -> Vec<&'r str> {
    let of_kind = report.iter().filter(|line| line["kind"] == kind);
    of_kind.map(|line| line["key"]["user_id"]["S"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_difference_is_reported_by_kind_and_attribute_names_only() {
    let scene = replicated(&["same", "missing", "buried", "different", "resurrected", "poison"]).await;
    // The stream is drained: changes to only one side from here on are not replicated.
    scene.delete(REPLICA, "missing").await;
    let mut tombstone = scene.item(REPLICA, "buried").await.unwrap();
    tombstone.remove("name");
    tombstone.insert("_tombstone_expires_at".to_owned(), AttributeValue::N("99999999999".to_owned()));
    scene.put(REPLICA, tombstone).await;
    let mut different = scene.item(REPLICA, "different").await.unwrap();
    different.insert("name".to_owned(), text("Confidential"));
    different.insert("more".to_owned(), text("Secret"));
    scene.put(REPLICA, different).await;
    let ghost = scene.item(REPLICA, "resurrected").await.unwrap();
    scene.delete(SOURCE, "resurrected").await;
    scene.stack.wait_until_drained().await;
    scene.put(REPLICA, ghost).await;
    scene.put(REPLICA, user("extra", "Stranger")).await;
    let mut poison = user("poison", "Changed");
    poison.insert("_rev".to_owned(), text("mine"));
    scene.put(SOURCE, poison).await;
    scene.stack.wait_until_drained().await;

    let response = scene.task(json!({"task": "verify", "run_id": "all", "recheck_after_seconds": 0})).await;
    let expected = "dynamodb.different 1, dynamodb.equal 1, dynamodb.extra 1, dynamodb.items 5, dynamodb.missing 2, \
        dynamodb.quarantined 1, dynamodb.resurrected 1, dynamodb.tombstones 1, source.items 5";
    assert_eq!(response.progress.to_string(), expected);
    let report = scene.report("all").await;
    let mut missing = by_kind(&report, "missing");
    missing.sort_unstable();
    assert_eq!(missing, ["buried", "missing"]);
    for kind in ["different", "extra", "resurrected"] {
        assert_eq!(by_kind(&report, kind), [kind]);
    }
    let different = report.iter().find(|line| line["kind"] == "different").unwrap();
    assert_eq!(different["attributes"], json!(["more", "name"]));
    let quarantined = report.iter().find(|line| line["kind"] == "quarantined").unwrap();
    assert_eq!(quarantined["key"]["user_id"]["S"], "poison");
    assert!(quarantined["objects"][0].as_str().unwrap().starts_with("quarantine/replicator/dynamodb/Users/"));
    let json = serde_json::to_string(&report).unwrap();
    assert!(!json.contains("Confidential") && !json.contains("Secret"), "{json}");
    assert_eq!(scene.live(REPLICA).await["different"]["name"], text("Confidential"), "a comparison changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn differences_are_in_the_answer_and_in_a_metric_and_a_repair_s_are_not() {
    let of_metric = |name: &str| {
        let text = millrace_local::metrics::prometheus_handle().render();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or("0");
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let counted = || of_metric(millrace_shared::metric::DIFFERENCES.name());
    let verified = || of_metric(millrace_shared::metric::VERIFIED_SEGMENTS.name());
    let scene = replicated(&["ada", "bob", "cleo"]).await;
    scene.delete(REPLICA, "ada").await;
    scene.delete(REPLICA, "bob").await;
    let (before, verified_before) = (counted(), verified());
    let found = scene.task(json!({"task": "verify", "run_id": "found", "recheck_after_seconds": 0})).await;
    assert_eq!((found.differences, found.problems, found.sinks), (2, 2, vec!["dynamodb".to_owned()]));
    assert!(counted() >= before + 2, "other tests of this process count as well");
    assert!(verified() > verified_before);
    let order = json!({"task": "summary", "run_id": "found", "of_task": "verify"});
    let sum = scene.task(order).await;
    assert_eq!((sum.differences, sum.sinks, sum.of_task.as_deref()), (2, vec!["dynamodb".to_owned()], Some("verify")));
    let repaired = scene.task(json!({"task": "repair", "recheck_after_seconds": 0, "dry_run": false})).await;
    assert_eq!((repaired.differences, repaired.progress.get("dynamodb.repaired")), (0, 2));
    assert_eq!((repaired.problems, sum.problems), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_without_a_result_have_no_sum() {
    let scene = replicated(&["ada"]).await;
    let verify = |segment: u32| {
        let order = json!({"task": "verify", "run_id": "half", "recheck_after_seconds": 0, "segments": 2});
        let mut order = order.as_object().unwrap().clone();
        order.insert("segment".to_owned(), json!(segment));
        Value::Object(order)
    };
    scene.task(verify(0)).await;
    let order = json!({"task": "summary", "run_id": "half", "of_task": "verify", "segments": 2});
    let fault = invoke(&scene.maintenance(), &order, Duration::from_mins(1)).await.unwrap_err();
    let message = fault.to_string();
    assert!(message.contains("segment 1 of verify is not done in run half"), "{message}");
    assert_eq!(fault.kind().as_str(), "TaskInvalid");
    scene.task(verify(1)).await;
    let sum = scene.task(order).await;
    assert_eq!(sum.progress.to_string(), "dynamodb.equal 1, dynamodb.items 1, source.items 1");
    let kept: Value = serde_json::from_slice(&scene.object("reports/half/summary.json").await).unwrap();
    assert_eq!((&kept["sinks"], &kept["differences"]), (&json!(["dynamodb"]), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_well_has_no_report() {
    let scene = replicated(&["ada", "bob"]).await;
    scene.delete(SOURCE, "bob").await;
    scene.stack.wait_until_drained().await;
    let response = scene.task(json!({"task": "verify", "run_id": "well", "recheck_after_seconds": 0})).await;
    let expected = "dynamodb.equal 1, dynamodb.items 1, dynamodb.tombstones 1, source.items 1";
    assert_eq!(response.progress.to_string(), expected);
    assert!(scene.report("well").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_compared_and_not_their_encoding() {
    let scene = MaintenanceScene::start().await;
    let with = |number: &str, set: [&str; 2]| {
        let mut item = user("ada", "Ada");
        item.insert("n".to_owned(), AttributeValue::N(number.to_owned()));
        item.insert("s".to_owned(), AttributeValue::Ss(set.map(str::to_owned).to_vec()));
        item
    };
    scene.put(SOURCE, with("1500", ["a", "b"])).await;
    scene.stack.wait_until_drained().await;
    let mut replica = with("1.5e3", ["b", "a"]);
    replica.insert("_rev".to_owned(), scene.item(REPLICA, "ada").await.unwrap()["_rev"].clone());
    scene.put(REPLICA, replica).await;
    let response = scene.task(json!({"task": "verify", "recheck_after_seconds": 0})).await;
    assert_eq!(response.progress.get("dynamodb.equal"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_looked_up_in_whatever_spelling() {
    let scene = MaintenanceScene::start().await;
    for timestamp in ["1.5", "1e2", "-0.25", "12345678901234567890123456789012345678"] {
        let mut item = user("ada", "Ada");
        item.insert("timestamp".to_owned(), AttributeValue::N(timestamp.to_owned()));
        scene.put(SOURCE, item).await;
    }
    scene.stack.wait_until_drained().await;
    for item in scene.items(REPLICA).await {
        let mut key = item;
        key.retain(|name, _| name == "user_id" || name == "timestamp");
        scene.dynamodb.delete_item().table_name(REPLICA).set_key(Some(key)).send().await.unwrap();
    }
    let response = scene.task(json!({"task": "repair", "dry_run": false, "recheck_after_seconds": 0})).await;
    assert_eq!((response.progress.get("dynamodb.missing"), response.progress.get("dynamodb.repaired")), (4, 4));
    let again = scene.task(json!({"task": "verify", "recheck_after_seconds": 0})).await;
    assert_eq!(again.progress.to_string(), "dynamodb.equal 4, dynamodb.items 4, source.items 4");
}

#[tokio::test(flavor = "multi_thread")]
async fn item_changed_before_the_recheck_is_in_flux_and_not_different() {
    let scene = replicated(&["ada", "bob"]).await;
    scene.delete(REPLICA, "ada").await;
    scene.delete(REPLICA, "bob").await;
    let verify = json!({"task": "verify", "run_id": "moving", "recheck_after_seconds": 2});
    let change = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        scene.put(SOURCE, user("ada", "Renamed")).await;
    };
    let (response, ()) = tokio::join!(scene.task(verify), change);
    assert_eq!((response.progress.get("dynamodb.in_flux"), response.progress.get("dynamodb.missing")), (1, 1));
    assert_eq!(by_kind(&scene.report("moving").await, "missing"), ["bob"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_item_is_counted_once_however_the_table_is_cut() {
    let scene = MaintenanceScene::start().await;
    scene.fill(900, 3_000).await;
    scene.stack.wait_until_drained().await;
    for n in (0..900).step_by(3) {
        scene.delete(REPLICA, &format!("u{n:05}")).await;
    }
    for n in 0..50 {
        scene.put(REPLICA, user(&format!("x{n:05}"), "Stranger")).await;
    }
    for segments in [1_u32, 3] {
        let mut progress = millrace_maintenance::progress::TaskProgress::default();
        for segment in 0..segments {
            let order = json!({"task": "verify", "recheck_after_seconds": 0, "segment": segment, "segments": segments});
            // A short time limit, so that a segment takes several invocations, at a rate that allows a page or two in
            // each.
            let paced = json!({"max_read_capacity_units": 600 * segments});
            let mut order = order;
            order["max_read_capacity_units"] = paced["max_read_capacity_units"].clone();
            let response = to_its_end(&scene.maintenance(), order, Duration::from_secs(2)).await.unwrap();
            progress.add(&response.progress);
        }
        let expected =
            "dynamodb.equal 600, dynamodb.extra 50, dynamodb.items 650, dynamodb.missing 300, source.items 900";
        assert_eq!(progress.to_string(), expected, "{segments} segments");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lag_that_fits_into_no_invocation_is_refused_by_name() {
    let scene = replicated(&["ada"]).await;
    let order = json!({"task": "verify", "recheck_after_seconds": 120});
    let fault = invoke(&scene.maintenance(), &order, Duration::from_mins(1)).await.unwrap_err();
    assert_eq!(fault.kind().as_str(), "TaskInvalid");
    assert!(fault.to_string().contains("recheck_after_seconds is 120"), "{fault}");
}
