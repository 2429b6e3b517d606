//! The archive's rows as they are read from the bucket: objects one after the other ([`ChainedReader`]), and what stands in the
//! way told apart ([`ArchiveRowError`]): a bucket that does not answer may answer later, a damaged object will not.

use std::collections::VecDeque;
use std::sync::Arc;

use archiver::archive::{ArchivedRow, CorruptObject, CorruptionKind, KeyNames, RowReader};
use archiver::store::{ArchiveStore, ObjectReader, StoreError};
use tokio::runtime::Handle;

/// The bucket did not give an object.
#[derive(Debug, thiserror::Error)]
pub enum ObjectReadError {
    /// It failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object is no longer there: it was merged meanwhile.
    #[error("{0} was deleted while it was being read")]
    NotFound(String),
}

/// Why a row is not given.
#[derive(Debug)]
pub enum ArchiveRowError {
    /// Asking again may help.
    Unread(ObjectReadError),
    /// The object is not what it says it is.
    Damaged(CorruptObject),
}

impl ArchiveRowError {
    /// Tells what the bucket did from what the object is: a reader takes every error of its source for damage.
    #[must_use]
    pub fn of(damage: CorruptObject) -> Self {
        let of_the_bucket = match &damage.flaw {
            CorruptionKind::Content(error) => {
                error.get_ref().and_then(|cause| cause.downcast_ref::<StoreError>()).cloned()
            }
            _ => None,
        };
        of_the_bucket.map_or(Self::Damaged(damage), |error| Self::Unread(ObjectReadError::Store(error)))
    }
}

/// The rows of objects that are read one after the other, each opened when its turn comes. For a thread that may block.
pub struct ChainedReader {
    objects: VecDeque<String>,
    store: ArchiveStore,
    key_names: Arc<KeyNames>,
    runtime: Handle,
    open: Option<RowReader<ObjectReader>>,
}

impl ChainedReader {
    /// Reads these, in this order.
    #[must_use]
    pub fn new(objects: Vec<String>, store: ArchiveStore, key_names: Arc<KeyNames>, runtime: Handle) -> Self {
        Self { objects: objects.into(), store, key_names, runtime, open: None }
    }

    fn open(&self, object: &str) -> Result<RowReader<ObjectReader>, ArchiveRowError> {
        let opened = self.store.blocking_open(object, &self.runtime);
        let opened = opened.map_err(|error| ArchiveRowError::Unread(error.into()))?;
        let source = opened.ok_or_else(|| ArchiveRowError::Unread(ObjectReadError::NotFound(object.to_owned())))?;
        let metadata = source.metadata().clone();
        RowReader::open(object, &metadata, (*self.key_names).clone(), source).map_err(ArchiveRowError::of)
    }
}

impl Iterator for ChainedReader {
    type Item = Result<ArchivedRow, ArchiveRowError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.open.as_mut().and_then(Iterator::next) {
                return Some(row.map_err(ArchiveRowError::of));
            }
            let next = self.objects.pop_front()?;
            match self.open(&next) {
                Ok(reader) => self.open = Some(reader),
                Err(unsound) => return Some(Err(unsound)),
            }
        }
    }
}
