//! Tables and buckets as an operator sees them: read with the official SDKs, by the names of the template.

use std::io::Cursor;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_dynamodbstreams::types::Record;
use millrace_archive::{ArchivedRow, KeyNames, RowReader};
use serde_json::Value;
use tokio::time::Instant;

use super::item::DemoItem;
use millrace_event_source_mapping::reader;
use millrace_event_source_mapping::state::ShardId;
use millrace_local::stack::LocalStack;
use millrace_local::template::SamTemplate;
use millrace_shared::s3::{S3Bucket, S3Error};
use millrace_sinks::document::ReplicaEntry;

/// Time limit for the replication of the first write; after it the demo continues, and the checks fail.
const REPLICATION_TIMEOUT: Duration = Duration::from_secs(10);

/// A table, bucket or stream that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {store}: {reason}")]
pub struct InspectError {
    store: String,
    reason: String,
}

impl InspectError {
    pub(super) fn new(store: &str, reason: String) -> Self {
        Self { store: store.to_owned(), reason }
    }
}

pub(super) struct StoreInspector {
    dynamodb: aws_sdk_dynamodb::Client,
    streams: aws_sdk_dynamodbstreams::Client,
    pub(super) source: String,
    pub(super) replica: String,
    /// The number of stores that the replicator writes to and that can be compared with the table.
    pub(super) replicas: usize,
    archive: S3Bucket,
    failures: S3Bucket,
    /// The names of the key's attributes.
    keys: Vec<String>,
}

/// An object of the failure bucket.
pub(super) struct QuarantinedObject {
    pub(super) key: String,
    pub(super) body: Value,
}

fn failed(store: &str) -> impl FnOnce(&dyn std::error::Error) -> InspectError {
    let store = store.to_owned();
    move |error| {
        let reason = error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
        InspectError { store, reason }
    }
}

impl From<S3Error> for InspectError {
    fn from(error: S3Error) -> Self {
        Self { store: "S3 bucket".to_owned(), reason: error.to_string() }
    }
}

impl StoreInspector {
    pub(super) fn new(stack: &LocalStack) -> Result<Self, InspectError> {
        let template = stack.template();
        let source = variable(template, "maintenance", "SOURCE_TABLE")?;
        let table = template.tables.iter().find(|table| table.name == source);
        let keys = table.map(|table| table.keys.iter().map(|key| key.name.clone()).collect());
        let document = stack.replication_document();
        let declared = document.and_then(|document| document.replicas().iter().find_map(ReplicaEntry::dynamodb_table));
        let replica = match declared {
            Some(table) => table.to_owned(),
            None => variable(template, "replicator", "REPLICA_TABLE")?,
        };
        Ok(Self {
            dynamodb: stack.dynamodb(),
            streams: stack.streams(),
            replica,
            replicas: 1 + usize::from(stack.postgres_url().is_some()),
            archive: S3Bucket::new(stack.s3(), variable(template, "archiver", "ARCHIVE_BUCKET")?),
            failures: S3Bucket::new(stack.s3(), variable(template, "replicator", "FAILURE_BUCKET")?),
            keys: keys.unwrap_or_default(),
            source,
        })
    }

    pub(super) async fn item(
        &self,
        table: &str,
        user_id: &str,
        timestamp: i64,
    ) -> Result<Option<DemoItem>, InspectError> {
        let user_id = ("user_id".to_owned(), AttributeValue::S(user_id.to_owned()));
        let timestamp = ("timestamp".to_owned(), AttributeValue::N(timestamp.to_string()));
        self.item_of(table, [user_id, timestamp].into()).await
    }

    /// Returns the item with this key.
    pub(super) async fn item_of(&self, table: &str, key: DemoItem) -> Result<Option<DemoItem>, InspectError> {
        let get = self.dynamodb.get_item().table_name(table).set_key(Some(key)).consistent_read(true);
        Ok(get.send().await.map_err(|error| failed(table)(&error))?.item)
    }

    /// Writes an item to the source table.
    pub(super) async fn put(&self, item: DemoItem) -> Result<(), InspectError> {
        let put = self.dynamodb.put_item().table_name(&self.source).set_item(Some(item));
        put.send().await.map_err(|error| failed(&self.source)(&error))?;
        Ok(())
    }

    /// Deletes the item with this key from the source table.
    pub(super) async fn delete(&self, key: DemoItem) -> Result<(), InspectError> {
        let delete = self.dynamodb.delete_item().table_name(&self.source).set_key(Some(key));
        delete.send().await.map_err(|error| failed(&self.source)(&error))?;
        Ok(())
    }

    /// Waits until an item is in the replica; returns the time in milliseconds.
    pub(super) async fn replicated(&self, user_id: &str, timestamp: i64) -> Result<u128, InspectError> {
        let started = Instant::now();
        while self.item(&self.replica, user_id, timestamp).await?.is_none() && started.elapsed() < REPLICATION_TIMEOUT {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(started.elapsed().as_millis())
    }

    /// Returns all items of a table.
    pub(super) async fn items(&self, table: &str) -> Result<Vec<DemoItem>, InspectError> {
        let scan = self.dynamodb.scan().table_name(table).consistent_read(true).send().await;
        Ok(scan.map_err(|error| failed(table)(&error))?.items.unwrap_or_default())
    }

    /// Writes an item directly to the table, not through the API, with one attribute in addition to its key.
    pub(super) async fn write(&self, user_id: &str, timestamp: i64, attribute: &str) -> Result<(), InspectError> {
        let attributes = [
            ("user_id", AttributeValue::S(user_id.to_owned())),
            ("timestamp", AttributeValue::N(timestamp.to_string())),
            (attribute, AttributeValue::S("mine".to_owned())),
        ];
        self.put(attributes.map(|(name, value)| (name.to_owned(), value)).into()).await
    }

    /// Changes a user's name directly in the table, like a program that does not maintain versions.
    pub(super) async fn rename(&self, user_id: &str, timestamp: i64, name: &str) -> Result<(), InspectError> {
        let update = self.dynamodb.update_item().table_name(&self.source);
        let update = update.key("user_id", AttributeValue::S(user_id.to_owned()));
        let update = update.key("timestamp", AttributeValue::N(timestamp.to_string()));
        let update = update.update_expression("SET #name = :name").expression_attribute_names("#name", "name");
        let update = update.expression_attribute_values(":name", AttributeValue::S(name.to_owned()));
        update.send().await.map_err(|error| failed(&self.source)(&error))?;
        Ok(())
    }

    /// Deletes everything in the replica; returns the number of items and of tombstones.
    pub(super) async fn delete_replica_data(&self) -> Result<[usize; 2], InspectError> {
        let held = self.items(&self.replica).await?;
        for item in &held {
            let is_key = |(name, _): &(&String, &AttributeValue)| self.keys.contains(*name);
            let key = item.iter().filter(is_key).map(|(name, value)| (name.clone(), value.clone())).collect();
            let delete = self.dynamodb.delete_item().table_name(&self.replica).set_key(Some(key));
            delete.send().await.map_err(|error| failed(&self.replica)(&error))?;
        }
        let tombstones = held.iter().filter(|item| item.contains_key("_tombstone_expires_at")).count();
        Ok([held.len() - tombstones, tombstones])
    }

    /// Returns the source's stream, and the first record of a user in it.
    pub(super) async fn first_record(&self, user_id: &str) -> Result<(String, ShardId, Record), InspectError> {
        let described = self.dynamodb.describe_table().table_name(&self.source).send().await;
        let described = described.map_err(|error| failed(&self.source)(&error))?;
        let store = format!("the stream of {}", self.source);
        let failed = |reason: String| InspectError::new(&store, reason);
        let stream = described.table.and_then(|table| table.latest_stream_arn);
        let stream = stream.ok_or_else(|| failed("the table has no stream".to_owned()))?;
        let mut reader = reader::ShardReader::new(self.streams.clone(), stream.clone(), false);
        for (shard, _) in reader.shards().await.map_err(failed)? {
            let page = reader.page(&shard, None).await.map_err(failed)?;
            let is_of = |record: &Record| {
                let id = record.dynamodb().and_then(|change| change.keys()?.get("user_id")?.as_s().ok());
                id.is_some_and(|id| id == user_id)
            };
            if let Some(record) = page.records.into_iter().find(is_of) {
                return Ok((stream, shard, record));
            }
        }
        Err(failed(format!("no record of {user_id}")))
    }

    /// Returns the on-failure destination of the replicator's mapping.
    pub(super) fn given_up(&self) -> &S3Bucket {
        &self.failures
    }

    /// Returns the keys in the failure bucket that start with a prefix.
    pub(super) async fn failures(&self, prefix: &str) -> Result<Vec<String>, InspectError> {
        keys(&self.failures, prefix).await
    }

    pub(super) async fn quarantined(&self) -> Result<Vec<QuarantinedObject>, InspectError> {
        let mut found = Vec::new();
        for key in self.failures("quarantine/").await? {
            let bytes = self.failures.get(&key).await?.unwrap_or_default();
            let body = serde_json::from_slice(&bytes).map_err(|error| failed(&key)(&error))?;
            found.push(QuarantinedObject { key, body });
        }
        Ok(found)
    }

    /// Returns every object of the archive with its rows. Each object is read to its end, which verifies its checksum.
    pub(super) async fn archived(&self) -> Result<Vec<(String, Vec<ArchivedRow>)>, InspectError> {
        let mut found = Vec::new();
        let mut archived = keys(&self.archive, "archive/").await?;
        archived.extend(keys(&self.archive, "compacted/").await?);
        for key in archived {
            let metadata = self.archive.metadata(&key).await?.unwrap_or_default();
            let bytes = self.archive.get(&key).await?.unwrap_or_default();
            let reader = RowReader::open(&key, &metadata, KeyNames::new(self.keys.clone()), Cursor::new(bytes));
            let rows = reader.and_then(Iterator::collect::<Result<Vec<_>, _>>);
            found.push((key, rows.map_err(|corrupt| failed(self.archive.name())(&corrupt))?));
        }
        Ok(found)
    }

    /// Returns the archive's Parquet files.
    pub(super) async fn columns(&self) -> Result<Vec<(String, Vec<u8>)>, InspectError> {
        let mut found = Vec::new();
        for key in keys(&self.archive, "parquet/").await? {
            let bytes = self.archive.get(&key).await?.unwrap_or_default();
            found.push((key, bytes));
        }
        Ok(found)
    }
}

async fn keys(bucket: &S3Bucket, prefix: &str) -> Result<Vec<String>, InspectError> {
    Ok(bucket.list(prefix).await?.into_iter().map(|object| object.key).collect())
}

fn variable(template: &SamTemplate, function: &str, name: &str) -> Result<String, InspectError> {
    let function_of = template.functions.iter().find(|candidate| candidate.name == function);
    let value = function_of.and_then(|function| function.environment.get(name).cloned());
    value.ok_or_else(|| InspectError {
        store: function.to_owned(),
        reason: format!("the function has no variable {name} in the template"),
    })
}
