//! The archive's rows as they are read from the bucket: objects one after the other ([`Chain`]), and what stands in the
//! way told apart ([`Unsound`]): a bucket that does not answer may answer later, a damaged object will not.

use std::collections::VecDeque;
use std::sync::Arc;

use archiver::archive::{ArchivedRow, Damage, Flaw, KeyNames, Reader};
use archiver::store::{Download, Store, StoreError};
use tokio::runtime::Handle;

/// The bucket did not give an object.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// It failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object is no longer there: it was merged meanwhile.
    #[error("{0} was deleted while it was being read")]
    Gone(String),
}

/// Why a row is not given.
#[derive(Debug)]
pub enum Unsound {
    /// Asking again may help.
    Unread(Unread),
    /// The object is not what it says it is.
    Damaged(Damage),
}

impl Unsound {
    /// Tells what the bucket did from what the object is: a reader takes every error of its source for damage.
    #[must_use]
    pub fn of(damage: Damage) -> Self {
        let of_the_bucket = match &damage.flaw {
            Flaw::Content(error) => error.get_ref().and_then(|cause| cause.downcast_ref::<StoreError>()).cloned(),
            _ => None,
        };
        of_the_bucket.map_or(Self::Damaged(damage), |error| Self::Unread(Unread::Store(error)))
    }
}

/// The rows of objects that are read one after the other, each opened when its turn comes. For a thread that may block.
pub struct Chain {
    objects: VecDeque<String>,
    store: Store,
    key_names: Arc<KeyNames>,
    runtime: Handle,
    open: Option<Reader<Download>>,
}

impl Chain {
    /// Reads these, in this order.
    #[must_use]
    pub fn new(objects: Vec<String>, store: Store, key_names: Arc<KeyNames>, runtime: Handle) -> Self {
        Self { objects: objects.into(), store, key_names, runtime, open: None }
    }

    fn open(&self, object: &str) -> Result<Reader<Download>, Unsound> {
        let opened = self.store.blocking_open(object, &self.runtime);
        let opened = opened.map_err(|error| Unsound::Unread(error.into()))?;
        let source = opened.ok_or_else(|| Unsound::Unread(Unread::Gone(object.to_owned())))?;
        let metadata = source.metadata().clone();
        Reader::open(object, &metadata, (*self.key_names).clone(), source).map_err(Unsound::of)
    }
}

impl Iterator for Chain {
    type Item = Result<ArchivedRow, Unsound>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.open.as_mut().and_then(Iterator::next) {
                return Some(row.map_err(Unsound::of));
            }
            let next = self.objects.pop_front()?;
            match self.open(&next) {
                Ok(reader) => self.open = Some(reader),
                Err(unsound) => return Some(Err(unsound)),
            }
        }
    }
}
