//! Read operations of the bucket (list, open), and moving objects to `superseded/`.

use std::collections::HashMap;

use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectError;
use aws_sdk_s3::primitives::ByteStreamError;
use millrace_shared::error_chain::error_chain;
use tokio::runtime::Handle;

use super::{ArchiveStore, COPIED_WITHIN, ObjectReader, StoreError, within};

/// The prefix that is prepended to the key of a superseded object.
const SUPERSEDED: &str = "superseded/";

/// The number of retries after a truncated body: the client itself retries only until the response starts.
const MAX_BODY_RETRIES: usize = 2;

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// The object's key.
    pub key: String,
    /// The object's size.
    pub bytes: u64,
}

/// The objects and folders directly below a prefix.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct PrefixListing {
    /// The keys of the objects.
    pub objects: Vec<String>,
    /// The folders, each as a full prefix that ends with a slash.
    pub folders: Vec<String>,
}

/// The bytes of a range request, and the object's metadata and size.
pub(super) struct RangeResponse {
    pub(super) metadata: HashMap<String, String>,
    /// The object's total size in bytes.
    pub(super) object_size: u64,
    pub(super) bytes: Vec<u8>,
}

/// The reason why a range request returned no bytes.
enum GetError {
    /// The object does not exist.
    Nothing,
    /// The object ends before the range.
    InvalidRange(StoreError),
    Failed(StoreError),
}

/// Reads the body into the buffer. Copying it chunk by chunk reuses the client's buffer and this one, so no new pages
/// are allocated.
async fn fill(buffer: &mut Vec<u8>, given: &mut GetObjectOutput, most: u64) -> Result<(), ByteStreamError> {
    buffer.clear();
    let length = given.content_length().and_then(|length| u64::try_from(length).ok()).unwrap_or_default();
    buffer.reserve(usize::try_from(length.min(most)).unwrap_or_default());
    while let Some(bytes) = given.body.try_next().await? {
        buffer.extend_from_slice(&bytes);
    }
    Ok(())
}

impl ArchiveStore {
    /// Returns all objects below a prefix, sorted by key.
    ///
    /// # Errors
    /// [`StoreError`] if the objects cannot be listed.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        let mut pages = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page =
                page.map_err(|error| self.failed(format!("cannot list objects below {prefix}"), error_chain(&error)))?;
            let stored = |object: aws_sdk_s3::types::Object| {
                let bytes = object.size().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default();
                Some(ObjectMeta { key: object.key?, bytes })
            };
            found.extend(page.contents.unwrap_or_default().into_iter().filter_map(stored));
        }
        Ok(found)
    }

    /// Returns the objects and folders directly below a prefix that ends in a slash.
    ///
    /// # Errors
    /// [`StoreError`] if the objects cannot be listed.
    pub async fn list_with_delimiter(&self, prefix: &str) -> Result<PrefixListing, StoreError> {
        let list = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).delimiter("/");
        let mut pages = list.into_paginator().send();
        let mut level = PrefixListing::default();
        while let Some(page) = pages.next().await {
            let page =
                page.map_err(|error| self.failed(format!("cannot list objects below {prefix}"), error_chain(&error)))?;
            level.objects.extend(page.contents.unwrap_or_default().into_iter().filter_map(|object| object.key));
            level.folders.extend(page.common_prefixes.unwrap_or_default().into_iter().filter_map(|of| of.prefix));
        }
        Ok(level)
    }

    /// Opens an object for reading. Returns `None` if it no longer exists. The first chunk is fetched immediately,
    /// because most objects are small.
    ///
    /// # Errors
    /// [`StoreError`] if the object cannot be read.
    pub async fn open(&self, key: &str) -> Result<Option<ObjectReader>, StoreError> {
        match self.get(key, 0, ObjectReader::PIECE_BYTES, Vec::new()).await {
            Ok(first) => Ok(Some(ObjectReader::new(self.clone(), key.to_owned(), first, Handle::current()))),
            Err(GetError::Nothing) => Ok(None),
            // Only an empty object has no first chunk.
            Err(GetError::InvalidRange(_)) => {
                let Some(metadata) = self.metadata(key).await? else { return Ok(None) };
                let first = RangeResponse { metadata, object_size: 0, bytes: Vec::new() };
                Ok(Some(ObjectReader::new(self.clone(), key.to_owned(), first, Handle::current())))
            }
            Err(GetError::Failed(error)) => Err(error),
        }
    }

    /// Returns an object's metadata, or `None` if the object no longer exists.
    ///
    /// # Errors
    /// [`StoreError`] if the metadata cannot be read.
    pub async fn metadata(&self, key: &str) -> Result<Option<HashMap<String, String>>, StoreError> {
        match self.client.head_object().bucket(&self.bucket).key(key).send().await {
            Ok(head) => Ok(Some(head.metadata.unwrap_or_default())),
            Err(error) if error.as_service_error().is_some_and(HeadObjectError::is_not_found) => Ok(None),
            Err(error) => Err(self.failed(format!("cannot read the metadata of {key}"), error_chain(&error))),
        }
    }

    /// Reads a small object completely. Returns `None` if it no longer exists.
    ///
    /// # Errors
    /// [`StoreError`] if the object cannot be read.
    pub async fn text(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let unread = |cause| self.failed(format!("cannot read {key}"), cause);
        match self.client.get_object().bucket(&self.bucket).key(key).send().await {
            Ok(object) => {
                let body = object.body.collect().await.map_err(|error| unread(error_chain(&error)))?;
                Ok(Some(body.to_vec()))
            }
            Err(error) if error.code() == Some("NoSuchKey") => Ok(None),
            Err(error) => Err(unread(error_chain(&error))),
        }
    }

    /// Reads a range of an object. The bytes replace the content of `buffer`, whose allocation is reused.
    pub(super) async fn range(&self, key: &str, from: u64, until: u64, buffer: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        match self.get(key, from, until, buffer).await {
            Ok(piece) => Ok(piece.bytes),
            Err(GetError::Nothing) => {
                Err(self.failed(format!("cannot read {key}"), "the object no longer exists".to_owned()))
            }
            Err(GetError::InvalidRange(error) | GetError::Failed(error)) => Err(error),
        }
    }

    async fn get(&self, key: &str, from: u64, until: u64, mut buffer: Vec<u8>) -> Result<RangeResponse, GetError> {
        let unread = |cause| self.failed(format!("cannot read {key}"), cause);
        let get = self.client.get_object().bucket(&self.bucket).key(key);
        let get = get.range(format!("bytes={from}-{}", until - 1));
        let mut broken = 0;
        loop {
            let mut given = get.clone().send().await.map_err(|error| match error.code() {
                Some("NoSuchKey") => GetError::Nothing,
                Some("InvalidRange") => GetError::InvalidRange(unread(error_chain(&error))),
                _ => GetError::Failed(unread(error_chain(&error))),
            })?;
            match fill(&mut buffer, &mut given, until - from).await {
                Ok(()) => {
                    // "bytes 0-99/1234" (RFC 9110, section 14.4); without the header, the body is the whole object.
                    let of = given.content_range().and_then(|range| range.rsplit('/').next()?.parse().ok());
                    let metadata = given.metadata.unwrap_or_default();
                    return Ok(RangeResponse {
                        metadata,
                        object_size: of.unwrap_or(buffer.len() as u64),
                        bytes: buffer,
                    });
                }
                Err(_) if broken < MAX_BODY_RETRIES => broken += 1,
                Err(error) => return Err(GetError::Failed(unread(error_chain(&error)))),
            }
        }
    }

    /// Moves an object below `superseded/`: it is removed only after its copy is confirmed. If the object no longer
    /// exists, it has already been moved.
    ///
    /// # Errors
    /// [`StoreError`]; the object is then still under its key, or under both keys.
    pub async fn move_to_superseded(&self, key: &str) -> Result<(), StoreError> {
        let copy = self.client.copy_object().bucket(&self.bucket).key(format!("{SUPERSEDED}{key}"));
        // Of the characters in the archive's keys, only the `=` of a partition must be escaped in a URL.
        let source = format!("{}/{}", self.bucket, key.replace('=', "%3D"));
        let copy = copy.copy_source(source).customize().config_override(within(Some(COPIED_WITHIN)));
        match copy.send().await {
            Ok(_) => {}
            Err(error) if error.code() == Some("NoSuchKey") => return Ok(()),
            Err(error) => return Err(self.failed(format!("cannot copy {key}"), error_chain(&error))),
        }
        self.remove(key).await
    }

    /// Removes an object; an object that no longer exists counts as removed.
    ///
    /// # Errors
    /// [`StoreError`] if the object may still exist.
    pub async fn remove(&self, key: &str) -> Result<(), StoreError> {
        let removed = self.client.delete_object().bucket(&self.bucket).key(key).send().await;
        removed.map(drop).map_err(|error| self.failed(format!("cannot delete {key}"), error_chain(&error)))
    }
}
