//! What lies in the bucket: listed, opened, and moved out of the readers' way.

use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::operation::head_object::HeadObjectError;
use shared::raw_table::causes;
use tokio::runtime::Handle;

use super::{Download, Store, StoreError};

/// Where an object goes that others have taken the place of; its key follows.
const SUPERSEDED: &str = "superseded/";

/// An object of the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its key.
    pub key: String,
    /// Its size.
    pub bytes: u64,
}

/// What stands directly below a prefix.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Level {
    /// The keys of its objects.
    pub objects: Vec<String>,
    /// Its folders, each with the prefix before it and a slash behind it.
    pub folders: Vec<String>,
}

impl Store {
    /// All objects below a prefix, in the order of their keys.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be listed.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Stored>, StoreError> {
        let mut pages = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.failed(format!("cannot be listed at {prefix}"), causes(&error)))?;
            let stored = |object: aws_sdk_s3::types::Object| {
                let bytes = object.size().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default();
                Some(Stored { key: object.key?, bytes })
            };
            found.extend(page.contents.unwrap_or_default().into_iter().filter_map(stored));
        }
        Ok(found)
    }

    /// What stands directly below a prefix that ends in a slash.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be listed.
    pub async fn level(&self, prefix: &str) -> Result<Level, StoreError> {
        let list = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).delimiter("/");
        let mut pages = list.into_paginator().send();
        let mut level = Level::default();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.failed(format!("cannot be listed at {prefix}"), causes(&error)))?;
            level.objects.extend(page.contents.unwrap_or_default().into_iter().filter_map(|object| object.key));
            level.folders.extend(page.common_prefixes.unwrap_or_default().into_iter().filter_map(|of| of.prefix));
        }
        Ok(level)
    }

    /// Opens an object to be read; nothing if it is no longer there.
    ///
    /// # Errors
    /// [`StoreError`] if the bucket does not tell of it.
    pub async fn open(&self, key: &str) -> Result<Option<Download>, StoreError> {
        let head = self.client.head_object().bucket(&self.bucket).key(key).send().await;
        match head {
            Ok(head) => {
                let bytes = head.content_length().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default();
                let metadata = head.metadata.unwrap_or_default();
                Ok(Some(Download::new(self.clone(), key.to_owned(), metadata, bytes, Handle::current())))
            }
            Err(error) if error.as_service_error().is_some_and(HeadObjectError::is_not_found) => Ok(None),
            Err(error) => Err(self.failed(format!("cannot be asked for {key}"), causes(&error))),
        }
    }

    /// A small object, whole; nothing if it is no longer there.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    pub async fn text(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let unread = |cause| self.failed(format!("does not give {key}"), cause);
        match self.client.get_object().bucket(&self.bucket).key(key).send().await {
            Ok(object) => {
                let body = object.body.collect().await.map_err(|error| unread(causes(&error)))?;
                Ok(Some(body.to_vec()))
            }
            Err(error) if error.code() == Some("NoSuchKey") => Ok(None),
            Err(error) => Err(unread(causes(&error))),
        }
    }

    /// Some bytes of an object.
    pub(super) async fn range(&self, key: &str, from: u64, until: u64) -> Result<bytes::Bytes, StoreError> {
        let unread = |cause| self.failed(format!("does not give {key}"), cause);
        let get = self.client.get_object().bucket(&self.bucket).key(key);
        let get = get.range(format!("bytes={from}-{}", until - 1)).send().await;
        let body = get.map_err(|error| unread(causes(&error)))?.body.collect().await;
        Ok(body.map_err(|error| unread(causes(&error)))?.into_bytes())
    }

    /// Moves an object below `superseded/`: it is removed only after its copy is confirmed. One that is no longer there
    /// has been moved before.
    ///
    /// # Errors
    /// [`StoreError`]; the object is then still where it was, or in both places.
    pub async fn retire(&self, key: &str) -> Result<(), StoreError> {
        let copy = self.client.copy_object().bucket(&self.bucket).key(format!("{SUPERSEDED}{key}"));
        // Of our own keys none holds a character that a URL would spell otherwise, but for the `=` of a partition.
        let source = format!("{}/{}", self.bucket, key.replace('=', "%3D"));
        match copy.copy_source(source).send().await {
            Ok(_) => {}
            Err(error) if error.code() == Some("NoSuchKey") => return Ok(()),
            Err(error) => return Err(self.failed(format!("does not copy {key}"), causes(&error))),
        }
        self.remove(key).await
    }

    /// Removes an object; one that is no longer there has been removed before.
    ///
    /// # Errors
    /// [`StoreError`]; the object may still be there.
    pub async fn remove(&self, key: &str) -> Result<(), StoreError> {
        let removed = self.client.delete_object().bucket(&self.bucket).key(key).send().await;
        removed.map(drop).map_err(|error| self.failed(format!("does not remove {key}"), causes(&error)))
    }
}
