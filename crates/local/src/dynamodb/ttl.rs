//! TTL deletion with DynamoDB's rules: removes exactly the items that DynamoDB removes.
//!
//! The engine's own TTL deletion accepts only integers and has no limit for timestamps too far in the past, so it is
//! not used. This module decides by [`ExpiresAt::from_stored`], the same rule by which the API treats a record as
//! absent. It uses a second connection and transactions like the engine's own: each removes an item from its table and
//! its indexes and, if the table has a stream, adds a removal by the service to the stream.

use std::collections::BTreeMap;

use dynoxide::storage::{ScanParams, Storage};
use dynoxide::{AttributeValue, Item, TableMetadata, streams};
use millrace_shared::user::expiry::ExpiresAt;
use serde::Deserialize;
use time::OffsetDateTime;

use super::DynamoDbEngineError;

/// The user identity of a removal by TTL in stream records.
const SERVICE: &str = r#"{"type":"Service","principalId":"dynamodb.amazonaws.com"}"#;
/// The number of rows that are read at once.
const PAGE: usize = 100;

#[derive(Deserialize)]
struct TtlKeyElement {
    #[serde(rename = "AttributeName")]
    name: String,
}

#[derive(Deserialize)]
struct TtlIndex {
    #[serde(rename = "IndexName")]
    name: String,
}

/// A table with TTL.
struct ExpiringTable {
    table: TableMetadata,
    attribute: String,
    keys: Vec<TtlKeyElement>,
    global_indexes: Vec<TtlIndex>,
    local_indexes: Vec<TtlIndex>,
}

impl ExpiringTable {
    fn read(table: TableMetadata) -> Result<Option<Self>, DynamoDbEngineError> {
        fn list<T: for<'de> Deserialize<'de>>(json: Option<&str>) -> Result<Vec<T>, DynamoDbEngineError> {
            json.map_or_else(|| Ok(Vec::new()), serde_json::from_str)
                .map_err(|error| DynamoDbEngineError::Engine(error.to_string()))
        }
        let keys = list(Some(&table.key_schema))?;
        let global_indexes = list(table.gsi_definitions.as_deref())?;
        let local_indexes = list(table.lsi_definitions.as_deref())?;
        let attribute = table.ttl_attribute.clone();
        Ok(attribute.map(|attribute| Self { table, attribute, keys, global_indexes, local_indexes }))
    }

    /// Returns the item if TTL removes it at `now`.
    fn expired(&self, json: &str, now: OffsetDateTime) -> Option<Item> {
        let item: Item = serde_json::from_str(json).ok()?;
        match item.get(&self.attribute) {
            Some(AttributeValue::N(number)) => {
                ExpiresAt::from_stored(number, now).is_some_and(|ends| ends.is_past(now)).then_some(item)
            }
            _ => None,
        }
    }

    fn sweep(&self, storage: &Storage, now: OffsetDateTime) -> Result<usize, DynamoDbEngineError> {
        let mut removed = 0;
        let mut after: Option<(String, String)> = None;
        loop {
            let page = ScanParams {
                limit: Some(PAGE),
                exclusive_start_pk: after.as_ref().map(|(partition, _)| partition.as_str()),
                exclusive_start_sk: after.as_ref().map(|(_, sort)| sort.as_str()),
                ..ScanParams::default()
            };
            let rows = storage.scan_items(&self.table.table_name, &page)?;
            for (partition, sort, _) in rows.iter().filter(|(_, _, item)| self.expired(item, now).is_some()) {
                storage.begin_transaction()?;
                match self.remove(storage, partition, sort, now) {
                    Ok(is_removed) => {
                        storage.commit()?;
                        removed += usize::from(is_removed);
                    }
                    Err(error) => {
                        // The first error is returned; one of the rollback is ignored.
                        let _ = storage.rollback();
                        return Err(error);
                    }
                }
            }
            if rows.len() < PAGE {
                return Ok(removed);
            }
            after = rows.into_iter().last().map(|(partition, sort, _)| (partition, sort));
        }
    }

    /// Removes an item within a transaction, if it is still expired: it may have been written since it was read.
    fn remove(
        &self,
        storage: &Storage,
        partition: &str,
        sort: &str,
        now: OffsetDateTime,
    ) -> Result<bool, DynamoDbEngineError> {
        let name = &self.table.table_name;
        let Some(json) = storage.get_item(name, partition, sort)? else { return Ok(false) };
        let Some(item) = self.expired(&json, now) else { return Ok(false) };
        storage.delete_item(name, partition, sort)?;
        for index in &self.global_indexes {
            storage.delete_gsi_item(name, &index.name, partition, sort)?;
        }
        for index in &self.local_indexes {
            storage.delete_lsi_item(name, &index.name, partition, sort)?;
        }
        if self.table.stream_enabled {
            let keys: BTreeMap<&str, &AttributeValue> = self
                .keys
                .iter()
                .filter_map(|key| item.get_key_value(&key.name).map(|(name, value)| (name.as_str(), value)))
                .collect();
            let keys = serde_json::to_string(&keys).map_err(|error| DynamoDbEngineError::Engine(error.to_string()))?;
            let images = self.table.stream_view_type.as_deref().unwrap_or("NEW_AND_OLD_IMAGES");
            storage.insert_stream_record_with_identity(
                name,
                "REMOVE",
                &keys,
                None,
                images.contains("OLD").then_some(json.as_str()),
                &storage.next_stream_sequence_number(name)?.to_string(),
                &streams::shard_id(name),
                now.unix_timestamp(),
                Some(SERVICE),
            )?;
        }
        Ok(true)
    }
}

/// Removes every item that TTL removes at `now`, and returns the number of removed items.
pub(super) fn sweep(storage: &Storage, now: OffsetDateTime) -> Result<usize, DynamoDbEngineError> {
    let mut removed = 0;
    for table in storage.list_ttl_enabled_tables()? {
        if let Some(table) = ExpiringTable::read(table)? {
            removed += table.sweep(storage, now)?;
        }
    }
    Ok(removed)
}
