//! Typed columns of an item: [`TableColumns`], the columns that a document declares for a relational table.
//!
//! A column has a name, the path of an attribute, and a type. The value at the path is converted from `DynamoDB` JSON
//! without rounding. The conversion is total: a value that its column cannot store becomes null and is counted, or the
//! item is rejected, as the document's `otherwise` says. A column never contains another value than the item.
//!
//! | type | `DynamoDB` type and value |
//! | --- | --- |
//! | `text` | S; by declaration folded for comparisons without case ([`fold_case`](millrace_shared::folding::fold_case)) |
//! | `numeric` | N, all 38 digits |
//! | `bigint` | N, an integer of 64 bits |
//! | `boolean` | BOOL |
//! | `timestamptz` | S in RFC 3339; by declaration N in epoch seconds or epoch milliseconds; in the years 0 to 9999 (UTC). The resolution is one microsecond; finer fractions are cut off |
//! | `date` | S, `YYYY-MM-DD` |
//! | `jsonb` | any, as plain JSON: a set is a sorted list, binary data is base64 text |
//! | `bytea` | B |
//! | `text[]` | SS, sorted; or L of S, in its order |
//! | `numeric[]` | NS, sorted; or L of N, in its order |
//!
//! A missing attribute and a NULL are null in every column.

mod convert;
mod lookup;

use std::borrow::Cow;
use std::fmt;

use time::{Date, OffsetDateTime};

use crate::attribute_path::AttributePath;
use lookup::{PathGroup, attributes_of, group_by_attribute};

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// A string.
    Text,
    /// A string, folded for comparisons without case.
    FoldedText,
    /// A number, exact.
    Numeric,
    /// An integer of 64 bits.
    BigInt,
    /// A truth value.
    Boolean,
    /// A point in time.
    Timestamp(TimestampFormat),
    /// A calendar date.
    Date,
    /// Any value, as plain JSON.
    Json,
    /// Binary data.
    Bytes,
    /// A list of strings.
    TextArray,
    /// A list of numbers.
    NumericArray,
}

/// The format of a text column that stores strings without differences of case and Unicode normalization.
pub const CASE_FOLDED: &str = "case_folded";

/// The format of a point in time in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TimestampFormat {
    /// A string in RFC 3339.
    #[default]
    Rfc3339,
    /// A number of seconds since 1970.
    EpochSeconds,
    /// A number of milliseconds since 1970.
    EpochMilliseconds,
}

impl TimestampFormat {
    /// The names of all formats.
    pub const NAMES: [&'static str; 3] = ["rfc3339", "epoch_seconds", "epoch_milliseconds"];

    /// Parses a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Rfc3339, Self::EpochSeconds, Self::EpochMilliseconds].into_iter().find(|format| format.name() == name)
    }

    /// Returns the name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rfc3339 => Self::NAMES[0],
            Self::EpochSeconds => Self::NAMES[1],
            Self::EpochMilliseconds => Self::NAMES[2],
        }
    }
}

impl ColumnType {
    /// The names of all types.
    pub const NAMES: [&'static str; 10] =
        ["text", "numeric", "bigint", "boolean", "timestamptz", "date", "jsonb", "bytea", "text[]", "numeric[]"];

    /// Parses a name. The format is the type's default.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let all = [
            Self::Text,
            Self::Numeric,
            Self::BigInt,
            Self::Boolean,
            Self::Timestamp(TimestampFormat::default()),
            Self::Date,
            Self::Json,
            Self::Bytes,
            Self::TextArray,
            Self::NumericArray,
        ];
        all.into_iter().find(|kind| kind.name() == name)
    }

    /// Returns the name, which is also the name of the type in PostgreSQL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Text | Self::FoldedText => "text",
            Self::Numeric => "numeric",
            Self::BigInt => "bigint",
            Self::Boolean => "boolean",
            Self::Timestamp(_) => "timestamptz",
            Self::Date => "date",
            Self::Json => "jsonb",
            Self::Bytes => "bytea",
            Self::TextArray => "text[]",
            Self::NumericArray => "numeric[]",
        }
    }

    /// Returns the format if it is not the type's default.
    #[must_use]
    pub fn special_format(self) -> Option<&'static str> {
        match self {
            Self::FoldedText => Some(CASE_FOLDED),
            Self::Timestamp(format) if format != TimestampFormat::default() => Some(format.name()),
            _ => None,
        }
    }

    /// Returns a description of the values that a column of this type can store.
    #[must_use]
    pub fn expected(self) -> &'static str {
        match self {
            Self::Text | Self::FoldedText => "a string (S)",
            Self::Numeric => "a number (N)",
            Self::BigInt => "a number (N) that is an integer of 64 bits",
            Self::Boolean => "a truth value (BOOL)",
            Self::Timestamp(TimestampFormat::Rfc3339) => {
                "a string (S) that is an RFC 3339 time in the years 0 to 9999 (UTC)"
            }
            Self::Timestamp(TimestampFormat::EpochSeconds) => {
                "a number (N) of seconds since 1970, in the years 0 to 9999"
            }
            Self::Timestamp(TimestampFormat::EpochMilliseconds) => {
                "a number (N) of milliseconds since 1970, in the years 0 to 9999"
            }
            Self::Date => "a string (S) that is a date YYYY-MM-DD",
            Self::Json => "a value of a known type",
            Self::Bytes => "binary data (B)",
            Self::TextArray => "a set of strings (SS) or a list of strings (L of S)",
            Self::NumericArray => "a set of numbers (NS) or a list of numbers (L of N)",
        }
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The handling of a value that its column cannot store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OtherwiseRule {
    /// The column is null, and the value is counted.
    #[default]
    Null,
    /// The item is rejected, so that its record is quarantined.
    Quarantine,
}

impl OtherwiseRule {
    /// The names of all rules.
    pub const NAMES: [&'static str; 2] = ["null", "quarantine"];

    /// Parses a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Null, Self::Quarantine].into_iter().find(|rule| rule.name() == name)
    }

    /// Returns the name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Null => Self::NAMES[0],
            Self::Quarantine => Self::NAMES[1],
        }
    }
}

/// A column: its name, the path of the attribute that it contains, and its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnDefinition {
    /// The name.
    pub name: String,
    /// The path of the attribute.
    pub path: AttributePath,
    /// The type.
    pub kind: ColumnType,
}

/// The value of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnValue<'a> {
    /// A string.
    Text(Cow<'a, str>),
    /// A number in canonical format.
    Numeric(Cow<'a, str>),
    /// An integer.
    BigInt(i64),
    /// A truth value.
    Boolean(bool),
    /// A point in time, in whole microseconds.
    Timestamp(OffsetDateTime),
    /// A calendar date.
    Date(Date),
    /// Plain JSON text.
    Json(String),
    /// Binary data.
    Bytes(Vec<u8>),
    /// Strings.
    TextArray(Vec<Cow<'a, str>>),
    /// Numbers in canonical format.
    NumericArray(Vec<Cow<'a, str>>),
}

impl ColumnValue<'_> {
    /// Returns the same value without borrowing from the item.
    #[must_use]
    pub fn into_owned(self) -> ColumnValue<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        match self {
            Self::Text(text) => ColumnValue::Text(own(text)),
            Self::Numeric(number) => ColumnValue::Numeric(own(number)),
            Self::BigInt(number) => ColumnValue::BigInt(number),
            Self::Boolean(value) => ColumnValue::Boolean(value),
            Self::Timestamp(time) => ColumnValue::Timestamp(time),
            Self::Date(date) => ColumnValue::Date(date),
            Self::Json(json) => ColumnValue::Json(json),
            Self::Bytes(bytes) => ColumnValue::Bytes(bytes),
            Self::TextArray(texts) => ColumnValue::TextArray(texts.into_iter().map(own).collect()),
            Self::NumericArray(numbers) => ColumnValue::NumericArray(numbers.into_iter().map(own).collect()),
        }
    }
}

/// The values of the columns of an item.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ColumnValues<'a> {
    /// One value for each column, in the order of the columns.
    pub values: Vec<Option<ColumnValue<'a>>>,
    /// The indexes of the columns that are null because they cannot store their values.
    pub replaced_by_null: Vec<usize>,
}

impl ColumnValues<'_> {
    /// Returns the same values without borrowing from the item.
    #[must_use]
    pub fn into_owned(self) -> ColumnValues<'static> {
        let values = self.values.into_iter().map(|value| value.map(ColumnValue::into_owned)).collect();
        ColumnValues { values, replaced_by_null: self.replaced_by_null }
    }
}

/// An item whose columns cannot be read. The message names the column and never contains a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ColumnError {
    /// The item is not valid DynamoDB JSON.
    #[error("the image is not a map of attributes (line {line} column {column})")]
    Malformed {
        /// The line of the error.
        line: usize,
        /// The column of the error.
        column: usize,
    },
    /// A column cannot store the value.
    #[error("column {name:?} ({kind}) cannot store the attribute {path}: expected {expected}", expected = .kind.expected())]
    Unfit {
        /// The name of the column.
        name: String,
        /// The path of the attribute.
        path: String,
        /// The type of the column.
        kind: ColumnType,
    },
}

/// The columns of a table, in their order; by default none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableColumns {
    columns: Vec<ColumnDefinition>,
    otherwise: OtherwiseRule,
    /// The columns by the first attribute name of their paths, so that an item is read once for all of them.
    groups: Vec<PathGroup>,
}

impl TableColumns {
    /// Creates the columns.
    #[must_use]
    pub fn new(columns: Vec<ColumnDefinition>, otherwise: OtherwiseRule) -> Self {
        let groups = group_by_attribute(&columns);
        Self { columns, otherwise, groups }
    }

    /// Returns the columns.
    #[must_use]
    pub fn definitions(&self) -> &[ColumnDefinition] {
        &self.columns
    }

    /// Returns the handling of a value that its column cannot store.
    #[must_use]
    pub fn otherwise(&self) -> OtherwiseRule {
        self.otherwise
    }

    /// Reads the values of the columns from an item, which is `DynamoDB` JSON.
    ///
    /// # Errors
    /// [`ColumnError`] if the text is not an item, or if a column cannot store its value and `otherwise` is
    /// [`OtherwiseRule::Quarantine`].
    pub fn read<'a>(&self, item: &'a str) -> Result<ColumnValues<'a>, ColumnError> {
        let mut found = ColumnValues { values: vec![None; self.columns.len()], replaced_by_null: Vec::new() };
        if self.groups.is_empty() {
            return Ok(found);
        }
        let attributes = attributes_of(item, &self.groups)
            .map_err(|error| ColumnError::Malformed { line: error.line(), column: error.column() })?;
        for (group, attribute) in self.groups.iter().zip(attributes) {
            let Some(attribute) = attribute else { continue };
            for index in &group.columns {
                let ColumnDefinition { name, path, kind } = &self.columns[*index];
                let converted = match path.find_inner(attribute) {
                    Ok(None) => continue,
                    Ok(Some(value)) => convert::value(value, *kind),
                    Err(_) => Err(convert::UnfitValue),
                };
                match converted {
                    Ok(value) => found.values[*index] = value,
                    Err(convert::UnfitValue) if self.otherwise == OtherwiseRule::Null => {
                        found.replaced_by_null.push(*index);
                    }
                    Err(convert::UnfitValue) => {
                        return Err(ColumnError::Unfit { name: name.clone(), path: path.to_string(), kind: *kind });
                    }
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
