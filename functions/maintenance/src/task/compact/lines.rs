//! The parts of a compaction: the archive's own rows, line by line. [`Lines`]

use std::fs::File;
use std::io;

use archiver::archive::{ArchivedRow, CompactedKey, Compression, Day, Writer, prove};
use archiver::store::{ROWS_TYPE, Store};
use tempfile::NamedTempFile;
use tokio::runtime::Handle;

use crate::archived::{Unread, Unsound};
use crate::task::merge::{Kind, MergeFault, Output};

/// What the parts of a merge have in common.
pub(super) struct Lines {
    pub(super) store: Store,
    pub(super) table: String,
    pub(super) day: Day,
    pub(super) run: String,
    pub(super) compression: Compression,
    pub(super) runtime: Handle,
}

/// A part being written.
pub(super) struct Part {
    writer: Writer<File>,
    file: NamedTempFile,
}

impl Kind for Lines {
    type Part = Part;

    fn begin(&self) -> Result<Part, MergeFault> {
        let file = NamedTempFile::new()?;
        Ok(Part { writer: Writer::new(self.compression, file.reopen()?)?, file })
    }

    fn push(&self, part: &mut Part, row: &ArchivedRow) -> Result<u64, MergeFault> {
        part.writer.push(&row.as_row())?;
        Ok(part.writer.content_bytes())
    }

    /// What is read back is what was written, as far as bytes and the number of rows tell.
    fn put(&self, part: Part, place: u32, _: bool) -> Result<Output, MergeFault> {
        let Part { writer, file } = part;
        let (written, _) = writer.finish(self.day.start())?;
        let (table, day, run) = (self.table.clone(), self.day, self.run.clone());
        let key = CompactedKey { table, day, run, part: place, compression: self.compression }.to_string();
        let metadata = written.encode().map_err(io::Error::other)?;
        let metadata = metadata.into_iter().collect();
        self.store.blocking_put_file(&key, ROWS_TYPE, file.path(), written.sha256, metadata, &self.runtime)?;
        let Some(stored) = self.store.blocking_open(&key, &self.runtime)? else {
            return Err(MergeFault::Gone(key));
        };
        let metadata = stored.metadata().clone();
        let proven = prove(&key, &metadata, stored).map_err(|damage| match Unsound::of(damage) {
            Unsound::Unread(Unread::Store(error)) => MergeFault::Store(error),
            Unsound::Unread(Unread::Gone(key)) => MergeFault::Gone(key),
            Unsound::Damaged(damage) => MergeFault::Unproven(damage.to_string()),
        })?;
        if proven == written {
            Ok(Output { key, rows: written.rows })
        } else {
            Err(MergeFault::Unproven(format!("{key} is described as another object")))
        }
    }
}
