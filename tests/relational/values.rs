//! The values that a row can store, the values that no row can store, and their effect on other changes of the batch.

use std::time::Duration;

use millrace_shared::change::CanonicalKey;
use millrace_shared::raw_item::RawItem;
use millrace_sinks::{FailureKind, Replica as _};
use serde_json::{Value, json};

use super::store::{RelationalStore, apply, apply_within, is_key};
use crate::replication::events::{EventBuilder, event, event_of, user};

/// The image of a user with this attribute added.
fn with(user_id: &str, name: &str, value: Value) -> String {
    let mut image = user(user_id, "1", "Ada");
    image[name] = value;
    image.to_string()
}

async fn item(store: &RelationalStore, user_id: &str) -> RawItem {
    let key = CanonicalKey::parse(&json!({"user_id": {"S": user_id}, "timestamp": {"N": "1"}}).to_string()).unwrap();
    store.sink.read(&[key]).await.unwrap().items[0].as_ref().unwrap().item().unwrap().clone()
}

#[tokio::test]
async fn an_item_is_stored_whole_in_addition_to_its_columns() {
    let store = RelationalStore::start().await;
    let digits = "12345678901234567890123456789012345678";
    let mut image = user("whole", "1", "Ada \u{1F600} \"quoted\" \\ line\nbreak");
    image["expires_at"] = json!({"N": "1.5E+9"});
    image["version"] = json!({"N": digits});
    image["attributes"] =
        json!({"M": {"n": {"N": format!("0.{digits}")}, "l": {"L": [{"NULL": true}, {"BOOL": false}]}}});
    image["own"] = json!({"M": {"b": {"B": "AAE="}, "bs": {"BS": ["AQ==", "AA=="]}, "ns": {"NS": ["1.0", "-2e5"]},
        "ss": {"SS": ["x", ""]}, "e": {"S": ""}, "big": {"N": "1E+125"}, "small": {"N": "-1E-130"}}});
    let image = image.to_string();
    assert_eq!(apply(&store.sink, &[EventBuilder::image("whole", 1, &image)]).await.applied, 1);
    let held = item(&store, "whole").await;
    assert_eq!(held.diff_attribute_names(&RawItem::parse(&image).unwrap()), [""; 0]);
    let sql = "select version::text, expires_at::text, attributes->>'n', attributes->'l', name, created_at::text, \
        changed_at::text from users";
    let row = store.client.query_one(&sql.replace("attributes->'l'", "(attributes->'l')::text"), &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), digits, "no number is rounded");
    assert_eq!(row.get::<_, &str>(1), "1500000000");
    assert_eq!(row.get::<_, &str>(2), format!("0.{digits}"));
    assert_eq!(row.get::<_, &str>(3), "[null, false]");
    assert_eq!(row.get::<_, &str>(4), "Ada \u{1F600} \"quoted\" \\ line\nbreak");
    assert!(row.get::<_, &str>(5).starts_with("2026-11-22 08:00:00"));
    assert!(row.get::<_, &str>(6).starts_with("2027-01-15 07:59:59"), "the stream's clock");
}

#[tokio::test]
async fn expires_at_column_is_null_if_ttl_ignores_the_attribute() {
    let store = RelationalStore::start().await;
    let digits = "12345678901234567890123456789012345678";
    let cases = [
        (json!({"M": {}}), None),
        (json!({"S": "tomorrow"}), None),
        (json!({"S": "1900000000"}), None),
        (json!({"NULL": true}), None),
        (json!({"N": "s3cret"}), None),
        (json!({"N": "1900000000.5"}), Some("1900000001")),
        (json!({"N": "1.9E+9"}), Some("1900000000")),
        (json!({"N": digits}), Some(digits)),
        (json!({"N": "5e-1"}), Some("1")),
        (json!({"N": "0"}), None),
        (json!({"N": "0.0"}), None),
        (json!({"N": "-1"}), None),
        (json!({"N": "-0.5"}), None),
    ];
    let changes: Vec<_> = (1..)
        .zip(&cases)
        .map(|(n, (value, _))| {
            let user_id = format!("u{n:02}");
            EventBuilder::image(&user_id, n, &with(&user_id, "expires_at", value.clone()))
        })
        .collect();
    assert_eq!(apply(&store.sink, &changes).await.applied, cases.len());
    let rows = store.client.query("select expires_at::text, name from users order by user_id", &[]).await.unwrap();
    for (row, (value, expected)) in rows.iter().zip(&cases) {
        assert_eq!((row.get::<_, Option<&str>>(0), row.get::<_, &str>(1)), (*expected, "Ada"), "{value}");
    }
}

#[tokio::test]
async fn unstorable_value_is_named_and_neighbouring_rows_are_written() {
    let store = RelationalStore::start().await;
    let poison = [
        ("name", json!({"S": "zero \u{0}"})),
        ("name", json!({"N": "52"})),
        ("email", json!({"S": "x".repeat(1_025)})),
        ("version", json!({"S": "1"})),
        ("created_at", json!({"S": "yesterday"})),
        ("attributes", json!({"S": "none"})),
        ("attributes", json!({"M": {"a": {"S": "zero \u{0}"}}})),
        ("own", json!({"L": [{"S": "zero \u{0}"}]})),
        ("_rev", json!({"B": "AA=="})),
    ];
    let mut changes = vec![EventBuilder::named("first", 1, "Ada")];
    for (n, (name, value)) in poison.iter().enumerate() {
        changes.push(EventBuilder::image(
            &format!("poison-{n}"),
            2 + n as u64,
            &with(&format!("poison-{n}"), name, value.clone()),
        ));
    }
    changes.push(EventBuilder::named("last", 90, "Bob"));
    let outcome = apply(&store.sink, &changes).await;
    assert_eq!((outcome.applied, outcome.failures.len()), (2, poison.len()), "{outcome:?}");
    for failure in &outcome.failures {
        let (name, _) = &poison[failure.index - 1];
        let FailureKind::Permanent(reason) = &failure.kind else { panic!("{failure:?}") };
        assert!(reason.contains(name), "{name}: {reason}");
    }
    assert_eq!(store.users().await, ["first", "last"]);
}

#[tokio::test]
async fn rows_rejected_only_by_the_server_are_isolated() {
    let store = RelationalStore::start().await;
    // DynamoDB numbers are never this large; the server reports the error, but not the row that caused it.
    let changes: Vec<_> = (1..=1_000)
        .map(|n| {
            let user_id = format!("u{n:04}");
            let huge = [17, 500, 1_000].contains(&n);
            let image = with(&user_id, "expires_at", json!({"N": if huge { "1e200000" } else { "1" }}));
            EventBuilder::image(&user_id, n, &image)
        })
        .collect();
    let outcome = apply(&store.sink, &changes).await;
    let mut found: Vec<_> = outcome.failures.iter().map(|failure| failure.index + 1).collect();
    found.sort_unstable();
    assert_eq!((outcome.applied, found), (997, vec![17, 500, 1_000]));
    for failure in &outcome.failures {
        assert!(
            matches!(&failure.kind, FailureKind::Permanent(reason) if reason.contains("SQLSTATE 22")),
            "{failure:?}"
        );
    }
    assert_eq!(store.count("true").await, 997);
}

#[tokio::test]
async fn table_that_rejects_every_row_is_a_transient_failure() {
    let store = RelationalStore::start().await;
    store.client.batch_execute("alter table users add column team text not null").await.unwrap();
    for changes in [
        vec![EventBuilder::named("a", 1, "Ada")],
        vec![EventBuilder::named("a", 1, "Ada"), EventBuilder::named("b", 2, "Bob")],
    ] {
        let outcome = apply(&store.sink, &changes).await;
        assert_eq!(outcome.failures.len(), changes.len());
        for failure in outcome.failures {
            assert!(
                matches!(&failure.kind, FailureKind::Transient(reason) if reason.contains("rejects every row")),
                "{failure:?}"
            );
        }
    }
    store.client.batch_execute("alter table users drop column team").await.unwrap();
    assert_eq!(apply(&store.sink, &[EventBuilder::named("a", 1, "Ada")]).await.applied, 1);
}

#[tokio::test]
async fn batch_of_another_table_is_transient_and_stray_key_is_permanent() {
    let store = RelationalStore::start().await;
    let changes = [EventBuilder::named("a", 1, "Ada"), EventBuilder::named("b", 2, "Bob")];
    let text = event(&changes).get().replace("user_id", "order_id");
    let of_another = serde_json::value::RawValue::from_string(text).unwrap();
    let outcome = apply_within(&store.sink, &of_another, Duration::from_secs(30)).await;
    assert!(outcome.applied == 0 && !outcome.failures.is_empty());
    for failure in outcome.failures {
        assert!(
            matches!(&failure.kind, FailureKind::Transient(reason) if reason.contains("POSTGRES_URL")),
            "{failure:?}"
        );
    }
    let stray = EventBuilder::named("stray", 2, "Ada").record().replace("user_id", "order_id");
    let records = [EventBuilder::named("a", 1, "Ada").record(), stray];
    let outcome = apply_within(&store.sink, &event_of(&records), Duration::from_secs(30)).await;
    assert_eq!(outcome.applied, 1);
    assert!(matches!(&outcome.failures[..], [failure] if matches!(failure.kind, FailureKind::Permanent(_))));
}

#[tokio::test]
async fn a_tombstone_has_its_time_and_is_taken_away_after_it() {
    let store = RelationalStore::start().await;
    let buried = [EventBuilder::deleted("buried", 1), EventBuilder::expired("expired", 2)];
    assert_eq!(apply(&store.sink, &buried).await.tombstones, 2);
    assert_eq!(store.count("deleted_at is not null and num_nonnulls(name, item) = 0").await, 2);
    assert_eq!(store.count("expired").await, 1);
    // Let nine days pass for one of them.
    let earlier = "update users set deleted_at = deleted_at - interval '9 days'";
    store.client.batch_execute(&format!("{earlier} where {}", is_key("buried"))).await.unwrap();
    let again = super::store::sink(&store.url);
    assert_eq!(apply(&again, &[EventBuilder::named("ada", 3, "Ada")]).await.applied, 1);
    assert_eq!((store.count("deleted_at is not null").await, store.count("expired").await), (1, 1));
}
