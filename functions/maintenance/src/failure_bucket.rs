//! The failure bucket: lists and reads its objects, moves redriven ones, and writes reports.
//!
//! No object is removed before a copy of it has been written and confirmed.

use aws_sdk_s3::Client;
pub use millrace_shared::s3::ObjectMeta as FailureObject;
use millrace_shared::s3::{S3Bucket, S3Error};
use millrace_sinks::transform_history::TransformHistory;

/// Prefix of redriven objects; the original key follows.
const REDRIVEN: &str = "redriven/";

/// A failed request to the failure bucket.
#[derive(Debug, thiserror::Error)]
#[error("FAILURE_BUCKET {0}")]
pub struct BucketError(#[from] S3Error);

/// The failure bucket.
#[derive(Debug, Clone)]
pub struct FailureBucket(S3Bucket);

impl FailureBucket {
    /// Creates a client of the bucket with this name.
    #[must_use]
    pub fn new(client: Client, bucket: String) -> Self {
        Self(S3Bucket::new(client, bucket))
    }

    /// Lists up to `most` objects below `prefix` whose keys sort after `after`, in key order.
    ///
    /// # Errors
    /// [`BucketError`] if the bucket cannot be listed.
    pub async fn list(&self, prefix: &str, after: Option<&str>, most: i32) -> Result<Vec<FailureObject>, BucketError> {
        Ok(self.0.list_page(prefix, after, most).await?)
    }

    /// Returns the body of an object, or `None` if the object does not exist.
    ///
    /// # Errors
    /// [`BucketError`] if the object cannot be read.
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, BucketError> {
        Ok(self.0.get(key).await?)
    }

    /// Writes an object. S3 has confirmed it when this returns.
    ///
    /// # Errors
    /// [`BucketError`] if the write is not confirmed.
    pub async fn put(&self, key: &str, content_type: &str, body: Vec<u8>) -> Result<(), BucketError> {
        Ok(self.0.put(key, content_type, body).await?)
    }

    /// Returns the recorded rules of the replicas, which are in this bucket.
    #[must_use]
    pub fn transform_history(&self) -> TransformHistory {
        TransformHistory::new(self.0.clone())
    }

    /// Moves an object with this body below `redriven/`. The original is removed only after the copy is confirmed.
    ///
    /// # Errors
    /// [`BucketError`]; the object is then still at its original key.
    pub async fn move_to_redriven(&self, key: &str, body: Vec<u8>) -> Result<(), BucketError> {
        self.put(&format!("{REDRIVEN}{key}"), "application/json", body).await?;
        Ok(self.0.delete(key).await?)
    }
}
