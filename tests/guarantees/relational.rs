//! The guarantees of the PostgreSQL replicas.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;
use millrace_local::tier::TierServer;
use millrace_shared::change::CanonicalKey;
use millrace_shared::replica_item::ReplicaItem;
use millrace_sinks::dynamodb::DynamoDbSink;
use millrace_sinks::{Replica, Sink};
use serde_json::{Value, json};
use time::Duration;

use crate::maintenance::scene::{MaintenanceScene, text};
use crate::postgres::connect;
use crate::relational::store::{RelationalStore, empty, sink};
use crate::relational::tcp_proxy::TcpProxy;
use crate::replication::events::{EventBuilder, event, user};
use crate::replication::rig::{REPLICA, ReplicationRig, deliver_batch};
use crate::table_shape::ORDERS;

/// The contents of a replica by user.
async fn held(replica: &dyn Replica, users: &[&str]) -> BTreeMap<String, ReplicaItem> {
    let key = |user: &&str| format!(r#"{{"timestamp":{{"N":"1"}},"user_id":{{"S":"{user}"}}}}"#);
    let keys: Vec<_> = users.iter().map(|user| CanonicalKey::parse(&key(user)).unwrap()).collect();
    let found = replica.read(&keys).await.unwrap().items;
    users.iter().zip(found).filter_map(|(user, held)| Some(((*user).to_owned(), held?))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_23_a_relational_replica_ends_as_the_other_does() {
    let (rig, store) = (ReplicationRig::start().await, RelationalStore::start().await);
    let line = TcpProxy::to(&store.url).await;
    let dynamodb = || DynamoDbSink::new(rig.dynamodb.clone(), REPLICA, 8, Duration::days(8));
    let sinks: Vec<Box<dyn Sink>> = vec![Box::new(dynamodb()), Box::new(sink(line.url()))];
    let replicator = rig.replicator_with(sinks);
    let mut whole = user("ada", "1", "Ada");
    whole["more"] = serde_json::json!({"NS": ["1.50", "12345678901234567890123456789012345678"]});
    let first = [
        EventBuilder::named("ada", 1, "First"),
        EventBuilder::named("bob", 2, "Bob"),
        EventBuilder::named("cid", 3, "Cid"),
        EventBuilder::image("poison", 4, &user("poison", "1", "zero \u{0}").to_string()),
    ];
    let second = [
        EventBuilder::image("ada", 5, &whole.to_string()),
        EventBuilder::deleted("bob", 6),
        EventBuilder::expired("cid", 7),
    ];
    assert_eq!(deliver_batch(&replicator, &event(&first)).await.identifier(), None);
    line.lose_the_answer();
    assert_eq!(deliver_batch(&replicator, &event(&second)).await.identifier(), None);
    line.cut();
    // All changes again, with the old ones last.
    assert_eq!(deliver_batch(&replicator, &event(&second)).await.identifier(), None);
    assert_eq!(deliver_batch(&replicator, &event(&first)).await.identifier(), None);

    let users = ["ada", "bob", "cid"];
    let (relational, other) = (held(&store.sink, &users).await, held(&dynamodb(), &users).await);
    for user in users {
        let (relational, other) = (&relational[user], &other[user]);
        assert_eq!(relational.revision, other.revision, "{user}");
        assert_eq!(relational.expired(), other.expired(), "{user}");
        match (relational.item(), other.item()) {
            (Some(relational), Some(other)) => assert_eq!(relational.diff_attribute_names(other), [""; 0], "{user}"),
            (None, None) => assert_ne!(user, "ada"),
            _ => panic!("{user} is in one of them"),
        }
    }
    assert!(relational["cid"].expired() && !relational["bob"].expired());
    let aside = rig.quarantined().await;
    assert_eq!(aside.len(), 1, "what a row cannot hold goes aside, and the other replica has it: {aside:?}");
    assert!(aside[0].starts_with("quarantine/replicator/postgres/Users/"));
    assert!(held(&dynamodb(), &["poison"]).await.contains_key("poison"));
}

/// A stack for a table with a key of its own, whose document has a copy in DynamoDB and these tables in PostgreSQL.
async fn orders_scene(url: &str, tables: &[Value]) -> MaintenanceScene {
    let mut replicas = vec![json!({"name": "copy", "sink": "dynamodb", "table": "OrdersReplica"})];
    replicas.extend_from_slice(tables);
    let mut options = MaintenanceScene::options_of(ORDERS);
    options.postgres = TierServer::At(url.to_owned());
    let document = json!({"version": 1, "replicas": replicas}).to_string();
    options.parameters.insert("Replication".to_owned(), document);
    MaintenanceScene::with(ORDERS, options).await
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_35_a_declared_table_ends_with_what_the_source_holds() {
    let url = empty().await;
    let proxy = TcpProxy::to(&url).await;
    let columns = json!({"name": {"path": "name", "type": "text"}, "more": {"path": "more", "type": "numeric[]"}});
    let table = json!({"name": "sql", "sink": "postgres", "table": "orders", "columns": columns});
    let scene = orders_scene(proxy.url(), &[table]).await;
    let put = async |item| scene.put(scene.source(), item).await;
    for item in [scene.user("ada", "First"), scene.user("bob", "Bob"), scene.expired("cid", "Cid")] {
        put(item).await;
    }
    put(scene.user("poison", "zero \u{0}")).await;
    scene.stack.wait_until_drained().await;

    proxy.lose_the_answer();
    let mut whole = scene.user("ada", "Ada");
    let numbers = ["1.50", "12345678901234567890123456789012345678"].map(str::to_owned).to_vec();
    whole.insert("more".to_owned(), AttributeValue::Ns(numbers));
    put(whole).await;
    scene.delete(scene.source(), "bob").await;
    scene.stack.wait_until_drained().await;
    proxy.cut();
    assert_eq!(scene.stack.run_ttl_sweep().await.unwrap(), 1);
    scene.stack.wait_until_drained().await;

    let found = scene.task(json!({"task": "verify", "recheck_after_seconds": 0})).await;
    let counts =
        ["equal", "items", "tombstones", "quarantined"].map(|count| found.progress.get(&format!("sql.{count}")));
    assert_eq!(counts, [1, 1, 2, 1], "{}", found.progress);
    assert_eq!(found.progress.get("copy.equal"), 2, "the copy has the item that no row can store");
    let client = connect(&url).await;
    let sql = "select concat_ws(' ', name, array_to_string(more, ' '), expired) from orders order by name, expired";
    let rows: Vec<String> = client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(rows, ["Ada 1.5 12345678901234567890123456789012345678 f", "f", "t"]);
    let quarantined = scene.objects("quarantine/").await;
    assert_eq!(quarantined.len(), 1, "{quarantined:?}");
    assert!(quarantined[0].starts_with("quarantine/replicator/sql/Orders/"), "{quarantined:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_36_a_value_that_does_not_fit_is_never_another_value_and_costs_no_neighbour() {
    let metrics = millrace_local::metrics::prometheus_handle();
    let url = empty().await;
    let table = |name: &str, otherwise: &str| {
        let columns = json!({
            "count": {"path": "count", "type": "bigint"}, "day": {"path": "day", "type": "date"},
            "it's \"odd\"; --": {"path": "note", "type": "text"},
        });
        json!({"name": name, "sink": "postgres", "table": name, "columns": columns, "otherwise": otherwise})
    };
    let scene = orders_scene(&url, &[table("lenient", "null"), table("strict", "quarantine")]).await;
    let item = |name: &str, count: AttributeValue, day: &str, note: &str| {
        let mut item = scene.user(name, name);
        let attributes = [("count", count), ("day", text(day)), ("note", text(note)), ("'); drop", text("\"; --"))];
        item.extend(attributes.map(|(name, value)| (name.to_owned(), value)));
        item
    };
    let number = |number: &str| AttributeValue::N(number.to_owned());
    let hostile = r#"'); drop table lenient; -- " \ $1 {x} %s"#;
    // The columns are known to fit, so that a record that does not is at fault, also alone in its batch.
    scene.put(scene.source(), item("fits", number("7"), "2026-11-28", hostile)).await;
    scene.stack.wait_until_drained().await;
    for item in [
        item("text", text("8"), "2026-11-28", hostile),
        item("fraction", number("8.5"), "2026-11-28", hostile),
        item("large", number("9223372036854775808"), "2026-11-28", hostile),
        item("no-day", number("9"), "2026-02-30", hostile),
        item("last", number("-9223372036854775808"), "2026-11-29", hostile),
    ] {
        scene.put(scene.source(), item).await;
    }
    scene.stack.wait_until_drained().await;

    let client = connect(&url).await;
    let rows = async |table: &str| {
        let columns = r#"item->'name'->>'S', coalesce("count"::text, 'null'), coalesce("day"::text, 'null')"#;
        let sql = format!(r#"select concat_ws(' ', {columns}), "it's ""odd""; --" from {table}_live order by 1"#);
        let rows = client.query(&sql, &[]).await.unwrap();
        assert!(rows.iter().all(|row| row.get::<_, &str>(1) == hostile));
        rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>()
    };
    let fitting = ["fits 7 2026-11-28", "last -9223372036854775808 2026-11-29"];
    let replaced = ["fraction null 2026-11-28", "large null 2026-11-28", "no-day 9 null", "text null 2026-11-28"];
    assert_eq!(rows("strict").await, fitting, "the others are quarantined");
    let mut all = [&fitting[..], &replaced].concat();
    all.sort_unstable();
    assert_eq!(rows("lenient").await, all);
    let counted = metrics.render();
    let is_counted = |line: &str| line.contains("UnfitValues") && line.contains("lenient") && line.ends_with(" 4");
    assert!(counted.lines().any(is_counted), "{counted}");
    let quarantined = scene.objects("quarantine/").await;
    let is_strict = |key: &String| key.starts_with("quarantine/replicator/strict/Orders/");
    assert!(quarantined.len() == 4 && quarantined.iter().all(is_strict), "{quarantined:?}");
    let found = scene.task(json!({"task": "verify", "recheck_after_seconds": 0})).await;
    let counts = ["lenient.equal", "strict.equal", "strict.quarantined"].map(|count| found.progress.get(count));
    assert_eq!(counts, [6, 2, 4], "{}", found.progress);
}
