//! The table that the replicas mirror: its items, and the label of its latest stream.

use shared::change::CanonicalKey;
use shared::raw_item::RawItem;
use shared::revision::StreamLabel;
use shared::table_reader::{ScanPage, ScanSegment, SourceDescription, TableReadError, TableReader};

/// Why a source cannot be worked from.
#[derive(Debug, thiserror::Error)]
pub enum SourceTableError {
    /// It does not answer.
    #[error("USERS_TABLE: {0}")]
    Table(#[from] TableReadError),
    /// It has never had a stream, so nothing of it has an age.
    #[error("USERS_TABLE: table {0} has no stream: nothing of it can be replicated; give it one of NEW_AND_OLD_IMAGES")]
    NoStream(String),
}

/// The source.
#[derive(Debug, Clone)]
pub struct SourceTable {
    table: TableReader,
    description: SourceDescription,
    key_names: Vec<String>,
}

impl SourceTable {
    /// Asks the table what it is.
    ///
    /// # Errors
    /// [`SourceTableError`] if it is not there.
    pub async fn open(table: TableReader) -> Result<Self, SourceTableError> {
        let description = table.describe().await?;
        Ok(Self { table, key_names: description.key_names(), description })
    }

    /// What the table said of itself.
    #[must_use]
    pub fn description(&self) -> &SourceDescription {
        &self.description
    }

    /// The table's name, as its stream and so the archive's keys have it, whatever it was asked by.
    #[must_use]
    pub fn table_name(&self) -> &str {
        self.description.arn.split_once(":table/").map_or(self.table.name(), |(_, name)| name)
    }

    /// The label of the latest stream, as it is now, and its ARN.
    ///
    /// # Errors
    /// [`SourceTableError`] if the table does not answer, or has no stream.
    pub async fn stream(&self) -> Result<(StreamLabel, String), SourceTableError> {
        let description = self.table.describe().await?;
        let stream = description.stream_label().zip(description.stream_arn);
        stream.ok_or_else(|| SourceTableError::NoStream(self.table.name().to_owned()))
    }

    /// The items under these keys, and what they cost in read capacity units.
    ///
    /// # Errors
    /// [`SourceTableError`] if the table does not tell all of them.
    pub async fn read(&self, keys: &[CanonicalKey]) -> Result<(Vec<Option<RawItem>>, f64), SourceTableError> {
        let found = self.table.read(keys).await?;
        Ok((found.items, found.units))
    }

    /// A page of a segment.
    ///
    /// # Errors
    /// [`SourceTableError`] if the table does not tell it.
    pub async fn scan(&self, segment: ScanSegment, after: Option<&CanonicalKey>) -> Result<ScanPage, SourceTableError> {
        Ok(self.table.scan(segment, after, &self.key_names, None).await?)
    }
}
