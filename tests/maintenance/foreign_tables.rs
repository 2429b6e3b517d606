//! Restores to tables of any key schema, whose items are not users.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
    TimeToLiveSpecification,
};
use millrace_archive::store::ArchiveStore;
use millrace_archive::{ArchiveHour, ArchiveRow, Compression, write};
use millrace_maintenance::task::TaskResponse;
use millrace_maintenance::{MaintenanceHandler, TaskError};
use millrace_shared::change::CanonicalKey;
use millrace_shared::clock::Clock;
use millrace_shared::item::restored::{RestoreRules, SourceSchema};
use millrace_shared::raw_item::RawItem;
use millrace_shared::revision::Revision;
use millrace_shared::table::RestoreTable;
use millrace_shared::table_reader::TableReader;
use serde_json::{Value, json};

use super::scene::{ARCHIVE, MaintenanceScene, SceneItem, text, to_its_end};

const TABLE: &str = "Orders";

/// The key attributes of a table, each with its type; the partition key first.
type KeySchema = &'static [(&'static str, ScalarAttributeType)];

/// Every combination of types, and names that are reserved words, or contain dots, spaces or other letters.
const SCHEMAS: [KeySchema; 7] = [
    &[("pk", ScalarAttributeType::S)],
    &[("size", ScalarAttributeType::N)],
    &[("_id", ScalarAttributeType::B)],
    &[("user.id", ScalarAttributeType::S), ("order", ScalarAttributeType::S)],
    &[("Größe", ScalarAttributeType::S), ("sort key", ScalarAttributeType::N)],
    &[("version", ScalarAttributeType::S), ("data", ScalarAttributeType::B)],
    &[("user_id", ScalarAttributeType::N), ("timestamp", ScalarAttributeType::N)],
];

/// A table that is not the users table, and its archive.
struct ForeignTable {
    scene: MaintenanceScene,
    schema: KeySchema,
}

fn value(kind: &ScalarAttributeType, number: u32) -> AttributeValue {
    match kind {
        ScalarAttributeType::N => AttributeValue::N(number.to_string()),
        ScalarAttributeType::B => AttributeValue::B(Blob::new(number.to_be_bytes())),
        _ => text(&format!("item {number}")),
    }
}

impl ForeignTable {
    async fn new(schema: KeySchema, ttl_attribute: Option<&str>) -> Self {
        let scene = MaintenanceScene::start().await;
        let mut create = scene.dynamodb.create_table().table_name(TABLE).billing_mode(BillingMode::PayPerRequest);
        for ((name, kind), role) in schema.iter().zip([KeyType::Hash, KeyType::Range]) {
            let definition = AttributeDefinition::builder().attribute_name(*name).attribute_type(kind.clone());
            create = create
                .attribute_definitions(definition.build().unwrap())
                .key_schema(KeySchemaElement::builder().attribute_name(*name).key_type(role).build().unwrap());
        }
        create.send().await.unwrap();
        if let Some(name) = ttl_attribute {
            let ttl = TimeToLiveSpecification::builder().attribute_name(name).enabled(true).build().unwrap();
            let update = scene.dynamodb.update_time_to_live().table_name(TABLE).time_to_live_specification(ttl);
            update.send().await.unwrap();
        }
        Self { scene, schema }
    }

    fn key(&self, number: u32) -> SceneItem {
        self.schema.iter().map(|(name, kind)| ((*name).to_owned(), value(kind, number))).collect()
    }

    /// The item with this number. Its attributes are named like those of a user, with other types.
    fn item(&self, number: u32, state: &str) -> SceneItem {
        let mut item = self.key(number);
        item.insert("state".to_owned(), text(state));
        item.insert("expires_at".to_owned(), text("in autumn"));
        item.insert("updated_at".to_owned(), AttributeValue::N("1.5".to_owned()));
        item.insert("email".to_owned(), AttributeValue::Ss(vec!["a@example.com".to_owned()]));
        item
    }

    /// Archives items as if TTL had removed them by this attribute.
    async fn archive(&self, numbers: impl IntoIterator<Item = u32>, ttl_attribute: &str) {
        self.archive_states(numbers.into_iter().map(|number| (number, "archived")), ttl_attribute).await;
    }

    /// Archives items with these states, one after the other.
    async fn archive_states(&self, items: impl IntoIterator<Item = (u32, &str)>, ttl_attribute: &str) {
        let removed_at = Clock::system().now() - time::Duration::days(1);
        let items: Vec<(CanonicalKey, RawItem)> = items
            .into_iter()
            .map(|(number, state)| {
                let mut item = self.item(number, state);
                let past = (removed_at - time::Duration::minutes(1)).unix_timestamp();
                item.insert(ttl_attribute.to_owned(), AttributeValue::N(past.to_string()));
                (RawItem::new(self.key(number)).key(&self.names()).unwrap(), RawItem::new(item))
            })
            .collect();
        let texts: Vec<String> = items.iter().map(|(_, item)| item.encode()).collect();
        let rows = items.iter().zip(&texts).enumerate().map(|(index, ((key, _), item))| ArchiveRow {
            key,
            revision: Revision::parse(&format!("2026-06-27T00:48:05.899#{}", 100 + index)).unwrap(),
            removed_at,
            event_id: None,
            item,
        });
        let object = write(TABLE, ArchiveHour::from_datetime(removed_at), rows.collect(), Compression::Zstd).unwrap();
        let store = ArchiveStore::new(self.scene.s3.clone(), ARCHIVE.to_owned());
        let metadata = object.description.encode().unwrap();
        store.put(&object.key.to_string(), object.bytes, object.description.sha256, metadata).await.unwrap();
    }

    fn names(&self) -> Vec<String> {
        self.schema.iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    fn maintenance(&self) -> MaintenanceHandler {
        let mut maintenance = self.scene.maintenance();
        let rules = RestoreRules { schema: SourceSchema::Any, ..RestoreRules::users() };
        maintenance.source = TableReader::new(self.scene.dynamodb.clone(), TABLE);
        maintenance.restore_table = RestoreTable::new(self.scene.dynamodb.clone(), TABLE.to_owned()).with_rules(rules);
        maintenance
    }

    async fn put(&self, item: SceneItem) {
        self.scene.put(TABLE, item).await;
    }

    async fn stored(&self, number: u32) -> Option<SceneItem> {
        let get = self.scene.dynamodb.get_item().table_name(TABLE).set_key(Some(self.key(number)));
        get.consistent_read(true).send().await.unwrap().item
    }

    async fn restore(&self, more: Value) -> Result<TaskResponse, TaskError> {
        let mut order = json!({"task": "restore", "from": "2026-01-01T00:00:00Z", "dry_run": false});
        let Value::Object(more) = more else { panic!("fields") };
        order.as_object_mut().unwrap().extend(more);
        to_its_end(&self.maintenance(), order, Duration::from_mins(1)).await
    }

    /// Runs a restore as a dry run and then for real; returns the counts of both.
    async fn restored(&self, more: Value) -> [HashMap<String, u64>; 2] {
        let mut dry = more.clone();
        dry["dry_run"] = true.into();
        let counts = async |more| {
            let response = self.restore(more).await.unwrap();
            ["restored", "would_restore", "refused", "would_refuse", "already_restored"]
                .map(|name| (name.to_owned(), response.progress.get(&format!("restore.{name}"))))
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .collect()
        };
        [counts(dry).await, counts(more).await]
    }
}

fn counts<const N: usize>(expected: [(&str, u64); N]) -> HashMap<String, u64> {
    expected.map(|(name, count)| (name.to_owned(), count)).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_overwrites_no_live_item_whatever_the_key_of_the_table() {
    for schema in SCHEMAS {
        let table = ForeignTable::new(schema, Some("ttl")).await;
        table.archive(1..=3, "ttl").await;
        table.put(table.item(1, "live")).await;
        let [dry, real] = table.restored(json!({"expires_in_seconds": 3600})).await;
        assert_eq!(dry, counts([("would_restore", 2), ("would_refuse", 1)]), "{schema:?}");
        assert_eq!(real, counts([("restored", 2), ("refused", 1)]), "{schema:?}");
        assert_eq!(table.stored(1).await.unwrap(), table.item(1, "live"), "{schema:?}");
        let mut restored = table.stored(2).await.unwrap();
        let ends: i64 = restored.remove("ttl").unwrap().as_n().unwrap().parse().unwrap();
        assert!(ends > Clock::system().now().unix_timestamp() + 3_000, "it expires again: {ends}");
        assert_eq!(restored, table.item(2, "archived"), "only the TTL attribute changes: {schema:?}");
        // The response of a former run may have been lost.
        let [dry, real] = table.restored(json!({"expires_in_seconds": 7200})).await;
        assert_eq!(dry, counts([("already_restored", 2), ("would_refuse", 1)]), "{schema:?}");
        assert_eq!(real, counts([("already_restored", 2), ("refused", 1)]), "{schema:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overwrite_replaces_the_live_item_of_any_table() {
    let table = ForeignTable::new(SCHEMAS[4], Some("ttl")).await;
    table.archive([1, 2], "ttl").await;
    table.put(table.item(1, "live")).await;
    let mut wide = table.item(2, "live");
    wide.extend((0..160).map(|index| (format!("attribute {index}"), text("x"))));
    table.put(wide.clone()).await;
    let [dry, real] = table.restored(json!({"never_expires": true, "overwrite": true})).await;
    assert_eq!(dry, counts([("would_restore", 1), ("would_refuse", 1)]));
    assert_eq!(real, counts([("restored", 1), ("refused", 1)]));
    assert_eq!(table.stored(1).await.unwrap(), table.item(1, "archived"));
    assert_eq!(table.stored(2).await.unwrap(), wide, "it has more attributes than a condition compares");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overwrite_sets_the_expiry_of_an_item_that_is_restored_already() {
    let table = ForeignTable::new(SCHEMAS[3], Some("ttl")).await;
    table.archive_states([(1, "first"), (1, "second")], "ttl").await;
    table.archive([2], "ttl").await;
    table.restore(json!({"expires_in_seconds": 3600})).await.unwrap();
    let before = [table.stored(1).await, table.stored(2).await];
    let hour = json!({"expires_in_seconds": 7200});
    let [dry, real] = table.restored(hour).await;
    assert_eq!((dry, real), (counts([("already_restored", 2)]), counts([("already_restored", 2)])));
    assert_eq!([table.stored(1).await, table.stored(2).await], before, "nothing is written without overwrite");
    for (versions, expiry, least) in [
        ("latest", json!({"expires_in_seconds": 86_400}), Some(80_000)),
        ("all", json!({"expires_in_seconds": 3600}), Some(3_000)),
        ("latest", json!({"never_expires": true}), None),
    ] {
        let mut request = json!({"overwrite": true, "versions": versions});
        request.as_object_mut().unwrap().extend(expiry.as_object().unwrap().clone());
        let [dry, real] = table.restored(request.clone()).await;
        assert_eq!(dry, counts([("would_restore", 2)]), "{request}");
        assert_eq!(real, counts([("restored", 2)]), "{request}");
        for (number, state) in [(1, "second"), (2, "archived")] {
            let mut item = table.stored(number).await.unwrap();
            let ends: Option<i64> = item.remove("ttl").map(|ends| ends.as_n().unwrap().parse().unwrap());
            let remaining = ends.map(|ends| ends - Clock::system().now().unix_timestamp());
            assert_eq!(remaining.is_some(), least.is_some(), "{request}: {remaining:?}");
            assert!(
                remaining.zip(least).is_none_or(|(remaining, least)| remaining > least && remaining <= least + 6_400)
            );
            assert_eq!(item, table.item(number, state), "{request}");
        }
    }
    let [dry, real] = table.restored(json!({"never_expires": true, "overwrite": true})).await;
    assert_eq!((dry, real), (counts([("already_restored", 2)]), counts([("already_restored", 2)])));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_table_is_refused_with_both_key_schemas_and_the_command() {
    let table = ForeignTable::new(SCHEMAS[3], Some("ttl")).await;
    table.archive([1], "ttl").await;
    let correct = RawItem::new(table.key(1)).key(&table.names()).unwrap();
    let correct: Value = serde_json::from_str(correct.as_str()).unwrap();
    let expected = format!("the key of table {TABLE} is \"user.id\" (S), \"order\" (S)");
    let mut another_type = correct.clone();
    another_type["order"] = json!({"N": "1"});
    let mut incomplete = correct.clone();
    incomplete.as_object_mut().unwrap().remove("order");
    for (key, found) in [
        (json!({"user_id": {"S": "ada"}, "timestamp": {"N": "1"}}), "\"timestamp\" (N), \"user_id\" (S)"),
        (another_type, "\"order\" (N), \"user.id\" (S)"),
        (incomplete, "is a key of \"user.id\" (S), but"),
    ] {
        for (field, request) in [
            ("key", json!({"task": "restore", "key": key, "never_expires": true})),
            ("keys", json!({"task": "audit", "keys": [correct, key]})),
        ] {
            let mut maintenance = table.maintenance();
            maintenance.replicas = Vec::new();
            let error = to_its_end(&maintenance, request, Duration::from_mins(1)).await.unwrap_err();
            let message = error.to_string();
            let task = if field == "key" { "restore" } else { "audit" };
            let command = format!("millrace task {task} --{field} '{{");
            for part in [&*format!("{field} is a key of "), found, &expected, &command] {
                assert!(message.contains(part), "{part}: {message}");
            }
            assert!(!message.contains("ada"), "values are not repeated: {message}");
            assert!(error.is_rejection() && error.kind().as_str() == "TaskInvalid", "{message}");
        }
    }
    let response = table.restore(json!({"key": correct, "never_expires": true})).await.unwrap();
    assert_eq!(response.progress.get("restore.restored"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_has_expired_and_is_still_there_is_not_replaced() {
    let table = ForeignTable::new(SCHEMAS[0], Some("ttl")).await;
    table.archive([1], "ttl").await;
    let mut due = table.item(1, "due");
    let past = Clock::system().now().unix_timestamp() - 60;
    due.insert("ttl".to_owned(), AttributeValue::N(past.to_string()));
    table.put(due.clone()).await;
    let mut same = table.item(2, "archived");
    same.insert("ttl".to_owned(), AttributeValue::N(past.to_string()));
    table.archive([2], "ttl").await;
    table.put(same.clone()).await;
    let response = table.restore(json!({"never_expires": true, "run_id": "due"})).await.unwrap();
    assert_eq!(response.problems, 2, "{response:?}");
    for entry in table.scene.report("due").await {
        assert!(entry["reason"].as_str().unwrap().contains("after TTL has deleted it"), "{entry:?}");
    }
    assert_eq!((table.stored(1).await.unwrap(), table.stored(2).await.unwrap()), (due, same));
    let [dry, real] = table.restored(json!({"never_expires": true, "overwrite": true})).await;
    assert_eq!((dry, real), (counts([("would_restore", 2)]), counts([("restored", 2)])));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_expired_by_a_former_ttl_attribute_expires_by_the_present_one() {
    let table = ForeignTable::new(SCHEMAS[5], Some("ttl")).await;
    table.archive([1, 2], "former").await;
    let archived = |number| {
        let mut item = table.item(number, "archived");
        item.insert("former".to_owned(), AttributeValue::N("1".to_owned()));
        item
    };
    let [dry, real] = table.restored(json!({"expires_in_seconds": 3600})).await;
    assert_eq!((dry, real), (counts([("would_restore", 2)]), counts([("restored", 2)])));
    let [dry, real] = table.restored(json!({"expires_in_seconds": 7200})).await;
    assert_eq!((dry, real), (counts([("already_restored", 2)]), counts([("already_restored", 2)])));
    let mut restored = table.stored(1).await.unwrap();
    let ends: i64 = restored.remove("ttl").unwrap().as_n().unwrap().parse().unwrap();
    assert!(ends > Clock::system().now().unix_timestamp() + 3_000, "{ends}");
    let former = restored.insert("former".to_owned(), AttributeValue::N("1".to_owned())).unwrap();
    assert!(former.as_n().unwrap().parse::<i64>().unwrap() > 1_700_000_000, "unchanged: {former:?}");
    assert_eq!(restored, archived(1));
    assert_eq!(
        table.scene.stack.run_ttl_sweep().await.unwrap(),
        0,
        "the former attribute is in the past, and no expiry"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn key_attribute_by_which_ttl_removes_items_stops_a_restore_until_ttl_is_off() {
    const KEY: KeySchema = &[("pk", ScalarAttributeType::S), ("ends", ScalarAttributeType::N)];
    let table = ForeignTable::new(KEY, Some("ends")).await;
    for request in [json!({"never_expires": true}), json!({"expires_in_seconds": 60, "dry_run": true})] {
        let refused = table.restore(request).await.unwrap_err();
        let message = refused.to_string();
        assert!(message.contains("the TTL attribute \"ends\" of table Orders is part of the key"), "{message}");
        assert!(refused.is_rejection() && refused.kind().as_str() == "TaskInvalid", "{message}");
    }
    let without = ForeignTable::new(KEY, None).await;
    without.archive([1], "former").await;
    let response = without.restore(json!({"never_expires": true})).await.unwrap();
    assert_eq!(response.progress.get("restore.restored"), 1);
    assert!(without.stored(1).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_the_table_cannot_have_are_refused_before_anything_is_read() {
    let table = ForeignTable::new(SCHEMAS[3], None).await;
    table.archive([1], "ttl").await;
    for (more, parts) in [
        (json!({"expires_in_seconds": 60}), ["expires_in_seconds", "Orders", "never_expires"]),
        (json!({"user_id": "ada", "never_expires": true}), ["user_id", "Orders", "key"]),
    ] {
        let error = table.restore(more).await.unwrap_err();
        let message = error.to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        assert!(error.is_rejection(), "{message}");
    }
    let [dry, real] = table.restored(json!({"never_expires": true})).await;
    assert_eq!((dry, real), (counts([("would_restore", 1)]), counts([("restored", 1)])));
    assert!(table.stored(1).await.unwrap().contains_key("ttl"), "it is an attribute like any other");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_equals_an_archived_version_is_not_replaced_by_the_next_one() {
    let table = ForeignTable::new(SCHEMAS[0], Some("ttl")).await;
    table.archive_states([(1, "first"), (1, "second"), (2, "first"), (2, "second")], "ttl").await;
    table.put(table.item(1, "first")).await;
    let all = |overwrite| json!({"never_expires": true, "versions": "all", "overwrite": overwrite});
    let [dry, real] = table.restored(all(false)).await;
    assert_eq!(dry, counts([("would_restore", 1), ("would_refuse", 1)]));
    assert_eq!(real, counts([("restored", 1), ("refused", 1)]));
    assert_eq!(table.stored(1).await.unwrap(), table.item(1, "first"), "the application may have written it again");
    assert_eq!(table.stored(2).await.unwrap(), table.item(2, "second"));
    let [dry, real] = table.restored(all(true)).await;
    assert_eq!(dry, counts([("would_restore", 1), ("already_restored", 1)]));
    assert_eq!(real, counts([("restored", 1), ("already_restored", 1)]));
    assert_eq!(table.stored(1).await.unwrap(), table.item(1, "second"));
}
