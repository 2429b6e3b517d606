//! S3 on this machine: the protocol implementation of s3s over a file store (`s3/service.rs`), with one directory and
//! its own listener.
//!
//! It implements buckets, objects with their metadata and checksums (put, get, head, list, copy, delete), multipart
//! uploads and conditional requests. Unlike AWS it has no versions, encryption, access control or lifecycle rules,
//! ignores tags, and supports only the standard storage classes.
//!
//! Any credentials are accepted, as are requests without credentials: signatures are removed (`s3/unsign.rs`). Keys
//! that differ only in case require a case-sensitive file system.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use s3s::HttpError;
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::serve::serve;
use crate::template::BucketResource;

mod condition;
mod file_name;
mod listing;
mod object_file;
mod service;
mod unsign;

/// Time limit for requests in progress at a stop; afterwards they are cut off.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// An error of starting the S3 engine or of creating a bucket.
#[derive(Debug, thiserror::Error)]
pub enum S3EngineError {
    /// The directory cannot be created, read or written.
    #[error("s3 folder {}: {source}: choose another with --data", path.display())]
    Folder {
        /// The path of the directory.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The listener's socket address cannot be determined.
    #[error("s3 listener: {0}")]
    Listener(std::io::Error),
}

/// A running engine. Dropping it also stops it, without waiting.
pub struct S3Engine {
    endpoint: String,
    root: PathBuf,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl S3Engine {
    /// Serves the buckets in the directory `root`, which is created if it does not exist.
    ///
    /// # Errors
    ///
    /// An [`S3EngineError`] if the directory cannot be used.
    pub async fn start(listener: TcpListener, root: &Path) -> Result<Self, S3EngineError> {
        Self::start_with_switch(listener, root, Arc::default()).await
    }

    /// Same as [`S3Engine::start`], but every request gets the status 503 while `down` is set.
    ///
    /// # Errors
    ///
    /// An [`S3EngineError`] if the directory cannot be used.
    pub(crate) async fn start_with_switch(
        listener: TcpListener,
        root: &Path,
        down: Arc<AtomicBool>,
    ) -> Result<Self, S3EngineError> {
        let address = listener.local_addr().map_err(S3EngineError::Listener)?;
        tokio::fs::create_dir_all(root)
            .await
            .map_err(|source| S3EngineError::Folder { path: root.to_path_buf(), source })?;
        let files = object_file::ObjectFiles::open(root)
            .map_err(|source| S3EngineError::Folder { path: root.to_path_buf(), source })?;
        let service = S3ServiceBuilder::new(service::ObjectStore::new(files)).build();
        let unsigned = hyper::service::service_fn(move |request| {
            let (service, is_down) = (service.clone(), down.load(Ordering::Relaxed));
            async move {
                if is_down {
                    let refusal = s3s::s3_error!(ServiceUnavailable, "switched off");
                    return refusal.to_http_response().map_err(|error| HttpError::new(Box::new(error)));
                }
                match unsign::strip_signature(request).await {
                    Ok(request) => service.call(request).await,
                    Err(refused) => refused.to_http_response().map_err(|error| HttpError::new(Box::new(error))),
                }
            }
        });
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(serve("s3", listener, unsigned, stopped));
        Ok(Self { endpoint: format!("http://{address}"), root: root.to_path_buf(), stop, server })
    }

    /// Returns the URL that SDKs use as their S3 endpoint, with path style.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Creates the buckets that do not exist yet: a bucket is a directory in the store's root.
    ///
    /// # Errors
    ///
    /// [`S3EngineError::Folder`] if a bucket cannot be created.
    pub fn create_buckets(&self, buckets: &[BucketResource]) -> Result<(), S3EngineError> {
        buckets.iter().map(|bucket| self.root.join(&bucket.name)).try_for_each(|path| {
            std::fs::create_dir_all(&path).map_err(|source| S3EngineError::Folder { path, source })
        })
    }

    /// Stops accepting requests, and waits for requests in progress.
    pub async fn stop(self) {
        let Self { stop, mut server, .. } = self;
        // The server may already have ended: there is nothing to stop then.
        let _ = stop.send(());
        if tokio::time::timeout(STOP_TIMEOUT, &mut server).await.is_err() {
            server.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use aws_sdk_s3::config::Credentials;
    use aws_sdk_s3::presigning::PresigningConfig;
    use aws_sdk_s3::primitives::DateTime;
    use aws_sdk_s3::types::builders::ObjectIdentifierBuilder;
    use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, Delete, ObjectIdentifier};
    use hyper_util::rt::TokioExecutor;

    use super::*;
    use crate::clients;

    async fn start(root: &Path) -> S3Engine {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let engine = S3Engine::start(listener, root).await.unwrap();
        let bucket = BucketResource { logical_id: "ArchiveBucket".to_owned(), name: "users-archive".to_owned() };
        engine.create_buckets(&[bucket.clone(), bucket]).unwrap();
        engine
    }

    #[tokio::test]
    async fn an_object_keeps_its_bytes_metadata_and_checksum_whoever_signs() {
        let root = tempfile::tempdir().unwrap();
        let engine = start(root.path()).await;
        let strangers = clients::s3(engine.endpoint()).config().to_builder();
        let strangers = strangers.credentials_provider(Credentials::new("AKIA1", "other", Some("t".into()), None, "x"));
        for client in [clients::s3(engine.endpoint()), aws_sdk_s3::Client::from_conf(strangers.build())] {
            let put = client.put_object().bucket("users-archive").key("archive/a b").body(b"rows".to_vec().into());
            let put = put.metadata("rows", "1").checksum_algorithm(ChecksumAlgorithm::Sha256).send().await.unwrap();
            assert!(put.checksum_sha256().is_some());
            let got = client.get_object().bucket("users-archive").key("archive/a b").send().await.unwrap();
            assert_eq!(got.metadata(), Some(&HashMap::from([("rows".to_owned(), "1".to_owned())])));
            assert_eq!(got.body.collect().await.unwrap().into_bytes(), "rows");
        }
        engine.stop().await;
    }

    #[tokio::test]
    async fn a_wrong_checksum_and_a_missing_bucket_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let engine = start(root.path()).await;
        let client = clients::s3(engine.endpoint());
        let wrong = client.put_object().bucket("users-archive").key("k").body(b"rows".to_vec().into());
        let wrong = wrong.checksum_sha256("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=").send().await.unwrap_err();
        assert_eq!(wrong.into_service_error().meta().code(), Some("BadDigest"));
        let missing = client.list_objects_v2().bucket("absent").send().await.unwrap_err();
        assert!(missing.into_service_error().is_no_such_bucket());
        engine.stop().await;
    }

    async fn text(client: &aws_sdk_s3::Client, key: &str) -> String {
        let got = client.get_object().bucket("users-archive").key(key).send().await.unwrap();
        String::from_utf8(got.body.collect().await.unwrap().to_vec()).unwrap()
    }

    /// Sends an unmodified request, and returns the status, the error code and the body.
    async fn raw(
        engine: &S3Engine,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, String, String) {
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http::<s3s::Body>();
        let mut request = http::Request::builder().method(method).uri(format!("{}{path}", engine.endpoint()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = http.request(request.body(s3s::Body::from(body.to_owned())).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let bytes = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let code = text.split("<Code>").nth(1).and_then(|rest| rest.split("</Code>").next()).unwrap_or_default();
        (status, code.to_owned(), text)
    }

    #[tokio::test]
    async fn a_refused_put_leaves_the_object_as_it_was() {
        let root = tempfile::tempdir().unwrap();
        let engine = start(root.path()).await;
        let client = clients::s3(engine.endpoint());
        let first =
            client.put_object().bucket("users-archive").key("k").metadata("n", "1").body(b"first".to_vec().into());
        first.send().await.unwrap();
        // SHA-256 of an empty body.
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let chunked = "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n";
        let streaming = ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER");
        for (headers, body, code) in [
            (vec![("x-amz-checksum-sha256", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=")], "hello", "BadDigest"),
            (vec![("x-amz-checksum-crc32", "AAAAAA==")], "hello", "BadDigest"),
            (vec![("content-md5", "iwThCcPMCN+MRWOoQLE8Tg==")], "hello", "BadDigest"),
            (vec![("content-md5", "none")], "hello", "InvalidDigest"),
            (vec![("x-amz-content-sha256", empty)], "hello", "XAmzContentSHA256Mismatch"),
            (vec![streaming, ("x-amz-trailer", "x-amz-checksum-crc32")], chunked, "BadDigest"),
            (vec![streaming, ("x-amz-trailer", "x-amz-checksum-crc32c")], chunked, "InvalidRequest"),
            (vec![streaming, ("x-amz-decoded-content-length", "6")], "5\r\nhello\r\n0\r\n\r\n", "IncompleteBody"),
            (vec![streaming], "6\r\nhello\r\n0\r\n\r\n", "IncompleteBody"),
            (vec![("if-none-match", "*")], "hello", "PreconditionFailed"),
            (vec![("if-match", "\"00\"")], "hello", "PreconditionFailed"),
            (vec![("x-amz-storage-class", "GLACIER")], "hello", "InvalidStorageClass"),
        ] {
            let (status, error_code, text) = raw(&engine, "PUT", "/users-archive/k", &headers, body).await;
            assert!((400..500).contains(&status) && error_code == code, "{headers:?}: {status} {text}");
            let kept = client.get_object().bucket("users-archive").key("k").send().await.unwrap();
            assert_eq!(kept.metadata().unwrap()["n"], "1");
            assert_eq!(text_of(kept).await, "first", "{headers:?}");
        }
        let left: Vec<_> = std::fs::read_dir(root.path().join(".incoming")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        let right = [streaming, ("x-amz-decoded-content-length", "5")];
        assert_eq!(raw(&engine, "PUT", "/users-archive/k", &right, "5\r\nhello\r\n0\r\n\r\n").await.0, 200);
        assert_eq!(text(&client, "k").await, "hello");
        engine.stop().await;
    }

    async fn text_of(got: aws_sdk_s3::operation::get_object::GetObjectOutput) -> String {
        String::from_utf8(got.body.collect().await.unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn keys_are_kept_listed_and_deleted_as_they_are() {
        let root = tempfile::tempdir().unwrap();
        let engine = start(root.path()).await;
        let client = clients::s3(engine.endpoint());
        let long = format!("q/{}", "x".repeat(1_000));
        let mut keys = ["a+b", "a b", "a//b", "a/b", "a", "a/", "é/%41", "..", "../a", "a.txt", "a.txt/b", "<&\">"]
            .map(|key| format!("q/{key}"))
            .to_vec();
        keys.push(long);
        for key in &keys {
            let put = client.put_object().bucket("users-archive").key(key).body(key.clone().into_bytes().into());
            put.send().await.unwrap();
        }
        keys.sort();
        for key in &keys {
            assert_eq!(text(&client, key).await, *key);
        }
        let list = client.list_objects_v2().bucket("users-archive").prefix("q/");
        let mut listed = Vec::new();
        let mut pages = list.clone().max_keys(2).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.unwrap();
            assert!(page.contents().len() <= 2);
            listed.extend(page.contents().iter().map(|object| object.key().unwrap().to_owned()));
        }
        assert_eq!(listed, keys);
        let folders = list.clone().delimiter("/").send().await.unwrap();
        let folders: Vec<_> = folders.common_prefixes().iter().map(|common| common.prefix().unwrap()).collect();
        assert_eq!(folders, ["q/../", "q/a.txt/", "q/a/", "q/é/"]);
        for (version, marker) in [("?list-type=2", "StartAfter"), ("?max-keys=99", "Marker")] {
            let parameter = if marker == "Marker" { "marker" } else { "start-after" };
            let path = format!("/users-archive{version}&encoding-type=url&prefix=q/a&{parameter}=q/a%20a");
            let (status, _, xml) = raw(&engine, "GET", &path, &[], "").await;
            assert_eq!(status, 200, "{xml}");
            assert!(xml.contains("<Key>q/a%2Bb</Key>") && xml.contains("<Key>q/a+b</Key>"), "{xml}");
            assert!(xml.contains(&format!("<{marker}>q/a+a</{marker}>")), "{xml}");
        }
        let copied = client.copy_object().bucket("users-archive").key("q/copy+").copy_source("users-archive/q/a%2Bb");
        copied.send().await.unwrap();
        assert_eq!(text(&client, "q/copy+").await, "q/a+b");
        let refused = client.delete_bucket().bucket("users-archive").send().await.unwrap_err();
        assert_eq!(refused.into_service_error().meta().code(), Some("BucketNotEmpty"));
        for key in keys.iter().map(String::as_str).chain(["q/copy+"]) {
            client.delete_object().bucket("users-archive").key(key).send().await.unwrap();
            let gone = client.get_object().bucket("users-archive").key(key).send().await.unwrap_err();
            assert!(gone.into_service_error().is_no_such_key(), "{key}");
        }
        client.delete_bucket().bucket("users-archive").send().await.unwrap();
        assert_eq!(client.list_buckets().send().await.unwrap().buckets().len(), 0);
        engine.stop().await;
    }

    #[tokio::test]
    async fn a_read_is_conditional() {
        let root = tempfile::tempdir().unwrap();
        let engine = start(root.path()).await;
        let client = clients::s3(engine.endpoint());
        let put = client.put_object().bucket("users-archive").key("k").body(b"rows".to_vec().into());
        let tag = put.send().await.unwrap().e_tag().unwrap().to_owned();
        for method in ["GET", "HEAD"] {
            for (name, value, status) in [
                ("if-match", tag.as_str(), 200),
                ("if-match", "\"other\"", 412),
                ("if-none-match", tag.as_str(), 304),
                ("if-none-match", "*", 304),
                ("if-none-match", "\"other\"", 200),
                ("if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT", 304),
                ("if-unmodified-since", "Fri, 01 Jan 2010 00:00:00 GMT", 412),
                ("range", "bytes=1-2", if method == "GET" { 206 } else { 200 }),
            ] {
                let (response_status, _, text) = raw(&engine, method, "/users-archive/k", &[(name, value)], "").await;
                assert_eq!(response_status, status, "{method} {name}: {value}: {text}");
            }
        }
        assert_eq!(raw(&engine, "GET", "/users-archive/k", &[("range", "bytes=1-2")], "").await.2, "ow");
        assert_eq!(raw(&engine, "GET", "/users-archive/k", &[("range", "bytes=9-")], "").await.1, "InvalidRange");
        assert_eq!(raw(&engine, "PUT", "/users-archive/empty", &[], "").await.0, 200);
        assert_eq!(raw(&engine, "GET", "/users-archive/empty", &[("range", "bytes=-9")], "").await.1, "InvalidRange");
        assert_eq!(raw(&engine, "GET", "/absent/k", &[], "").await.1, "NoSuchBucket");
        engine.stop().await;
    }

    #[tokio::test]
    async fn delete_with_if_match_deletes_only_the_matching_object() {
        let root = tempfile::tempdir().unwrap();
        let engine = start(root.path()).await;
        let client = clients::s3(engine.endpoint());
        let put = || client.put_object().bucket("users-archive").key("k").body(b"rows".to_vec().into()).send();
        let tag = put().await.unwrap().e_tag().unwrap().to_owned();
        for (path, headers, status, code) in [
            ("/users-archive/k", vec![("if-match", "\"other\"")], 412, "PreconditionFailed"),
            ("/users-archive/k", vec![("x-amz-if-match-size", "4")], 501, "NotImplemented"),
            (
                "/users-archive/k",
                vec![
                    ("if-match", tag.as_str()),
                    ("x-amz-if-match-last-modified-time", "Fri, 01 Jan 2010 00:00:00 GMT"),
                ],
                501,
                "NotImplemented",
            ),
            ("/users-archive/k?versionId=1", vec![], 501, "NotImplemented"),
            ("/users-archive/absent", vec![("if-match", "*")], 404, "NoSuchKey"),
            ("/users-archive/absent", vec![], 204, ""),
        ] {
            let (response_status, error_code, xml) = raw(&engine, "DELETE", path, &headers, "").await;
            assert_eq!((response_status, error_code.as_str()), (status, code), "{path} {headers:?}: {xml}");
            let named = ["IfMatchSize", "IfMatchLastModifiedTime", "VersionId"].iter().any(|name| xml.contains(name));
            assert_eq!(named, status == 501, "{path} {headers:?}: {xml}");
            assert_eq!(text(&client, "k").await, "rows", "{path} {headers:?}");
        }
        for (path, headers) in [
            ("/users-archive/k", vec![("if-match", tag.as_str())]),
            ("/users-archive/k", vec![("if-match", "*")]),
            ("/users-archive/k?versionId=null", vec![]),
        ] {
            put().await.unwrap();
            assert_eq!(raw(&engine, "DELETE", path, &headers, "").await.0, 204, "{path} {headers:?}");
            let gone = client.get_object().bucket("users-archive").key("k").send().await.unwrap_err();
            assert!(gone.into_service_error().is_no_such_key(), "{path} {headers:?}");
        }
        engine.stop().await;
    }

    #[tokio::test]
    async fn delete_of_many_reports_an_error_for_each_key_whose_condition_fails() {
        let root = tempfile::tempdir().unwrap();
        let engine = start(root.path()).await;
        let client = clients::s3(engine.endpoint());
        let mut tag = String::new();
        for key in ["any", "other", "plain", "same"] {
            let put = client.put_object().bucket("users-archive").key(key).body(b"rows".to_vec().into());
            tag = put.send().await.unwrap().e_tag().unwrap().to_owned();
        }
        let delete = |objects: Vec<ObjectIdentifierBuilder>, quiet| {
            let objects = objects.into_iter().map(|object| object.build().unwrap()).collect();
            let delete = Delete::builder().set_objects(Some(objects)).quiet(quiet).build().unwrap();
            client.delete_objects().bucket("users-archive").delete(delete).send()
        };
        let object = |key: &str| ObjectIdentifier::builder().key(key);
        let keys = async || {
            let listed = client.list_objects_v2().bucket("users-archive").send().await.unwrap();
            listed.contents().iter().map(|object| object.key().unwrap().to_owned()).collect::<Vec<_>>()
        };
        for (unsupported, name) in [
            (object("same").size(4), "Size"),
            (object("same").last_modified_time(DateTime::from_secs(1)), "LastModifiedTime"),
            (object("same").version_id("1"), "VersionId"),
        ] {
            let refused = delete(vec![object("plain"), unsupported], false).await.unwrap_err().into_service_error();
            assert_eq!(refused.meta().code(), Some("NotImplemented"));
            assert!(refused.meta().message().unwrap().starts_with(name), "{refused:?}");
        }
        assert_eq!(keys().await, ["any", "other", "plain", "same"]);
        let conditional = || vec![object("absent").e_tag("*"), object("other").e_tag("\"other\"")];
        let mut objects = conditional();
        objects.extend([object("any").e_tag("*"), object("plain"), object("same").e_tag(&tag)]);
        let done = delete(objects, false).await.unwrap();
        let deleted: Vec<_> = done.deleted().iter().map(|object| object.key().unwrap()).collect();
        assert_eq!(deleted, ["any", "plain", "same"]);
        for done in [&done, &delete(conditional(), true).await.unwrap()] {
            let errors: Vec<_> = done.errors().iter().map(|error| (error.key(), error.code())).collect();
            assert_eq!(errors, [(Some("absent"), Some("NoSuchKey")), (Some("other"), Some("PreconditionFailed"))]);
        }
        assert_eq!(keys().await, ["other"]);
        engine.stop().await;
    }

    #[tokio::test]
    async fn attributes_of_replaced_bytes_are_ignored() {
        let root = tempfile::tempdir().unwrap();
        let engine = start(root.path()).await;
        let client = clients::s3(engine.endpoint());
        let put = async |body: &'static [u8]| {
            let put = client.put_object().bucket("users-archive").key("k.txt").metadata("n", "1");
            let put = put.checksum_algorithm(ChecksumAlgorithm::Sha256).body(body.to_vec().into());
            put.send().await.unwrap().e_tag.unwrap()
        };
        let head = async |client: &aws_sdk_s3::Client| {
            let head = client.head_object().bucket("users-archive").key("k.txt").checksum_mode(ChecksumMode::Enabled);
            let head = head.send().await.unwrap();
            let is_described = head.metadata().is_some_and(|metadata| metadata.contains_key("n"));
            assert_eq!(head.checksum_sha256().is_some(), is_described);
            (head.e_tag.unwrap(), is_described)
        };
        let (object, attributes) =
            (root.path().join("users-archive/k.txt"), root.path().join(".objects/users-archive/k.txt.json"));
        let first = put(b"first").await;
        assert_eq!(head(&client).await, (first.clone(), true));
        let former = std::fs::read(&attributes).unwrap();
        // Two writes within one tick of the kernel's clock have the same modification time.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let other = put(b"other").await;
        assert_ne!(first, other);
        let latter = std::fs::read(&attributes).unwrap();

        // As if the process had ended between the two renames.
        std::fs::write(&attributes, former).unwrap();
        assert_eq!(head(&client).await, (other.clone(), false));
        std::fs::write(&attributes, latter).unwrap();
        assert_eq!(head(&client).await, (other.clone(), true));

        // Another program replaced the object's file with one of the same size.
        tokio::time::sleep(Duration::from_millis(20)).await;
        std::fs::write(&object, b"first").unwrap();
        assert_eq!(head(&client).await, (first, false));
        assert_eq!(text(&client, "k.txt").await, "first");

        // An object that is written again has its attributes, also after a restart.
        assert_eq!(put(b"other").await, other);
        engine.stop().await;
        let engine = start(root.path()).await;
        assert_eq!(head(&clients::s3(engine.endpoint())).await, (other, true));
        engine.stop().await;
    }

    #[tokio::test]
    async fn bucket_configuration_responses_match_s3() {
        let root = tempfile::tempdir().unwrap();
        let engine = start(root.path()).await;
        let client = clients::s3(engine.endpoint());
        let versioning = client.get_bucket_versioning().bucket("users-archive").send().await.unwrap();
        assert_eq!(versioning.status(), None);
        assert!(client.get_bucket_location().bucket("users-archive").send().await.is_ok());
        let encryption = client.get_bucket_encryption().bucket("users-archive").send().await.unwrap_err();
        assert_eq!(
            encryption.into_service_error().meta().code(),
            Some("ServerSideEncryptionConfigurationNotFoundError")
        );
        let again = client.create_bucket().bucket("users-archive").send().await.unwrap_err();
        assert_eq!(again.into_service_error().meta().code(), Some("BucketAlreadyOwnedByYou"));
        engine.stop().await;
    }

    #[tokio::test]
    async fn an_upload_in_parts_is_listed_until_it_is_completed_or_aborted() {
        let root = tempfile::tempdir().unwrap();
        let engine = start(root.path()).await;
        let client = clients::s3(engine.endpoint());
        let begin = client.create_multipart_upload().bucket("users-archive").key("a+b").metadata("n", "1");
        let id = begin.send().await.unwrap().upload_id().unwrap().to_owned();
        let uploads = client.list_multipart_uploads().bucket("users-archive").send().await.unwrap();
        assert_eq!((uploads.uploads()[0].key(), uploads.uploads()[0].upload_id()), (Some("a+b"), Some(id.as_str())));
        let mut parts = Vec::new();
        for (number, body) in [(1, vec![b'x'; 5 * 1024 * 1024]), (3, b"end".to_vec())] {
            let part = client.upload_part().bucket("users-archive").key("a+b").upload_id(&id).part_number(number);
            let tag = part.body(body.into()).send().await.unwrap().e_tag;
            parts.push(aws_sdk_s3::types::CompletedPart::builder().part_number(number).set_e_tag(tag).build());
        }
        let listed = client.list_parts().bucket("users-archive").key("a+b").upload_id(&id).send().await.unwrap();
        assert_eq!(listed.parts().iter().map(|part| part.size().unwrap()).collect::<Vec<_>>(), [5_242_880, 3]);
        let complete = |parts: Vec<_>| {
            let named = aws_sdk_s3::types::CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
            let complete = client.complete_multipart_upload().bucket("users-archive").key("a+b").upload_id(&id);
            complete.multipart_upload(named).send()
        };
        let code = complete(parts.iter().rev().cloned().collect()).await.unwrap_err().into_service_error();
        assert_eq!(code.meta().code(), Some("InvalidPartOrder"));
        complete(parts).await.unwrap();
        let got = client.get_object().bucket("users-archive").key("a+b").send().await.unwrap();
        assert_eq!((got.content_length(), got.metadata().unwrap()["n"].as_str()), (Some(5_242_883), "1"));
        assert!(got.e_tag().unwrap().ends_with("-2\""));
        let other = client.create_multipart_upload().bucket("users-archive").key("other").send().await.unwrap();
        let abort = client.abort_multipart_upload().bucket("users-archive").key("other");
        abort.clone().upload_id(other.upload_id().unwrap()).send().await.unwrap();
        let gone = abort.upload_id(other.upload_id().unwrap()).send().await.unwrap_err();
        assert_eq!(gone.into_service_error().meta().code(), Some("NoSuchUpload"));
        let uploads = client.list_multipart_uploads().bucket("users-archive").send().await.unwrap();
        assert!(uploads.uploads().is_empty());
        engine.stop().await;
    }

    #[tokio::test]
    async fn a_presigned_url_needs_no_secret_of_ours() {
        let root = tempfile::tempdir().unwrap();
        let engine = start(root.path()).await;
        let client = clients::s3(engine.endpoint());
        client.put_object().bucket("users-archive").key("k").body(b"rows".to_vec().into()).send().await.unwrap();
        let lasting = PresigningConfig::expires_in(Duration::from_mins(1)).unwrap();
        let url = client.get_object().bucket("users-archive").key("k").presigned(lasting).await.unwrap();
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http::<s3s::Body>();
        let response = http.get(url.uri().parse().unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        let old = "/users-archive/k?AWSAccessKeyId=any&Signature=a%2Bb%3D&Expires=1&response-content-type=text%2Fcsv";
        assert_eq!(raw(&engine, "GET", old, &[], "").await, (200, String::new(), "rows".to_owned()));
        assert_eq!(raw(&engine, "PUT", &old.replace("&response-content-type=text%2Fcsv", ""), &[], "new").await.0, 200);
        assert_eq!(text(&client, "k").await, "new");
        engine.stop().await;
    }
}
