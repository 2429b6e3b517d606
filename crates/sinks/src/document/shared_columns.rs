//! The member `columns` of a document: the typed columns that every store of its items has.
//!
//! One declaration serves the Parquet files of the archive, which Athena and DuckDB query, and each PostgreSQL replica
//! that declares no columns of its own. A name must therefore be valid in all of them.

use millrace_transform::columns::{ColumnDefinition, OtherwiseRule, TableColumns};
use serde::{Serialize, Serializer};

use super::json::{JsonValue, member_pointer};
use super::postgres_table::ColumnMembers;
use super::{DocumentReader, ReplicationDocument};

/// The columns that every Parquet file has, and the one that its path contains.
const PARQUET_COLUMNS: [&str; 11] = [
    "partition_key",
    "partition_key_integer",
    "sort_key",
    "sort_key_integer",
    "key",
    "revision",
    "revision_bytes",
    "removed_at",
    "event_id",
    "item",
    "dt",
];

impl ReplicationDocument {
    /// Returns the columns that the document declares for all stores. A value that its column cannot store is null.
    #[must_use]
    pub fn columns(&self) -> &TableColumns {
        &self.columns
    }
}

impl DocumentReader {
    /// Reads the columns of all stores; returns `None` if one of them is invalid.
    pub(super) fn shared_columns(&mut self, value: Option<&JsonValue>) -> Option<Vec<ColumnDefinition>> {
        const POINTER: &str = "/columns";
        let listed = match value {
            None => return Some(Vec::new()),
            Some(JsonValue::Object(listed)) => listed,
            Some(other) => {
                let reason = format!("is {}: set it to an object with a member for each column", other.quoted());
                self.add(POINTER, reason);
                return None;
            }
        };
        let columns = self.columns(POINTER, listed);
        let before = self.problems.len();
        for (name, _) in listed {
            let location = member_pointer(POINTER, name);
            if self.problems.iter().any(|problem| problem.pointer == location) {
                continue;
            }
            if PARQUET_COLUMNS.contains(&name.as_str()) {
                self.add(location, "is the name of a column that every Parquet file has: choose another name");
            } else if !is_portable(name) {
                self.add(
                    location,
                    "is not a name that PostgreSQL, Athena and DuckDB all accept unchanged: use a lowercase letter, then up to \
                     62 lowercase letters, digits or underscores",
                );
            }
        }
        columns.filter(|_| self.problems.len() == before)
    }
}

/// Returns whether all stores read the name without quotes and without a change of case.
fn is_portable(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Returns the columns of all stores.
pub(super) fn table_columns(columns: Vec<ColumnDefinition>) -> TableColumns {
    TableColumns::new(columns, OtherwiseRule::Null)
}

/// Serializes the columns as the member `columns`.
pub(super) fn serialize<S: Serializer>(columns: &TableColumns, serializer: S) -> Result<S::Ok, S::Error> {
    ColumnMembers(columns.definitions()).serialize(serializer)
}

/// Returns whether the document declares no columns for all stores.
pub(super) fn is_empty(columns: &TableColumns) -> bool {
    columns.definitions().is_empty()
}
