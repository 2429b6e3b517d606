//! The output format of a compaction: the archive's own rows, as NDJSON. [`NdjsonFormat`]

use std::fs::File;
use std::io;

use millrace_archive::store::{ArchiveStore, ROWS_TYPE};
use millrace_archive::{ArchiveDay, ArchivedRow, CompactedKey, Compression, ObjectWriter, verify_object};
use tempfile::NamedTempFile;
use tokio::runtime::Handle;

use crate::archive_objects::{ArchiveRowError, ObjectReadError};
use crate::task::archive::merge::{MergeError, MergeOutput, OutputFormat};

/// The settings that all parts of a merge share.
pub(super) struct NdjsonFormat {
    pub(super) store: ArchiveStore,
    pub(super) table: String,
    pub(super) day: ArchiveDay,
    pub(super) run: String,
    pub(super) compression: Compression,
    pub(super) runtime: Handle,
}

/// A part that is being written.
pub(super) struct NdjsonPart {
    writer: ObjectWriter<File>,
    file: NamedTempFile,
}

impl OutputFormat for NdjsonFormat {
    type Part = NdjsonPart;

    fn begin(&self) -> Result<NdjsonPart, MergeError> {
        let file = NamedTempFile::new()?;
        Ok(NdjsonPart { writer: ObjectWriter::new(self.compression, file.reopen()?)?, file })
    }

    fn push(&self, part: &mut NdjsonPart, row: &ArchivedRow) -> Result<u64, MergeError> {
        part.writer.push(&row.as_row())?;
        Ok(part.writer.content_bytes())
    }

    /// Uploads the part and verifies it: the object read back must have the digest and the number of rows of the one
    /// written.
    fn put(&self, part: NdjsonPart, position: u32, _: bool) -> Result<MergeOutput, MergeError> {
        let NdjsonPart { writer, file } = part;
        let (written, _) = writer.finish(self.day.start())?;
        let (table, day, run) = (self.table.clone(), self.day, self.run.clone());
        let key = CompactedKey { table, day, run, part: position, compression: self.compression }.to_string();
        let metadata = written.encode().map_err(io::Error::other)?;
        let metadata = metadata.into_iter().collect();
        self.store.blocking_put_file(&key, ROWS_TYPE, file.path(), written.sha256, metadata, &self.runtime)?;
        let Some(stored) = self.store.blocking_open(&key, &self.runtime)? else {
            return Err(MergeError::Gone(key));
        };
        let metadata = stored.metadata().clone();
        let proven =
            verify_object(&key, &metadata, stored).map_err(|corrupt| {
                match ArchiveRowError::from_corruption(corrupt) {
                    ArchiveRowError::Unread(ObjectReadError::Store(error)) => MergeError::Store(error),
                    ArchiveRowError::Unread(ObjectReadError::NotFound(key)) => MergeError::Gone(key),
                    ArchiveRowError::Corrupt(corrupt) => MergeError::VerificationFailed(corrupt.to_string()),
                }
            })?;
        if proven == written {
            Ok(MergeOutput { key, rows: written.rows })
        } else {
            Err(MergeError::VerificationFailed(format!("{key}: the metadata differs")))
        }
    }
}
