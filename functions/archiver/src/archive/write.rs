//! Rows to an object: sorted, named by what they are, compressed, and described.

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::compression::{CHUNK_BYTES, RowEncoder};
use super::key::RowsDigest;
use super::row::NdjsonRowWriter;
use super::{ArchiveHour, ArchiveRow, Compression, ObjectKey, ObjectMetadata};

/// An object, ready to be put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedObject {
    /// Where it lies.
    pub key: ObjectKey,
    /// Its metadata.
    pub description: ObjectMetadata,
    /// Its bytes, compressed.
    pub bytes: Vec<u8>,
}

/// Makes the object of one table's rows of one hour.
///
/// The same rows give the same object, whatever order they come in and however often each does.
///
/// # Errors
/// If the encoder gives up, for want of memory, or a time lies outside of the years that RFC 3339 can write.
pub fn write(
    table: &str,
    hour: ArchiveHour,
    mut rows: Vec<ArchiveRow<'_>>,
    compression: Compression,
) -> io::Result<EncodedObject> {
    rows.sort_unstable_by(ArchiveRow::order);
    rows.dedup_by(|later, kept| later.has_same_identity(kept));

    let mut digest = RowsDigest::default();
    let mut writer = ObjectWriter::new(compression, Vec::new())?;
    for row in &rows {
        digest.push(row.key, row.revision);
        writer.push(row)?;
    }
    let (description, bytes) = writer.finish(hour.start())?;
    let key = ObjectKey { table: table.to_owned(), hour, digest: digest.finish(), compression };
    Ok(EncodedObject { key, description, bytes })
}

/// Writes the content of an object, row by row in the order that they are to stand in; of any size, since it holds a
/// piece of it.
pub struct ObjectWriter<W: Write> {
    encoder: RowEncoder<HashingWriter<W>>,
    lines: NdjsonRowWriter,
    chunk: Vec<u8>,
    rows: u64,
    times: Option<(OffsetDateTime, OffsetDateTime)>,
    content_bytes: u64,
}

impl<W: Write> ObjectWriter<W> {
    /// Begins an object whose compressed bytes go to `sink`.
    ///
    /// # Errors
    /// If the encoder has no memory.
    pub fn new(compression: Compression, sink: W) -> io::Result<Self> {
        let encoder = compression.encoder(HashingWriter { sink, digest: Sha256::new() })?;
        let piece = Vec::new();
        Ok(Self { encoder, lines: NdjsonRowWriter::default(), chunk: piece, rows: 0, times: None, content_bytes: 0 })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// If the sink or the encoder gives up, or the time lies outside of the years that RFC 3339 can write.
    pub fn push(&mut self, row: &ArchiveRow<'_>) -> io::Result<()> {
        let before = self.chunk.len();
        self.lines.push(row, &mut self.chunk)?;
        self.content_bytes += (self.chunk.len() - before) as u64;
        self.rows += 1;
        let (first, last) = self.times.unwrap_or((row.removed_at, row.removed_at));
        self.times = Some((first.min(row.removed_at), last.max(row.removed_at)));
        if self.chunk.len() >= CHUNK_BYTES {
            self.encoder.write_all(&self.chunk)?;
            self.chunk.clear();
        }
        Ok(())
    }

    /// How long the content is so far, before it is compressed.
    #[must_use]
    pub fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    /// Ends the object; answers its description, whose times are `otherwise` if it holds no row, and the sink.
    ///
    /// # Errors
    /// If the sink or the encoder gives up.
    pub fn finish(mut self, otherwise: OffsetDateTime) -> io::Result<(ObjectMetadata, W)> {
        self.encoder.write_all(&self.chunk)?;
        let HashingWriter { sink, digest } = self.encoder.finish()?;
        let (first, last) = self.times.unwrap_or((otherwise, otherwise));
        Ok((ObjectMetadata { rows: self.rows, first, last, sha256: digest.finalize().into() }, sink))
    }
}

/// Passes bytes on and digests them.
pub(super) struct HashingWriter<W> {
    pub(super) sink: W,
    pub(super) digest: Sha256,
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.sink.write(bytes)?;
        self.digest.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}
