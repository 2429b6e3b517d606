//! S3 on this machine: s3s and its file system store, served on a listener of ours from one directory.
//!
//! Enough of S3 for what the functions do: put, get, list, head and delete with checksums and metadata. What it does
//! not do as AWS does: it keeps an object that it refused for its digest, drops tags, knows no storage class but the
//! standard ones, holds either `x` or `x/y` but not both, and refuses keys longer than about 150 bytes (the file name
//! of an object's metadata spells the key in base64).
//!
//! Any credentials are accepted, and none: signatures are taken off (`s3/unsign.rs`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::template::Bucket;

mod unsign;

/// How long a stop waits for requests under way before it cuts them off.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Why the S3 engine does not start or cannot make a bucket.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The directory cannot be made, read or written.
    #[error("s3 folder {}: {source}: choose another with --data", path.display())]
    Folder {
        /// The directory.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The store refused the directory.
    #[error("s3 folder {}: {reason}: choose another with --data", path.display())]
    Store {
        /// The directory.
        path: PathBuf,
        /// What the store says.
        reason: String,
    },
    /// The listener has no address.
    #[error("s3 listener: {0}")]
    Listener(std::io::Error),
}

/// A running engine. Dropping it stops it too, without waiting.
pub struct Engine {
    endpoint: String,
    root: PathBuf,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Engine {
    /// Serves the buckets in the directory `root`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// An [`EngineError`] if the directory cannot be used.
    pub async fn start(listener: TcpListener, root: &Path) -> Result<Self, EngineError> {
        let address = listener.local_addr().map_err(EngineError::Listener)?;
        tokio::fs::create_dir_all(root)
            .await
            .map_err(|source| EngineError::Folder { path: root.to_path_buf(), source })?;
        let store = s3s_fs::FileSystem::new(root)
            .map_err(|error| EngineError::Store { path: root.to_path_buf(), reason: format!("{error:?}") })?;
        let service = S3ServiceBuilder::new(store).build();
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(serve(listener, service, stopped));
        Ok(Self { endpoint: format!("http://{address}"), root: root.to_path_buf(), stop, server })
    }

    /// The URL that SDKs take as their S3 endpoint, with path style.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Makes the buckets that are not there yet: a bucket is a directory of the store's root.
    ///
    /// # Errors
    ///
    /// [`EngineError::Folder`] if one cannot be made.
    pub fn create_buckets(&self, buckets: &[Bucket]) -> Result<(), EngineError> {
        buckets
            .iter()
            .map(|bucket| self.root.join(&bucket.name))
            .try_for_each(|path| std::fs::create_dir_all(&path).map_err(|source| EngineError::Folder { path, source }))
    }

    /// Stops accepting, and lets requests under way finish.
    pub async fn stop(self) {
        let Self { stop, mut server, .. } = self;
        // The server may have ended by itself: there is nothing to stop then.
        let _ = stop.send(());
        if tokio::time::timeout(STOP_WITHIN, &mut server).await.is_err() {
            server.abort();
        }
    }
}

async fn serve(listener: TcpListener, service: S3Service, mut stopped: oneshot::Receiver<()>) {
    let graceful = GracefulShutdown::new();
    loop {
        tokio::select! {
            // An engine that was dropped is an engine to stop.
            _ = &mut stopped => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    // Head and body of an answer are two small writes: held back, the second costs 40 ms.
                    if let Err(error) = socket.set_nodelay(true) {
                        tracing::debug!(error = %error, "s3 answers may be held back");
                    }
                    answer(socket, service.clone(), &graceful);
                }
                // Out of file descriptors: accepting at once again would only spin.
                Err(error) => {
                    tracing::warn!(error = %error, "s3 connection not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    graceful.shutdown().await;
}

fn answer(socket: TcpStream, service: S3Service, graceful: &GracefulShutdown) {
    let unsigned = hyper::service::service_fn(move |request| {
        let service = service.clone();
        async move { service.call(unsign::unsign(request).await?).await }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    let connection = graceful.watch(server.serve_connection(TokioIo::new(socket), unsigned).into_owned());
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %error, "s3 connection ended");
        }
    });
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use aws_sdk_s3::config::Credentials;
    use aws_sdk_s3::presigning::PresigningConfig;
    use aws_sdk_s3::types::ChecksumAlgorithm;

    use super::*;
    use crate::clients;

    async fn start(root: &Path) -> Engine {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let engine = Engine::start(listener, root).await.unwrap();
        let bucket = Bucket { logical_id: "ArchiveBucket".to_owned(), name: "users-archive".to_owned() };
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

    #[tokio::test]
    async fn a_presigned_url_needs_no_secret_of_ours() {
        let root = tempfile::tempdir().unwrap();
        let engine = start(root.path()).await;
        let client = clients::s3(engine.endpoint());
        client.put_object().bucket("users-archive").key("k").body(b"rows".to_vec().into()).send().await.unwrap();
        let lasting = PresigningConfig::expires_in(Duration::from_mins(1)).unwrap();
        let url = client.get_object().bucket("users-archive").key("k").presigned(lasting).await.unwrap();
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http::<s3s::Body>();
        let answer = http.get(url.uri().parse().unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        engine.stop().await;
    }
}
