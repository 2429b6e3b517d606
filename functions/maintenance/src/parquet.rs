//! Conversion of archive rows to columns, and the schema of the Parquet files below `parquet/`: [`ColumnBatch`].
//!
//! This is the only module of the maintenance function that knows the attributes of a user. A column contains an
//! attribute if its value has the column's type: an integer that fits 64 bits, a string, a timestamp. Any other value
//! is null in its column. The column `item` always contains the item's original JSON text, so a row of any table can be
//! written and no digit is lost.
//!
//! Architecture invariant: this module does no I/O of its own. [`ParquetKey`] defines the keys of the files.

mod key;
#[cfg(test)]
mod tests;

use std::sync::{Arc, LazyLock};

use arrow_array::builder::{BinaryBuilder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder};
use arrow_array::cast::AsArray as _;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array as _, ArrayRef, RecordBatch};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};
use aws_sdk_dynamodb::types::AttributeValue;
use millrace_archive::ArchivedRow;
use millrace_shared::item::{
    ATTRIBUTES, CREATED_AT, EMAIL, EXPIRES_AT, NAME, STATUS, TIMESTAMP, UPDATED_AT, USER_ID, VERSION, attributes,
};
use millrace_shared::number;
use millrace_shared::raw_item::RawItem;
use millrace_shared::user::expiry::whole_seconds;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub use key::{PARQUET, ParquetKey};

/// The version of the schema, stored in the metadata of every file. It is part of the run names, so that a new version
/// writes all files again.
pub const FORMAT: &str = "1";
/// Size of a row group: the amount of data that is buffered while a file is written, and the smallest amount that a
/// query engine reads.
const ROW_GROUP_BYTES: usize = 32 * 1024 * 1024;

const KEY: &str = "key";
const REVISION: &str = "revision";
const REVISION_BYTES: &str = "revision_bytes";
const REMOVED_AT: &str = "removed_at";
const EVENT_ID: &str = "event_id";
const ITEM: &str = "item";

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new(USER_ID, DataType::Utf8, true),
        Field::new(TIMESTAMP, DataType::Int64, true),
        Field::new(NAME, DataType::Utf8, true),
        Field::new(EMAIL, DataType::Utf8, true),
        Field::new(STATUS, DataType::Utf8, true),
        Field::new(ATTRIBUTES, DataType::Utf8, true),
        Field::new(EXPIRES_AT, DataType::Int64, true),
        Field::new(VERSION, DataType::Int64, true),
        Field::new(CREATED_AT, time.clone(), true),
        Field::new(UPDATED_AT, time.clone(), true),
        Field::new(KEY, DataType::Utf8, false),
        Field::new(REVISION, DataType::Utf8, false),
        Field::new(REVISION_BYTES, DataType::Binary, false),
        Field::new(REMOVED_AT, time, false),
        Field::new(EVENT_ID, DataType::Utf8, true),
        Field::new(ITEM, DataType::Utf8, false),
    ]))
});

/// Returns the schema: the columns, in order.
#[must_use]
pub fn schema() -> SchemaRef {
    Arc::clone(&SCHEMA)
}

/// Returns the writer properties. The values of nearly all columns are unique, so only `status` has a dictionary.
/// Queries do not filter by ranges of whole items, so `item` and `attributes` have no statistics.
#[must_use]
pub fn properties() -> WriterProperties {
    let column = |name: &str| ColumnPath::from(name);
    let format = KeyValue::new("millrace.format".to_owned(), FORMAT.to_owned());
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
        .set_dictionary_enabled(false)
        .set_column_dictionary_enabled(column(STATUS), true)
        .set_column_statistics_enabled(column(ITEM), EnabledStatistics::None)
        .set_column_statistics_enabled(column(ATTRIBUTES), EnabledStatistics::None)
        .set_created_by("millrace".to_owned())
        .set_key_value_metadata(Some(vec![format]))
        .build()
}

/// A batch of rows that is being converted to columns.
#[derive(Default)]
pub struct ColumnBatch {
    user_id: StringBuilder,
    timestamp: Int64Builder,
    name: StringBuilder,
    email: StringBuilder,
    status: StringBuilder,
    attributes: StringBuilder,
    expires_at: Int64Builder,
    version: Int64Builder,
    created_at: TimestampMicrosecondBuilder,
    updated_at: TimestampMicrosecondBuilder,
    key: StringBuilder,
    revision: StringBuilder,
    revision_bytes: BinaryBuilder,
    removed_at: TimestampMicrosecondBuilder,
    event_id: StringBuilder,
    item: StringBuilder,
    rows: usize,
    bytes: usize,
}

impl ColumnBatch {
    /// Adds a row.
    pub fn push(&mut self, row: &ArchivedRow) {
        // The row reader returns JSON objects. One that is not a DynamoDB item has no attributes to show.
        let item = RawItem::parse(row.item.get()).unwrap_or_default();
        self.user_id.append_option(text(&item, USER_ID));
        self.timestamp.append_option(whole(&item, TIMESTAMP));
        self.name.append_option(text(&item, NAME));
        self.email.append_option(text(&item, EMAIL));
        self.status.append_option(text(&item, STATUS));
        self.attributes.append_option(json(&item, ATTRIBUTES));
        self.expires_at.append_option(expiry(&item));
        self.version.append_option(whole(&item, VERSION));
        self.created_at.append_option(moment(&item, CREATED_AT));
        self.updated_at.append_option(moment(&item, UPDATED_AT));
        self.key.append_value(row.key.as_str());
        self.revision.append_value(row.revision.to_string());
        self.revision_bytes.append_value(row.revision.encode());
        self.removed_at.append_value(micros(row.removed_at));
        self.event_id.append_option(row.event_id.as_deref());
        self.item.append_value(row.item.get());
        self.rows += 1;
        self.bytes += row.item.get().len();
    }

    /// Returns the number of rows in the batch.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the total length of the items in the batch, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the rows as columns, and empties the batch.
    ///
    /// # Errors
    /// Fails if the columns do not match [`schema`], which cannot happen.
    pub fn take(&mut self) -> Result<RecordBatch, ArrowError> {
        (self.rows, self.bytes) = (0, 0);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.user_id.finish()),
            Arc::new(self.timestamp.finish()),
            Arc::new(self.name.finish()),
            Arc::new(self.email.finish()),
            Arc::new(self.status.finish()),
            Arc::new(self.attributes.finish()),
            Arc::new(self.expires_at.finish()),
            Arc::new(self.version.finish()),
            Arc::new(self.created_at.finish().with_timezone("UTC")),
            Arc::new(self.updated_at.finish().with_timezone("UTC")),
            Arc::new(self.key.finish()),
            Arc::new(self.revision.finish()),
            Arc::new(self.revision_bytes.finish()),
            Arc::new(self.removed_at.finish().with_timezone("UTC")),
            Arc::new(self.event_id.finish()),
            Arc::new(self.item.finish()),
        ];
        RecordBatch::try_new(schema(), columns)
    }
}

/// A file in which a column is missing or has another type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("column {0} is missing or has an unexpected type")]
pub struct SchemaMismatch(&'static str);

/// The digest of rows in order, over key, revision, removal time and item. The typed columns are derived from the item.
#[derive(Debug, Clone, Default)]
pub struct RowsChecksum {
    rows: u64,
    digest: Sha256,
}

impl RowsChecksum {
    /// Adds a row.
    pub fn push(&mut self, row: &ArchivedRow) {
        self.add(row.key.as_str(), &row.revision.to_string(), micros(row.removed_at), row.item.get());
    }

    /// Adds the rows of these columns.
    ///
    /// # Errors
    /// [`SchemaMismatch`] if the columns do not match the schema.
    pub fn read(&mut self, columns: &RecordBatch) -> Result<(), SchemaMismatch> {
        let text = |name| {
            let column = columns.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
            column.ok_or(SchemaMismatch(name))
        };
        let (keys, revisions, items) = (text(KEY)?, text(REVISION)?, text(ITEM)?);
        let times = columns.column_by_name(REMOVED_AT);
        let times = times.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
        let times = times.ok_or(SchemaMismatch(REMOVED_AT))?;
        for row in 0..keys.len() {
            self.add(keys.value(row), revisions.value(row), times.value(row), items.value(row));
        }
        Ok(())
    }

    /// Adds a row. Each string is preceded by its length, so that no two sequences of rows have the same encoding.
    fn add(&mut self, key: &str, revision: &str, removed_at: i64, item: &str) {
        self.rows += 1;
        for part in [key, revision, item] {
            self.digest.update((part.len() as u64).to_be_bytes());
            self.digest.update(part);
        }
        self.digest.update(removed_at.to_be_bytes());
    }

    /// Returns the number of rows, and their digest.
    #[must_use]
    pub fn finish(self) -> (u64, [u8; 32]) {
        (self.rows, self.digest.finalize().into())
    }
}

fn text<'i>(item: &'i RawItem, name: &str) -> Option<&'i str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

/// Returns a number if it is an integer that fits 64 bits, whatever its format (`7.0`, `1.79E+9`).
fn whole(item: &RawItem, name: &str) -> Option<i64> {
    number::canonical(item.get(name)?.as_n().ok()?)?.parse().ok()
}

/// Returns the second from which on the item was absent: a fraction is rounded up, which matches the behavior of TTL.
fn expiry(item: &RawItem) -> Option<i64> {
    whole_seconds(item.get(EXPIRES_AT)?.as_n().ok()?)
}

/// Returns a timestamp in microseconds.
fn moment(item: &RawItem, name: &str) -> Option<i64> {
    OffsetDateTime::parse(text(item, name)?, &Rfc3339).ok().map(micros)
}

/// Returns any value as plain JSON, with unchanged numbers.
fn json(item: &RawItem, name: &str) -> Option<String> {
    let value: AttributeValue = item.get(name)?.clone();
    serde_json::to_string(&attributes::decode_json(value).ok()?).ok()
}

/// Converts a timestamp to microseconds since 1970. All years that RFC 3339 can represent fit.
fn micros(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000)).unwrap_or_default()
}
