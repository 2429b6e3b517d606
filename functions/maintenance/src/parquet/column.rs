//! Columns that contain the value of one attribute: [`ColumnDefinition`].
//!
//! A column contains an attribute if its value has the column's type. Any other value is null in its column; the column
//! `item` of the file contains every value.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{BinaryBuilder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder};
use arrow_schema::{DataType, Field, TimeUnit};
use aws_sdk_dynamodb::types::AttributeValue;
use millrace_shared::item::{
    ATTRIBUTES, CREATED_AT, EMAIL, EXPIRES_AT, NAME, STATUS, TIMESTAMP, UPDATED_AT, USER_ID, VERSION, attributes,
};
use millrace_shared::number;
use millrace_shared::raw_item::RawItem;
use millrace_shared::user::expiry::whole_seconds;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Name of the column of the partition key.
pub const PARTITION_KEY: &str = "partition_key";
/// Name of the column of the sort key.
pub const SORT_KEY: &str = "sort_key";

/// The type of a column, and the conversion of an attribute to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// An S attribute.
    Text,
    /// An N attribute as text in canonical number format: exact for all of DynamoDB's numbers.
    Number,
    /// An N attribute that is an integer of 64 bits, whatever its format (`7.0`, `1.79E+9`).
    Integer,
    /// An N attribute as the full second from which on the item was absent: a fraction is rounded up, which matches the
    /// behavior of TTL.
    Expiry,
    /// An S attribute in RFC 3339, in microseconds.
    Timestamp,
    /// A B attribute.
    Binary,
    /// Any attribute as plain JSON, with unchanged numbers.
    Json,
}

impl ColumnType {
    fn data_type(self) -> DataType {
        match self {
            Self::Text | Self::Number | Self::Json => DataType::Utf8,
            Self::Integer | Self::Expiry => DataType::Int64,
            Self::Timestamp => utc(),
            Self::Binary => DataType::Binary,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Number => "number",
            Self::Integer => "integer",
            Self::Expiry => "expiry",
            Self::Timestamp => "timestamp",
            Self::Binary => "binary",
            Self::Json => "json",
        }
    }
}

/// Returns the type of a column of timestamps.
pub(super) fn utc() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// A column of the files: its name, the attribute that it contains, and its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnDefinition {
    /// The name of the column.
    pub name: String,
    /// The name of the attribute, at the top level of the item.
    pub attribute: String,
    /// The type of the column.
    pub column_type: ColumnType,
    /// Whether many rows have the same value, so that a dictionary makes the file smaller.
    pub is_repetitive: bool,
}

impl ColumnDefinition {
    /// Creates a column whose values are mostly unique.
    pub fn new(name: impl Into<String>, attribute: impl Into<String>, column_type: ColumnType) -> Self {
        Self { name: name.into(), attribute: attribute.into(), column_type, is_repetitive: false }
    }

    /// Returns the columns of a table's key, each with the name and the type (`S`, `N` or `B`) of its attribute; the
    /// partition key first.
    ///
    /// The names of the columns do not depend on those of the attributes: an attribute name can be any text, while a
    /// query engine allows few characters and no upper case, and it could be the name of another column.
    #[must_use]
    pub fn from_key(key: &[(String, String)]) -> Vec<Self> {
        let columns = key.iter().zip([PARTITION_KEY, SORT_KEY]).flat_map(|((attribute, kind), name)| {
            let column = |name: String, column_type| Self::new(name, attribute, column_type);
            match kind.as_str() {
                "N" => vec![
                    column(name.to_owned(), ColumnType::Number),
                    column(format!("{name}_integer"), ColumnType::Integer),
                ],
                "B" => vec![column(name.to_owned(), ColumnType::Binary)],
                _ => vec![column(name.to_owned(), ColumnType::Text)],
            }
        });
        columns.collect()
    }

    /// Returns the columns of a users table.
    #[must_use]
    pub fn for_users() -> Vec<Self> {
        let columns = [
            (USER_ID, ColumnType::Text),
            (TIMESTAMP, ColumnType::Integer),
            (NAME, ColumnType::Text),
            (EMAIL, ColumnType::Text),
            (STATUS, ColumnType::Text),
            (ATTRIBUTES, ColumnType::Json),
            (EXPIRES_AT, ColumnType::Expiry),
            (VERSION, ColumnType::Integer),
            (CREATED_AT, ColumnType::Timestamp),
            (UPDATED_AT, ColumnType::Timestamp),
        ];
        let column = |(name, column_type)| Self { is_repetitive: name == STATUS, ..Self::new(name, name, column_type) };
        columns.map(column).into()
    }

    /// Returns the column as a field of the schema.
    pub(super) fn field(&self) -> Field {
        Field::new(&self.name, self.column_type.data_type(), true)
    }

    /// Returns the definition as text; two columns with the same text contain the same values.
    pub(super) fn describe(&self) -> String {
        format!("{:?} {:?} {}", self.name, self.attribute, self.column_type.name())
    }
}

/// A column whose values are being added.
pub(super) enum ColumnBuilder {
    Text(StringBuilder),
    Integer(Int64Builder),
    Binary(BinaryBuilder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl ColumnBuilder {
    pub(super) fn new(column_type: ColumnType) -> Self {
        match column_type {
            ColumnType::Text | ColumnType::Number | ColumnType::Json => Self::Text(StringBuilder::new()),
            ColumnType::Integer | ColumnType::Expiry => Self::Integer(Int64Builder::new()),
            ColumnType::Binary => Self::Binary(BinaryBuilder::new()),
            ColumnType::Timestamp => Self::Timestamp(TimestampMicrosecondBuilder::new()),
        }
    }

    /// Adds the value of an item: null if the item has no such attribute, or one that does not have the column's type.
    pub(super) fn push(&mut self, definition: &ColumnDefinition, item: &RawItem) {
        let value = item.get(&definition.attribute);
        match (self, definition.column_type) {
            (Self::Text(column), ColumnType::Text) => column.append_option(value.and_then(text)),
            (Self::Text(column), ColumnType::Number) => column.append_option(value.and_then(canonical)),
            (Self::Text(column), _) => column.append_option(value.and_then(json)),
            (Self::Integer(column), ColumnType::Expiry) => column.append_option(value.and_then(expiry)),
            (Self::Integer(column), _) => column.append_option(value.and_then(integer)),
            (Self::Binary(column), _) => column.append_option(value.and_then(binary)),
            (Self::Timestamp(column), _) => column.append_option(value.and_then(timestamp)),
        }
    }

    /// Returns the values, and empties the column.
    pub(super) fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(column) => Arc::new(column.finish()),
            Self::Integer(column) => Arc::new(column.finish()),
            Self::Binary(column) => Arc::new(column.finish()),
            Self::Timestamp(column) => Arc::new(column.finish().with_timezone("UTC")),
        }
    }
}

fn text(value: &AttributeValue) -> Option<&str> {
    value.as_s().ok().map(String::as_str)
}

fn canonical(value: &AttributeValue) -> Option<String> {
    Some(number::canonical(value.as_n().ok()?)?.into_owned())
}

fn integer(value: &AttributeValue) -> Option<i64> {
    number::canonical(value.as_n().ok()?)?.parse().ok()
}

fn expiry(value: &AttributeValue) -> Option<i64> {
    whole_seconds(value.as_n().ok()?)
}

fn timestamp(value: &AttributeValue) -> Option<i64> {
    OffsetDateTime::parse(text(value)?, &Rfc3339).ok().map(micros)
}

fn binary(value: &AttributeValue) -> Option<&[u8]> {
    value.as_b().ok().map(AsRef::as_ref)
}

fn json(value: &AttributeValue) -> Option<String> {
    serde_json::to_string(&attributes::decode_json(value.clone()).ok()?).ok()
}

/// Converts a timestamp to microseconds since 1970. All years that RFC 3339 can represent fit.
pub(super) fn micros(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000)).unwrap_or_default()
}
