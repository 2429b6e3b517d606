//! Blocking variants of the store's operations. The requests run on the runtime's own threads: if they ran on the
//! calling thread, each small chunk of a body would wake it.

use std::collections::HashMap;
use std::path::Path;

use millrace_shared::s3::S3Operation;
use tokio::runtime::Handle;
use tokio::task::JoinError;

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
        let failed = self.incomplete(S3Operation::Get, &key);
        blocking(runtime, async move { store.open(&key).await }, failed)
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
        let failed = self.incomplete(S3Operation::Put, &key);
        let put = async move { store.put_file(&key, content_type, &path, sha256, metadata).await };
        blocking(runtime, put, failed)
    }

    /// Returns the error of a request whose task did not complete.
    fn incomplete(&self, operation: S3Operation, key: &str) -> impl FnOnce(JoinError) -> StoreError + use<> {
        let (bucket, key) = (self.0.clone(), key.to_owned());
        move |error| bucket.failure(operation, &key, format!("the request did not complete: {error}")).into()
    }
}

fn blocking<T: Send + 'static>(
    runtime: &Handle,
    request: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    incomplete: impl FnOnce(JoinError) -> StoreError,
) -> Result<T, StoreError> {
    runtime.block_on(runtime.spawn(request)).map_err(incomplete)?
}
