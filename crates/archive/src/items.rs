//! Items without metadata, one per line: the input format of `aws dynamodb import-table`. [`ItemWriter`]
//!
//! <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/S3DataImport.Format.html>: one JSON object per
//! line, whose only member is `Item`; the import rejects other members.

use std::io::{self, Write};

use millrace_shared::hash::Sha256Hasher;

use super::compression::{CHUNK_BYTES, RowEncoder};
use super::row::push_compact_json;
use super::write::HashingWriter;
use super::{Compression, ItemText};

/// Writes any number of items to a sink.
pub struct ItemWriter<W: Write> {
    encoder: RowEncoder<HashingWriter<W>>,
    chunk: Vec<u8>,
    items: u64,
    content_bytes: u64,
}

impl<W: Write> ItemWriter<W> {
    /// Starts an object whose compressed bytes are written to `sink`.
    ///
    /// # Errors
    /// If the encoder cannot allocate memory.
    pub fn new(compression: Compression, sink: W) -> io::Result<Self> {
        let encoder = compression.encoder(HashingWriter { sink, digest: Sha256Hasher::new() })?;
        Ok(Self { encoder, chunk: Vec::new(), items: 0, content_bytes: 0 })
    }

    /// Writes an item, a DynamoDB JSON map.
    ///
    /// # Errors
    /// If the sink or the encoder fails.
    pub fn push(&mut self, item: &ItemText) -> io::Result<()> {
        let before = self.chunk.len();
        self.chunk.extend_from_slice(b"{\"Item\":");
        push_compact_json(item.get(), &mut self.chunk);
        self.chunk.extend_from_slice(b"}\n");
        self.items += 1;
        self.content_bytes += (self.chunk.len() - before) as u64;
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

    /// Finishes the object and returns the number of items in it and the SHA-256 of its bytes.
    ///
    /// # Errors
    /// If the sink or the encoder fails.
    pub fn finish(mut self) -> io::Result<(u64, [u8; 32])> {
        self.encoder.write_all(&self.chunk)?;
        let HashingWriter { digest, .. } = self.encoder.finish()?;
        Ok((self.items, digest.finish()))
    }
}
