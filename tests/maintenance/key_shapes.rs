//! Everything that is done with a table, over tables of every key schema: its items are replicated, quarantined,
//! expired, archived, verified, repaired, redriven, backfilled, compacted, exported and restored.
//!
//! One story per key schema, with an archiver and with the archive as a sink of the replicator. Its keys are at the
//! limits of what DynamoDB accepts, and its items have attributes that are named like the attributes of users and like
//! those of replication.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use arrow_array::cast::AsArray as _;
use arrow_array::types::Int64Type;
use arrow_array::{Array as _, RecordBatch};
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use futures::future::join_all;
use millrace_archive::{ArchivedRow, KeyNames, MergeIterator, RowReader};
use millrace_maintenance::task::TaskResponse;
use millrace_shared::change::CanonicalKey;
use millrace_shared::clock::Clock;
use millrace_shared::number;
use millrace_shared::raw_item::RawItem;
use millrace_shared::revision::Revision;
use millrace_shared::table_reader::{ScanSegment, TableReader};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

use super::scene::{ArchiveMode, FORMER, MaintenanceScene, SceneItem, text};
use crate::archival::harness::{get, keys};
use crate::replication::rig::create_table;
use crate::table_shape::{EDGE_KEYS, TableShape, json_of};

/// A table, its replica and its archive, and the keys that the story is about.
struct ShapeStory {
    scene: MaintenanceScene,
    shape: TableShape,
    mode: ArchiveMode,
    keys: Vec<SceneItem>,
}

/// The items of a table by key.
type ItemsByKey = BTreeMap<CanonicalKey, RawItem>;

impl ShapeStory {
    async fn start(shape: TableShape, mode: ArchiveMode) -> Self {
        Self { scene: MaintenanceScene::with_shape(shape, mode).await, shape, mode, keys: shape.edge_keys() }
    }

    /// An item under the key of this number.
    fn item(&self, number: usize, state: &str) -> SceneItem {
        let nested = HashMap::from([("_rev".to_owned(), AttributeValue::Null(true))]);
        let mut item = self.keys[number].clone();
        for (name, value) in [
            ("state", text(state)),
            ("exact", AttributeValue::N("0.12345678901234567890123456789012345678".to_owned())),
            ("tags", AttributeValue::Ss(vec!["a".to_owned(), "é'\"".to_owned()])),
            ("bytes", AttributeValue::Bs(vec![Blob::new([0, 255]), Blob::new([1])])),
            ("expires_at", text("in autumn")),
            ("user_id", AttributeValue::Bool(true)),
            ("timestamp", text("")),
            ("version", AttributeValue::M(nested)),
            ("updated_at", AttributeValue::N("1.5".to_owned())),
            ("revision", AttributeValue::L(vec![text("x")])),
            ("data", AttributeValue::Null(true)),
            ("_x", text("an attribute that begins like those of replication")),
            ("a name with \"quotes\" and \u{1}", text("x")),
        ] {
            item.entry(name.to_owned()).or_insert(value);
        }
        item
    }

    /// The same item with an expiry a day ago.
    fn expired(&self, number: usize, state: &str) -> SceneItem {
        let past = (Clock::system().now() - time::Duration::days(1)).unix_timestamp();
        let mut item = self.item(number, state);
        item.insert(self.shape.ttl_attribute.to_owned(), AttributeValue::N(past.to_string()));
        item
    }

    fn key(&self, number: usize) -> CanonicalKey {
        self.shape.canonical_key(&self.keys[number])
    }

    fn keys_of(&self, numbers: &[usize]) -> BTreeSet<CanonicalKey> {
        numbers.iter().map(|number| self.key(*number)).collect()
    }

    /// The key as DynamoDB JSON, in the format of the client.
    fn key_json(&self, number: usize) -> Value {
        self.keys[number].iter().map(|(name, value)| (name.clone(), json_of(value))).collect()
    }

    async fn put(&self, item: SceneItem) {
        self.scene.put(self.shape.table, item).await;
    }

    async fn delete(&self, table: &str, number: usize) {
        let delete = self.scene.dynamodb.delete_item().table_name(table);
        delete.set_key(Some(self.keys[number].clone())).send().await.unwrap();
    }

    async fn stored(&self, table: &str, number: usize) -> Option<SceneItem> {
        let get = self.scene.dynamodb.get_item().table_name(table).consistent_read(true);
        get.set_key(Some(self.keys[number].clone())).send().await.unwrap().item
    }

    async fn drained(&self) {
        self.scene.stack.wait_until_drained().await;
    }

    async fn items(&self, table: &str) -> ItemsByKey {
        let items = self.scene.items(table).await.into_iter();
        items.map(|item| (self.shape.canonical_key(&item), RawItem::new(item))).collect()
    }

    /// The replica contains the items of the source with their revisions, and apart from them only tombstones.
    async fn replica_is_source(&self, step: &str) {
        let mut replica = self.scene.items(&self.scene.replica).await;
        replica.retain(|item| !item.contains_key("_tombstone_expires_at"));
        let replica: ItemsByKey = replica
            .into_iter()
            .map(|mut item| {
                assert!(item.remove("_rev").is_some(), "{step}: an item of a replica has its revision");
                (self.shape.canonical_key(&item), RawItem::new(item))
            })
            .collect();
        let source = self.items(self.shape.table).await;
        assert_eq!(replica.keys().collect::<Vec<_>>(), source.keys().collect::<Vec<_>>(), "{step}");
        for (key, item) in source {
            assert_eq!(item.diff_attribute_names(&replica[&key]), [""; 0], "{step}: {key}");
        }
    }

    async fn task(&self, order: Value) -> TaskResponse {
        self.scene.task(order).await
    }

    async fn verify(&self, run: &str) -> TaskResponse {
        self.task(json!({"task": "verify", "run_id": run, "recheck_after_seconds": 0})).await
    }

    async fn verify_is_clean(&self, run: &str) {
        let response = self.verify(run).await;
        let items = self.items(self.shape.table).await.len() as u64;
        assert_eq!((response.differences, response.problems), (0, 0), "{run}: {}", response.progress);
        assert_eq!(response.progress.get("dynamodb.equal"), items, "{run}: {}", response.progress);
    }

    /// The keys in the entries of a report of this kind.
    async fn reported(&self, run: &str, kind: &str) -> BTreeSet<CanonicalKey> {
        let report = self.scene.report(run).await;
        let of_kind = report.iter().filter(|entry| entry["kind"] == kind || entry["outcome"] == kind);
        of_kind.map(|entry| CanonicalKey::parse(&entry["key"].to_string()).unwrap()).collect()
    }

    /// The rows of the archive, as a reader returns them.
    async fn rows(&self) -> Vec<ArchivedRow> {
        let mut readers = Vec::new();
        for key in keys(&self.scene.s3, &self.scene.archive).await {
            if key.starts_with("archive/") || key.starts_with("compacted/") {
                let (bytes, metadata) = get(&self.scene.s3, &self.scene.archive, &key).await;
                let names = KeyNames::new(self.shape.key_names());
                readers.push(RowReader::open(&key, &metadata, names, std::io::Cursor::new(bytes)).unwrap());
            }
        }
        MergeIterator::new(readers).map(Result::unwrap).collect()
    }

    async fn archived_keys(&self) -> BTreeSet<CanonicalKey> {
        self.rows().await.into_iter().map(|row| row.key).collect()
    }

    /// A stream record of the table's former stream.
    fn former_record(&self, number: usize, sequence: u64, removed: Option<&str>) -> Value {
        let image: Value = serde_json::from_str(&RawItem::new(self.item(number, "former")).encode()).unwrap();
        let mut record = json!({
            "eventID": sequence.to_string(), "eventName": "MODIFY", "eventSource": "aws:dynamodb",
            "eventSourceARN":
                format!("arn:aws:dynamodb:dynoxide:000000000000:table/{}/stream/{FORMER}", self.shape.table),
            "dynamodb": {
                "ApproximateCreationDateTime": 1_795_334_400, "Keys": self.key_json(number), "NewImage": image,
                "SequenceNumber": sequence.to_string(), "StreamViewType": "NEW_AND_OLD_IMAGES",
            },
        });
        if let Some(principal) = removed {
            record["eventName"] = json!("REMOVE");
            record["userIdentity"] = json!({"type": "Service", "principalId": principal});
            let image = record["dynamodb"].as_object_mut().unwrap().remove("NewImage").unwrap();
            record["dynamodb"]["OldImage"] = image;
        }
        record
    }

    async fn is_replicated(&self) {
        for number in 0..EDGE_KEYS {
            self.put(self.item(number, "created")).await;
        }
        self.put(self.item(1, "renamed")).await;
        self.delete(self.shape.table, 7).await;
        self.delete(self.shape.table, 6).await;
        self.put(self.item(6, "created again")).await;
        self.drained().await;
        self.replica_is_source("replicate").await;
        assert_eq!(self.items(&self.scene.replica).await.len(), EDGE_KEYS, "the deleted item has left a tombstone");
        self.put(self.item(7, "created again")).await;
        self.drained().await;
        self.replica_is_source("replicate again").await;
        assert_eq!(self.scene.objects("").await, [""; 0], "nothing is quarantined");
    }

    /// Pages of one item: each continues after the key of the one before.
    async fn is_read_page_by_page(&self) {
        for table in [self.shape.table, &self.scene.replica] {
            let reader = TableReader::new(self.scene.dynamodb.clone(), table);
            let names = reader.describe().await.unwrap().key_names();
            assert_eq!(names, self.shape.key_names());
            let (mut found, mut after) = (BTreeSet::new(), None);
            for _ in 0..=EDGE_KEYS {
                let page = reader.scan(ScanSegment::WHOLE, after.as_ref(), &names, Some(1)).await.unwrap();
                found.extend(page.items.into_iter().map(|(key, _)| key));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!((found, after), (self.keys_of(&[0, 1, 2, 3, 4, 5, 6, 7]), None), "{table}");
        }
    }

    async fn poison_is_quarantined_and_redriven(&self) {
        let mut poison = self.item(0, "poison");
        poison.insert("_rev".to_owned(), text("mine"));
        self.put(poison).await;
        self.put(self.item(1, "after the poison")).await;
        self.drained().await;
        let [object] = &self.scene.objects("quarantine/").await[..] else { panic!("one object") };
        assert!(object.starts_with(&format!("quarantine/replicator/dynamodb/{}/", self.shape.table)), "{object}");
        let body: Value = serde_json::from_slice(&self.scene.object(object).await).unwrap();
        assert!(body["reason"].as_str().unwrap().contains("_rev"), "{body}");
        let key = CanonicalKey::parse(&body["record"]["dynamodb"]["Keys"].to_string()).unwrap();
        assert_eq!(key, self.key(0));
        assert_eq!(self.stored(&self.scene.replica, 1).await.unwrap()["state"], text("after the poison"));
        self.verify("quarantined").await;
        assert_eq!(self.reported("quarantined", "quarantined").await, self.keys_of(&[0]));

        let early = self.task(json!({"task": "redrive", "dry_run": false})).await;
        assert_eq!((early.progress.get("redrive.redriven"), early.progress.get("redrive.skipped")), (0, 1));
        self.put(self.item(0, "well")).await;
        self.drained().await;
        let redriven = self.task(json!({"task": "redrive", "dry_run": false})).await;
        assert_eq!((redriven.progress.get("redrive.redriven"), redriven.progress.get("redrive.skipped")), (1, 0));
        self.replica_is_source("redrive").await;
    }

    async fn expired_items_are_archived(&self) {
        let expired: Vec<SceneItem> = [2, 3, 4].map(|number| self.expired(number, "expired")).into();
        for item in &expired {
            self.put(item.clone()).await;
        }
        self.delete(self.shape.table, 5).await;
        assert_eq!(self.scene.stack.run_ttl_sweep().await.unwrap(), 3);
        self.drained().await;
        let rows = self.rows().await;
        let by_key: ItemsByKey =
            rows.iter().map(|row| (row.key.clone(), RawItem::parse(row.item.get()).unwrap())).collect();
        assert_eq!(by_key.keys().cloned().collect::<BTreeSet<_>>(), self.keys_of(&[2, 3, 4]));
        for item in expired {
            let key = self.shape.canonical_key(&item);
            assert_eq!(RawItem::new(item).diff_attribute_names(&by_key[&key]), [""; 0], "{key}");
        }
        for number in [2, 3, 4] {
            let tombstone = self.stored(&self.scene.replica, number).await.unwrap();
            assert_eq!(tombstone["_deleted_by_ttl"], AttributeValue::Bool(true));
            let row = rows.iter().find(|row| row.key == self.key(number)).unwrap();
            assert_eq!(Revision::decode(tombstone["_rev"].as_b().unwrap().as_ref()).unwrap(), row.revision);
        }
        assert!(
            !self.stored(&self.scene.replica, 5).await.unwrap().contains_key("_deleted_by_ttl"),
            "it did not expire"
        );
        self.replica_is_source("expire").await;
    }

    async fn audit_finds_each_row(&self, run: &str, removals: u64) {
        let audit = self.task(json!({"task": "audit", "run_id": run})).await;
        let counts = ["found", "missing", "corrupt", "unrecognized"].map(|name| {
            let name = format!("audit.{name}");
            audit.progress.get(&name)
        });
        assert_eq!(counts, [removals, 0, 0, 0], "{run}: {}", audit.progress);
        let list = format!("{run}-list");
        let order = json!({"task": "audit", "run_id": list, "keys": [self.key_json(2), self.key_json(5)]});
        let audit = self.task(order).await;
        assert_eq!((audit.progress.get("audit.found"), audit.progress.get("audit.missing")), (1, 1), "{list}");
        assert_eq!(self.reported(&list, "missing").await, self.keys_of(&[5]));
    }

    /// Batches of the table's former stream, which Lambda discarded: the records of the replicator are older than what
    /// the replica has, and a record of the function that archives is a removal that is not in the archive.
    async fn discarded_batches_are_redriven(&self) {
        let before = self.items(&self.scene.replica).await;
        let replicated = vec![self.former_record(1, 5, None), self.former_record(2, 6, None)];
        self.scene.give_up("replicator", replicated, true).await;
        let by_ttl = Some("dynamodb.amazonaws.com");
        let removals = vec![self.former_record(6, 7, by_ttl)];
        self.scene.give_up(self.mode.function(), removals, false).await;
        let dry = self.task(json!({"task": "redrive"})).await;
        let redriven = self.task(json!({"task": "redrive", "dry_run": false})).await;
        for (response, name, rows) in [(dry, "redrive.would_redrive", 0), (redriven, "redrive.redriven", 1)] {
            let counts = [name, "redrive.skipped", "redrive.rows"].map(|name| response.progress.get(name));
            assert_eq!(counts, [2, 0, rows], "{}", response.progress);
        }
        assert_eq!(self.scene.objects("aws/").await, [""; 0]);
        let after = self.items(&self.scene.replica).await;
        assert!(before.iter().all(|(key, item)| after[key].eq_by_value(item)), "the replica was ahead");
        assert_eq!(self.archived_keys().await, self.keys_of(&[2, 3, 4, 6]));
    }

    async fn differences_are_reported_and_repaired(&self) {
        self.verify_is_clean("before").await;
        self.delete(&self.scene.replica, 0).await;
        let mut different = self.stored(&self.scene.replica, 1).await.unwrap();
        different.insert("state".to_owned(), text("Confidential"));
        self.scene.put(&self.scene.replica, different).await;
        let tombstone = self.stored(&self.scene.replica, 2).await.unwrap();
        let mut ghost = self.item(2, "resurrected");
        ghost.insert("_rev".to_owned(), tombstone["_rev"].clone());
        self.scene.put(&self.scene.replica, ghost).await;
        let found = self.verify("found").await;
        let kinds = ["missing", "different", "resurrected"];
        assert_eq!(kinds.map(|kind| found.progress.get(&format!("dynamodb.{kind}"))), [1; 3], "{}", found.progress);
        for (number, kind) in kinds.into_iter().enumerate() {
            assert_eq!(self.reported("found", kind).await, self.keys_of(&[number]), "{kind}");
        }
        let repair = json!({"task": "repair", "run_id": "repair", "dry_run": false, "recheck_after_seconds": 0});
        let repaired = self.task(repair).await;
        let counts = ["repaired", "failed"].map(|name| repaired.progress.get(&format!("dynamodb.{name}")));
        assert_eq!(counts, [3, 0], "{}", repaired.progress);
        self.replica_is_source("repair").await;
        self.verify_is_clean("repaired").await;
    }

    async fn a_lost_replica_is_backfilled(&self) {
        let audited = self.items(&self.scene.replica).await;
        for number in 0..EDGE_KEYS {
            self.delete(&self.scene.replica, number).await;
        }
        assert_eq!(self.items(&self.scene.replica).await.len(), 0);
        let backfill = self.task(json!({"task": "backfill"})).await;
        let items = self.items(self.shape.table).await.len() as u64;
        assert_eq!((backfill.progress.get("dynamodb.written"), backfill.problems), (items, 0), "{}", backfill.progress);
        self.replica_is_source("backfill").await;
        self.verify_is_clean("backfilled").await;
        // The tombstones are lost with the replica. They are put back, for the audit that follows.
        for (key, item) in audited {
            let item = item.into_attributes();
            if item.contains_key("_deleted_by_ttl") {
                assert!(self.keys_of(&[2, 3, 4]).contains(&key));
                self.scene.put(&self.scene.replica, item).await;
            }
        }
    }

    async fn the_archive_is_compacted_and_exported(&self) {
        let before: Vec<_> = self.rows().await.into_iter().map(|row| (row.key, row.revision)).collect();
        self.task(json!({"task": "compact", "to": "2999-01-01T00:00:00Z"})).await;
        let after: Vec<_> = self.rows().await.into_iter().map(|row| (row.key, row.revision)).collect();
        assert_eq!(before, after);
        assert!(keys(&self.scene.s3, &self.scene.archive).await.iter().all(|key| !key.starts_with("archive/")));
        let exported = self.task(json!({"task": "export-parquet", "to": "2999-01-01T00:00:00Z"})).await;
        assert_eq!(exported.progress.get("export-parquet.rows"), after.len() as u64, "{}", exported.progress);
        self.parquet_files_contain_the_rows().await;
    }

    async fn parquet_files_contain_the_rows(&self) {
        let rows: BTreeMap<String, ArchivedRow> =
            self.rows().await.into_iter().map(|row| (format!("{} {}", row.key, row.revision), row)).collect();
        let mut found = BTreeSet::new();
        for key in keys(&self.scene.s3, &self.scene.archive).await.into_iter().filter(|key| key.starts_with("parquet/"))
        {
            let (bytes, _) = get(&self.scene.s3, &self.scene.archive, &key).await;
            let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).unwrap();
            let metadata = reader.metadata().file_metadata().key_value_metadata().unwrap();
            for ((name, _), column) in self.shape.key.iter().zip(["partition_key", "sort_key"]) {
                let key = format!("millrace.{column}");
                let named = metadata.iter().find(|entry| entry.key == key).unwrap();
                assert_eq!(named.value.as_deref(), Some(*name));
            }
            for batch in reader.build().unwrap().map(Result::unwrap) {
                assert!(batch.column_by_name("email").is_none(), "the columns of users are for users");
                let text =
                    |name: &str, row| batch.column_by_name(name).unwrap().as_string::<i32>().value(row).to_owned();
                for position in 0..batch.num_rows() {
                    let id = format!("{} {}", text("key", position), text("revision", position));
                    let row = &rows[&id];
                    assert_eq!(text("item", position), row.item.get(), "to the byte");
                    let item = RawItem::parse(row.item.get()).unwrap().into_attributes();
                    for ((name, _), column) in self.shape.key.iter().zip(["partition_key", "sort_key"]) {
                        has_value(&batch, column, position, &item[*name]);
                    }
                    found.insert(id);
                }
            }
        }
        assert_eq!(found, rows.into_keys().collect());
    }

    async fn expired_items_are_restored(&self) {
        let order = |more: Value| {
            let mut order = json!({"task": "restore", "expires_in_seconds": 3600, "dry_run": false});
            order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            order
        };
        let one = self.task(order(json!({"key": self.key_json(2), "run_id": "one"}))).await;
        assert_eq!((one.progress.get("restore.restored"), one.problems), (1, 0), "{}", one.progress);
        let all = json!({"from": "2026-01-01T00:00:00Z"});
        let mut dry = all.clone();
        dry["dry_run"] = json!(true);
        let (dry, all) = (self.task(order(dry)).await, self.task(order(all)).await);
        for (response, names) in [
            (dry, ["restore.would_restore", "restore.already_restored", "restore.would_refuse"]),
            (all, ["restore.restored", "restore.already_restored", "restore.refused"]),
        ] {
            let counts = names.map(|name| response.progress.get(name));
            assert_eq!(counts, [2, 1, 1], "a live item is not replaced: {}", response.progress);
        }
        for number in [2, 3, 4] {
            let mut restored = self.stored(self.shape.table, number).await.unwrap();
            let expires_at = restored.remove(self.shape.ttl_attribute).unwrap();
            let expires_at: i64 = expires_at.as_n().unwrap().parse().unwrap();
            assert!(expires_at > Clock::system().now().unix_timestamp() + 3_000, "{expires_at}");
            let expected = RawItem::new(self.item(number, "expired"));
            assert_eq!(expected.diff_attribute_names(&RawItem::new(restored)), [""; 0]);
        }
        self.drained().await;
        self.replica_is_source("restore").await;
        self.verify_is_clean("restored").await;
    }

    /// The table that the export's command describes has the key of the source, and accepts every line of the export.
    async fn the_archive_is_exported_for_an_import(&self) {
        let mut items = 0;
        for segment in 0..2 {
            let order = json!({
                "task": "export-import-table", "run_id": "import", "table": "Imported",
                "segment": segment, "segments": 2,
            });
            items += self.task(order).await.progress.get("export-import-table.items");
        }
        assert_eq!(items, 4, "the latest row of each key");
        let command = get(&self.scene.s3, &self.scene.archive, "export/import/import-table.sh").await.0;
        let arguments = shell_arguments(&String::from_utf8(command).unwrap());
        let parameters = arguments.iter().position(|argument| argument == "--table-creation-parameters").unwrap() + 1;
        let parameters: Value = serde_json::from_str(&arguments[parameters]).unwrap();
        let schema: Vec<(&str, &str)> = parameters["KeySchema"]
            .as_array()
            .unwrap()
            .iter()
            .map(|element| {
                let name = element["AttributeName"].as_str().unwrap();
                let definitions = parameters["AttributeDefinitions"].as_array().unwrap();
                let definition = definitions.iter().find(|definition| definition["AttributeName"] == name).unwrap();
                (name, definition["AttributeType"].as_str().unwrap())
            })
            .collect();
        assert_eq!(schema, self.shape.key);
        create_table(&self.scene.dynamodb, "Imported", &schema).await;
        for key in keys(&self.scene.s3, &self.scene.archive)
            .await
            .into_iter()
            .filter(|key| key.starts_with("export/import/data/"))
        {
            let mut lines = String::new();
            let bytes = get(&self.scene.s3, &self.scene.archive, &key).await.0;
            zstd::Decoder::new(bytes.as_slice()).unwrap().read_to_string(&mut lines).unwrap();
            for line in lines.lines() {
                let line: HashMap<String, Box<serde_json::value::RawValue>> = serde_json::from_str(line).unwrap();
                self.scene.put("Imported", RawItem::parse(line["Item"].get()).unwrap().into_attributes()).await;
            }
        }
        let imported = self.items("Imported").await;
        assert_eq!(imported.keys().cloned().collect::<BTreeSet<_>>(), self.archived_keys().await);
        for row in self.rows().await {
            let archived = RawItem::parse(row.item.get()).unwrap();
            assert_eq!(archived.diff_attribute_names(&imported[&row.key]), [""; 0], "{}", row.key);
        }
    }

    /// A restored item expires again: a second row of its key.
    async fn restored_items_expire_again(&self) {
        self.put(self.expired(2, "expired again")).await;
        assert_eq!(self.scene.stack.run_ttl_sweep().await.unwrap(), 1);
        self.drained().await;
        self.replica_is_source("expire again").await;
        let of_key = self.rows().await.into_iter().filter(|row| row.key == self.key(2)).count();
        assert_eq!(of_key, 2);
        self.task(json!({"task": "compact", "to": "2999-01-01T00:00:00Z"})).await;
        self.task(json!({"task": "export-parquet", "to": "2999-01-01T00:00:00Z"})).await;
        self.parquet_files_contain_the_rows().await;
        self.audit_finds_each_row("again", 1).await;
    }
}

/// Asserts that the columns of a key attribute contain its value.
fn has_value(batch: &RecordBatch, column: &str, row: usize, value: &AttributeValue) {
    let values = batch.column_by_name(column).unwrap();
    match value {
        AttributeValue::B(bytes) => assert_eq!(values.as_binary::<i32>().value(row), bytes.as_ref()),
        AttributeValue::N(digits) => {
            let exact = number::canonical(digits).unwrap();
            assert_eq!(values.as_string::<i32>().value(row), exact);
            let integers = batch.column_by_name(&format!("{column}_integer")).unwrap().as_primitive::<Int64Type>();
            let integer = (!integers.is_null(row)).then(|| integers.value(row));
            assert_eq!(integer, exact.parse::<i64>().ok(), "{exact}");
        }
        other => assert_eq!(values.as_string::<i32>().value(row), other.as_s().unwrap()),
    }
}

/// Returns the arguments of a command, as a shell separates them.
fn shell_arguments(command: &str) -> Vec<String> {
    let script = command.replacen("aws ", "printf '%s\\n' ", 1);
    let mut shell = Command::new("sh").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = shell.wait_with_output().unwrap();
    assert!(output.status.success(), "{command}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

async fn passes_every_task(key: &'static [(&'static str, &'static str)], ttl_attribute: &'static str) {
    let shape = TableShape { table: "Orders", key, ttl_attribute };
    join_all(ArchiveMode::BOTH.map(|mode| passes_every_task_in(shape, mode))).await;
}

async fn passes_every_task_in(shape: TableShape, mode: ArchiveMode) {
    let story = ShapeStory::start(shape, mode).await;
    story.is_replicated().await;
    story.is_read_page_by_page().await;
    story.poison_is_quarantined_and_redriven().await;
    story.expired_items_are_archived().await;
    story.audit_finds_each_row("expired", 3).await;
    story.discarded_batches_are_redriven().await;
    story.differences_are_reported_and_repaired().await;
    story.a_lost_replica_is_backfilled().await;
    story.the_archive_is_compacted_and_exported().await;
    // The repair replaced one of the tombstones, and its own does not say that TTL was the cause.
    story.audit_finds_each_row("compacted", 2).await;
    story.expired_items_are_restored().await;
    story.the_archive_is_exported_for_an_import().await;
    story.restored_items_expire_again().await;
    story.verify_is_clean("end").await;
    story.scene.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn table_with_key_of_text_passes_every_task() {
    passes_every_task(&[("pk", "S")], "ttl").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn table_with_key_of_number_passes_every_task() {
    passes_every_task(&[("size", "N")], "_expires").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn table_with_key_of_bytes_passes_every_task() {
    passes_every_task(&[("_id", "B")], "läuft ab").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn table_with_keys_of_text_passes_every_task() {
    passes_every_task(&[("user.id", "S"), ("order", "S")], "time to live").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn table_with_keys_of_text_and_number_passes_every_task() {
    passes_every_task(&[("Größe", "S"), ("sort key", "N")], "timestamp.ttl").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn table_with_keys_of_text_and_bytes_passes_every_task() {
    passes_every_task(&[("version", "S"), ("data", "B")], "ttl").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn table_with_keys_of_number_and_bytes_passes_every_task() {
    passes_every_task(&[("revision", "N"), ("item", "B")], "key").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn table_with_keys_of_numbers_passes_every_task() {
    passes_every_task(&[("user_id", "N"), ("timestamp", "N")], "ttl").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn table_with_keys_of_bytes_and_text_passes_every_task() {
    passes_every_task(&[("it's a \"name\" & $HOME", "B"), ("#/?\\", "S")], "ttl").await;
}
