//! [`ObjectReader`]: a blocking reader of an object's bytes. It connects the bucket, which is accessed asynchronously,
//! with the format's reader, which is synchronous.
//!
//! Opening an object fetches its first chunk. Each following chunk is prefetched while the current one is read, so at
//! most two chunks are in memory, whatever the object's size, and no connection stays open while a merge reads other
//! objects. Chunks whose request fails or whose body is truncated are requested again.

use std::collections::HashMap;
use std::io::{self, Read};

use millrace_shared::s3::ObjectRange;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::{ArchiveStore, StoreError};

/// A reader of one object. Use it only where blocking is allowed (`spawn_blocking`); elsewhere the runtime panics.
///
/// An error of the bucket is returned as an [`io::Error`] that wraps a [`StoreError`], so that it can be distinguished
/// from corruption.
pub struct ObjectReader {
    store: ArchiveStore,
    key: String,
    metadata: HashMap<String, String>,
    bytes: u64,
    requested_bytes: u64,
    runtime: Handle,
    chunk: io::Cursor<Vec<u8>>,
    /// The buffer of the previous chunk.
    recycled_buffer: Vec<u8>,
    next: Option<JoinHandle<Result<Vec<u8>, StoreError>>>,
}

impl ObjectReader {
    /// The size of a range request.
    pub(super) const CHUNK_BYTES: u64 = 1024 * 1024;

    pub(super) fn new(store: ArchiveStore, key: String, first: ObjectRange, runtime: Handle) -> Self {
        let ObjectRange { metadata, object_size: of, bytes } = first;
        let requested_bytes = bytes.len() as u64;
        Self {
            store,
            key,
            metadata,
            bytes: of,
            requested_bytes,
            runtime,
            chunk: io::Cursor::new(bytes),
            recycled_buffer: Vec::new(),
            next: None,
        }
    }

    /// Returns the object's metadata.
    #[must_use]
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    fn prefetch(&mut self) {
        if self.next.is_none() && self.requested_bytes < self.bytes {
            let (store, key, buffer) =
                (self.store.clone(), self.key.clone(), std::mem::take(&mut self.recycled_buffer));
            let (from, until) = (self.requested_bytes, self.bytes.min(self.requested_bytes + Self::CHUNK_BYTES));
            self.requested_bytes = until;
            self.next =
                Some(self.runtime.spawn(async move { Ok(store.0.get_range(&key, from..until, buffer).await?.bytes) }));
        }
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.prefetch();
        if self.chunk.position() == self.chunk.get_ref().len() as u64
            && let Some(next) = self.next.take()
        {
            let next = self.runtime.block_on(next).map_err(io::Error::other)?.map_err(io::Error::other)?;
            self.recycled_buffer = std::mem::replace(&mut self.chunk, io::Cursor::new(next)).into_inner();
            self.prefetch();
        }
        self.chunk.read(buffer)
    }
}

/// Aborts the pending prefetch without waiting for it.
impl Drop for ObjectReader {
    fn drop(&mut self) {
        if let Some(next) = &self.next {
            next.abort();
        }
    }
}
