//! Encoding of rows as an object: sorted, named by a digest of the rows, compressed, with metadata.

use std::io::{self, Write};

use time::OffsetDateTime;

use millrace_shared::hash::Sha256Hasher;

use super::compression::{CHUNK_BYTES, RowEncoder};
use super::key::RowsDigest;
use super::row::NdjsonRowWriter;
use super::{ArchiveHour, ArchiveRow, Compression, ObjectKey, ObjectMetadata};

/// An encoded object that is ready for upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedObject {
    /// The object's key.
    pub key: ObjectKey,
    /// The object's metadata.
    pub description: ObjectMetadata,
    /// The object's compressed bytes.
    pub bytes: Vec<u8>,
}

/// Encodes one table's rows of one hour as an object.
///
/// The same rows produce the same object, regardless of their order and of repetitions.
///
/// # Errors
/// If the encoder fails (out of memory), or a time is outside the years that RFC 3339 can represent.
pub fn write(
    table: &str,
    hour: ArchiveHour,
    mut rows: Vec<ArchiveRow<'_>>,
    compression: Compression,
) -> io::Result<EncodedObject> {
    rows.sort_unstable_by(ArchiveRow::cmp_identity);
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

/// Writes the content of an object row by row, in the order in which the rows are pushed. The object may have any size,
/// because only one chunk is kept in memory.
pub struct ObjectWriter<W: Write> {
    encoder: RowEncoder<HashingWriter<W>>,
    lines: NdjsonRowWriter,
    chunk: Vec<u8>,
    rows: u64,
    times: Option<(OffsetDateTime, OffsetDateTime)>,
    content_bytes: u64,
}

impl<W: Write> ObjectWriter<W> {
    /// Starts an object whose compressed bytes are written to `sink`.
    ///
    /// # Errors
    /// If the encoder cannot allocate memory.
    pub fn new(compression: Compression, sink: W) -> io::Result<Self> {
        let encoder = compression.encoder(HashingWriter { sink, digest: Sha256Hasher::new() })?;

        Ok(Self {
            encoder,
            lines: NdjsonRowWriter::default(),
            chunk: Vec::new(),
            rows: 0,
            times: None,
            content_bytes: 0,
        })
    }

    /// Writes a row.
    ///
    /// # Errors
    /// If the sink or the encoder fails, or the time is outside the years that RFC 3339 can represent.
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

    /// Returns the length of the content so far, before compression.
    #[must_use]
    pub fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    /// Finishes the object and returns its metadata and the sink. The metadata's times are `otherwise` if the object
    /// contains no rows.
    ///
    /// # Errors
    /// If the sink or the encoder fails.
    pub fn finish(mut self, otherwise: OffsetDateTime) -> io::Result<(ObjectMetadata, W)> {
        self.encoder.write_all(&self.chunk)?;
        let HashingWriter { sink, digest } = self.encoder.finish()?;
        let (first, last) = self.times.unwrap_or((otherwise, otherwise));
        Ok((ObjectMetadata { rows: self.rows, first, last, sha256: digest.finish() }, sink))
    }
}

/// Forwards bytes to the sink and computes their digest.
pub(super) struct HashingWriter<W> {
    pub(super) sink: W,
    pub(super) digest: Sha256Hasher,
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
