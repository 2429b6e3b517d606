//! Reads the rows of archive objects from the bucket, one object after another ([`ChainedReader`]), and distinguishes
//! the two kinds of failure ([`ArchiveRowError`]): a failed request may succeed on retry, a corrupt object does not.

use std::collections::VecDeque;
use std::sync::Arc;

use millrace_archive::store::{ArchiveStore, ObjectReader, StoreError};
use millrace_archive::{ArchivedRow, CorruptObject, CorruptionKind, KeyNames, RowReader};
use tokio::runtime::Handle;

/// An object that cannot be read from the bucket.
#[derive(Debug, thiserror::Error)]
pub enum ObjectReadError {
    /// The request failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object no longer exists: it was merged in the meantime.
    #[error("{0} was deleted while it was being read")]
    NotFound(String),
}

/// A row that cannot be read.
#[derive(Debug)]
pub enum ArchiveRowError {
    /// The object could not be read; a retry may succeed.
    Unread(ObjectReadError),
    /// The object is corrupt; a retry fails again.
    Corrupt(CorruptObject),
}

impl ArchiveRowError {
    /// Distinguishes a failed request from a corrupt object. The reader reports every error of its source as
    /// corruption, so a [`StoreError`] inside `damage` is extracted.
    #[must_use]
    pub fn from_corruption(corrupt: CorruptObject) -> Self {
        let of_the_bucket = match &corrupt.kind {
            CorruptionKind::Content(error) => {
                error.get_ref().and_then(|cause| cause.downcast_ref::<StoreError>()).cloned()
            }
            _ => None,
        };
        of_the_bucket.map_or(Self::Corrupt(corrupt), |error| Self::Unread(ObjectReadError::Store(error)))
    }
}

/// The rows of several objects, which are read one after another; each object is opened when its turn comes. Reading
/// blocks the thread.
pub struct ChainedReader {
    objects: VecDeque<String>,
    store: ArchiveStore,
    key_names: Arc<KeyNames>,
    runtime: Handle,
    open: Option<RowReader<ObjectReader>>,
}

impl ChainedReader {
    /// Creates a reader of these objects, in this order.
    #[must_use]
    pub fn new(objects: Vec<String>, store: ArchiveStore, key_names: Arc<KeyNames>, runtime: Handle) -> Self {
        Self { objects: objects.into(), store, key_names, runtime, open: None }
    }

    fn open(&self, object: &str) -> Result<RowReader<ObjectReader>, ArchiveRowError> {
        let opened = self.store.blocking_open(object, &self.runtime);
        let opened = opened.map_err(|error| ArchiveRowError::Unread(error.into()))?;
        let source = opened.ok_or_else(|| ArchiveRowError::Unread(ObjectReadError::NotFound(object.to_owned())))?;
        let metadata = source.metadata().clone();
        RowReader::open(object, &metadata, (*self.key_names).clone(), source).map_err(ArchiveRowError::from_corruption)
    }
}

impl Iterator for ChainedReader {
    type Item = Result<ArchivedRow, ArchiveRowError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.open.as_mut().and_then(Iterator::next) {
                return Some(row.map_err(ArchiveRowError::from_corruption));
            }
            let next = self.objects.pop_front()?;
            match self.open(&next) {
                Ok(reader) => self.open = Some(reader),
                Err(unsound) => return Some(Err(unsound)),
            }
        }
    }
}
