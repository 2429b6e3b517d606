//! A TCP proxy that tests can use to close or silence connections, and that counts round trips.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// A proxy in front of a server.
pub(crate) struct TcpProxy {
    url: String,
    state: Arc<ProxyState>,
}

#[derive(Default)]
struct ProxyState {
    round_trips: AtomicUsize,
    connections: AtomicUsize,
    /// The number of bytes that the server has sent.
    answered_bytes: AtomicUsize,
    /// Set while the latest data came from the server.
    answered: AtomicBool,
    silent: AtomicBool,
    /// The next response of the server is dropped, and its connection is closed.
    deaf: AtomicBool,
    cut: Notify,
}

impl TcpProxy {
    /// Starts a proxy for the server at `url`.
    pub(crate) async fn to(url: &str) -> Self {
        let (user, rest) = url.split_once('@').unwrap();
        let (server, database) = rest.split_once('/').unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let own = listener.local_addr().unwrap();
        let state = Arc::new(ProxyState::default());
        let (line, server) = (Arc::clone(&state), server.to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                line.connections.fetch_add(1, Ordering::SeqCst);
                let (line, server) = (Arc::clone(&line), server.clone());
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(server).await {
                        carry(client, server, &line).await;
                    }
                });
            }
        });
        Self { url: format!("{user}@{own}/{database}"), state }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The number of requests so far that were followed by a response.
    pub(crate) fn round_trips(&self) -> usize {
        self.state.round_trips.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// The number of bytes that the server has sent so far.
    pub(crate) fn answered_bytes(&self) -> usize {
        self.state.answered_bytes.load(Ordering::SeqCst)
    }

    /// Closes all open connections.
    pub(crate) fn cut(&self) {
        self.state.cut.notify_waiters();
    }

    /// Sets whether all data is dropped, in both directions, while connections remain open.
    pub(crate) fn silence(&self, silent: bool) {
        self.state.silent.store(silent, Ordering::SeqCst);
    }

    /// Drops the next response and closes its connection: the server has executed the request, but the client does not
    /// learn of it.
    pub(crate) fn lose_the_answer(&self) {
        self.state.deaf.store(true, Ordering::SeqCst);
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, line: &ProxyState) {
    let (mut asked, mut received) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            () = line.cut.notified() => return,
            read = client.read(&mut asked) => {
                let Ok(length @ 1..) = read else { return };
                if line.answered.swap(false, Ordering::SeqCst) {
                    line.round_trips.fetch_add(1, Ordering::SeqCst);
                }
                if !line.silent.load(Ordering::SeqCst) && server.write_all(&asked[..length]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut received) => {
                let Ok(length @ 1..) = read else { return };
                line.answered.store(true, Ordering::SeqCst);
                line.answered_bytes.fetch_add(length, Ordering::SeqCst);
                if line.deaf.swap(false, Ordering::SeqCst) {
                    return;
                }
                if !line.silent.load(Ordering::SeqCst) && client.write_all(&received[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}
