//! TTL as DynamoDB's: a sweep that removes what AWS removes, and nothing else.
//!
//! The engine's own sweep reads whole numbers only and knows no item that is too old, so it is not used. This one judges by
//! [`ExpiresAt::of_stored`], the rule by which the API takes a record for absent. It goes over a second connection, in
//! transactions of the engine's form: an item leaves its table, its indexes and, as a removal by the service, the stream at once.

use std::collections::BTreeMap;

use dynoxide::storage::{ScanParams, Storage};
use dynoxide::{AttributeValue, Item, TableMetadata, streams};
use serde::Deserialize;
use shared::user::expiry::ExpiresAt;
use time::OffsetDateTime;

use super::DynamoDbEngineError;

/// Who removes, as the stream's records say.
const SERVICE: &str = r#"{"type":"Service","principalId":"dynamodb.amazonaws.com"}"#;
/// Rows that are read at once.
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

/// A table whose items expire.
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

    /// The item, if TTL removes it at `now`.
    fn expired(&self, json: &str, now: OffsetDateTime) -> Option<Item> {
        let item: Item = serde_json::from_str(json).ok()?;
        match item.get(&self.attribute) {
            Some(AttributeValue::N(number)) => {
                ExpiresAt::of_stored(number, now).is_some_and(|ends| ends.is_past(now)).then_some(item)
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
                        // The error that is told is the one that came first.
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

    /// Within a transaction: the item may have been written since it was read.
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

/// Removes every item that TTL removes at `now`, and answers how many.
pub(super) fn sweep(storage: &Storage, now: OffsetDateTime) -> Result<usize, DynamoDbEngineError> {
    let mut removed = 0;
    for table in storage.list_ttl_enabled_tables()? {
        if let Some(table) = ExpiringTable::read(table)? {
            removed += table.sweep(storage, now)?;
        }
    }
    Ok(removed)
}
