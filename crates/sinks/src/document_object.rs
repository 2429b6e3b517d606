//! The object of a replication document in S3: [`read_document`].

use millrace_shared::s3::{S3Bucket, S3Error};

use crate::document::DocumentLocation;

/// The maximum size of a document. A document of 32 replicas has some 10 KB.
const MAX_BYTES: usize = 1024 * 1024;

/// A document that cannot be read from S3.
#[derive(Debug, thiserror::Error)]
pub enum ReadDocumentError {
    /// The object does not exist.
    #[error(
        "REPLICATION is {0}, but bucket {bucket} has no object {key}: upload the document",
        bucket = .0.bucket,
        key = .0.key
    )]
    Absent(DocumentLocation),
    /// S3 rejected the request or did not respond.
    #[error(
        "REPLICATION is {location}, but object {key} of bucket {bucket} cannot be read: allow s3:GetObject on it, and \
         check that the bucket exists in this Region ({source})",
        key = .location.key,
        bucket = .location.bucket
    )]
    Failed {
        /// The location.
        location: DocumentLocation,
        /// The error that S3 returned.
        source: S3Error,
    },
    /// The object is not a document.
    #[error("REPLICATION is {0}, but object {key} of bucket {bucket} {1}", bucket = .0.bucket, key = .0.key)]
    NotADocument(DocumentLocation, String),
}

impl ReadDocumentError {
    /// Returns whether a retry may succeed without a correction.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }
}

/// Reads the text of a document.
///
/// # Errors
/// [`ReadDocumentError`], which names the bucket, the key and the permission.
pub async fn read_document(s3: &aws_sdk_s3::Client, location: &DocumentLocation) -> Result<String, ReadDocumentError> {
    let bucket = S3Bucket::new(s3.clone(), location.bucket.clone());
    let read = bucket.get(&location.key).await;
    let body = read.map_err(|source| ReadDocumentError::Failed { location: location.clone(), source })?;
    let body = body.ok_or_else(|| ReadDocumentError::Absent(location.clone()))?;
    if body.len() > MAX_BYTES {
        let reason = format!("has {} bytes: a document has at most {MAX_BYTES}", body.len());
        return Err(ReadDocumentError::NotADocument(location.clone(), reason));
    }
    String::from_utf8(body)
        .map_err(|_| ReadDocumentError::NotADocument(location.clone(), "is not UTF-8 text".to_owned()))
}
