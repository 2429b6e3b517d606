//! The connections to one server: [`ConnectionPool`].
//!
//! A TLS handshake costs as much CPU as a hundred requests, so a pool opens one connection first, and further ones one
//! at a time, while a request has waited for a connection longer than a handshake takes, and with pauses, so that
//! handshakes take a limited part of the time even if more connections do not help. The session of an earlier handshake
//! is resumed. Idle connections are used in the order of their last use, so that unneeded ones become old, and
//! are closed.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::response::Parts;
use http_body_util::Full;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use crate::connection::{ConnectError, ConnectTarget, HttpConnection};

/// The time after which an unused connection is closed.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// The time after which a connection may have been closed by the server without notice: an execution environment is
/// frozen between invocations.
const DOUBTFUL_AFTER: Duration = Duration::from_millis(500);
/// The shortest time that a request waits before another connection is opened for it.
const SHORTEST_WAIT: Duration = Duration::from_millis(2);
/// The pause after a connection that was not established, while others are open.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);
/// The pause after an established connection, in durations of its handshake: a quarter of the time is for handshakes.
const PAUSE_HANDSHAKES: u32 = 3;

/// Connections to one server, which are opened when requests wait for one.
#[derive(Clone)]
pub(crate) struct ConnectionPool(Arc<SharedPool>);

struct SharedPool {
    target: ConnectTarget,
    max_connections: usize,
    state: Mutex<PoolState>,
}

#[derive(Default)]
struct PoolState {
    /// The unused connections, the last used one at the end.
    idle: Vec<(HttpConnection, Instant)>,
    /// The number of established connections, used or not.
    open: usize,
    is_connecting: bool,
    /// The requests that wait for a connection, in their order.
    waiting: VecDeque<oneshot::Sender<Result<ConnectionLease, ConnectError>>>,
    /// The duration of the last connection attempt that succeeded.
    handshake: Duration,
    /// The earliest time of the next connection attempt.
    pause_until: Option<Instant>,
    /// Whether a task closes old connections.
    is_swept: bool,
}

/// The use of a connection for one request. A lease that is dropped before the response is complete closes its
/// connection.
pub(crate) struct ConnectionLease {
    pool: ConnectionPool,
    connection: Option<HttpConnection>,
}

impl fmt::Debug for ConnectionPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionPool").field("host", &self.0.target.host).finish_non_exhaustive()
    }
}

impl ConnectionPool {
    /// Creates a pool of at most `max_connections`, without opening one.
    pub(crate) fn new(target: ConnectTarget, max_connections: usize) -> Self {
        let max_connections = max_connections.max(1);
        Self(Arc::new(SharedPool { target, max_connections, state: Mutex::default() }))
    }

    /// Returns a connection that no other request uses, as soon as there is one.
    pub(crate) async fn lease(&self) -> Result<ConnectionLease, ConnectError> {
        let is_doubtful = |(_, since): &(HttpConnection, Instant)| since.elapsed() >= DOUBTFUL_AFTER;
        if self.state().idle.last().is_some_and(is_doubtful) {
            // The runtime receives what has happened to the connections in the meantime.
            yield_now().await;
        }
        let mut waiting = {
            let mut state = self.state();
            while let Some((mut connection, _)) = state.idle.pop() {
                if connection.is_alive() {
                    return Ok(ConnectionLease { pool: self.clone(), connection: Some(connection) });
                }
                state.open -= 1;
            }
            let (sender, receiver) = oneshot::channel();
            state.waiting.push_back(sender);
            if state.open == 0 {
                self.connect(&mut state);
            }
            receiver
        };
        loop {
            let wait = self.state().handshake.max(SHORTEST_WAIT);
            match timeout(wait, &mut waiting).await {
                Ok(Ok(leased)) => return leased,
                // The pool drops no sender that it has not used, but its lock may be gone with a panic.
                Ok(Err(_)) => return Box::pin(self.lease()).await,
                Err(_) => {
                    let mut state = self.state();
                    self.connect(&mut state);
                }
            }
        }
    }

    /// Opens another connection in the background, unless one is being opened or the limit is reached.
    fn connect(&self, state: &mut PoolState) {
        let is_paused = state.open > 0 && state.pause_until.is_some_and(|until| Instant::now() < until);
        if state.is_connecting || is_paused || state.open >= self.0.max_connections {
            return;
        }
        // Without a runtime, nobody waits for the connection.
        let Ok(runtime) = Handle::try_current() else { return };
        state.is_connecting = true;
        let pool = Arc::downgrade(&self.0);
        let target = self.0.target.clone();
        runtime.spawn(async move {
            let started = Instant::now();
            let connected = target.connect().await;
            if let Some(pool) = pool.upgrade() {
                Self(pool).add(connected, started.elapsed());
            }
        });
    }

    /// Adds a connection that was opened, or passes its error on to those who wait, if no connection is left for them.
    fn add(&self, connected: Result<HttpConnection, ConnectError>, duration: Duration) {
        let mut state = self.state();
        state.is_connecting = false;
        match connected {
            Ok(connection) => {
                state.open += 1;
                state.handshake = duration;
                state.pause_until = Some(Instant::now() + duration * PAUSE_HANDSHAKES);
                drop(state);
                self.give_back(connection);
            }
            Err(error) if state.open == 0 => {
                let waiting = std::mem::take(&mut state.waiting);
                drop(state);
                for waiter in waiting {
                    // A request that no longer waits needs no error.
                    let _ = waiter.send(Err(error.clone()));
                }
            }
            Err(error) => {
                state.pause_until = Some(Instant::now() + FAILURE_PAUSE);
                drop(state);
                tracing::debug!(%error, "the requests wait for the open connections");
            }
        }
    }

    /// Gives a connection to the request that has waited longest, or keeps it.
    fn give_back(&self, connection: HttpConnection) {
        let mut lease = ConnectionLease { pool: self.clone(), connection: Some(connection) };
        loop {
            let mut state = self.state();
            let Some(waiter) = state.waiting.pop_front() else {
                if let Some(connection) = lease.connection.take() {
                    state.idle.push((connection, Instant::now()));
                }
                self.sweep(&mut state);
                return;
            };
            drop(state);
            match waiter.send(Ok(lease)) {
                Err(Ok(unused)) => lease = unused,
                _ => return,
            }
        }
    }

    /// Counts a connection that was closed, and replaces it if requests wait.
    fn forget(&self) {
        let mut state = self.state();
        state.open -= 1;
        state.waiting.retain(|waiter| !waiter.is_closed());
        if !state.waiting.is_empty() {
            self.connect(&mut state);
        }
    }

    /// Starts the task that closes old connections, unless it runs.
    fn sweep(&self, state: &mut PoolState) {
        let Ok(runtime) = Handle::try_current() else { return };
        if std::mem::replace(&mut state.is_swept, true) {
            return;
        }
        let pool = Arc::downgrade(&self.0);
        runtime.spawn(async move {
            while close_old(&pool) {
                sleep(IDLE_TIMEOUT / 4).await;
            }
        });
    }

    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes the connections that were not used for [`IDLE_TIMEOUT`]; returns whether any other is idle.
fn close_old(pool: &Weak<SharedPool>) -> bool {
    let Some(pool) = pool.upgrade() else { return false };
    let mut state = pool.state.lock().unwrap_or_else(PoisonError::into_inner);
    let before = state.idle.len();
    state.idle.retain(|(_, since)| since.elapsed() < IDLE_TIMEOUT);
    state.open -= before - state.idle.len();
    state.is_swept = !state.idle.is_empty();
    state.is_swept
}

impl ConnectionLease {
    /// Sends the request and receives the response. Afterwards the connection serves another request, if it can.
    pub(crate) async fn send(mut self, request: Request<Full<Bytes>>) -> Result<(Parts, Bytes), hyper::Error> {
        // Only a complete response puts the connection back: until then, the guard closes it.
        let Some(mut connection) = self.connection.take() else { unreachable!("a lease sends one request") };
        let mut guard = ClosingGuard { pool: &self.pool, is_closed: true };
        let received = connection.send(request).await;
        if received.is_ok() && connection.is_alive() {
            guard.is_closed = false;
            self.pool.give_back(connection);
        }
        received
    }
}

/// Counts a connection as closed when the request ends, in whatever way.
struct ClosingGuard<'p> {
    pool: &'p ConnectionPool,
    is_closed: bool,
}

impl Drop for ClosingGuard<'_> {
    fn drop(&mut self) {
        if self.is_closed {
            self.pool.forget();
        }
    }
}

impl Drop for ConnectionLease {
    fn drop(&mut self) {
        // The lease was not used: its request no longer waits.
        if let Some(connection) = self.connection.take() {
            self.pool.give_back(connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
    use rustls::{HandshakeKind, RootCertStore, ServerConfig};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
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
    #[derive(Clone, Default)]
    struct TlsServer {
        full: Arc<AtomicUsize>,
        resumed: Arc<AtomicUsize>,
        open: Arc<AtomicUsize>,
    }

    impl TlsServer {
        async fn start(&self) -> ConnectTarget {
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
                    let (server, acceptor) = (server.clone(), acceptor.clone());
                    tokio::spawn(async move {
                        let mut stream = acceptor.accept(stream).await.unwrap();
                        let is_resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
                        if is_resumed { &server.resumed } else { &server.full }.fetch_add(1, Ordering::Relaxed);
                        server.open.fetch_add(1, Ordering::Relaxed);
                        let mut buffer = [0; 4_096];
                        // All requests are so short that each is read at once.
                        while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                            sleep(Duration::from_millis(20)).await;
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

    async fn request(pool: ConnectionPool) -> Bytes {
        let mut request = Request::new(Full::new(Bytes::from_static(b"{}")));
        *request.method_mut() = http::Method::POST;
        request.headers_mut().insert(http::header::HOST, http::HeaderValue::from_static("localhost"));
        pool.lease().await.unwrap().send(request).await.unwrap().1
    }

    async fn request_all(pool: &ConnectionPool, number: usize) {
        let mut requests = tokio::task::JoinSet::new();
        for _ in 0..number {
            requests.spawn(request(pool.clone()));
        }
        for body in requests.join_all().await {
            assert_eq!(body, "{}");
        }
    }

    #[tokio::test]
    async fn sessions_are_resumed_by_further_connections() {
        let server = TlsServer::default();
        let pool = ConnectionPool::new(server.start().await, 6);
        request(pool.clone()).await;
        assert_eq!((server.full.load(Ordering::Relaxed), server.resumed.load(Ordering::Relaxed)), (1, 0));
        while server.full.load(Ordering::Relaxed) + server.resumed.load(Ordering::Relaxed) < 6 {
            request_all(&pool, 30).await;
        }
        request_all(&pool, 30).await;
        assert_eq!((server.full.load(Ordering::Relaxed), server.resumed.load(Ordering::Relaxed)), (1, 5));
    }

    #[tokio::test]
    async fn unused_connections_are_closed() {
        let server = TlsServer::default();
        let pool = ConnectionPool::new(server.start().await, 4);
        while server.open.load(Ordering::Relaxed) < 4 {
            request_all(&pool, 20).await;
        }
        assert_eq!(pool.state().open, 4);
        tokio::time::pause();
        tokio::time::advance(IDLE_TIMEOUT / 2).await;
        request(pool.clone()).await;
        tokio::time::advance(IDLE_TIMEOUT * 2 / 3).await;
        while server.open.load(Ordering::Relaxed) > 1 {
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(pool.state().open, 1, "the one that was used");
        tokio::time::advance(IDLE_TIMEOUT * 2).await;
        while server.open.load(Ordering::Relaxed) > 0 {
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(pool.state().open, 0);
        assert_eq!(request(pool.clone()).await, "{}");
    }

    #[tokio::test]
    async fn certificate_of_an_unknown_authority_is_rejected() {
        let target = TlsServer::default().start().await;
        let tls = Some(config_with(RootCertStore::empty()).unwrap());
        let pool = ConnectionPool::new(ConnectTarget { tls, ..target }, 1);
        let error = pool.lease().await.err().unwrap().to_string();
        assert!(error.contains("localhost") && error.contains("certificate"), "{error}");
    }

    #[tokio::test]
    async fn requests_that_no_longer_wait_lose_no_connection() {
        let server = TlsServer::default();
        let pool = ConnectionPool::new(server.start().await, 2);
        for _ in 0..20 {
            let mut requests = tokio::task::JoinSet::new();
            (0..8).for_each(|_| drop(requests.spawn(request(pool.clone()))));
            sleep(Duration::from_millis(7)).await;
            requests.shutdown().await;
        }
        request_all(&pool, 8).await;
        let state = pool.state();
        assert_eq!((state.idle.len(), state.waiting.len()), (state.open, 0));
        assert!(state.open <= 2, "{}", state.open);
    }
}
