//! A line to the server that a test may cut or silence, and that counts its round trips.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// A proxy before a server.
pub(crate) struct TcpProxy {
    url: String,
    state: Arc<ProxyState>,
}

#[derive(Default)]
struct ProxyState {
    round_trips: AtomicUsize,
    connections: AtomicUsize,
    /// What the server said, in bytes.
    answered_bytes: AtomicUsize,
    /// Whether the server was the last to speak.
    answered: AtomicBool,
    silent: AtomicBool,
    /// What the server says is dropped, and the line with it.
    deaf: AtomicBool,
    cut: Notify,
}

impl TcpProxy {
    /// A line to the server of `url`.
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

    /// How often somebody asked and waited for the answer, so far.
    pub(crate) fn round_trips(&self) -> usize {
        self.state.round_trips.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// How much the server has said so far.
    pub(crate) fn answered_bytes(&self) -> usize {
        self.state.answered_bytes.load(Ordering::SeqCst)
    }

    /// Cuts every connection that stands.
    pub(crate) fn cut(&self) {
        self.state.cut.notify_waiters();
    }

    /// Whether nothing comes through any more, in either direction, though connections stand.
    pub(crate) fn silence(&self, silent: bool) {
        self.state.silent.store(silent, Ordering::SeqCst);
    }

    /// Whether the next answer is lost with its connection: the server did it, and nobody is told.
    pub(crate) fn lose_the_answer(&self) {
        self.state.deaf.store(true, Ordering::SeqCst);
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, line: &ProxyState) {
    let (mut asked, mut told) = (vec![0; 65_536], vec![0; 65_536]);
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
            read = server.read(&mut told) => {
                let Ok(length @ 1..) = read else { return };
                line.answered.store(true, Ordering::SeqCst);
                line.answered_bytes.fetch_add(length, Ordering::SeqCst);
                if line.deaf.swap(false, Ordering::SeqCst) {
                    return;
                }
                if !line.silent.load(Ordering::SeqCst) && client.write_all(&told[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}
