//! The table that the replicas mirror: its items, and the label of its latest stream.

use millrace_shared::change::CanonicalKey;
use millrace_shared::raw_item::RawItem;
use millrace_shared::revision::StreamLabel;
use millrace_shared::table_reader::{ScanPage, ScanSegment, SourceDescription, TableReadError, TableReader};

/// Error of the source table.
#[derive(Debug, thiserror::Error)]
pub enum SourceTableError {
    /// A request to the table failed.
    #[error("SOURCE_TABLE: {0}")]
    Table(#[from] TableReadError),
    /// The table has never had a stream, so its changes have no revisions.
    #[error("SOURCE_TABLE: table {0} has no stream: enable a stream with StreamViewType NEW_AND_OLD_IMAGES")]
    NoStream(String),
}

/// The source table.
#[derive(Debug, Clone)]
pub struct SourceTable {
    table: TableReader,
    description: SourceDescription,
    key_names: Vec<String>,
}

impl SourceTable {
    /// Opens the table and reads its description.
    ///
    /// # Errors
    /// [`SourceTableError`] if the description cannot be read.
    pub async fn open(table: TableReader) -> Result<Self, SourceTableError> {
        let description = table.describe().await?;
        Ok(Self { table, key_names: description.key_names(), description })
    }

    /// Returns the description that was read when the table was opened.
    #[must_use]
    pub fn description(&self) -> &SourceDescription {
        &self.description
    }

    /// Returns the table's name as it appears in its ARN, and therefore in the stream's ARN and the archive's keys,
    /// even if the function is configured with an ARN instead of a name.
    #[must_use]
    pub fn table_name(&self) -> &str {
        self.description.arn.split_once(":table/").map_or(self.table.name(), |(_, name)| name)
    }

    /// Reads the label of the latest stream, as of now, and its ARN.
    ///
    /// # Errors
    /// [`SourceTableError`] if the description cannot be read, or the table has no stream.
    pub async fn stream(&self) -> Result<(StreamLabel, String), SourceTableError> {
        let description = self.table.describe().await?;
        let stream = description.stream_label().zip(description.stream_arn);
        stream.ok_or_else(|| SourceTableError::NoStream(self.table.name().to_owned()))
    }

    /// Reads the name of the attribute by which TTL removes items; `None` if TTL is not enabled.
    ///
    /// # Errors
    /// [`SourceTableError`] if it cannot be read.
    pub async fn ttl_attribute(&self) -> Result<Option<String>, SourceTableError> {
        Ok(self.table.ttl_attribute().await?)
    }

    /// Reads the items with these keys; also returns the read capacity units that this consumed.
    ///
    /// # Errors
    /// [`SourceTableError`] if not all of them can be read.
    pub async fn read(&self, keys: &[CanonicalKey]) -> Result<(Vec<Option<RawItem>>, f64), SourceTableError> {
        let found = self.table.read(keys).await?;
        Ok((found.items, found.units))
    }

    /// Reads a page of a segment.
    ///
    /// # Errors
    /// [`SourceTableError`] if the page cannot be read.
    pub async fn scan(&self, segment: ScanSegment, after: Option<&CanonicalKey>) -> Result<ScanPage, SourceTableError> {
        Ok(self.table.scan(segment, after, &self.key_names, None).await?)
    }
}
