//! Access to one S3 bucket: [`S3Bucket`].
//!
//! Every upload carries a SHA-256 that S3 verifies, so an object is either confirmed or not. The SHA-256 of an archive
//! object is also that of its signature, so that its bytes are digested once. Uploads get time in
//! proportion to their size, and a range whose body is truncated is requested again.
//!
//! Which keys exist, and what a failure means for a record, is out of scope: each owner of a bucket decides that.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use aws_runtime::auth::PayloadSigningOverride;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::primitives::{ByteStream, ByteStreamError, DateTime};
use aws_sdk_s3::types::{ChecksumAlgorithm, Object};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use time::OffsetDateTime;

use crate::error_chain::error_chain;
use crate::hash::to_hex;

/// Bodies up to this size are sent within the client's default timeout.
const SMALL_BYTES: u64 = 4 * 1024 * 1024;
/// The assumed minimum throughput of uploads, in bytes per second; a function's network provides a multiple of it.
const MIN_BYTES_PER_SECOND: u64 = 4 * 1024 * 1024;
/// Time allowed for an upload in addition to the transfer.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);
/// Timeout of a copy; S3 copies the largest object written here in a fraction of it.
const COPY_TIMEOUT: Duration = Duration::from_mins(1);
/// The size of the parts in which a file is read for an upload.
const FILE_PART_BYTES: usize = 256 * 1024;
/// The number of retries after a truncated body: the client itself retries only until the response starts.
const MAX_BODY_RETRIES: usize = 2;
/// The characters of a key that are escaped in the header that names a copy's source.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A bucket and the client that accesses it.
#[derive(Debug, Clone)]
pub struct S3Bucket {
    client: Client,
    name: String,
}

/// A failed operation on a bucket.
///
/// Every failure, including a missing bucket and a denied permission, affects the whole bucket and is temporary: the
/// same request succeeds when the cause is removed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{bucket}: {}: {cause}", .operation.describe(key))]
pub struct S3Error {
    bucket: String,
    operation: S3Operation,
    key: String,
    kind: S3ErrorKind,
    cause: String,
}

/// The operation that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum S3Operation {
    /// Writing an object. The object may have been stored.
    Put,
    /// Listing the objects below a prefix, which is the key of the error.
    List,
    /// Reading an object.
    Get,
    /// Reading the metadata of an object.
    Head,
    /// Copying an object.
    Copy,
    /// Deleting an object. The object may still exist.
    Delete,
    /// Looking for the bucket.
    Inspect,
}

/// The kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum S3ErrorKind {
    /// The object does not exist.
    NotFound,
    /// The object ends before the requested range.
    InvalidRange,
    /// S3 did not respond or did not process the request.
    Unavailable,
}

/// The state of a bucket, as far as it can be determined.
#[derive(Debug)]
pub enum BucketState {
    /// The bucket exists.
    Present,
    /// There is no bucket of this name.
    Absent,
    /// The bucket is in another Region than the client's.
    OtherRegion,
    /// The bucket exists, and the role is not allowed to list it. It may be allowed to write to it.
    Denied,
    /// S3 did not respond, or returned another error.
    Unknown(S3Error),
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// The object's key.
    pub key: String,
    /// The time at which it was last modified.
    pub modified: Option<OffsetDateTime>,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// The objects and folders directly below a prefix.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct PrefixListing {
    /// The keys of the objects.
    pub objects: Vec<String>,
    /// The folders, each as a full prefix that ends with a slash.
    pub folders: Vec<String>,
}

/// A range of an object's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectRange {
    /// The object's metadata.
    pub metadata: HashMap<String, String>,
    /// The object's total size in bytes.
    pub object_size: u64,
    /// The bytes of the range, as far as the object has them.
    pub bytes: Vec<u8>,
}

impl S3Operation {
    /// Returns the description of the failed operation on a key.
    fn describe(self, key: &str) -> impl fmt::Display {
        fmt::from_fn(move |f| match self {
            Self::Put => write!(f, "the write of {key} is not confirmed"),
            Self::List => write!(f, "cannot list objects below {key}"),
            Self::Get => write!(f, "cannot read {key}"),
            Self::Head => write!(f, "cannot read the metadata of {key}"),
            Self::Copy => write!(f, "cannot copy {key}"),
            Self::Delete => write!(f, "cannot delete {key}"),
            Self::Inspect => write!(f, "cannot access the bucket"),
        })
    }
}

impl S3Error {
    /// Returns the kind of the failure.
    #[must_use]
    pub fn kind(&self) -> S3ErrorKind {
        self.kind
    }
}

impl S3Bucket {
    /// Creates the access to the bucket with this name.
    #[must_use]
    pub fn new(client: Client, name: String) -> Self {
        Self { client, name }
    }

    /// Returns the bucket's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Determines whether the bucket exists.
    pub async fn state(&self) -> BucketState {
        let Err(error) = self.client.head_bucket().bucket(&self.name).send().await else { return BucketState::Present };
        // The response to `HEAD` has no body, so its status is all there is.
        match error.raw_response().map(|response| response.status().as_u16()) {
            Some(404) => BucketState::Absent,
            Some(301) => BucketState::OtherRegion,
            Some(403) => BucketState::Denied,
            _ => BucketState::Unknown(self.failed(S3Operation::Inspect, "", &error)),
        }
    }

    /// Writes an object. When this returns, S3 has verified its checksum, which the client computes.
    ///
    /// # Errors
    /// [`S3Error`] if the object may not have been stored.
    pub async fn put(&self, key: &str, content_type: &str, body: Vec<u8>) -> Result<(), S3Error> {
        let put = self.client.put_object().checksum_algorithm(ChecksumAlgorithm::Sha256);
        self.send_put(put, key, content_type, body.into(), None).await.map(drop)
    }

    /// Writes an object of these bytes, whose SHA-256 is `sha256`. When this returns, S3 has verified it.
    ///
    /// # Errors
    /// [`S3Error`] if the object may not have been stored.
    pub async fn put_digested(
        &self,
        key: &str,
        content_type: &str,
        body: Vec<u8>,
        sha256: [u8; 32],
        metadata: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<(), S3Error> {
        self.put_body(key, content_type, body.into(), sha256, metadata).await
    }

    /// Like [`S3Bucket::put_digested`], but the body is read from a file.
    ///
    /// # Errors
    /// [`S3Error`] if the file cannot be read or the object may not have been stored.
    pub async fn put_file(
        &self,
        key: &str,
        content_type: &str,
        path: &Path,
        sha256: [u8; 32],
        metadata: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<(), S3Error> {
        let body = ByteStream::read_from().path(path).buffer_size(FILE_PART_BYTES).build().await;
        let body = body.map_err(|error| self.failure(S3Operation::Put, key, error_chain(&error)))?;
        self.put_body(key, content_type, body, sha256, metadata).await
    }

    async fn put_body(
        &self,
        key: &str,
        content_type: &str,
        body: ByteStream,
        sha256: [u8; 32],
        metadata: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<(), S3Error> {
        let checksum = BASE64.encode(sha256);
        let metadata = metadata.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let put = self.client.put_object().set_metadata(Some(metadata)).checksum_sha256(&checksum);
        match self.send_put(put, key, content_type, body, Some(sha256)).await? {
            Some(stored) if stored != checksum => {
                let cause = format!("the stored object has a different SHA-256: {stored}");
                Err(self.failure(S3Operation::Put, key, cause))
            }
            _ => Ok(()),
        }
    }

    /// Sends an upload within the time of its size; returns the SHA-256 of the stored object. `sha256` is that of the
    /// body, if it is known.
    async fn send_put(
        &self,
        put: PutObjectFluentBuilder,
        key: &str,
        content_type: &str,
        body: ByteStream,
        sha256: Option<[u8; 32]>,
    ) -> Result<Option<String>, S3Error> {
        let (least, most) = body.size_hint();
        let time = upload_time(most.unwrap_or(least));
        let put = put.bucket(&self.name).key(key).content_type(content_type).body(body);
        let mut put = put.customize().config_override(within(time));
        if let Some(sha256) = sha256 {
            put = put.interceptor(PayloadDigest(to_hex(&sha256)));
        }
        let stored = put.send().await;
        stored.map(|stored| stored.checksum_sha256).map_err(|error| self.failed(S3Operation::Put, key, &error))
    }

    /// Returns all objects below a prefix, sorted by key.
    ///
    /// # Errors
    /// [`S3Error`] if the objects cannot be listed.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, S3Error> {
        let mut found = Vec::new();
        self.list_pages(prefix, None, |page| found.extend(objects(page))).await?;
        Ok(found)
    }

    /// Returns up to `limit` objects below a prefix whose keys sort after `after`, sorted by key.
    ///
    /// # Errors
    /// [`S3Error`] if the objects cannot be listed.
    pub async fn list_page(&self, prefix: &str, after: Option<&str>, limit: i32) -> Result<Vec<ObjectMeta>, S3Error> {
        let list = self.client.list_objects_v2().bucket(&self.name).prefix(prefix).max_keys(limit);
        let page = list.set_start_after(after.map(str::to_owned)).send().await;
        let page = page.map_err(|error| self.failed(S3Operation::List, prefix, &error))?;
        // With a server that ignores `start-after`, a caller that lists page by page would loop forever.
        Ok(objects(page).filter(|object| after.is_none_or(|after| object.key.as_str() > after)).collect())
    }

    /// Returns the objects and folders directly below a prefix that ends in a slash.
    ///
    /// # Errors
    /// [`S3Error`] if the objects cannot be listed.
    pub async fn list_with_delimiter(&self, prefix: &str) -> Result<PrefixListing, S3Error> {
        let mut listing = PrefixListing::default();
        let add = |page: ListObjectsV2Output| {
            listing.objects.extend(page.contents.unwrap_or_default().into_iter().filter_map(|object| object.key));
            listing.folders.extend(page.common_prefixes.unwrap_or_default().into_iter().filter_map(|of| of.prefix));
        };
        self.list_pages(prefix, Some("/"), add).await?;
        Ok(listing)
    }

    async fn list_pages(
        &self,
        prefix: &str,
        delimiter: Option<&str>,
        mut add: impl FnMut(ListObjectsV2Output),
    ) -> Result<(), S3Error> {
        let list = self.client.list_objects_v2().bucket(&self.name).prefix(prefix);
        let mut pages = list.set_delimiter(delimiter.map(str::to_owned)).into_paginator().send();
        while let Some(page) = pages.next().await {
            add(page.map_err(|error| self.failed(S3Operation::List, prefix, &error))?);
        }
        Ok(())
    }

    /// Reads an object completely. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// [`S3Error`] if the object cannot be read.
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, S3Error> {
        let object = self.client.get_object().bucket(&self.name).key(key).send().await;
        let object = object.map_err(|error| self.failed(S3Operation::Get, key, &error));
        let Some(object) = if_found(object)? else { return Ok(None) };
        let body = object.body.collect().await;
        let body = body.map_err(|error| self.failure(S3Operation::Get, key, error_chain(&error)))?;
        Ok(Some(body.to_vec()))
    }

    /// Reads a range of an object. The bytes replace the content of `buffer`, whose allocation is reused.
    ///
    /// # Errors
    /// [`S3Error`] of the kind [`S3ErrorKind::NotFound`] if the object does not exist, of
    /// [`S3ErrorKind::InvalidRange`] if it ends before the range, and of [`S3ErrorKind::Unavailable`] if it cannot be
    /// read.
    pub async fn get_range(&self, key: &str, range: Range<u64>, mut buffer: Vec<u8>) -> Result<ObjectRange, S3Error> {
        let get = self.client.get_object().bucket(&self.name).key(key);
        let get = get.range(format!("bytes={}-{}", range.start, range.end - 1));
        let mut truncated = 0;
        loop {
            let object = get.clone().send().await;
            let mut object = object.map_err(|error| self.failed(S3Operation::Get, key, &error))?;
            match fill(&mut buffer, &mut object, range.end - range.start).await {
                Ok(()) => {
                    // "bytes 0-99/1234" (RFC 9110, section 14.4); without the header, the body is the whole object.
                    let size = object.content_range().and_then(|range| range.rsplit('/').next()?.parse().ok());
                    let object_size = size.unwrap_or(buffer.len() as u64);
                    let metadata = object.metadata.unwrap_or_default();
                    return Ok(ObjectRange { metadata, object_size, bytes: buffer });
                }
                Err(_) if truncated < MAX_BODY_RETRIES => truncated += 1,
                Err(error) => return Err(self.failure(S3Operation::Get, key, error_chain(&error))),
            }
        }
    }

    /// Returns an object's metadata, or `None` if the object does not exist.
    ///
    /// # Errors
    /// [`S3Error`] if the metadata cannot be read.
    pub async fn metadata(&self, key: &str) -> Result<Option<HashMap<String, String>>, S3Error> {
        let head = self.client.head_object().bucket(&self.name).key(key).send().await;
        let head = if_found(head.map_err(|error| self.failed(S3Operation::Head, key, &error)))?;
        Ok(head.map(|head| head.metadata.unwrap_or_default()))
    }

    /// Copies an object within the bucket, with its metadata. Returns `false` if it does not exist.
    ///
    /// # Errors
    /// [`S3Error`] if the copy may not have been stored.
    pub async fn copy(&self, from: &str, to: &str) -> Result<bool, S3Error> {
        let source = format!("{}/{}", self.name, utf8_percent_encode(from, ESCAPED));
        let copy = self.client.copy_object().bucket(&self.name).key(to).copy_source(source);
        let copied = copy.customize().config_override(within(Some(COPY_TIMEOUT))).send().await;
        let copied = if_found(copied.map_err(|error| self.failed(S3Operation::Copy, from, &error)))?;
        Ok(copied.is_some())
    }

    /// Deletes an object; an object that does not exist counts as deleted.
    ///
    /// # Errors
    /// [`S3Error`] if the object may still exist.
    pub async fn delete(&self, key: &str) -> Result<(), S3Error> {
        let deleted = self.client.delete_object().bucket(&self.name).key(key).send().await;
        deleted.map(drop).map_err(|error| self.failed(S3Operation::Delete, key, &error))
    }

    /// Returns the failure of an operation on this bucket for a cause outside of S3.
    #[must_use]
    pub fn failure(&self, operation: S3Operation, key: &str, cause: String) -> S3Error {
        let (bucket, key) = (self.name.clone(), key.to_owned());
        S3Error { bucket, operation, key, kind: S3ErrorKind::Unavailable, cause }
    }

    fn failed<E, R>(&self, operation: S3Operation, key: &str, error: &SdkError<E, R>) -> S3Error
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: fmt::Debug,
    {
        let kind = match error.code() {
            Some("NoSuchKey") => S3ErrorKind::NotFound,
            // The code of a response without a body, as to `HEAD`.
            Some("NotFound") if operation == S3Operation::Head => S3ErrorKind::NotFound,
            Some("InvalidRange") => S3ErrorKind::InvalidRange,
            _ => S3ErrorKind::Unavailable,
        };
        let response = error.as_service_error();
        let response = response.and_then(|error| Some((error.code()?, error.message().unwrap_or("no message"))));
        let cause = response.map_or_else(|| error_chain(error), |(code, message)| format!("{code}: {message}"));
        S3Error { kind, ..self.failure(operation, key, cause) }
    }
}

/// Signs a request with the SHA-256 of its body in hexadecimal digits, which the signer otherwise computes again, or
/// leaves out if the body is a file.
#[derive(Debug)]
struct PayloadDigest(String);

impl Intercept for PayloadDigest {
    fn name(&self) -> &'static str {
        "PayloadDigest"
    }

    fn modify_before_signing(
        &self,
        _: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        config.interceptor_state().store_put(PayloadSigningOverride::Precomputed(self.0.clone()));
        Ok(())
    }
}

/// Returns `None` if the object does not exist.
fn if_found<T>(result: Result<T, S3Error>) -> Result<Option<T>, S3Error> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind == S3ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn objects(page: ListObjectsV2Output) -> impl Iterator<Item = ObjectMeta> {
    let time = |time: &DateTime| OffsetDateTime::from_unix_timestamp_nanos(time.as_nanos()).ok();
    page.contents.unwrap_or_default().into_iter().filter_map(move |object: Object| {
        let size_bytes = object.size().and_then(|size| u64::try_from(size).ok()).unwrap_or_default();
        Some(ObjectMeta { modified: object.last_modified().and_then(time), size_bytes, key: object.key? })
    })
}

/// Reads the body into the buffer. Copying it chunk by chunk reuses the client's buffer and this one, so no new pages
/// are allocated.
async fn fill(buffer: &mut Vec<u8>, object: &mut GetObjectOutput, most: u64) -> Result<(), ByteStreamError> {
    buffer.clear();
    let length = object.content_length().and_then(|length| u64::try_from(length).ok()).unwrap_or_default();
    buffer.reserve(usize::try_from(length.min(most)).unwrap_or_default());
    while let Some(bytes) = object.body.try_next().await? {
        buffer.extend_from_slice(&bytes);
    }
    Ok(())
}

/// Returns the timeout of one attempt to send this number of bytes, or `None` if the client's default applies.
fn upload_time(bytes: u64) -> Option<Duration> {
    (bytes > SMALL_BYTES).then(|| RESPONSE_TIMEOUT + Duration::from_secs(bytes.div_ceil(MIN_BYTES_PER_SECOND)))
}

/// Returns a client configuration that overrides only the timeout of an attempt.
fn within(time: Option<Duration>) -> aws_sdk_s3::config::Builder {
    let config = aws_sdk_s3::Config::builder();
    match time {
        Some(time) => config.timeout_config(TimeoutConfig::builder().operation_attempt_timeout(time).build()),
        None => config,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use aws_config::retry::RetryConfig;
    use aws_credential_types::Credentials;
    use aws_smithy_runtime_api::client::http::{
        HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
    };
    use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
    use aws_smithy_runtime_api::http::StatusCode;
    use aws_smithy_types::body::SdkBody;

    use super::*;
    use crate::hash::sha256;

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

    #[test]
    fn an_error_names_the_bucket_the_operation_the_key_and_the_cause() {
        let config = aws_sdk_s3::Config::builder().behavior_version(aws_sdk_s3::config::BehaviorVersion::latest());
        let bucket = S3Bucket::new(Client::from_conf(config.build()), "users-archive".to_owned());
        let text = |operation| bucket.failure(operation, "a/b", "timed out".to_owned()).to_string();
        assert_eq!(text(S3Operation::Put), "users-archive: the write of a/b is not confirmed: timed out");
        assert_eq!(text(S3Operation::Head), "users-archive: cannot read the metadata of a/b: timed out");
    }

    /// Rejects the first request, and records the headers of all.
    #[derive(Debug, Clone, Default)]
    struct SlowDownOnce(Arc<Mutex<Vec<HttpRequest>>>);

    impl HttpConnector for SlowDownOnce {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            let mut requests = self.0.lock().unwrap();
            requests.push(request);
            let (status, body) = match requests.len() {
                1 => (503, "<Error><Code>SlowDown</Code></Error>"),
                _ => (200, ""),
            };
            let status = StatusCode::try_from(status).unwrap();
            HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(body))))
        }
    }

    /// Without it, the client would digest the bytes of an object a second time, and would not sign those of a file.
    #[tokio::test]
    async fn digest_of_an_object_is_that_of_its_signature_at_every_attempt() {
        let bytes = b"a row\n".repeat(1_000);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, &bytes).unwrap();
        let sha256 = sha256(&bytes);
        for from_file in [false, true] {
            let sent = SlowDownOnce::default();
            let connector = SharedHttpConnector::new(sent.clone());
            let config = aws_sdk_s3::Config::builder()
                .behavior_version(aws_sdk_s3::config::BehaviorVersion::latest())
                .region(aws_sdk_s3::config::Region::from_static("eu-west-1"))
                .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
                .retry_config(RetryConfig::standard().with_initial_backoff(Duration::from_millis(1)))
                .http_client(http_client_fn(move |_, _| connector.clone()))
                .build();
            let bucket = S3Bucket::new(Client::from_conf(config), "archive".to_owned());
            if from_file {
                bucket.put_file("k", "text/plain", file.path(), sha256, []).await.unwrap();
            } else {
                bucket.put_digested("k", "text/plain", bytes.clone(), sha256, []).await.unwrap();
            }
            let requests = sent.0.lock().unwrap();
            assert_eq!(requests.len(), 2, "one retry");
            for request in &*requests {
                let header = |name: &str| request.headers().get(name).unwrap_or_default();
                assert_eq!(header("x-amz-content-sha256"), to_hex(&sha256));
                assert_eq!(header("x-amz-checksum-sha256"), BASE64.encode(sha256));
                assert_eq!(header("content-encoding"), "", "not in signed chunks");
            }
        }
    }
}
