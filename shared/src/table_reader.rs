//! Reads any table, independent of the user model: its description, items by key, and scan segments. [`TableReader`].
//!
//! A scan returns its items either as attribute values ([`TableReader::scan`]), or as the service's own JSON
//! ([`TableReader::scan_images`]), which costs a fraction of the time, for a caller that only passes them on.
//!
//! All reads are strongly consistent: a repair must compare the current state, not an earlier one. The consumed
//! capacity of a page or a read is returned, so that a caller can keep to a budget of capacity units.
//!
//! Writing is out of scope: a replica's writes are conditional and belong to its sink; the source's writes belong to
//! its owner.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{
    ConsumedCapacity, KeySchemaElement, KeysAndAttributes, ReturnConsumedCapacity, TableDescription,
    TimeToLiveDescription, TimeToLiveStatus,
};
use millrace_dynamodb_client::TableClient;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::change::{CanonicalKey, OwnedItemImage, StreamSource};
use crate::error_chain::error_chain;
use crate::raw_item::{KeyAttributeError, RawItem};
use crate::revision::StreamLabel;
use crate::shell;

/// The limit of `BatchGetItem`.
const KEYS_A_READ: usize = 100;
/// The maximum number of requests for keys that the service leaves unprocessed; with the SDK's back-off that is more
/// than a throttled table needs.
const READS_OF_A_KEY: usize = 20;
/// The maximum number of connections for pages as JSON: more than the segments that a process scans concurrently (10).
const MAX_CONNECTIONS: usize = 16;

/// Error codes that concern the caller or the table, never a single item.
const FAULTS: [&str; 9] = [
    "AccessDeniedException",
    "ExpiredTokenException",
    "IncompleteSignatureException",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "NotAuthorizedException",
    "OptInRequired",
    "ResourceNotFoundException",
    "UnrecognizedClientException",
];

/// Returns whether a service's error code concerns the caller or the table, never a single item.
#[must_use]
pub fn is_table_level_error(code: &str) -> bool {
    FAULTS.contains(&code)
}

/// A table that cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("table {table}: {reason}")]
pub struct TableReadError {
    /// The table's name.
    pub table: String,
    /// Whether a retry may succeed without a correction by an operator: after throttling, an outage, or a missing
    /// response.
    pub retryable: bool,
    /// The description, which contains no value of an item.
    pub reason: String,
}

/// The description of a table, as the service returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceDescription {
    /// The table's ARN.
    pub arn: String,
    /// Name and type (`S`, `N` or `B`) of the one or two key attributes, the partition key first.
    pub key: Vec<(String, String)>,
    /// The ARN of the latest stream, if the table ever had one.
    pub stream_arn: Option<String>,
    /// The view type of the latest stream; `None` if the stream is disabled.
    pub stream_view: Option<String>,
    /// The number of items; the service updates it every six hours.
    pub items: u64,
    /// The secondary indexes, global and local.
    pub indexes: Vec<IndexSchema>,
}

/// The key of a secondary index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexSchema {
    /// The name of the table.
    pub table: String,
    /// The name of the index.
    pub name: String,
    /// Name and type (`S`, `N` or `B`) of the key attributes. An item in which one of them has another type, or is an
    /// empty string, cannot be written.
    pub key: Vec<(String, String)>,
}

impl SourceDescription {
    /// Returns the names of the key attributes.
    #[must_use]
    pub fn key_names(&self) -> Vec<String> {
        self.key.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Returns the creation time of the latest stream; `None` if the table never had a stream, or the ARN is not valid.
    #[must_use]
    pub fn stream_label(&self) -> Option<StreamLabel> {
        let arn = self.stream_arn.as_deref()?;
        StreamSource::parse(arn.into()).ok().map(|source| source.label())
    }
}

/// Returns the command that creates a table with this key, of which each attribute has a name and a type; the partition
/// key is the first.
#[must_use]
pub fn create_table_command(region: Option<&str>, table: &str, key: &[(String, String)]) -> String {
    let region = region.map(|region| format!(" --region {region}")).unwrap_or_default();
    let roles = key.iter().zip(["HASH", "RANGE"]);
    let schema: Vec<_> = roles.map(|((name, _), role)| json!({"AttributeName": name, "KeyType": role})).collect();
    let definitions: Vec<_> =
        key.iter().map(|(name, kind)| json!({"AttributeName": name, "AttributeType": kind})).collect();
    format!(
        "aws dynamodb create-table{region} --table-name {table} --billing-mode PAY_PER_REQUEST --key-schema {} \
         --attribute-definitions {}",
        shell::quote(&Value::from(schema).to_string()),
        shell::quote(&Value::from(definitions).to_string())
    )
}

/// One of the equal parts of a parallel scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanSegment {
    /// The index of the part, from 0.
    pub segment: u32,
    /// The number of parts.
    pub total_segments: u32,
}

impl ScanSegment {
    /// The complete table.
    pub const WHOLE: Self = Self { segment: 0, total_segments: 1 };
}

/// A page of a scan.
#[derive(Debug, Default)]
pub struct ScanPage {
    /// The items, each with its key.
    pub items: Vec<(CanonicalKey, RawItem)>,
    /// The key after which to continue; `None` on the last page.
    pub next: Option<CanonicalKey>,
    /// The consumed read capacity units.
    pub units: f64,
}

/// A page of a scan, as the service's own JSON.
#[derive(Debug, Default)]
pub struct ImagePage {
    /// The items, each with its key.
    pub items: Vec<(CanonicalKey, OwnedItemImage)>,
    /// The key after which to continue; `None` on the last page.
    pub next: Option<CanonicalKey>,
    /// The consumed read capacity units.
    pub units: f64,
}

/// The items found under a list of keys.
#[derive(Debug, Default)]
pub struct BatchGetOutput {
    /// One entry for each key, in the order of the keys.
    pub items: Vec<Option<RawItem>>,
    /// The consumed read capacity units.
    pub units: f64,
}

/// A reader for a table.
#[derive(Debug, Clone)]
pub struct TableReader {
    client: Client,
    /// Reads pages as JSON, which the SDK always parses. Created when the first page is read: most readers read none.
    raw_client: Arc<OnceLock<TableClient>>,
    name: String,
}

impl TableReader {
    /// Creates a reader for the table of this name. The client determines Region, credentials and retries.
    #[must_use]
    pub fn new(client: Client, name: impl Into<String>) -> Self {
        Self { client, raw_client: Arc::default(), name: name.into() }
    }

    /// Returns the table's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Describes the table.
    ///
    /// # Errors
    /// [`TableReadError`] if the table does not respond or does not exist.
    pub async fn describe(&self) -> Result<SourceDescription, TableReadError> {
        let described = self.client.describe_table().table_name(&self.name).send().await;
        let described = described.map_err(|error| self.fault("cannot be described", &error))?;
        let missing = || self.broken("is not described in the response".to_owned());
        Ok(description(described.table.ok_or_else(missing)?))
    }

    /// Returns the name of the attribute by which TTL removes items, or `None` if TTL is not enabled.
    ///
    /// # Errors
    /// [`TableReadError`] if the table does not respond or does not exist.
    pub async fn ttl_attribute(&self) -> Result<Option<String>, TableReadError> {
        let described = self.client.describe_time_to_live().table_name(&self.name).send().await;
        let described = described.map_err(|error| self.fault("has a TTL that cannot be described", &error))?;
        let on = |ttl: &TimeToLiveDescription| {
            matches!(ttl.time_to_live_status(), Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling))
        };
        Ok(described.time_to_live_description.filter(on).and_then(|ttl| ttl.attribute_name))
    }

    /// Reads the items under these keys, with strongly consistent reads.
    ///
    /// # Errors
    /// [`TableReadError`] if any of them cannot be read.
    pub async fn read(&self, keys: &[CanonicalKey]) -> Result<BatchGetOutput, TableReadError> {
        let mut found = BatchGetOutput { items: Vec::with_capacity(keys.len()), units: 0.0 };
        for keys in keys.chunks(KEYS_A_READ) {
            let BatchGetOutput { items, units } = self.read_chunk(keys).await?;
            found.items.extend(items);
            found.units += units;
        }
        Ok(found)
    }

    async fn read_chunk(&self, keys: &[CanonicalKey]) -> Result<BatchGetOutput, TableReadError> {
        let Some(first) = keys.first() else { return Ok(BatchGetOutput::default()) };
        let names = self.parsed(first)?.into_attributes().into_keys().collect::<Vec<_>>();
        // A request must not contain a key twice.
        let mut open: Vec<&CanonicalKey> = keys.iter().collect();
        open.sort_unstable();
        open.dedup();
        let mut requested = Vec::with_capacity(open.len());
        for key in open {
            requested.push(self.parsed(key)?.into_attributes());
        }
        let (mut by_key, mut units) = (HashMap::with_capacity(requested.len()), 0.0);
        for _ in 0..READS_OF_A_KEY {
            let request = KeysAndAttributes::builder().set_keys(Some(requested)).consistent_read(true).build();
            let request = request.map_err(|error| self.broken(format!("cannot be read by key: {error}")))?;
            let response = self.client.batch_get_item().request_items(&self.name, request);
            let response = response.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await;
            let response = response.map_err(|error| self.fault("cannot be read", &error))?;
            units += response.consumed_capacity().iter().map(cost).sum::<f64>();
            // The request has one table, whose name in the response may be the name or the ARN.
            let items = response.responses.and_then(|tables| tables.into_values().next()).unwrap_or_default();
            for item in items.into_iter().map(RawItem::new) {
                by_key.insert(self.key_of(&item, &names)?, item);
            }
            let left = response.unprocessed_keys.and_then(|tables| tables.into_values().next());
            requested = left.map(|left| left.keys).unwrap_or_default();
            if requested.is_empty() {
                return Ok(BatchGetOutput { items: keys.iter().map(|key| by_key.get(key).cloned()).collect(), units });
            }
        }
        let reason = "repeatedly returns unprocessed keys: its read capacity is exhausted".to_owned();
        Err(TableReadError { table: self.name.clone(), retryable: true, reason })
    }

    /// Reads a page of a segment, after the key `after` if it is given, with strongly consistent reads.
    ///
    /// # Errors
    /// [`TableReadError`] if the page cannot be read.
    pub async fn scan(
        &self,
        segment: ScanSegment,
        after: Option<&CanonicalKey>,
        key_names: &[String],
        limit: Option<i32>,
    ) -> Result<ScanPage, TableReadError> {
        let after = after.map(|key| self.parsed(key)).transpose()?;
        let scan = self.client.scan().table_name(&self.name).consistent_read(true).set_limit(limit);
        let scan = scan.set_exclusive_start_key(after.map(RawItem::into_attributes));
        let count = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let scan = scan.segment(count(segment.segment)).total_segments(count(segment.total_segments));
        let response = scan.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await;
        let response = response.map_err(|error| self.fault("cannot be scanned", &error))?;
        let units = response.consumed_capacity().map_or(0.0, cost);
        let keyed = |item: RawItem| Ok((self.key_of(&item, key_names)?, item));
        let items = response.items.unwrap_or_default().into_iter().map(|item| keyed(RawItem::new(item)));
        let next = response.last_evaluated_key.map(|key| self.key_of(&RawItem::new(key), key_names)).transpose()?;
        Ok(ScanPage { items: items.collect::<Result<_, TableReadError>>()?, next, units })
    }

    /// As [`TableReader::scan`], with the items as the service's own JSON.
    ///
    /// # Errors
    /// [`TableReadError`] if the page cannot be read.
    pub async fn scan_images(
        &self,
        segment: ScanSegment,
        after: Option<&CanonicalKey>,
        key_names: &[String],
    ) -> Result<ImagePage, TableReadError> {
        let request = self.scan_request(segment, after);
        let body = serde_json::to_vec(&request);
        let body = body.map_err(|error| self.broken(format!("cannot be scanned after this key: {error}")))?;
        let new_client = || TableClient::new(self.client.clone(), self.name.clone(), MAX_CONNECTIONS);
        let raw_client = self.raw_client.get_or_init(new_client);
        let response = raw_client
            .scan::<ScanResponse>(body.into())
            .await
            .map_err(|error| self.fault("cannot be scanned", &error))?;
        let mut sorted_names = key_names.to_vec();
        sorted_names.sort_unstable();
        let keyed = |item: Box<RawValue>| {
            let key = self.key_of_text(item.get(), &sorted_names)?;
            let image = OwnedItemImage::parse(item);
            Ok((key, image.ok_or_else(|| self.broken("has an item that is not a JSON object".to_owned()))?))
        };
        Ok(ImagePage {
            items: response.items.into_iter().map(keyed).collect::<Result<_, TableReadError>>()?,
            next: response.last_evaluated_key.map(|key| self.key_of_text(key.get(), &sorted_names)).transpose()?,
            units: response.consumed_capacity.map_or(0.0, |capacity| capacity.capacity_units),
        })
    }

    fn scan_request(&self, segment: ScanSegment, after: Option<&CanonicalKey>) -> ScanRequest<'_> {
        ScanRequest {
            table_name: &self.name,
            consistent_read: true,
            return_consumed_capacity: "TOTAL",
            segment: segment.segment,
            total_segments: segment.total_segments,
            exclusive_start_key: after.map(CanonicalKey::to_raw),
        }
    }

    /// Returns the key of an item as JSON. The names are sorted.
    fn key_of_text(&self, item: &str, names: &[String]) -> Result<CanonicalKey, TableReadError> {
        if let Some(key) = CanonicalKey::from_item_text(item, names) {
            return Ok(key);
        }
        let parsed = RawItem::parse(item).map_err(|error| self.broken(format!("has an item that is {error}")))?;
        self.key_of(&parsed, names)
    }

    fn key_of(&self, item: &RawItem, names: &[String]) -> Result<CanonicalKey, TableReadError> {
        item.key(names).map_err(|error: KeyAttributeError| self.broken(format!("has an item without a key: {error}")))
    }

    fn parsed(&self, key: &CanonicalKey) -> Result<RawItem, TableReadError> {
        RawItem::parse(key.as_str()).map_err(|error| self.broken(format!("cannot be read with a key that is {error}")))
    }

    fn broken(&self, reason: String) -> TableReadError {
        TableReadError { table: self.name.clone(), retryable: false, reason }
    }

    fn fault<E, R>(&self, what: &str, error: &SdkError<E, R>) -> TableReadError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: fmt::Debug,
    {
        let retryable = match error {
            SdkError::TimeoutError(_) | SdkError::ResponseError(_) => true,
            // A refused or broken connection, an unresolved name, or a missing response. The client classifies a
            // connection that was closed before the response as neither an I/O error nor a timeout, and marks it as
            // retryable.
            SdkError::DispatchFailure(failure) => {
                failure.is_io() || failure.is_timeout() || failure.as_other().is_some()
            }
            SdkError::ServiceError(refusal) => {
                let code = refusal.err().code().unwrap_or_default();
                code != "ValidationException" && !is_table_level_error(code)
            }
            _ => false,
        };
        let reason = match error.as_service_error() {
            Some(refusal) => {
                format!("{}: {}", refusal.code().unwrap_or("unknown error"), refusal.message().unwrap_or_default())
            }
            None => error_chain(error),
        };
        TableReadError { table: self.name.clone(), retryable, reason: format!("{what}: {reason}") }
    }
}

/// The body of a `Scan`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ScanRequest<'a> {
    table_name: &'a str,
    consistent_read: bool,
    return_consumed_capacity: &'static str,
    segment: u32,
    total_segments: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    exclusive_start_key: Option<Box<RawValue>>,
}

/// The response to a `Scan`. Every response has the member `Items`, even if it is empty.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ScanResponse {
    items: Vec<Box<RawValue>>,
    last_evaluated_key: Option<Box<RawValue>>,
    consumed_capacity: Option<ConsumedUnits>,
}

/// The consumed capacity of a request, of which only the total is parsed.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ConsumedUnits {
    #[serde(default)]
    capacity_units: f64,
}

fn cost(capacity: &ConsumedCapacity) -> f64 {
    capacity.capacity_units().unwrap_or_default()
}

fn description(table: TableDescription) -> SourceDescription {
    let type_of = |name: &str| {
        let definition = table.attribute_definitions().iter().find(|one| one.attribute_name() == name);
        definition.map(|one| one.attribute_type().as_str().to_owned()).unwrap_or_default()
    };
    let key_of = |schema: &[KeySchemaElement]| -> Vec<_> {
        let names = schema.iter().map(KeySchemaElement::attribute_name);
        names.map(|name| (name.to_owned(), type_of(name))).collect()
    };
    let global = table.global_secondary_indexes().iter().map(|index| (index.index_name(), index.key_schema()));
    let local = table.local_secondary_indexes().iter().map(|index| (index.index_name(), index.key_schema()));
    let index = |(name, key): (Option<&str>, &[KeySchemaElement])| IndexSchema {
        table: table.table_name().unwrap_or_default().to_owned(),
        name: name.unwrap_or_default().to_owned(),
        key: key_of(key),
    };
    let stream = table.stream_specification().filter(|stream| stream.stream_enabled());
    SourceDescription {
        stream_view: stream.and_then(|stream| stream.stream_view_type()).map(|view| view.as_str().to_owned()),
        key: key_of(table.key_schema()),
        indexes: global.chain(local).map(index).collect(),
        items: table.item_count().and_then(|count| u64::try_from(count).ok()).unwrap_or_default(),
        arn: table.table_arn.unwrap_or_default(),
        stream_arn: table.latest_stream_arn,
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::config::{BehaviorVersion, Config};

    use super::*;

    fn reader() -> TableReader {
        TableReader::new(Client::from_conf(Config::builder().behavior_version(BehaviorVersion::latest()).build()), "T")
    }

    fn names() -> Vec<String> {
        ["k".to_owned(), "s".to_owned()].to_vec()
    }

    /// DynamoDB ignores members that it does not know, so a misspelled one would be an eventually consistent read of the
    /// whole table.
    #[test]
    fn scan_is_a_consistent_read_of_one_segment_after_a_key() {
        let key = reader().key_of_text(r#"{"k":{"S":"a"},"s":{"N":"7"}}"#, &names()).unwrap();
        let segment = ScanSegment { segment: 2, total_segments: 5 };
        let body = |after| serde_json::to_value(reader().scan_request(segment, after)).unwrap();
        let first = json!({"TableName": "T", "ConsistentRead": true, "ReturnConsumedCapacity": "TOTAL",
            "Segment": 2, "TotalSegments": 5});
        assert_eq!(body(None), first);
        let mut later = first;
        later["ExclusiveStartKey"] = json!({"k": {"S": "a"}, "s": {"N": "7"}});
        assert_eq!(body(Some(&key)), later);
    }

    #[test]
    fn key_of_an_item_is_found_in_every_form_of_json() {
        let reader = reader();
        let key = |item: &str| reader.key_of_text(item, &names()).map(|key| key.to_string());
        let plain = key(r#"{"k":{"S":"a"},"n":{"L":[{"M":{"k":{"S":"x"}}}]},"s":{"N":"7.0"}}"#).unwrap();
        assert_eq!(plain, r#"{"k":{"S":"a"},"s":{"N":"7"}}"#);
        // The scan of the text does not decode the names of attributes.
        assert_eq!(key(r#"{"\u006b":{"S":"a"},"s":{"N":"7"}}"#).unwrap(), plain);
        for (item, reason) in [
            (r#"{"k":{"S":"a"}}"#, "has an item without a key"),
            (r#"{"k":{"S":"a"},"s":{"BOOL":true}}"#, "has an item without a key"),
            (r#"{"k":{"S":"a"},"#, "has an item that is"),
        ] {
            let error = key(item).unwrap_err();
            assert!(error.reason.contains(reason) && !error.retryable, "{item}: {error}");
        }
    }

    #[test]
    fn last_page_has_no_key_and_a_page_without_items_is_no_page() {
        let page = |text: &str| serde_json::from_str::<ScanResponse>(text);
        for last in [r#"{"Items":[]}"#, r#"{"Items":[],"LastEvaluatedKey":null,"Count":0}"#] {
            assert!(page(last).unwrap().last_evaluated_key.is_none(), "{last}");
        }
        assert!(page("{}").is_err() && page(r#"{"Items":null}"#).is_err());
    }
}
