//! Blocking variants of the store's operations. The requests run on the runtime's own threads: if they ran on the
//! calling thread, each small chunk of a body would wake it.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;

use tokio::runtime::Handle;

use super::{ArchiveStore, ObjectReader, StoreError};

impl ArchiveStore {
    /// Blocking variant of [`ArchiveStore::open`].
    ///
    /// # Errors
    /// As [`ArchiveStore::open`].
    ///
    /// # Panics
    /// If called on a thread of the runtime that must not block.
    pub fn blocking_open(&self, key: &str, runtime: &Handle) -> Result<Option<ObjectReader>, StoreError> {
        let (store, key) = (self.clone(), key.to_owned());
        self.blocking(runtime, async move { store.open(&key).await })
    }

    /// Blocking variant of [`ArchiveStore::put_file`].
    ///
    /// # Errors
    /// As [`ArchiveStore::put_file`].
    ///
    /// # Panics
    /// If called on a thread of the runtime that must not block.
    pub fn blocking_put_file(
        &self,
        key: &str,
        content_type: &'static str,
        path: &Path,
        sha256: [u8; 32],
        metadata: HashMap<&'static str, String>,
        runtime: &Handle,
    ) -> Result<(), StoreError> {
        let (store, key, path) = (self.clone(), key.to_owned(), path.to_owned());
        self.blocking(runtime, async move { store.put_file(&key, content_type, &path, sha256, metadata).await })
    }

    fn blocking<T: Send + 'static>(
        &self,
        runtime: &Handle,
        asking: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let ended_early =
            |error: tokio::task::JoinError| self.failed("the request did not complete".to_owned(), error.to_string());
        runtime.block_on(runtime.spawn(asking)).map_err(ended_early)?
    }
}
