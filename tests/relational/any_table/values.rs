//! The values of typed columns, and items that the columns or the table cannot store.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use millrace_shared::table_reader::ScanSegment;
use millrace_sinks::document::PostgresTable;
use millrace_sinks::postgres::{PostgresSink, migrate_table};
use millrace_sinks::{FailureKind, Replica, SinkOutcome};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use super::{TableStore, declared, table_sink};
use crate::log_capture::logged;
use crate::relational::store::{apply, apply_within, soon};
use crate::replication::events::{EventBuilder, event_of};

/// An image with a user's key and these attributes.
fn image(id: &str, attributes: &Value) -> String {
    let mut image = json!({"user_id": {"S": id}, "timestamp": {"N": "1"}});
    image.as_object_mut().unwrap().extend(attributes.as_object().unwrap().clone());
    image.to_string()
}

fn change(id: &str, number: u64, attributes: &Value) -> EventBuilder {
    EventBuilder::image(id, number, &image(id, attributes))
}

#[tokio::test]
async fn each_type_is_stored_exactly() {
    let digits = "12345678901234567890123456789012345678";
    let store = TableStore::start(&json!({
        "t": {"path": "t", "type": "text"}, "n": {"path": "n", "type": "numeric"}, "i": {"path": "i", "type": "bigint"},
        "b": {"path": "b", "type": "boolean"}, "at": {"path": "at", "type": "timestamptz"},
        "seconds": {"path": "s", "type": "timestamptz", "format": "epoch_seconds"},
        "millis": {"path": "ms", "type": "timestamptz", "format": "epoch_milliseconds"},
        "day": {"path": "day", "type": "date"}, "j": {"path": "j", "type": "jsonb"},
        "bin": {"path": "bin", "type": "bytea"},
        "ts": {"path": "ts", "type": "text[]"}, "ns": {"path": "ns", "type": "numeric[]"},
        "deep": {"path": r"m.a\.b[1]", "type": "text"}, "none": {"path": "none", "type": "text"}
    }))
    .await;
    let attributes = json!({
        "t": {"S": "Ada \u{1F600} \"quoted\" \\ 'line\nbreak"}, "n": {"N": format!("-0.{digits}")},
        "i": {"N": "-9223372036854775808"}, "b": {"BOOL": true}, "at": {"S": "2026-11-28T09:00:00.1234567+01:00"},
        "s": {"N": "1795852800.5"}, "ms": {"N": "1795852800123"}, "day": {"S": "0001-01-01"},
        "j": {"M": {"n": {"N": digits}, "l": {"L": [{"NULL": true}, {"B": "AAE="}]}}}, "bin": {"B": "AAH/"},
        "ts": {"SS": ["b,\"\\", "NULL", "", "{a}"]}, "ns": {"NS": ["10", "-3.5", "1E+125"]},
        "m": {"M": {"a.b": {"L": [{"S": "x"}, {"S": "y"}]}}}, "none": {"NULL": true}
    });
    assert_eq!(apply(&store.sink, &[change("a", 1, &attributes)]).await.applied, 1);
    store.client.batch_execute("set timezone = 'UTC'").await.unwrap();
    for (column, expected) in [
        ("t", "Ada \u{1F600} \"quoted\" \\ 'line\nbreak"),
        ("n::text", format!("-0.{digits}").as_str()),
        ("i::text", "-9223372036854775808"),
        ("b::text", "true"),
        ("\"at\"::text", "2026-11-28 08:00:00.123456+00"),
        ("seconds::text", "2026-11-28 08:00:00.5+00"),
        ("millis::text", "2026-11-28 08:00:00.123+00"),
        ("\"day\"::text", "0001-01-01"),
        ("j::text", format!(r#"{{"l": [null, "AAE="], "n": {digits}}}"#).as_str()),
        ("encode(bin, 'hex')", "0001ff"),
        ("array_to_json(ts)::text", r#"["","NULL","b,\"\\","{a}"]"#),
        ("ns[1]::text || ' ' || ns[2]::text || ' ' || (ns[3] = 1e125)::text", "-3.5 10 true"),
        ("deep", "y"),
        ("coalesce(\"none\", 'null')", "null"),
        ("item->'day'->>'S'", "0001-01-01"),
        ("to_char(changed_at, 'YYYY')", "2027"),
    ] {
        let found = store.text(&format!("select {column} from orders")).await;
        assert_eq!(found.as_deref(), Some(expected), "{column}");
    }
}

#[tokio::test]
async fn a_value_that_does_not_fit_is_null_and_its_item_is_whole() {
    let store = TableStore::start(&json!({"amount": {"path": "total", "type": "bigint"}})).await;
    let changes = [change("a", 1, &json!({"total": {"N": "1.5"}})), change("b", 2, &json!({"total": {"N": "2"}}))];
    assert_eq!(apply(&store.sink, &changes).await.applied, 2);
    assert_eq!(store.count("orders where amount is null and item->'total'->>'N' = '1.5'").await, 1);
    // The value of a former image does not remain.
    assert_eq!(apply(&store.sink, &[change("b", 3, &json!({"total": {"S": "two"}}))]).await.applied, 1);
    assert_eq!(store.count("orders where amount is null").await, 2);
}

fn strict() -> PostgresTable {
    declared("orders", &json!({"amount": {"path": "total", "type": "bigint"}}), "quarantine")
}

fn permanent(outcome: &SinkOutcome) -> Vec<(usize, &str)> {
    fn reason(kind: &FailureKind) -> &str {
        match kind {
            FailureKind::Permanent(reason) => reason,
            FailureKind::Transient(reason) => panic!("transient: {reason}"),
        }
    }
    outcome.failures.iter().map(|failure| (failure.index, reason(&failure.kind))).collect()
}

#[tokio::test]
async fn an_item_that_does_not_fit_is_quarantined_without_its_neighbours() {
    let store = TableStore::with_table(strict()).await;
    let changes = [
        change("a", 1, &json!({"total": {"N": "1"}})),
        change("b", 2, &json!({"total": {"S": "secret"}})),
        change("c", 3, &json!({"note": {"L": [{"S": "zero \u{0}"}]}})),
        EventBuilder::deleted("d", 4),
        change("e", 5, &json!({})),
    ];
    let outcome = apply(&store.sink, &changes).await;
    let failures = permanent(&outcome);
    assert_eq!((outcome.applied, outcome.tombstones, failures.len()), (3, 1, 2), "{outcome:?}");
    let expected =
        "column \"amount\" (bigint) cannot store the attribute total: expected a number (N) that is an integer";
    assert!(failures[0].0 == 1 && failures[0].1.contains(expected), "{failures:?}");
    assert!(!failures[0].1.contains("secret"));
    assert!(failures[1].0 == 2 && failures[1].1.contains("note"), "{failures:?}");
    // Alone in its batch, after others have fitted, it is the record's error, also for a function that just started.
    let alone = [change("f", 6, &json!({"total": {"S": "x"}}))];
    assert_eq!(permanent(&apply(&store.sink, &alone).await).len(), 1);
    assert_eq!(permanent(&apply(&table_sink(&store.url, &store.table), &alone).await).len(), 1);
}

#[tokio::test]
async fn columns_that_no_item_fits_are_misconfigured_and_nothing_is_quarantined() {
    let store = TableStore::with_table(strict()).await;
    let changes = [
        change("a", 1, &json!({"total": {"S": "1"}})),
        change("b", 2, &json!({"total": {"S": "2"}})),
        EventBuilder::deleted("c", 3),
    ];
    let outcome = apply(&store.sink, &changes).await;
    assert_eq!((outcome.tombstones, outcome.failures.len()), (1, 2), "{outcome:?}");
    for failure in &outcome.failures {
        let FailureKind::Transient(reason) = &failure.kind else { panic!("{failure:?}") };
        assert!(reason.contains("REPLICATION /replicas/0: no item fits the columns"), "{reason}");
        assert!(
            reason.contains("column \"amount\" (bigint)") && reason.contains("set otherwise to \"null\""),
            "{reason}"
        );
    }
}

#[tokio::test]
async fn misconfigured_column_is_reported_next_to_a_record_that_no_column_stores() {
    let store = TableStore::with_table(strict()).await;
    let changes = [
        change("a", 1, &json!({"total": {"S": "1"}})),
        change("b", 2, &json!({"total": {"S": "2"}, "note": {"S": "\0"}})),
        change("c", 3, &json!({"note": {"S": "\0"}})),
    ];
    let mut failures = apply(&store.sink, &changes).await.failures;
    failures.sort_by_key(|failure| failure.index);
    let [first, .., last] = &failures[..] else { panic!("{failures:?}") };
    assert!(matches!(&first.kind, FailureKind::Transient(reason) if reason.contains("no item fits")), "{first:?}");
    assert!(matches!(&last.kind, FailureKind::Permanent(reason) if reason.contains("NUL")), "{last:?}");
}

#[tokio::test]
async fn a_row_that_only_the_server_refuses_is_found_alone() {
    let store = TableStore::start(&json!({"t": {"path": "t", "type": "text"}})).await;
    store.client.batch_execute("create index on orders (t); alter table orders add check (t <> 'bad')").await.unwrap();
    // Text that cannot be compressed to fit into an index.
    let mut state = 7_u64;
    let long: String = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'0' + u8::try_from((state >> 33) % 64).unwrap())
    })
    .take(8_000)
    .collect();
    let changes: Vec<_> = (1..=100_u64)
        .map(|n| {
            let text = match n {
                17 => long.as_str(),
                60 => "bad",
                _ => "good",
            };
            change(&format!("u{n:03}"), n, &json!({"t": {"S": text}}))
        })
        .collect();
    let outcome = apply(&store.sink, &changes).await;
    let mut failures = permanent(&outcome);
    failures.sort_unstable();
    assert_eq!((outcome.applied, failures[0].0, failures[1].0, failures.len()), (98, 16, 59, 2), "{failures:?}");
    assert!(failures[0].1.contains("SQLSTATE 54000") && failures[1].1.contains("SQLSTATE 23514"), "{failures:?}");
}

#[tokio::test]
async fn a_table_that_takes_no_row_holds_every_record() {
    let store = TableStore::start(&json!({})).await;
    store.client.batch_execute("alter table orders add column team text not null").await.unwrap();
    let outcome = apply(&store.sink, &[change("a", 1, &json!({}))]).await;
    let FailureKind::Transient(reason) = &outcome.failures[0].kind else { panic!("{outcome:?}") };
    assert!(reason.contains("the table orders rejects every row"), "{reason}");
}

#[tokio::test]
async fn a_key_that_no_index_stores_is_quarantined_alone() {
    let store = TableStore::start(&json!({})).await;
    let key = "k".repeat(2_700);
    let long = EventBuilder::named("x", 2, "Ada")
        .record()
        .replace(r#""user_id":{"S":"x"}"#, &format!(r#""user_id":{{"S":"{key}"}}"#));
    let records = [EventBuilder::named("a", 1, "Ada").record(), long];
    let outcome = apply_within(&store.sink, &event_of(&records), Duration::from_secs(30)).await;
    let failures = permanent(&outcome);
    assert!(outcome.applied == 1 && failures[0].1.contains("index stores at most 2600"), "{failures:?}");
}

/// Whether the typed columns of each item differ from the item, in the order of the keys; as verify and repair read them.
async fn differing(sink: &PostgresSink) -> Vec<bool> {
    let mut page = sink.scan(ScanSegment::WHOLE, None).await.unwrap();
    page.items.sort_by(|(one, _), (other, _)| one.cmp(other));
    let keys: Vec<_> = page.items.iter().map(|(key, _)| key.clone()).collect();
    let read = sink.read(&keys).await.unwrap().items;
    let differing: Vec<_> = page.items.iter().map(|(_, held)| held.columns_differ).collect();
    assert_eq!(differing, read.iter().map(|held| held.as_ref().unwrap().columns_differ).collect::<Vec<_>>());
    differing
}

#[tokio::test]
async fn a_time_that_postgresql_does_not_store_is_null_and_its_table_is_verified() {
    let columns = json!({"at": {"path": "at", "type": "timestamptz", "format": "epoch_seconds"}});
    let early = [change("a", 1, &json!({"at": {"N": "-300000000000"}})), change("b", 2, &json!({"at": {"N": "0"}}))];
    let store = TableStore::start(&json!({})).await;
    assert_eq!(apply(&store.sink, &early).await.applied, 2);

    let wider = declared("orders", &columns, "null");
    let sink = table_sink(&store.url, &wider);
    migrate_table(sink.database(), &wider, soon()).await.unwrap();
    assert_eq!(differing(&sink).await, [false, true], "the column of the second item is not filled yet");

    let later = [change("a", 3, &json!({"at": {"N": "-300000000000"}})), change("b", 4, &json!({"at": {"N": "0"}}))];
    let log = logged(async { assert_eq!(apply(&sink, &later).await.applied, 2) }).await;
    assert!(log.iter().any(|line| line.contains("\"columns.unfit\":\"at: 1\"")), "{log:?}");
    assert_eq!(store.count("orders where \"at\" is null and item->'at'->>'N' = '-300000000000'").await, 1);
    assert_eq!(differing(&sink).await, [false, false]);
}

#[tokio::test]
async fn an_item_whose_columns_the_server_does_not_accept_differs_alone() {
    let store = TableStore::start(&json!({})).await;
    // DynamoDB itself has no number of so many digits.
    let number = |n: u64| if n == 3 { format!("1.{}1", "0".repeat(20_000)) } else { n.to_string() };
    let changes: Vec<_> =
        (1..=9).map(|n| change(&format!("u{n}"), n, &json!({"n": {"N": number(n)}, "t": {"NULL": true}}))).collect();
    assert_eq!(apply(&store.sink, &changes).await.applied, 9);
    let wider = declared("orders", &json!({"n": {"path": "n", "type": "jsonb"}}), "null");
    let sink = table_sink(&store.url, &wider);
    migrate_table(sink.database(), &wider, soon()).await.unwrap();
    store
        .client
        .batch_execute("update orders set n = (item->'n'->>'N')::jsonb where key not like '%u3%'")
        .await
        .unwrap();
    let expected: Vec<bool> = (1..=9).map(|n| n == 3).collect();
    assert_eq!(differing(&sink).await, expected);
}

/// Values that DynamoDB can contain, among them those at the limits of the types of columns.
fn stored_value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        "-?[1-9][0-9]{0,37}(E-?[1-8][0-9])?",
        "-?0\\.[0-9]{1,37}[1-9]",
        (-70_000_000_000_000_i64..300_000_000_000_000).prop_map(|number| number.to_string()),
        (-700_000_000_000_i64..400_000_000_000).prop_map(|number| number.to_string()),
        proptest::sample::select(vec![
            "1E-130",
            "-9.9999999999999999999999999999999999999E125",
            "9223372036854775807",
            "-9223372036854775809",
            "253402300799.999999",
            "253402300800",
            "-62167219200",
            "-62167219200.000001",
            "-210866803200",
        ])
        .prop_map(ToOwned::to_owned),
    ]
    .boxed();
    let date = "(0000|0001|1582|1970|2026|9999)-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])";
    let time = concat!(
        "(0000-01-01|2026-11-28|2028-02-29|9999-12-31)T([01][0-9]|2[0-4]):[0-5][0-9]:([0-5][0-9]|60)",
        "(\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
    );
    let text = prop_oneof!["[^\\x00]{0,12}", "\\PC{0,12}", date, time].boxed();
    let binary = proptest::collection::vec(any::<u8>(), 0..9).prop_map(|bytes| BASE64.encode(bytes)).boxed();
    let list = |values: &BoxedStrategy<String>| proptest::collection::vec(values.clone(), 1..5);
    let scalar = prop_oneof![
        text.clone().prop_map(|text| json!({"S": text})),
        number.clone().prop_map(|number| json!({"N": number})),
        binary.clone().prop_map(|binary| json!({"B": binary})),
        any::<bool>().prop_map(|value| json!({"BOOL": value})),
        Just(json!({"NULL": true})),
    ]
    .boxed();
    prop_oneof![
        4 => scalar.clone(),
        1 => list(&text).prop_map(|set| json!({"SS": set})),
        1 => list(&number).prop_map(|set| json!({"NS": set})),
        1 => list(&binary).prop_map(|set| json!({"BS": set})),
        1 => list(&text).prop_map(|list| json!({"L": list.iter().map(|text| json!({"S": text})).collect::<Vec<_>>()})),
        1 => list(&number).prop_map(|list| json!({"L": list.iter().map(|n| json!({"N": n})).collect::<Vec<_>>()})),
        1 => proptest::collection::vec(("[^\\x00]{1,4}", scalar), 0..5).prop_map(|members| {
            json!({"M": members.into_iter().collect::<serde_json::Map<_, _>>()})
        }),
    ]
}

#[tokio::test]
async fn the_server_accepts_every_value_that_a_column_takes_and_stores_it_unchanged() {
    let column = |kind: &str| json!({"path": "v", "type": kind});
    let epoch = |format: &str| json!({"path": "v", "type": "timestamptz", "format": format});
    let store = TableStore::start(&json!({
        "t": column("text"), "folded": {"path": "v", "type": "text", "format": "case_folded"},
        "n": column("numeric"), "i": column("bigint"), "b": column("boolean"), "at": column("timestamptz"),
        "seconds": epoch("epoch_seconds"), "millis": epoch("epoch_milliseconds"), "day": column("date"),
        "j": column("jsonb"), "bin": column("bytea"), "ts": column("text[]"), "ns": column("numeric[]"),
    }))
    .await;
    let mut runner = TestRunner::deterministic();
    let value = stored_value();
    let columns = ["t", "folded", "n", "i", "b", "at", "seconds", "millis", "day", "j", "bin", "ts", "ns"];
    let mut filled = [0; 13];
    // A page of a scan has 250 rows.
    for round in 0..4_u64 {
        store.client.batch_execute("truncate orders").await.unwrap();
        let changes: Vec<_> = (1..=240)
            .map(|n| change(&format!("u{n}"), n, &json!({"v": value.new_tree(&mut runner).unwrap().current()})))
            .collect();
        let outcome = apply(&store.sink, &changes).await;
        assert_eq!((outcome.applied, &outcome.failures[..]), (240, &[][..]), "round {round}");
        assert!(differing(&store.sink).await.iter().all(|differs| !differs), "round {round}");
        for (filled, column) in filled.iter_mut().zip(columns) {
            *filled += store.count(&format!("orders where \"{column}\" is not null")).await;
        }
    }
    assert!(filled.iter().all(|values| *values > 0), "{columns:?} {filled:?}");
}
