//! The archive bucket: puts, lists and reads ([`ObjectReader`]) objects, and moves them to `superseded/`.
//!
//! The object's SHA-256, which is part of its metadata, is also sent as the checksum that S3 verifies on upload. The
//! bytes are digested once, and neither side computes the SDK's default CRC. An object is either confirmed or not.
//! Every failure, including a missing bucket and a denied permission, affects the whole archive and is temporary, so
//! none of them is a reason to quarantine a record.
//!
//! Not included: `Content-Encoding`. The object *is* a compressed file, as the extension of its key says and as Athena,
//! DuckDB and `aws dynamodb import-table` expect. With the header, browsers and many HTTP clients would decompress the
//! body in transit, and the bytes would no longer match the digest.

mod blocking;
mod object_reader;

use std::collections::HashMap;
use std::path::Path;

use aws_sdk_s3::Client;
pub use millrace_shared::s3::{BucketState, ObjectMeta, PrefixListing};
use millrace_shared::s3::{ObjectRange, S3Bucket, S3Error, S3ErrorKind};
use tokio::runtime::Handle;

pub use object_reader::ObjectReader;

/// The content type of rows: JSON lines.
pub const ROWS_TYPE: &str = "application/x-ndjson";

/// The prefix that is prepended to the key of a superseded object.
const SUPERSEDED: &str = "superseded/";

/// The archive's bucket.
#[derive(Debug, Clone)]
pub struct ArchiveStore(S3Bucket);

/// A failed operation on the bucket.
#[derive(Debug, Clone, thiserror::Error)]
#[error("archive bucket {0}")]
pub struct StoreError(#[from] S3Error);

impl ArchiveStore {
    /// Creates a store for `bucket`.
    #[must_use]
    pub fn new(client: Client, bucket: String) -> Self {
        Self(S3Bucket::new(client, bucket))
    }

    /// Returns the bucket's name.
    #[must_use]
    pub fn bucket(&self) -> &str {
        self.0.name()
    }

    /// Determines whether the bucket exists.
    pub async fn state(&self) -> BucketState {
        self.0.state().await
    }

    /// Puts an object of these bytes, whose SHA-256 is `sha256`. When this returns, S3 has verified the checksum.
    ///
    /// # Errors
    /// [`StoreError`] if the object may not have been stored.
    pub async fn put(
        &self,
        key: &str,
        bytes: Vec<u8>,
        sha256: [u8; 32],
        metadata: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<(), StoreError> {
        Ok(self.0.put_digested(key, ROWS_TYPE, bytes, sha256, metadata).await?)
    }

    /// Like [`ArchiveStore::put`], but with any content type, and the body is read from a file.
    ///
    /// # Errors
    /// [`StoreError`] if the object may not have been stored.
    pub async fn put_file(
        &self,
        key: &str,
        content_type: &str,
        path: &Path,
        sha256: [u8; 32],
        metadata: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<(), StoreError> {
        Ok(self.0.put_file(key, content_type, path, sha256, metadata).await?)
    }

    /// Like [`ArchiveStore::put`], but for text with any content type and without metadata.
    ///
    /// # Errors
    /// [`StoreError`] if the object may not have been stored.
    pub async fn put_text(
        &self,
        key: &str,
        content_type: &str,
        text: String,
        sha256: [u8; 32],
    ) -> Result<(), StoreError> {
        Ok(self.0.put_digested(key, content_type, text.into_bytes(), sha256, []).await?)
    }

    /// Returns all objects below a prefix, sorted by key.
    ///
    /// # Errors
    /// [`StoreError`] if the objects cannot be listed.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        Ok(self.0.list(prefix).await?)
    }

    /// Returns up to `limit` objects below a prefix whose keys sort after `after`, sorted by key.
    ///
    /// # Errors
    /// [`StoreError`] if the objects cannot be listed.
    pub async fn list_page(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: i32,
    ) -> Result<Vec<ObjectMeta>, StoreError> {
        Ok(self.0.list_page(prefix, after, limit).await?)
    }

    /// Returns the objects and folders directly below a prefix that ends in a slash.
    ///
    /// # Errors
    /// [`StoreError`] if the objects cannot be listed.
    pub async fn list_with_delimiter(&self, prefix: &str) -> Result<PrefixListing, StoreError> {
        Ok(self.0.list_with_delimiter(prefix).await?)
    }

    /// Opens an object for reading. Returns `None` if it no longer exists. The first chunk is fetched immediately,
    /// because most objects are small.
    ///
    /// # Errors
    /// [`StoreError`] if the object cannot be read.
    pub async fn open(&self, key: &str) -> Result<Option<ObjectReader>, StoreError> {
        let first = match self.0.get_range(key, 0..ObjectReader::CHUNK_BYTES, Vec::new()).await {
            Ok(first) => first,
            Err(error) => match error.kind() {
                S3ErrorKind::NotFound => return Ok(None),
                // Only an empty object has no first chunk.
                S3ErrorKind::InvalidRange => {
                    let Some(metadata) = self.metadata(key).await? else { return Ok(None) };
                    ObjectRange { metadata, object_size: 0, bytes: Vec::new() }
                }
                S3ErrorKind::Unavailable => return Err(error.into()),
            },
        };
        Ok(Some(ObjectReader::new(self.clone(), key.to_owned(), first, Handle::current())))
    }

    /// Returns an object's metadata, or `None` if the object no longer exists.
    ///
    /// # Errors
    /// [`StoreError`] if the metadata cannot be read.
    pub async fn metadata(&self, key: &str) -> Result<Option<HashMap<String, String>>, StoreError> {
        Ok(self.0.metadata(key).await?)
    }

    /// Reads a small object completely. Returns `None` if it no longer exists.
    ///
    /// # Errors
    /// [`StoreError`] if the object cannot be read.
    pub async fn text(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(key).await?)
    }

    /// Moves an object below `superseded/`: it is removed only after its copy is confirmed. If the object no longer
    /// exists, it has already been moved.
    ///
    /// # Errors
    /// [`StoreError`]; the object is then still under its key, or under both keys.
    pub async fn move_to_superseded(&self, key: &str) -> Result<(), StoreError> {
        if self.0.copy(key, &format!("{SUPERSEDED}{key}")).await? {
            self.remove(key).await?;
        }
        Ok(())
    }

    /// Removes an object; an object that no longer exists counts as removed.
    ///
    /// # Errors
    /// [`StoreError`] if the object may still exist.
    pub async fn remove(&self, key: &str) -> Result<(), StoreError> {
        Ok(self.0.delete(key).await?)
    }
}
