//! The settings of the archive, which the archiver and the maintenance function share: [`ArchiveConfig`].

use millrace_shared::environment::{self, Environment, EnvironmentError};

use crate::Compression;
use crate::store::ArchiveStore;
use crate::writer::ArchiveWriter;

/// The settings of the archive, from the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveConfig {
    /// `ARCHIVE_BUCKET`: the bucket for the archive objects.
    pub bucket: String,
    /// `ARCHIVE_COMPRESSION`: `zstd` (default) or `gzip`.
    pub compression: Compression,
}

impl ArchiveConfig {
    /// Parses the environment.
    ///
    /// # Errors
    /// All missing and malformed variables, in one error.
    pub fn parse(environment: &Environment) -> Result<Self, EnvironmentError> {
        let mut read = environment.read();
        let bucket = read.required("ARCHIVE_BUCKET", environment::text);
        let compression = read.optional("ARCHIVE_COMPRESSION", |text| {
            Compression::parse(text).map_err(|_| format!("is {text:?}: set it to zstd or gzip"))
        });
        let problems = read.problems();
        match bucket {
            Some(bucket) if problems.is_empty() => Ok(Self { bucket, compression: compression.unwrap_or_default() }),
            _ => Err(problems),
        }
    }

    /// Creates the writer of these settings; it sends no request before its first object.
    #[must_use]
    pub fn writer(&self, s3: aws_sdk_s3::Client) -> ArchiveWriter {
        ArchiveWriter::new(ArchiveStore::new(s3, self.bucket.clone()), self.compression)
    }
}
