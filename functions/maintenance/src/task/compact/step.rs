//! One merge: up to [`FAN_IN`](super::plan::FAN_IN) runs into one.
//!
//! What is written is spooled in a temporary file, a part at a time: an upload must be given the object's metadata at its
//! beginning, and count, times and digest are known at its end. Held in memory, a part that does not compress would cost
//! its whole size. The file is gone once the part is put.

use std::fs::File;
use std::io;
use std::sync::Arc;

use archiver::archive::{CompactedKey, Compression, Damage, Day, KeyNames, Merge, Writer, prove};
use archiver::store::Store;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::CompactFault;
use super::plan::Run;
use crate::archived::{Chain, Unread, Unsound};

/// How many rows are merged between two looks at the clock.
const ROWS_A_LOOK: u64 = 1_024;

pub(super) struct Step {
    pub(super) store: Store,
    pub(super) table: String,
    pub(super) day: Day,
    pub(super) key_names: KeyNames,
    pub(super) compression: Compression,
    pub(super) target_bytes: u64,
    pub(super) stop_at: Instant,
    pub(super) inputs: Vec<Run>,
}

/// What came of it.
pub(super) enum Stepped {
    Merged(Merged),
    /// An input is not to be read.
    Damaged(Damage),
    /// The time is up.
    Stopped,
}

pub(super) struct Merged {
    pub(super) run: String,
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<Output>,
    pub(super) rows: u64,
    pub(super) repeated: u64,
}

/// An object that was written and read back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Output {
    pub(super) key: String,
    pub(super) rows: u64,
}

/// A part being written.
struct Part {
    writer: Writer<File>,
    file: NamedTempFile,
}

impl Part {
    fn begin(compression: Compression) -> io::Result<Self> {
        let file = NamedTempFile::new()?;
        Ok(Self { writer: Writer::new(compression, file.reopen()?)?, file })
    }
}

impl Step {
    pub(super) async fn run(self) -> Result<Stepped, CompactFault> {
        let runtime = Handle::current();
        let merging = tokio::task::spawn_blocking(move || self.merge(&runtime));
        merging.await.map_err(|error| CompactFault::Spool(io::Error::other(error)))?
    }

    fn merge(self, runtime: &Handle) -> Result<Stepped, CompactFault> {
        let inputs: Vec<String> = self.inputs.iter().flatten().cloned().collect();
        let run = CompactedKey::run_of(inputs.iter().map(String::as_str), self.target_bytes, self.compression);
        let names = Arc::new(self.key_names.clone());
        let chain = |run: &Run| Chain::new(run.clone(), self.store.clone(), Arc::clone(&names), runtime.clone());
        let mut merge = Merge::new(self.inputs.iter().map(chain).collect());
        let (mut outputs, mut rows, mut part) = (Vec::new(), 0_u64, None);
        for row in &mut merge {
            let row = match row {
                Ok(row) => row,
                Err(Unsound::Damaged(damage)) => return Ok(Stepped::Damaged(damage)),
                Err(Unsound::Unread(unread)) => return Err(unread.into()),
            };
            if rows.is_multiple_of(ROWS_A_LOOK) && Instant::now() >= self.stop_at {
                return Ok(Stepped::Stopped);
            }
            let open = match &mut part {
                Some(open) => open,
                none => none.insert(Part::begin(self.compression)?),
            };
            let row = row.as_row().ok_or_else(|| io::Error::other("a row's item is no JSON object"))?;
            open.writer.push(&row)?;
            rows += 1;
            if open.writer.content_bytes() >= self.target_bytes {
                outputs.extend(part.take().map(|part| self.put(part, &run, outputs.len(), runtime)).transpose()?);
            }
        }
        outputs.extend(part.take().map(|part| self.put(part, &run, outputs.len(), runtime)).transpose()?);
        let repeated = merge.repeated();
        Ok(Stepped::Merged(Merged { run, inputs, outputs, rows, repeated }))
    }

    /// Puts a part and reads it back: it is what was written, as far as bytes and the number of rows tell.
    fn put(&self, part: Part, run: &str, place: usize, runtime: &Handle) -> Result<Output, CompactFault> {
        let Part { writer, file } = part;
        let (written, _) = writer.finish(self.day.start())?;
        let key = CompactedKey {
            table: self.table.clone(),
            day: self.day,
            run: run.to_owned(),
            part: u32::try_from(place).unwrap_or(u32::MAX),
            compression: self.compression,
        };
        let key = key.to_string();
        let metadata = written.encode().map_err(io::Error::other)?;
        runtime.block_on(self.store.put_file(&key, file.path(), written.sha256, metadata))?;
        let Some(stored) = runtime.block_on(self.store.open(&key))? else {
            return Err(CompactFault::Gone(key));
        };
        let metadata = stored.metadata().clone();
        let proven = prove(&key, &metadata, stored).map_err(|damage| match Unsound::of(damage) {
            Unsound::Unread(Unread::Store(error)) => CompactFault::Store(error),
            Unsound::Unread(Unread::Gone(key)) => CompactFault::Gone(key),
            Unsound::Damaged(damage) => CompactFault::Unproven(damage.to_string()),
        })?;
        if proven == written {
            Ok(Output { key, rows: written.rows })
        } else {
            Err(CompactFault::Unproven(format!("{key} is described as another object")))
        }
    }
}
