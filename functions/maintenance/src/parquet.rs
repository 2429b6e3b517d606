//! Conversion of archive rows to columns, and the schema of the Parquet files below `parquet/`: [`ParquetSchema`].
//!
//! The schema depends on the table's key schema and on the columns that the function is configured with, never on the
//! rows. Every file contains the columns of the key, the complete item as its original JSON text, and the metadata of
//! the row, so a row of any table can be written and no digit is lost.
//!
//! Architecture invariant: this module does no I/O of its own. [`ParquetKey`] defines the keys of the files,
//! [`ColumnDefinition`] a column with the value of an attribute, and [`AthenaTable`] the statement that makes the files
//! a table of Athena. The columns that a replication document declares are [`TableColumns`].

mod athena;
mod column;
mod declared;
mod key;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, StringBuilder, TimestampMicrosecondBuilder};
use arrow_array::cast::AsArray as _;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array as _, ArrayRef, RecordBatch};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use millrace_archive::ArchivedRow;
use millrace_shared::hash::Sha256Hasher;
use millrace_shared::raw_item::RawItem;
use millrace_transform::columns::{ColumnType as DeclaredType, TableColumns};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use column::{ColumnBuilder, micros, utc};
use declared::DeclaredBuilder;

pub use athena::AthenaTable;
pub use column::{ColumnDefinition, ColumnType, PARTITION_KEY, SORT_KEY};
pub use key::{PARQUET, ParquetKey};

/// The version of the format, stored in the metadata of every file. It is part of the run names, so that a new version
/// writes all files again.
pub const FORMAT: &str = "2";
/// Size of a row group: the amount of data that is buffered while a file is written, and the smallest amount that a
/// query engine reads.
const ROW_GROUP_BYTES: usize = 32 * 1024 * 1024;

const KEY: &str = "key";
const REVISION: &str = "revision";
const REVISION_BYTES: &str = "revision_bytes";
const REMOVED_AT: &str = "removed_at";
const EVENT_ID: &str = "event_id";
const ITEM: &str = "item";

/// The schema of a table's files: the columns of its key, the columns with attributes, the columns that the replication
/// document declares, and those that every file has.
#[derive(Debug, Clone)]
pub struct ParquetSchema {
    /// The columns of the key.
    key: Vec<ColumnDefinition>,
    /// The columns with attributes.
    attributes: Vec<ColumnDefinition>,
    /// The columns of the document.
    declared: TableColumns,
    arrow: SchemaRef,
}

impl ParquetSchema {
    /// Creates the schema of a table with this key, the name and the type (`S`, `N` or `B`) of each attribute, the
    /// partition key first. `attributes` are the columns that are written in addition.
    #[must_use]
    pub fn new(key: &[(String, String)], attributes: &[ColumnDefinition]) -> Self {
        Self::with_parts(ColumnDefinition::from_key(key), attributes.to_vec(), TableColumns::default())
    }

    /// Adds the columns that a replication document declares.
    #[must_use]
    pub fn with_declared(self, declared: TableColumns) -> Self {
        Self::with_parts(self.key, self.attributes, declared)
    }

    fn with_parts(key: Vec<ColumnDefinition>, attributes: Vec<ColumnDefinition>, declared: TableColumns) -> Self {
        let mut fields: Vec<Field> = key.iter().chain(&attributes).map(ColumnDefinition::field).collect();
        fields.extend(declared.definitions().iter().map(declared::field));
        fields.extend([
            Field::new(KEY, DataType::Utf8, false),
            Field::new(REVISION, DataType::Utf8, false),
            Field::new(REVISION_BYTES, DataType::Binary, false),
            Field::new(REMOVED_AT, utc(), false),
            Field::new(EVENT_ID, DataType::Utf8, true),
            Field::new(ITEM, DataType::Utf8, false),
        ]);
        Self { key, attributes, declared, arrow: Arc::new(Schema::new(fields)) }
    }

    /// Returns the columns, in order.
    #[must_use]
    pub fn arrow(&self) -> SchemaRef {
        Arc::clone(&self.arrow)
    }

    /// Returns the version of the format and the columns as text: files of the same rows with the same text are equal.
    #[must_use]
    pub fn describe(&self) -> String {
        let columns = self.key.iter().chain(&self.attributes).map(ColumnDefinition::describe);
        let columns = columns.chain(self.declared.definitions().iter().map(declared::describe));
        std::iter::once(FORMAT.to_owned()).chain(columns).collect::<Vec<_>>().join(" ")
    }

    /// Returns the writer properties. The values of most columns are unique, so only repetitive ones have a dictionary.
    /// Queries do not filter by ranges of JSON, so items and columns of JSON have no statistics. The metadata contains
    /// the names of the key attributes.
    #[must_use]
    pub fn properties(&self) -> WriterProperties {
        let mut metadata = vec![KeyValue::new("millrace.format".to_owned(), FORMAT.to_owned())];
        let names = self.key.iter().filter(|column| [PARTITION_KEY, SORT_KEY].contains(&column.name.as_str()));
        metadata
            .extend(names.map(|column| KeyValue::new(format!("millrace.{}", column.name), column.attribute.clone())));
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .set_dictionary_enabled(false)
            .set_column_statistics_enabled(ColumnPath::from(ITEM), EnabledStatistics::None)
            .set_created_by("millrace".to_owned())
            .set_key_value_metadata(Some(metadata));
        for column in &self.attributes {
            let path = || ColumnPath::new(vec![column.name.clone()]);
            properties = properties.set_column_dictionary_enabled(path(), column.is_repetitive);
            if column.column_type == ColumnType::Json {
                properties = properties.set_column_statistics_enabled(path(), EnabledStatistics::None);
            }
        }
        for column in self.declared.definitions() {
            let path = || ColumnPath::new(vec![column.name.clone()]);
            match column.kind {
                // A declared text is often a status or a city. A dictionary that becomes too large is given up.
                DeclaredType::Text => properties = properties.set_column_dictionary_enabled(path(), true),
                DeclaredType::Json => {
                    properties = properties.set_column_statistics_enabled(path(), EnabledStatistics::None);
                }
                _ => {}
            }
        }
        properties.build()
    }

    /// Returns the names of the columns that the document declares, in order.
    #[must_use]
    pub fn declared_names(&self) -> Vec<String> {
        self.declared.definitions().iter().map(|column| column.name.clone()).collect()
    }

    /// Returns an empty batch of rows.
    #[must_use]
    pub fn batch(&self) -> ColumnBatch {
        let builders = |columns: &[ColumnDefinition]| {
            let builder = |column: &ColumnDefinition| (column.clone(), ColumnBuilder::new(column.column_type));
            columns.iter().map(builder).collect()
        };
        ColumnBatch {
            arrow: self.arrow(),
            key_columns: builders(&self.key),
            attributes: builders(&self.attributes),
            declared_columns: self
                .declared
                .definitions()
                .iter()
                .map(|column| DeclaredBuilder::new(column.kind))
                .collect(),
            declared: self.declared.clone(),
            unfit: vec![0; self.declared.definitions().len()],
            key: StringBuilder::new(),
            revision: StringBuilder::new(),
            revision_bytes: BinaryBuilder::new(),
            removed_at: TimestampMicrosecondBuilder::new(),
            event_id: StringBuilder::new(),
            item: StringBuilder::new(),
            rows: 0,
            bytes: 0,
        }
    }
}

/// A batch of rows that is being converted to columns.
pub struct ColumnBatch {
    arrow: SchemaRef,
    key_columns: Vec<(ColumnDefinition, ColumnBuilder)>,
    attributes: Vec<(ColumnDefinition, ColumnBuilder)>,
    declared: TableColumns,
    declared_columns: Vec<DeclaredBuilder>,
    /// The number of values that each declared column cannot store, since the batch was created.
    unfit: Vec<u64>,
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
        // The row reader returns JSON objects. One that is not a DynamoDB item has no attributes to show, but a key.
        let parsed = |json: &str| RawItem::parse(json).unwrap_or_default();
        let (key, item) = (parsed(row.key.as_str()), parsed(row.item.get()));
        self.key_columns.iter_mut().for_each(|(definition, column)| column.push(definition, &key));
        self.attributes.iter_mut().for_each(|(definition, column)| column.push(definition, &item));
        // An item that is not valid has no columns, and neither has a value that does not fit: both are null.
        let mut found = self.declared.read(row.item.get()).unwrap_or_default();
        found.values.resize_with(self.declared_columns.len(), || None);
        for (column, value) in self.declared_columns.iter_mut().zip(found.values) {
            column.push(value);
        }
        for index in found.replaced_by_null {
            self.unfit[index] += 1;
        }
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

    /// Returns the number of values that each column of the document could not store, and that are therefore null: in
    /// the order of the columns, over all rows since the batch was created.
    #[must_use]
    pub fn unfit(&self) -> &[u64] {
        &self.unfit
    }

    /// Returns the rows as columns, and empties the batch.
    ///
    /// # Errors
    /// Fails if the columns do not match the schema, which cannot happen.
    pub fn take(&mut self) -> Result<RecordBatch, ArrowError> {
        (self.rows, self.bytes) = (0, 0);
        let columns = self.key_columns.iter_mut().chain(&mut self.attributes);
        let mut columns: Vec<ArrayRef> = columns.map(|(_, column)| column.finish()).collect();
        columns.extend(self.declared_columns.iter_mut().map(DeclaredBuilder::finish));
        let rest: [ArrayRef; 6] = [
            Arc::new(self.key.finish()),
            Arc::new(self.revision.finish()),
            Arc::new(self.revision_bytes.finish()),
            Arc::new(self.removed_at.finish().with_timezone("UTC")),
            Arc::new(self.event_id.finish()),
            Arc::new(self.item.finish()),
        ];
        columns.extend(rest);
        RecordBatch::try_new(Arc::clone(&self.arrow), columns)
    }
}

/// A file in which a column is missing or has another type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("column {0} is missing or has an unexpected type")]
pub struct SchemaMismatchError(&'static str);

/// The digest of rows in order, over key, revision, removal time and item. The typed columns are derived from the item.
#[derive(Debug, Clone, Default)]
pub struct RowsChecksum {
    rows: u64,
    digest: Sha256Hasher,
}

impl RowsChecksum {
    /// Adds a row.
    pub fn push(&mut self, row: &ArchivedRow) {
        self.add(row.key.as_str(), &row.revision.to_string(), micros(row.removed_at), row.item.get());
    }

    /// Adds the rows of these columns.
    ///
    /// # Errors
    /// [`SchemaMismatchError`] if the columns do not match the schema.
    pub fn read(&mut self, columns: &RecordBatch) -> Result<(), SchemaMismatchError> {
        let text = |name| {
            let column = columns.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
            column.ok_or(SchemaMismatchError(name))
        };
        let (keys, revisions, items) = (text(KEY)?, text(REVISION)?, text(ITEM)?);
        let times = columns.column_by_name(REMOVED_AT);
        let times = times.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
        let times = times.ok_or(SchemaMismatchError(REMOVED_AT))?;
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
        (self.rows, self.digest.finish())
    }
}
