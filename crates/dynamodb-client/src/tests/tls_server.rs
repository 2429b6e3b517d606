//! A TLS server on loopback: [`TlsServer`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{HandshakeKind, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use crate::connection::ConnectTarget;
use crate::tls::config_with;

/// A certificate of `localhost`, valid until 2126, and its key.
const CERTIFICATE: &str = "MIIBkzCCATigAwIBAgIUWfqh949a8vkEsZF5xdSORyeMO5IwCgYIKoZIzj0EAwIwFDESMBAGA1UEAwwJbG9jYWxo\
    b3N0MCAXDTI2MTEyODEwMjA1NFoYDzIxMjYxMTA0MTAyMDU0WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjOPQMB\
    BwNCAATQ+QO70r5UzjKabUT6uxmDZlopFooGZ+n3Z+x2KanS/LC5nt7yc9YRdyNe0n/0QZ0ig6z4VfFVZCQP85Dngvd3o2YwZDAdBgNVHQ4E\
    FgQUhUe/0nTqECuDrJJtYZQEQRq2MPIwHwYDVR0jBBgwFoAUhUe/0nTqECuDrJJtYZQEQRq2MPIwFAYDVR0RBA0wC4IJbG9jYWxob3N0MAwG\
    A1UdEwEB/wQCMAAwCgYIKoZIzj0EAwIDSQAwRgIhAKOQjBgKT2DTUSvf94QNV4H3tZBWmj8X3+zh5JaLzcqyAiEAkTeQiy/ObIY+TdsFPP/S\
    ciocPUfvDFZZ3gaOfAP0h5I=";
const KEY: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgc44fRfRISpWPzHWX8Vy6LbMtPCYwBMUzaAyD9TGmlAWh\
    RANCAATQ+QO70r5UzjKabUT6uxmDZlopFooGZ+n3Z+x2KanS/LC5nt7yc9YRdyNe0n/0QZ0ig6z4VfFVZCQP85Dngvd3";

/// A TLS server that responds to every request.
#[derive(Clone)]
pub(crate) struct TlsServer {
    /// The number of connections that are closed before their handshake, from now on.
    pub(crate) refused: Arc<AtomicUsize>,
    pub(crate) accept_delay: Duration,
    pub(crate) response_delay: Duration,
    /// Whether the server responds to one request at a time, each with this delay.
    pub(crate) is_serial: bool,
    pub(crate) turn: Arc<Mutex<()>>,
    /// The number of connections, with those that were refused.
    pub(crate) accepted: Arc<AtomicUsize>,
    /// The numbers of handshakes, without and with a session of an earlier one.
    pub(crate) full: Arc<AtomicUsize>,
    pub(crate) resumed: Arc<AtomicUsize>,
    /// The number of connections that are open.
    pub(crate) open: Arc<AtomicUsize>,
}

impl Default for TlsServer {
    fn default() -> Self {
        Self {
            refused: Arc::default(),
            accept_delay: Duration::ZERO,
            response_delay: Duration::from_millis(20),
            is_serial: false,
            turn: Arc::default(),
            accepted: Arc::default(),
            full: Arc::default(),
            resumed: Arc::default(),
            open: Arc::default(),
        }
    }
}

impl TlsServer {
    /// Starts the server; returns how to connect to it.
    pub(crate) async fn start(&self) -> ConnectTarget {
        let certificate = CertificateDer::from(BASE64_STANDARD.decode(CERTIFICATE).unwrap());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(BASE64_STANDARD.decode(KEY).unwrap()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![certificate.clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                server.accepted.fetch_add(1, Ordering::Relaxed);
                let refused = server.refused.load(Ordering::Relaxed);
                if refused > 0 {
                    server.refused.store(refused - 1, Ordering::Relaxed);
                    continue;
                }
                let (server, acceptor) = (server.clone(), acceptor.clone());
                tokio::spawn(async move {
                    sleep(server.accept_delay).await;
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let is_resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
                    if is_resumed { &server.resumed } else { &server.full }.fetch_add(1, Ordering::Relaxed);
                    server.open.fetch_add(1, Ordering::Relaxed);
                    let mut buffer = [0; 4_096];
                    // All requests are so short that each is read at once.
                    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                        {
                            let _turn = if server.is_serial { Some(server.turn.lock().await) } else { None };
                            sleep(server.response_delay).await;
                        }
                        let response = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
                        if stream.write_all(response).await.is_err() || stream.flush().await.is_err() {
                            break;
                        }
                    }
                    server.open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let tls = Some(config_with(roots).unwrap());
        ConnectTarget { host: "localhost".to_owned(), port, tls, connect_timeout: Some(Duration::from_secs(5)) }
    }
}
