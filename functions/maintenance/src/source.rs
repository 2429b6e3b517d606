//! The table that the replicas mirror: its items, and the label of its latest stream.

use shared::change::CanonicalKey;
use shared::raw_item::RawItem;
use shared::raw_table::{Description, Page, RawTable, Segment, TableFault};
use shared::revision::StreamLabel;

/// Why a source cannot be worked from.
#[derive(Debug, thiserror::Error)]
pub enum SourceFault {
    /// It does not answer.
    #[error("USERS_TABLE: {0}")]
    Table(#[from] TableFault),
    /// It has never had a stream, so nothing of it has an age.
    #[error("USERS_TABLE: table {0} has no stream: nothing of it can be replicated; give it one of NEW_AND_OLD_IMAGES")]
    NoStream(String),
}

/// The source.
#[derive(Debug, Clone)]
pub struct Source {
    table: RawTable,
    description: Description,
    key_names: Vec<String>,
}

impl Source {
    /// Asks the table what it is.
    ///
    /// # Errors
    /// [`SourceFault`] if it is not there.
    pub async fn open(table: RawTable) -> Result<Self, SourceFault> {
        let description = table.describe().await?;
        Ok(Self { table, key_names: description.key_names(), description })
    }

    /// What the table said of itself.
    #[must_use]
    pub fn description(&self) -> &Description {
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
    /// [`SourceFault`] if the table does not answer, or has no stream.
    pub async fn stream(&self) -> Result<(StreamLabel, String), SourceFault> {
        let description = self.table.describe().await?;
        let stream = description.stream_label().zip(description.stream_arn);
        stream.ok_or_else(|| SourceFault::NoStream(self.table.name().to_owned()))
    }

    /// The items under these keys, and what they cost in read capacity units.
    ///
    /// # Errors
    /// [`SourceFault`] if the table does not tell all of them.
    pub async fn read(&self, keys: &[CanonicalKey]) -> Result<(Vec<Option<RawItem>>, f64), SourceFault> {
        let found = self.table.read(keys).await?;
        Ok((found.items, found.units))
    }

    /// A page of a segment.
    ///
    /// # Errors
    /// [`SourceFault`] if the table does not tell it.
    pub async fn scan(&self, segment: Segment, after: Option<&CanonicalKey>) -> Result<Page, SourceFault> {
        Ok(self.table.scan(segment, after, &self.key_names, None).await?)
    }
}
