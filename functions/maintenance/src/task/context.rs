//! The dependencies of a task: [`TaskContext`].

use millrace_archive::store::ArchiveStore;
use millrace_archive::{Compression, KeyNames};
use millrace_shared::invocation::Invocation;
use millrace_shared::table::RestoreTable;
use millrace_sinks::Replica;
use millrace_transform::columns::TableColumns;

use crate::archive_scan::ArchiveReader;
use crate::deployment::DeployedReplicator;
use crate::failure_bucket::FailureBucket;
use crate::failure_record::FunctionNames;
use crate::mapping::ReplicatorMappings;
use crate::parquet::ColumnDefinition;
use crate::source::SourceTable;
use crate::task::error::ArchiveOffError;

/// The dependencies of a task that processes the source's segments, for one invocation.
pub struct TaskContext<'a> {
    /// The ID of the run.
    pub run_id: &'a str,
    /// The invocation.
    pub invocation: &'a Invocation,
    /// The source table.
    pub source: &'a SourceTable,
    /// The source table, for the writes of a restore.
    pub restore_table: &'a RestoreTable,
    /// The replicas that the task processes.
    pub replicas: &'a [&'a dyn Replica],
    /// The failure bucket, which also stores the reports.
    pub bucket: &'a FailureBucket,
    /// The archive; `None` if the deployment has none.
    pub archive: Option<&'a ArchiveStore>,
    /// The compression of the objects that are written to the archive.
    pub compression: Compression,
    /// The columns of a Parquet export in addition to those that every table has.
    pub parquet_columns: &'a [ColumnDefinition],
    /// The columns that the replication document declares for a Parquet export.
    pub declared_columns: &'a TableColumns,
    /// The event source mappings that feed the replicas.
    pub mappings: &'a ReplicatorMappings,
    /// The deployed replicator, whose configuration names its sinks.
    pub deployment: &'a DeployedReplicator,
    /// The names of the deployed functions.
    pub functions: &'a FunctionNames,
}

impl TaskContext<'_> {
    /// Returns the table that the rows of the archive were removed from.
    #[must_use]
    pub fn table(&self) -> &str {
        self.source.table_name()
    }

    /// Returns the names of the table's key attributes.
    #[must_use]
    pub fn key_names(&self) -> KeyNames {
        KeyNames::new(self.source.description().key_names())
    }

    /// Returns the archive.
    ///
    /// # Errors
    /// [`ArchiveOffError`] if the deployment has none.
    pub fn archive(&self) -> Result<&ArchiveStore, ArchiveOffError> {
        self.archive.ok_or(ArchiveOffError)
    }

    /// Returns the archive of the table.
    ///
    /// # Errors
    /// [`ArchiveOffError`] if the deployment has none.
    pub fn archive_reader(&self) -> Result<ArchiveReader, ArchiveOffError> {
        let store = self.archive()?.clone();
        Ok(ArchiveReader { store, table: self.table().to_owned(), key_names: self.key_names() })
    }
}
