//! An object's bytes as a source that blocks: [`Download`], between the bucket, which is asked asynchronously, and the
//! format's reader, which is not.
//!
//! It comes with its first piece, and asks for the next one while one is read, so that it holds two pieces whatever the object's
//! size, and no connection waits open while a merge reads elsewhere. A piece that fails is asked for again by the client.

use std::collections::HashMap;
use std::io::{self, Read};

use aws_sdk_s3::primitives::AggregatedBytes;
use bytes::Buf as _;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::read::Piece;
use super::{Store, StoreError};

/// An object being read. Read it where blocking is allowed (`spawn_blocking`): elsewhere the runtime panics.
///
/// An error of the bucket is an [`io::Error`] around a [`StoreError`], so that it can be told from damage.
pub struct Download {
    store: Store,
    key: String,
    metadata: HashMap<String, String>,
    bytes: u64,
    asked: u64,
    runtime: Handle,
    piece: Option<AggregatedBytes>,
    next: Option<JoinHandle<Result<Option<AggregatedBytes>, StoreError>>>,
}

impl Download {
    /// What is asked for at a time.
    pub(super) const PIECE_BYTES: u64 = 1024 * 1024;

    pub(super) fn new(store: Store, key: String, first: Piece, runtime: Handle) -> Self {
        let asked = first.bytes.as_ref().map_or(0, |bytes| bytes.remaining() as u64);
        let (metadata, bytes) = (first.metadata, first.of);
        Self { store, key, metadata, bytes, asked, runtime, piece: first.bytes, next: None }
    }

    /// The object's metadata.
    #[must_use]
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    fn ask(&mut self) {
        if self.next.is_none() && self.asked < self.bytes {
            let (store, key) = (self.store.clone(), self.key.clone());
            let (from, until) = (self.asked, self.bytes.min(self.asked + Self::PIECE_BYTES));
            self.asked = until;
            self.next = Some(self.runtime.spawn(async move { store.range(&key, from, until).await }));
        }
    }
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.ask();
        if self.piece.as_ref().is_none_or(|piece| !piece.has_remaining()) {
            let Some(next) = self.next.take() else { return Ok(0) };
            self.piece = self.runtime.block_on(next).map_err(io::Error::other)?.map_err(io::Error::other)?;
            self.ask();
        }
        let Some(piece) = &mut self.piece else { return Ok(0) };
        let read = buffer.len().min(piece.remaining());
        piece.copy_to_slice(&mut buffer[..read]);
        Ok(read)
    }
}

/// What is under way is not waited for.
impl Drop for Download {
    fn drop(&mut self) {
        if let Some(next) = &self.next {
            next.abort();
        }
    }
}
