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
mod read;

use std::path::Path;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::error::DisplayErrorContext;
use aws_sdk_s3::primitives::ByteStream;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

pub use object_reader::ObjectReader;
pub use read::{ObjectMeta, PrefixListing};

/// The content type of rows: JSON lines.
pub const ROWS_TYPE: &str = "application/x-ndjson";

/// Bodies up to this size are sent within the client's default timeout.
const SMALL_BYTES: u64 = 4 * 1024 * 1024;
/// The assumed minimum throughput of uploads and copies, in bytes per second; a function's network provides a multiple
/// of it.
const LEAST_BYTES_A_SECOND: u64 = 4 * 1024 * 1024;
/// Time allowed in addition to the transfer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);
/// Timeout of a copy; S3 copies the largest object written here in a fraction of it.
const COPIED_WITHIN: Duration = Duration::from_mins(1);

/// Returns the timeout of one attempt to send this number of bytes, or `None` if the client's default applies.
#[must_use]
pub fn upload_time(bytes: u64) -> Option<Duration> {
    (bytes > SMALL_BYTES).then(|| ANSWERED_WITHIN + Duration::from_secs(bytes.div_ceil(LEAST_BYTES_A_SECOND)))
}

/// Returns a client configuration that overrides only the timeout of an attempt.
#[must_use]
pub fn within(time: Option<Duration>) -> aws_sdk_s3::config::Builder {
    let config = aws_sdk_s3::Config::builder();
    match time {
        Some(time) => config.timeout_config(TimeoutConfig::builder().operation_attempt_timeout(time).build()),
        None => config,
    }
}

/// The archive's bucket.
#[derive(Debug, Clone)]
pub struct ArchiveStore {
    client: Client,
    bucket: String,
}

/// A failed operation on the bucket.
#[derive(Debug, Clone, thiserror::Error)]
#[error("archive bucket {bucket}: {what}: {cause}")]
pub struct StoreError {
    bucket: String,
    what: String,
    cause: String,
}

impl ArchiveStore {
    /// Creates a store for `bucket`.
    #[must_use]
    pub fn new(client: Client, bucket: String) -> Self {
        Self { client, bucket }
    }

    /// Returns the bucket's name.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
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
        self.put_body(key, ROWS_TYPE, ByteStream::from(bytes), sha256, metadata).await
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
        let body = ByteStream::from_path(path).await.map_err(|error| self.unconfirmed(key, error.to_string()))?;
        self.put_body(key, content_type, body, sha256, metadata).await
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
        self.put_body(key, content_type, ByteStream::from(text.into_bytes()), sha256, []).await
    }

    async fn put_body(
        &self,
        key: &str,
        content_type: &str,
        body: ByteStream,
        sha256: [u8; 32],
        metadata: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<(), StoreError> {
        let checksum = BASE64.encode(sha256);
        let (least, most) = body.size_hint();
        let bytes = most.unwrap_or(least);
        let metadata = metadata.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let put = self.client.put_object().bucket(&self.bucket).key(key).content_type(content_type);
        let put = put.set_metadata(Some(metadata)).checksum_sha256(&checksum).body(body);
        let confirmed = put.customize().config_override(within(upload_time(bytes))).send().await;
        let confirmed = confirmed.map_err(|error| self.unconfirmed(key, DisplayErrorContext(error).to_string()))?;
        match confirmed.checksum_sha256() {
            Some(stored) if stored != checksum => {
                Err(self.unconfirmed(key, format!("the stored object has a different SHA-256: {stored}")))
            }
            _ => Ok(()),
        }
    }

    fn unconfirmed(&self, key: &str, cause: String) -> StoreError {
        self.failed(format!("the write of {key} is not confirmed"), cause)
    }

    fn failed(&self, what: String, cause: String) -> StoreError {
        StoreError { bucket: self.bucket.clone(), what, cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_an_upload_fits_its_size() {
        assert_eq!((upload_time(0), upload_time(SMALL_BYTES)), (None, None));
        let mut before = Duration::ZERO;
        for megabytes in [5, 32, 128, 192, 1_024] {
            let time = upload_time(megabytes * 1024 * 1024).unwrap();
            assert!(time > before && time >= Duration::from_secs(megabytes / 4), "{megabytes} MB in {time:?}");
            before = time;
        }
    }
}
