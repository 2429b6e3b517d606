//! An object's bytes as a source that blocks: [`ObjectReader`], between the bucket, which is asked asynchronously, and the
//! format's reader, which is not.
//!
//! It comes with its first piece, and asks for the next one while one is read, so that it holds two pieces whatever the object's
//! size, and no connection waits open while a merge reads elsewhere. A piece that fails, or whose body breaks off, is asked for again.

use std::collections::HashMap;
use std::io::{self, Read};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::read::RangeResponse;
use super::{ArchiveStore, StoreError};

/// An object being read. Read it where blocking is allowed (`spawn_blocking`): elsewhere the runtime panics.
///
/// An error of the bucket is an [`io::Error`] around a [`StoreError`], so that it can be told from damage.
pub struct ObjectReader {
    store: ArchiveStore,
    key: String,
    metadata: HashMap<String, String>,
    bytes: u64,
    asked: u64,
    runtime: Handle,
    piece: io::Cursor<Vec<u8>>,
    /// The buffer of the piece before.
    recycled_buffer: Vec<u8>,
    next: Option<JoinHandle<Result<Vec<u8>, StoreError>>>,
}

impl ObjectReader {
    /// What is asked for at a time.
    pub(super) const PIECE_BYTES: u64 = 1024 * 1024;

    pub(super) fn new(store: ArchiveStore, key: String, first: RangeResponse, runtime: Handle) -> Self {
        let RangeResponse { metadata, object_size: of, bytes } = first;
        let asked = bytes.len() as u64;
        Self {
            store,
            key,
            metadata,
            bytes: of,
            asked,
            runtime,
            piece: io::Cursor::new(bytes),
            recycled_buffer: Vec::new(),
            next: None,
        }
    }

    /// The object's metadata.
    #[must_use]
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    fn ask(&mut self) {
        if self.next.is_none() && self.asked < self.bytes {
            let (store, key, buffer) =
                (self.store.clone(), self.key.clone(), std::mem::take(&mut self.recycled_buffer));
            let (from, until) = (self.asked, self.bytes.min(self.asked + Self::PIECE_BYTES));
            self.asked = until;
            self.next = Some(self.runtime.spawn(async move { store.range(&key, from, until, buffer).await }));
        }
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.ask();
        if self.piece.position() == self.piece.get_ref().len() as u64
            && let Some(next) = self.next.take()
        {
            let next = self.runtime.block_on(next).map_err(io::Error::other)?.map_err(io::Error::other)?;
            self.recycled_buffer = std::mem::replace(&mut self.piece, io::Cursor::new(next)).into_inner();
            self.ask();
        }
        self.piece.read(buffer)
    }
}

/// What is under way is not waited for.
impl Drop for ObjectReader {
    fn drop(&mut self) {
        if let Some(next) = &self.next {
            next.abort();
        }
    }
}
