//! The failure bucket: lists and reads its objects, moves redriven ones, and writes reports.
//!
//! No object is removed before a copy of it has been written and confirmed.

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::ChecksumAlgorithm;
use millrace_archive::store::{upload_time, within};
use millrace_shared::error_chain::error_chain;
use time::OffsetDateTime;

/// Prefix of redriven objects; the original key follows.
const REDRIVEN: &str = "redriven/";

/// A failed request to the failure bucket.
#[derive(Debug, thiserror::Error)]
#[error("FAILURE_BUCKET {bucket}: {what}: {reason}")]
pub struct BucketError {
    bucket: String,
    what: String,
    reason: String,
}

/// An object of the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureObject {
    /// The object's key.
    pub key: String,
    /// The time at which it was last modified.
    pub modified: Option<OffsetDateTime>,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// The failure bucket.
#[derive(Debug, Clone)]
pub struct FailureBucket {
    client: Client,
    bucket: String,
}

impl FailureBucket {
    /// Creates a client of the bucket with this name.
    #[must_use]
    pub fn new(client: Client, bucket: String) -> Self {
        Self { client, bucket }
    }

    /// Lists up to `most` objects below `prefix` whose keys sort after `after`, in key order.
    ///
    /// # Errors
    /// [`BucketError`] if the bucket cannot be listed.
    pub async fn list(&self, prefix: &str, after: Option<&str>, most: i32) -> Result<Vec<FailureObject>, BucketError> {
        let list = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).max_keys(most);
        let listed = list.set_start_after(after.map(str::to_owned)).send().await;
        let listed = listed.map_err(|error| self.fault("cannot list objects".to_owned(), &error))?;
        let time = |time: &DateTime| OffsetDateTime::from_unix_timestamp_nanos(time.as_nanos()).ok();
        let object = |object: aws_sdk_s3::types::Object| {
            let size_bytes = object.size().and_then(|size| u64::try_from(size).ok()).unwrap_or_default();
            Some(FailureObject { modified: object.last_modified().and_then(time), size_bytes, key: object.key? })
        };
        let mut found: Vec<FailureObject> =
            listed.contents.unwrap_or_default().into_iter().filter_map(object).collect();
        // With a server that ignores `start-after`, a redrive would loop forever.
        found.retain(|object| after.is_none_or(|after| object.key.as_str() > after));
        Ok(found)
    }

    /// Returns the body of an object, or `None` if the object does not exist.
    ///
    /// # Errors
    /// [`BucketError`] if the object cannot be read.
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, BucketError> {
        let object = match self.client.get_object().bucket(&self.bucket).key(key).send().await {
            Ok(object) => object,
            Err(error) if error.as_service_error().is_some_and(GetObjectError::is_no_such_key) => return Ok(None),
            Err(error) => return Err(self.fault(format!("cannot read {key}"), &error)),
        };
        let body = object.body.collect().await.map_err(|error| BucketError {
            bucket: self.bucket.clone(),
            what: format!("cannot read {key}"),
            reason: error_chain(&error),
        })?;
        Ok(Some(body.to_vec()))
    }

    /// Writes an object. S3 has confirmed it when this returns.
    ///
    /// # Errors
    /// [`BucketError`] if the write is not confirmed.
    pub async fn put(&self, key: &str, content_type: &str, body: Vec<u8>) -> Result<(), BucketError> {
        let put = self.client.put_object().bucket(&self.bucket).key(key).content_type(content_type);
        let time = upload_time(body.len() as u64);
        let put = put.checksum_algorithm(ChecksumAlgorithm::Sha256).body(ByteStream::from(body));
        let put = put.customize().config_override(within(time)).send().await;
        put.map(drop).map_err(|error| self.fault(format!("the write of {key} is not confirmed"), &error))
    }

    /// Moves an object with this body below `redriven/`. The original is removed only after the copy is confirmed.
    ///
    /// # Errors
    /// [`BucketError`]; the object is then still at its original key.
    pub async fn retire(&self, key: &str, body: Vec<u8>) -> Result<(), BucketError> {
        self.put(&format!("{REDRIVEN}{key}"), "application/json", body).await?;
        let removed = self.client.delete_object().bucket(&self.bucket).key(key).send().await;
        removed.map(drop).map_err(|error| self.fault(format!("cannot delete {key}"), &error))
    }

    fn fault<E, R>(&self, what: String, error: &SdkError<E, R>) -> BucketError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug,
    {
        let refusal = error
            .as_service_error()
            .and_then(|refusal| Some(format!("{}: {}", refusal.code()?, refusal.message().unwrap_or("no message"))));
        let reason = refusal.unwrap_or_else(|| error_chain(error));
        BucketError { bucket: self.bucket.clone(), what, reason }
    }
}
