//! Digest of a sequence of rows that is the same for the rows written and for the columns read back: [`RowsChecksum`].

use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array as _, RecordBatch, cast::AsArray as _};
use millrace_archive::ArchivedRow;
use sha2::{Digest as _, Sha256};

use super::{ITEM, KEY, REMOVED_AT, REVISION, micros};

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
