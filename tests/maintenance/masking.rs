//! No personal value leaves the source's account: a masked replica in DynamoDB and one in PostgreSQL go through every
//! task and every kind of failure, and then every byte of them, of the reports, of the logs and of the metrics is
//! searched.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_dynamodb::types::AttributeValue;
use millrace_local::clients;
use millrace_maintenance::MaintenanceHandler;
use millrace_maintenance::task::TaskResponse;
use millrace_replicator::ReplicatorHandler;
use millrace_replicator::config::ReplicatorConfig;
use millrace_shared::clock::Clock;
use millrace_shared::environment::Environment;
use millrace_shared::invocation::Invocation;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_postgres::Client;

use super::replicas::{COPY, ReplicasScene, STAGING, environment};
use super::scene::{ARCHIVE, FORMER, SOURCE, SceneItem, invoke, key, record, text, to_its_end};
use super::transforms::{SECRET, observed};
use crate::archival::harness;
use crate::faults::proxy::{self, HttpFault};
use crate::postgres::connect;
use crate::relational::store::empty;
use crate::replication::events::EventBuilder;

/// The number of people; each has five personal values.
const PEOPLE: usize = 200;
/// The prefixes of the failure bucket that contain records as the stream delivered them.
const ORIGINALS: [&str; 3] = ["quarantine/", "redriven/", "aws/"];

/// The personal attributes of a person: the first is hashed, the second cut to three characters, the others not named.
const PERSONAL: [&str; 5] = ["email", "nickname", "phone", "street", "note"];

/// The rules of both masked replicas.
fn rules() -> Value {
    json!({
        "include": ["user_id", "timestamp", "status", "email", "nickname"], "hash": {"email": "pii"},
        "truncate": {"nickname": 3},
    })
}

/// The document: a complete replica, and two masked ones.
fn document() -> String {
    let filter = json!([{"status": {"S": [{"anything-but": ["draft"]}]}}]);
    json!({
        "version": 1, "hash_keys": {"pii": SECRET},
        "replicas": [
            {"name": "copy", "sink": "dynamodb", "table": COPY},
            {"name": "staging", "sink": "dynamodb", "table": STAGING, "attributes": rules(), "where": filter},
            {
                "name": "sql", "sink": "postgres", "table": "people", "attributes": rules(), "where": filter,
                "columns": {
                    "email": {"path": "email", "type": "text"}, "state": {"path": "status", "type": "text"},
                    "nick": {"path": "nickname", "type": "bigint"}, "phone": {"path": "phone", "type": "text"},
                },
            },
        ],
        "columns": {"phone": {"path": "phone", "type": "bigint"}, "mail": {"path": "email", "type": "text"}},
    })
    .to_string()
}

fn personal(position: usize, number: usize) -> String {
    format!("{}-of-{number:04}-is-personal", PERSONAL[position])
}

fn person(number: usize, status: &str) -> SceneItem {
    let mut item = key(&format!("u{number:04}"));
    item.insert("status".to_owned(), text(status));
    item.extend((0..PERSONAL.len()).map(|position| (PERSONAL[position].to_owned(), text(&personal(position, number)))));
    item
}

/// The functions with two masked replicas.
struct MaskedTiers {
    replicas: ReplicasScene,
    environment: Environment,
    replicator: ReplicatorHandler,
    maintenance: MaintenanceHandler,
    database: Client,
}

impl MaskedTiers {
    async fn start() -> Self {
        let (replicas, url) = (ReplicasScene::start().await, empty().await);
        let environment = environment(&document())
            .with(SECRET, "a key for the hashes of tests".to_owned())
            .with("POSTGRES_URL", url.clone());
        let maintenance = replicas.maintenance_in(&environment, &document()).await;
        let replicator = Self::replicator(&replicas, &environment, replicas.scene.dynamodb.clone());
        Self { replicas, environment, replicator, maintenance, database: connect(&url).await }
    }

    fn replicator(
        replicas: &ReplicasScene,
        environment: &Environment,
        dynamodb: aws_sdk_dynamodb::Client,
    ) -> ReplicatorHandler {
        let config = ReplicatorConfig::parse(environment).unwrap();
        let postgres = config.sinks.postgres(None);
        millrace_replicator::connect(&config, dynamodb, postgres, None, replicas.scene.s3.clone())
    }

    async fn task(&self, request: Value) -> TaskResponse {
        to_its_end(&self.maintenance, request, std::time::Duration::from_mins(1)).await.unwrap()
    }

    async fn sql(&self, statement: &str) {
        self.database.batch_execute(statement).await.unwrap();
    }

    /// Delivers these changes in one batch; returns whether all of it was acknowledged.
    async fn deliver(&self, records: &[Value]) -> bool {
        let event = RawValue::from_string(json!({ "Records": records }).to_string()).unwrap();
        let minute = std::time::Duration::from_mins(1);
        let invocation = Invocation::new(Clock::system().now(), Instant::now(), minute, "request-1".to_owned());
        self.replicator.handle(&event, &invocation).await.unwrap().identifier().is_none()
    }

    /// Every byte of the masked replicas, and of everything in the failure bucket but the records.
    async fn everything(&self) -> String {
        let mut all = format!("{:?}", self.replicas.scene.items(STAGING).await);
        for relation in ["people", "people_live"] {
            let rows = self.database.query(&format!("select t::text from {relation} t"), &[]).await.unwrap();
            for row in &rows {
                all.push_str(row.get(0));
            }
        }
        for key in self.replicas.scene.objects("").await {
            if !ORIGINALS.iter().any(|prefix| key.starts_with(prefix)) {
                all.push_str(&key);
                all.push_str(&String::from_utf8_lossy(&self.replicas.scene.object(&key).await));
            }
        }
        all
    }

    /// Everybody is created, some leave the filter, and some have a value that cannot be masked.
    async fn replicate(&mut self) {
        for number in 0..PEOPLE {
            let status = if number % 7 == 0 { "draft" } else { "active" };
            let mut item = person(number, status);
            assert_eq!(self.replicas.write(&self.replicator, item.clone()).await, None);
            if number % 5 == 0 {
                item.insert("status".to_owned(), text("draft"));
                assert_eq!(self.replicas.write(&self.replicator, item).await, None);
            }
        }
        let mut unmaskable = person(3, "active");
        unmaskable.insert("nickname".to_owned(), AttributeValue::N("7".to_owned()));
        assert_eq!(self.replicas.write(&self.replicator, unmaskable).await, None);
        let mut reserved = person(1, "active");
        reserved.insert("_rev".to_owned(), text(&personal(2, 1)));
        assert_eq!(self.replicas.write(&self.replicator, reserved).await, None);
    }

    /// A replica that throttles, refuses, and does not respond; a database that rejects one row; unreadable records.
    async fn fail(&mut self) {
        let count = Arc::new(AtomicUsize::new(0));
        let url = proxy::before(self.replicas.scene.stack.dynamodb_url(), move |call| {
            if call.operation != "PutItem" || !call.body.contains(STAGING) {
                return HttpFault::None;
            }
            match count.fetch_add(1, Ordering::Relaxed) % 4 {
                0 => HttpFault::Error(400, "ProvisionedThroughputExceededException"),
                1 => HttpFault::Error(400, "ValidationException"),
                2 => HttpFault::ResponseLost,
                _ => HttpFault::Error(500, "InternalServerError"),
            }
        })
        .await;
        let failing = Self::replicator(&self.replicas, &self.environment, clients::dynamodb(&url));
        for number in 10..14 {
            // Rejected for ever, or delivered again.
            self.replicas.write(&failing, person(number, "active")).await;
        }
        self.sql("alter table people add constraint no_eighth check (key not like '%u0016%') not valid").await;
        assert_eq!(self.replicas.write(&self.replicator, person(16, "changed")).await, None);
        self.sql("alter table people drop constraint no_eighth").await;
        let mut unreadable = record(EventBuilder::named("u0017", 900, &personal(2, 17)), FORMER);
        unreadable["dynamodb"]["SequenceNumber"] = json!("seventeen");
        let other = json!({"S": personal(4, 18)});
        let contradicting = record(EventBuilder::image("u0018", 901, &json!({"user_id": other}).to_string()), FORMER);
        assert!(self.deliver(&[unreadable, contradicting]).await, "both are quarantined");
        let image: BTreeMap<String, Value> =
            person(19, "active").into_iter().map(|(name, value)| (name, attribute(&value))).collect();
        let given_up = record(EventBuilder::image("u0019", 902, &json!(image).to_string()), FORMER);
        self.replicas.scene.give_up("replicator", vec![given_up], true).await;
    }

    /// People expire, and the archive stores them.
    async fn expire(&mut self) {
        let removals: Vec<Value> = (180..190)
            .map(|number| {
                let mut removal =
                    record(EventBuilder::expired(&format!("u{number:04}"), 1_000 + number as u64), FORMER);
                let image = person(number, "active").into_iter().map(|(name, value)| (name, attribute(&value)));
                removal["dynamodb"]["OldImage"] = json!(image.collect::<BTreeMap<_, _>>());
                removal
            })
            .collect();
        assert!(self.deliver(&removals).await);
        assert_eq!(harness::rows(&self.replicas.scene.s3).await.len(), removals.len());
    }

    /// Items are lost, changed, added and unmasked behind the replicator's back.
    async fn damage(&self) {
        self.replicas.scene.delete(STAGING, "u0002").await;
        for (user_id, name, value) in [("u0004", "status", "changed"), ("u0006", "status", "x")] {
            let mut item = self.replicas.scene.item(STAGING, user_id).await.unwrap();
            item.insert(name.to_owned(), text(value));
            self.replicas.scene.put(STAGING, item).await;
        }
        self.sql(
            "delete from people where key like '%u0008%'; update people set state = 'x' where key like '%u0009%';
             update people set item = jsonb_set(item, '{email,S}', '\"x\"') where key like '%u0011%'",
        )
        .await;
    }

    async fn every_task(&self) {
        let until = "2999-01-01T00:00:00Z";
        for request in [
            json!({"task": "verify", "run_id": "first", "recheck_after_seconds": 0}),
            json!({"task": "summary", "run_id": "first", "of_task": "verify"}),
            json!({"task": "repair", "run_id": "dry", "recheck_after_seconds": 0}),
            json!({"task": "redrive", "run_id": "dry"}),
            json!({"task": "redrive", "run_id": "driven", "dry_run": false}),
            json!({"task": "repair", "run_id": "repaired", "dry_run": false, "recheck_after_seconds": 0}),
            json!({"task": "backfill", "run_id": "filled"}),
            json!({"task": "audit", "run_id": "audited"}),
            json!({"task": "audit", "run_id": "audited-keys", "keys": [{"user_id": {"S": "u0180"}, "timestamp": {"N": "1"}}]}),
            json!({"task": "compact", "run_id": "compacted", "to": until}),
            json!({"task": "export-parquet", "run_id": "columns", "to": until}),
            json!({"task": "export-import-table", "run_id": "table"}),
            json!({"task": "restore", "run_id": "restored", "from": "2020-01-01T00:00:00Z", "never_expires": true,
                "dry_run": false}),
            json!({"task": "verify", "run_id": "last", "recheck_after_seconds": 0}),
        ] {
            self.task(request).await;
        }
        // A request that is refused names its fields, not the items.
        let refused = json!({"task": "restore", "run_id": "refused", "from": "yesterday", "never_expires": true});
        assert!(invoke(&self.maintenance, &refused, std::time::Duration::from_mins(1)).await.is_err());
    }
}

fn attribute(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::S(text) => json!({"S": text}),
        AttributeValue::N(number) => json!({"N": number}),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_personal_value_is_found_after_every_task_and_every_failure() {
    let mut tiers = MaskedTiers::start().await;
    tiers.task(json!({"task": "migrate", "run_id": "migrated"})).await;
    let observed = observed(Box::pin(async {
        tiers.replicator.check().await.unwrap();
        tiers.replicate().await;
        tiers.fail().await;
        tiers.expire().await;
        tiers.damage().await;
        tiers.every_task().await;
    }))
    .await;
    let values: Vec<String> =
        (0..PEOPLE).flat_map(|number| (0..PERSONAL.len()).map(move |position| personal(position, number))).collect();
    assert_eq!(values.len(), 1_000);
    let all = tiers.everything().await + &observed;
    let found: Vec<&String> = values.iter().filter(|value| all.contains(*value)).collect();
    assert!(found.is_empty(), "{found:?}");
    assert!(!all.contains("personal"), "no part of one either");

    // What was searched contains the replicas, the reports of all runs and the log of the failures.
    for part in ["u0004", "reports/repaired/", "reports/columns/", "reports/driven/", "quarantine/replicator/sql/"] {
        assert!(all.contains(part), "{part}");
    }
    assert!(observed.contains("batch.quarantined"), "the log of failures has been read");
    // The original is only where it must be: the source, the complete replica, the archive and the records that failed.
    let originals = tiers.replicas.scene.objects("").await;
    for prefix in ORIGINALS {
        let kept = originals.iter().filter(|key| key.starts_with(prefix)).count();
        assert!(kept > 0 || prefix == "aws/", "{prefix}: {originals:?}");
    }
    for table in [SOURCE, COPY] {
        assert!(format!("{:?}", tiers.replicas.scene.items(table).await).contains("personal"), "{table}");
    }
    let archived = harness::keys(&tiers.replicas.scene.s3, ARCHIVE).await;
    assert!(archived.iter().any(|key| key.starts_with("compacted/")), "{archived:?}");
}
