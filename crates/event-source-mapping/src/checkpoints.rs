//! Checkpoints of a mapping, stored next to the data that it reads: [`CheckpointFile`].
//!
//! Reading a stream again from its beginning would be safe for a replica (its writes are conditional), but batches with
//! different boundaries would write rows again to further archive objects. Therefore the checkpoints are saved after
//! every batch.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use millrace_shared::file::replace_file;
use millrace_shared::revision::SequenceNumber;
use serde::{Deserialize, Serialize};

use super::state::{ShardId, ShardPosition};

/// A checkpoint file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("checkpoint file {} {reason}: move it away, and its mapping starts from the stream's beginning", path.display())]
pub struct CheckpointError {
    path: PathBuf,
    reason: String,
}

/// The checkpoint file of one mapping.
#[derive(Debug)]
pub struct CheckpointFile {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckpointContent {
    stream: String,
    shards: BTreeMap<String, ShardCheckpoint>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShardCheckpoint {
    lanes: Vec<Option<String>>,
    drained: bool,
}

impl CheckpointFile {
    /// Returns the file of the mapping with this name in a folder, which may not exist yet.
    #[must_use]
    pub fn new(folder: &Path, mapping: &str) -> Self {
        Self { path: folder.join(format!("{mapping}.json")) }
    }

    fn fault(&self, reason: std::fmt::Arguments<'_>) -> CheckpointError {
        CheckpointError { path: self.path.clone(), reason: reason.to_string() }
    }

    /// Loads the checkpoints of this stream; they are empty if the file does not exist, or belongs to an earlier stream
    /// of the table.
    ///
    /// # Errors
    /// [`CheckpointError`] if the file exists and cannot be read.
    pub fn load(&self, stream: &str) -> Result<BTreeMap<ShardId, ShardPosition>, CheckpointError> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(self.fault(format_args!("cannot be read ({error})"))),
        };
        let content: CheckpointContent =
            serde_json::from_str(&text).map_err(|error| self.fault(format_args!("is corrupt ({error})")))?;
        if content.stream != stream {
            return Ok(BTreeMap::new());
        }
        let number = |text: String| SequenceNumber::parse(&text);
        let checkpoint = |(id, shard): (String, ShardCheckpoint)| {
            let lanes = shard.lanes.into_iter().map(|lane| lane.map(number).transpose()).collect::<Result<_, _>>()?;
            Ok((id.into(), ShardPosition { lanes, drained: shard.drained }))
        };
        content
            .shards
            .into_iter()
            .map(checkpoint)
            .collect::<Result<_, millrace_shared::revision::RevisionError>>()
            .map_err(|error| self.fault(format_args!("is corrupt ({error})")))
    }

    /// Replaces the checkpoints. The new content is written completely to another file, which then replaces the old
    /// one.
    ///
    /// # Errors
    /// [`CheckpointError`] if the folder or the file cannot be written.
    pub fn save(&self, stream: &str, shards: &BTreeMap<ShardId, ShardPosition>) -> Result<(), CheckpointError> {
        let number = |lane: &Option<SequenceNumber>| lane.map(|number| number.to_string());
        let shard = |(id, checkpoint): (&ShardId, &ShardPosition)| {
            let lanes = checkpoint.lanes.iter().map(number).collect();
            (id.to_string(), ShardCheckpoint { lanes, drained: checkpoint.drained })
        };
        let content = CheckpointContent { stream: stream.to_owned(), shards: shards.iter().map(shard).collect() };
        let write = || {
            let folder = self.path.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder)?;
            replace_file(&self.path, &serde_json::to_vec(&content)?)
        };
        write().map_err(|error: std::io::Error| self.fault(format_args!("cannot be written ({error})")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> BTreeMap<ShardId, ShardPosition> {
        let number = |text| Some(SequenceNumber::parse(text).unwrap());
        let open = ShardPosition { lanes: vec![number("100000000000000000001"), None], drained: false };
        let closed = ShardPosition { lanes: vec![number("9999999999999999999999999999999999999999")], drained: true };
        [("a".into(), closed), ("b".into(), open)].into()
    }

    #[test]
    fn saved_checkpoints_are_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let file = CheckpointFile::new(&folder.path().join("pump"), "Changes");
        assert_eq!(file.load("arn").unwrap(), BTreeMap::new());
        file.save("arn", &BTreeMap::new()).unwrap();
        file.save("arn", &some()).unwrap();
        assert_eq!(file.load("arn").unwrap(), some());
        assert_eq!(std::fs::read_dir(folder.path().join("pump")).unwrap().count(), 1, "nothing else is left behind");
    }

    #[test]
    fn an_earlier_stream_s_checkpoints_are_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let file = CheckpointFile::new(folder.path(), "Changes");
        file.save("arn", &some()).unwrap();
        assert_eq!(file.load("another").unwrap(), BTreeMap::new());
    }

    #[test]
    fn folder_or_link_to_a_device_is_named_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(format!("{name}.json"));
        std::fs::create_dir(path("Folder")).unwrap();
        std::os::unix::fs::symlink("/dev/null", path("Device")).unwrap();
        for (name, part) in [("Folder", "is a folder"), ("Device", "is a device")] {
            let message = CheckpointFile::new(folder.path(), name).save("arn", &some()).unwrap_err().to_string();
            assert!(message.contains(&format!("{name}.json cannot be written ({part}")), "{message}");
        }
        assert!(std::fs::symlink_metadata(path("Device")).unwrap().is_symlink());
    }

    #[test]
    fn a_damaged_file_is_refused_and_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = CheckpointFile::new(folder.path(), "Changes");
        let path = folder.path().join("Changes.json");
        for text in ["", "{}", r#"{"stream":"arn","shards":{"a":{"lanes":["x"],"drained":false}}}"#] {
            std::fs::write(&path, text).unwrap();
            let error = file.load("arn").unwrap_err().to_string();
            assert!(error.contains("Changes.json") && error.contains("move it away"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
