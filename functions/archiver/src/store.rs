//! Puts objects into the archive's bucket.
//!
//! The object's SHA-256, which its metadata carries, goes along as the checksum that S3 compares with what arrived: the
//! bytes are digested once, and neither side computes the SDK's default CRC. An object is confirmed or it is not; every
//! failure, a missing bucket and a refused permission too, is one of the whole archive and passes, so none of them is a
//! reason to put a record aside.
//!
//! Absent: `Content-Encoding`. The object *is* a compressed file, as its key's ending says and as Athena, DuckDB and
//! `aws dynamodb import-table` expect; with the header, browsers and many HTTP clients would decompress on the way,
//! and the bytes would no longer be those of the digest.

use aws_sdk_s3::Client;
use aws_sdk_s3::error::DisplayErrorContext;
use aws_sdk_s3::primitives::ByteStream;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

const CONTENT_TYPE: &str = "application/x-ndjson";

/// The archive's bucket.
#[derive(Debug, Clone)]
pub struct Store {
    client: Client,
    bucket: String,
}

/// The bucket did not confirm an object.
#[derive(Debug, thiserror::Error)]
#[error("the archive bucket {bucket} did not confirm {key}: {cause}")]
pub struct StoreError {
    bucket: String,
    key: String,
    cause: String,
}

impl Store {
    /// The store that puts into `bucket`.
    #[must_use]
    pub fn new(client: Client, bucket: String) -> Self {
        Self { client, bucket }
    }

    /// Puts the object of these bytes, whose SHA-256 is `sha256`; S3 has verified it once this returns.
    ///
    /// # Errors
    /// [`StoreError`] if it may not be there.
    pub async fn put(
        &self,
        key: &str,
        bytes: Vec<u8>,
        sha256: [u8; 32],
        metadata: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<(), StoreError> {
        let failed = |cause| StoreError { bucket: self.bucket.clone(), key: key.to_owned(), cause };
        let checksum = BASE64.encode(sha256);
        let metadata = metadata.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let put = self.client.put_object().bucket(&self.bucket).key(key).content_type(CONTENT_TYPE);
        let put = put.set_metadata(Some(metadata)).checksum_sha256(&checksum).body(ByteStream::from(bytes));
        let confirmed = put.send().await.map_err(|error| failed(DisplayErrorContext(error).to_string()))?;
        match confirmed.checksum_sha256() {
            Some(stored) if stored != checksum => Err(failed(format!("it stored other bytes, of SHA-256 {stored}"))),
            _ => Ok(()),
        }
    }
}
