//! Items alone, a line each: what `aws dynamodb import-table` takes. [`ItemWriter`]
//!
//! <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/S3DataImport.Format.html>: one JSON object a line,
//! whose one member is `Item`; other members are an error of the import.

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};

use super::compression::{CHUNK_BYTES, RowEncoder};
use super::row::push_compact_json;
use super::write::HashingWriter;
use super::{Compression, ItemText};

/// Writes items to a sink, of any number.
pub struct ItemWriter<W: Write> {
    encoder: RowEncoder<HashingWriter<W>>,
    piece: Vec<u8>,
    items: u64,
    content_bytes: u64,
}

impl<W: Write> ItemWriter<W> {
    /// Begins an object whose compressed bytes go to `sink`.
    ///
    /// # Errors
    /// If the encoder has no memory.
    pub fn new(compression: Compression, sink: W) -> io::Result<Self> {
        let encoder = compression.encoder(HashingWriter { sink, digest: Sha256::new() })?;
        Ok(Self { encoder, piece: Vec::new(), items: 0, content_bytes: 0 })
    }

    /// Adds an item, a DynamoDB JSON map.
    ///
    /// # Errors
    /// If the sink or the encoder gives up.
    pub fn push(&mut self, item: &ItemText) -> io::Result<()> {
        let before = self.piece.len();
        self.piece.extend_from_slice(b"{\"Item\":");
        push_compact_json(item.get(), &mut self.piece);
        self.piece.extend_from_slice(b"}\n");
        self.items += 1;
        self.content_bytes += (self.piece.len() - before) as u64;
        if self.piece.len() >= CHUNK_BYTES {
            self.encoder.write_all(&self.piece)?;
            self.piece.clear();
        }
        Ok(())
    }

    /// How long the content is so far, before it is compressed.
    #[must_use]
    pub fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    /// Ends the object; answers how many items it holds, and the SHA-256 of its bytes.
    ///
    /// # Errors
    /// If the sink or the encoder gives up.
    pub fn finish(mut self) -> io::Result<(u64, [u8; 32])> {
        self.encoder.write_all(&self.piece)?;
        let HashingWriter { digest, .. } = self.encoder.finish()?;
        Ok((self.items, digest.finalize().into()))
    }
}
