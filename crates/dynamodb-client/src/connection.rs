//! One HTTP/1.1 connection, with TLS or without: [`HttpConnection`].
//!
//! A request is written as a whole, so that it is one TLS record and one system call, and its response is read into a
//! buffer that the connection keeps. The future of a request drives its connection, so a request needs no other task,
//! and a request that is dropped closes its connection. An idle connection is not driven; before it is used,
//! [`HttpConnection::is_alive`] returns whether the server has closed it. If the server closes it after that check and
//! before the request is written, [`ExchangeError::Unsent`] is returned, and the request can be sent over another
//! connection.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::response::{ReceivedResponse, ResponseBuffer};
use crate::retry::SharedCharge;

/// The connect timeout if none is set.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The shortest attempt to connect to one of several addresses: a part of the connect timeout may be shorter than a
/// round trip to another Region.
const ADDRESS_TIMEOUT: Duration = Duration::from_millis(500);

/// A server, and how to connect to it.
#[derive(Debug, Clone)]
pub(crate) struct ConnectTarget {
    /// The host name or address, without the brackets of an IPv6 address.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The configuration of TLS; `None` for plain HTTP.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) connect_timeout: Option<Duration>,
}

/// A connection that was not established.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot connect to {host}:{port}: {reason}")]
pub(crate) struct ConnectError {
    host: String,
    port: u16,
    reason: String,
    /// Whether the connect timeout has passed.
    pub(crate) is_timeout: bool,
    /// The cost of retries, which the requests that waited for this connection share.
    pub(crate) charge: SharedCharge,
}

/// A request without a complete response.
#[derive(Debug)]
pub(crate) enum ExchangeError {
    /// The connection had been used before or kept for later, and was closed before any part of the request was
    /// written.
    Unsent,
    /// The connection failed, or the response is not valid.
    Failed(io::Error),
    /// The response is not complete at the time that the request allows.
    Late,
}

/// An established connection, which is cheap to move.
pub(crate) struct HttpConnection(Box<ConnectionState>);

struct ConnectionState {
    stream: SocketStream,
    buffer: ResponseBuffer,
    timer: ExchangeTimer,
    /// Whether a request can be sent.
    is_open: bool,
    /// Whether the connection has served a request or was kept for later.
    is_reused: bool,
}

/// The progress of a request.
#[derive(Debug, Default)]
struct WriteProgress {
    /// The number of bytes that the connection has accepted.
    written: usize,
    /// Whether the socket has accepted all of them.
    is_flushed: bool,
    /// The error that ended the writing. The response may have arrived before.
    write_error: Option<io::Error>,
}

impl ConnectTarget {
    /// Returns the limit of an attempt to connect.
    pub(crate) fn limit(&self) -> Duration {
        self.connect_timeout.unwrap_or(CONNECT_TIMEOUT)
    }

    /// Connects within the connect timeout.
    pub(crate) async fn connect(&self) -> Result<HttpConnection, ConnectError> {
        let limit = self.limit();
        match timeout(limit, self.open()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(self.error(error.to_string(), error.kind() == io::ErrorKind::TimedOut)),
            Err(_) => Err(self.error(format!("no connection within {limit:?}"), true)),
        }
    }

    /// Returns the error of a connection to this server.
    pub(crate) fn error(&self, reason: String, is_timeout: bool) -> ConnectError {
        ConnectError { host: self.host.clone(), port: self.port, reason, is_timeout, charge: SharedCharge::default() }
    }

    async fn open(&self) -> io::Result<HttpConnection> {
        let tcp = self.open_tcp().await?;
        // Otherwise a request in two packets waits for the acknowledgement of the first (Nagle's algorithm).
        tcp.set_nodelay(true)?;
        let stream = match &self.tls {
            Some(config) => {
                let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
                let tls = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await?;
                SocketStream::Tls(Box::new(tls))
            }
            None => SocketStream::Plain(tcp),
        };
        let (buffer, timer) = (ResponseBuffer::new(), ExchangeTimer::default());
        let state = ConnectionState { stream, buffer, timer, is_open: true, is_reused: false };
        let mut connection = HttpConnection(Box::new(state));
        if connection.is_alive() {
            Ok(connection)
        } else {
            Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server has closed the new connection"))
        }
    }

    /// Connects to the first address that accepts, each within its part of the connect timeout.
    async fn open_tcp(&self) -> io::Result<TcpStream> {
        let addresses: Vec<_> = lookup_host((self.host.as_str(), self.port)).await?.collect();
        let limit = address_timeout(self.limit(), addresses.len());
        let mut failed = io::Error::other("the host name has no address");
        for address in addresses {
            match timeout(limit, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => return Ok(tcp),
                Ok(Err(error)) => failed = error,
                Err(_) => failed = io::Error::new(io::ErrorKind::TimedOut, format!("{address} did not accept in time")),
            }
        }
        Err(failed)
    }
}

/// Returns the time for each of several addresses within the connect timeout `limit`.
fn address_timeout(limit: Duration, addresses: usize) -> Duration {
    let part = limit / u32::try_from(addresses).unwrap_or(u32::MAX).max(1);
    part.max(ADDRESS_TIMEOUT.min(limit))
}

impl HttpConnection {
    /// Sends a request, which consists of its head and its body, and receives the response, which must be complete at
    /// the time `until`.
    pub(crate) async fn send(
        &mut self,
        request: Vec<u8>,
        until: Option<Instant>,
    ) -> Result<ReceivedResponse, ExchangeError> {
        let (state, mut progress) = (&mut *self.0, WriteProgress::default());
        // Until the response is complete, the connection cannot serve another request.
        let is_open = std::mem::replace(&mut state.is_open, false);
        let exchange = poll_fn(|context| {
            if progress.written == 0 && (!is_open || state.poll_end(context).is_ready()) {
                if state.is_reused {
                    return Poll::Ready(Err(ExchangeError::Unsent));
                }
                let error = io::Error::new(io::ErrorKind::ConnectionAborted, "the server has closed the connection");
                return Poll::Ready(Err(ExchangeError::Failed(error)));
            }
            match (state.poll_exchange(&request, &mut progress, context), until) {
                (Poll::Ready(received), _) => Poll::Ready(received.map_err(ExchangeError::Failed)),
                (Poll::Pending, Some(until)) => {
                    state.timer.poll_until(until, context).map(|()| Err(ExchangeError::Late))
                }
                (Poll::Pending, None) => Poll::Pending,
            }
        });
        let received = unconstrained(exchange).await;
        state.is_reused = true;
        received
    }

    /// Keeps the connection for later.
    pub(crate) fn keep(mut self) -> Self {
        self.0.is_reused = true;
        self
    }

    /// Returns whether the last response allows another request.
    pub(crate) fn is_open(&self) -> bool {
        self.0.is_open
    }

    /// Returns whether another request can be sent: the server has not closed the connection, and the last response is
    /// complete. It processes the events that the runtime has received, and does not read from the socket otherwise.
    pub(crate) fn is_alive(&mut self) -> bool {
        let state = &mut *self.0;
        let ended = pin!(unconstrained(poll_fn(|context| state.poll_end(context))));
        let has_ended = ended.poll(&mut Context::from_waker(Waker::noop())).is_ready();
        state.is_open &= !has_ended;
        state.is_open
    }
}

/// The methods are called without the runtime's budget: a connection that is pending only because its task has used up
/// the budget appears to be open.
impl ConnectionState {
    /// Is ready if the server has closed a connection on which no response is expected, or has sent something on it.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut byte = [0];
        Pin::new(&mut self.stream).poll_read(context, &mut ReadBuf::new(&mut byte)).map(drop)
    }

    /// Writes the rest of the request and receives the response.
    fn poll_exchange(
        &mut self,
        request: &[u8],
        progress: &mut WriteProgress,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<ReceivedResponse>> {
        if !progress.is_flushed
            && progress.write_error.is_none()
            && let Poll::Ready(written) = self.poll_send(request, progress, context)
        {
            progress.is_flushed = written.is_ok();
            progress.write_error = written.err();
        }
        // A server can respond before it has received all of a request that it rejects, and close the connection.
        loop {
            let mut space = ReadBuf::new(self.buffer.space());
            let read = match Pin::new(&mut self.stream).poll_read(context, &mut space) {
                Poll::Ready(read) => read.map(|()| space.filled().len()),
                Poll::Pending => match progress.write_error.take() {
                    Some(error) => Err(error),
                    None => return Poll::Pending,
                },
            };
            match read.and_then(|received| self.buffer.receive(received).map_err(io::Error::other)) {
                Ok(Some((response, is_persistent))) => {
                    self.is_open = is_persistent && progress.is_flushed;
                    return Poll::Ready(Ok(response));
                }
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(progress.write_error.take().unwrap_or(error))),
            }
        }
    }

    fn poll_send(
        &mut self,
        request: &[u8],
        progress: &mut WriteProgress,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while progress.written < request.len() {
            let rest = &request[progress.written..];
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => progress.written += written,
            }
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }
}

/// The timer of a connection's exchanges, one after the other.
///
/// A timer that expires before all others wakes the runtime when it is set, at the cost of two system calls. Therefore
/// it stays set after an exchange. It is set again if a later exchange has to end before it expires, or when it expires
/// before a later exchange has to end.
#[derive(Default)]
struct ExchangeTimer(Option<Pin<Box<Sleep>>>);

impl ExchangeTimer {
    /// Is ready at the time `until`.
    fn poll_until(&mut self, until: Instant, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if sleep.deadline() > until {
            sleep.as_mut().reset(until);
        }
        ready!(sleep.as_mut().poll(context));
        if sleep.deadline() >= until {
            return Poll::Ready(());
        }
        // It was set for an earlier exchange.
        sleep.as_mut().reset(until);
        sleep.as_mut().poll(context)
    }
}

/// A TCP stream, with TLS or without.
enum SocketStream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for SocketStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for SocketStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::time::sleep;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn target(port: u16) -> ConnectTarget {
        ConnectTarget { host: "127.0.0.1".to_owned(), port, tls: None, connect_timeout: Some(LIMIT) }
    }

    async fn listener() -> (TcpListener, u16) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    fn request() -> Vec<u8> {
        b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}".to_vec()
    }

    #[tokio::test]
    async fn response_that_arrives_before_the_server_closes_is_received() {
        let (listener, port) = listener().await;
        let target = target(port);
        let (connection, accepted) = tokio::join!(target.connect(), listener.accept());
        let (mut connection, (mut server, _)) = (connection.unwrap(), accepted.unwrap());
        let respond = async move {
            assert!(server.read(&mut [0; 1_024]).await.unwrap() > 0);
            // The client has filled the buffers, and waits. The unread rest of the request resets the connection.
            sleep(Duration::from_millis(300)).await;
            let response = b"HTTP/1.1 413 Payload Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
            server.write_all(response).await.unwrap();
        };
        let large = [request(), vec![b'x'; 20_000_000]].concat();
        let (received, ()) = tokio::join!(connection.send(large, None), respond);
        assert_eq!(received.unwrap().status, 413);
        assert!(!connection.is_open());
    }

    /// Opens a connection, lets it serve requests, and closes it at the server.
    async fn closed_connection(requests: usize) -> HttpConnection {
        let (listener, port) = listener().await;
        let target = target(port);
        let (connection, accepted) = tokio::join!(target.connect(), listener.accept());
        let (mut connection, (mut server, _)) = (connection.unwrap(), accepted.unwrap());
        for _ in 0..requests {
            let respond = async {
                let mut buffer = [0; 4_096];
                assert!(server.read(&mut buffer).await.unwrap() > 0);
                server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
            };
            assert_eq!(tokio::join!(connection.send(request(), None), respond).0.unwrap().body, "{}");
        }
        assert!(connection.is_alive());
        drop(server);
        // The runtime receives the end of the stream.
        sleep(Duration::from_millis(20)).await;
        connection
    }

    #[tokio::test]
    async fn request_over_a_closed_connection_fails_at_once_and_is_known_to_be_unsent_if_the_connection_was_used() {
        for requests in 0..3 {
            let mut connection = closed_connection(requests).await;
            for _ in 0..2 {
                let failed = timeout(LIMIT, connection.send(request(), None)).await.expect("a result").unwrap_err();
                assert!(matches!(failed, ExchangeError::Unsent) || requests == 0, "{requests}: {failed:?}");
            }
            assert!(!connection.is_alive());
        }
        let mut connection = closed_connection(0).await;
        let failed = timeout(LIMIT, connection.send(request(), None)).await.expect("a result").unwrap_err();
        assert!(matches!(failed, ExchangeError::Failed(_)), "{failed:?}");
        let mut connection = closed_connection(0).await.keep();
        let failed = timeout(LIMIT, connection.send(request(), None)).await.expect("a result").unwrap_err();
        assert!(matches!(failed, ExchangeError::Unsent), "{failed:?}");
    }

    /// Responds to one request.
    async fn respond(server: &mut TcpStream) {
        assert!(server.read(&mut [0; 4_096]).await.unwrap() > 0);
        server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
    }

    #[tokio::test]
    async fn each_exchange_ends_at_its_own_time_although_the_timer_stays_set() {
        let seconds = Duration::from_secs;
        // The time of the last exchange after it begins: before, at and after the time of the exchange before it.
        for limit in [1, 20, 30, 60] {
            let (listener, port) = listener().await;
            let target = target(port);
            let (connection, accepted) = tokio::join!(target.connect(), listener.accept());
            let (mut connection, (mut server, _)) = (connection.unwrap(), accepted.unwrap());
            let set_for = Instant::now() + seconds(30);
            for until in [set_for, set_for + seconds(1), set_for + seconds(2)] {
                let (received, ()) = tokio::join!(connection.send(request(), Some(until)), respond(&mut server));
                assert_eq!(received.unwrap().body, "{}");
            }
            // The later exchanges have not set the timer again.
            assert_eq!(connection.0.timer.0.as_ref().map(|sleep| sleep.deadline()), Some(set_for));
            tokio::time::pause();
            tokio::time::advance(seconds(10)).await;
            let started = Instant::now();
            let late = connection.send(request(), Some(started + seconds(limit))).await;
            assert!(matches!(late, Err(ExchangeError::Late)), "{late:?}");
            assert_eq!(started.elapsed().as_secs(), limit);
            assert!(!connection.is_open(), "a late response would be taken for that of the next request");
            tokio::time::resume();
        }
    }

    #[tokio::test]
    async fn timer_that_expired_while_the_connection_was_idle_ends_no_exchange() {
        let (listener, port) = listener().await;
        let target = target(port);
        let (connection, accepted) = tokio::join!(target.connect(), listener.accept());
        let (mut connection, (mut server, _)) = (connection.unwrap(), accepted.unwrap());
        for _ in 0..3 {
            let until = Some(Instant::now() + LIMIT);
            let (received, ()) = tokio::join!(connection.send(request(), until), respond(&mut server));
            assert_eq!(received.unwrap().body, "{}");
            tokio::time::pause();
            tokio::time::advance(LIMIT * 2).await;
            tokio::time::resume();
        }
    }

    #[tokio::test]
    async fn closed_connection_is_noticed_by_a_task_that_has_used_up_its_budget() {
        let mut connection = closed_connection(1).await;
        // A channel that always has an element consumes the budget, without a pause.
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        (0..1_000).for_each(|number| sender.send(number).unwrap());
        let is_alive = poll_fn(|context| {
            while receiver.poll_recv(context).is_ready() {}
            assert!(!receiver.is_empty(), "the budget has an end");
            Poll::Ready(connection.is_alive())
        });
        assert!(!is_alive.await);
    }

    #[tokio::test]
    async fn connection_that_the_server_does_not_accept_ends_with_the_default_timeout() {
        // The kernel accepts the connection, but no server responds to the TLS handshake.
        let (_listener, port) = listener().await;
        let tls = Some(crate::tls::config_with(rustls::RootCertStore::empty()).unwrap());
        let target = ConnectTarget { tls, connect_timeout: None, ..target(port) };
        tokio::time::pause();
        let started = Instant::now();
        let error = target.connect().await.err().expect("no connection");
        assert!(error.is_timeout, "{error}");
        assert_eq!(started.elapsed().as_secs(), CONNECT_TIMEOUT.as_secs());
    }

    #[test]
    fn each_of_several_addresses_has_time_for_a_round_trip() {
        let seconds = |limit, addresses| address_timeout(Duration::from_millis(limit), addresses).as_millis();
        assert_eq!([0, 1, 2, 8, 100].map(|addresses| seconds(1_000, addresses)), [1_000, 1_000, 500, 500, 500]);
        assert_eq!([1, 2, 100].map(|addresses| seconds(200, addresses)), [200, 200, 200]);
        assert_eq!([2, 4].map(|addresses| seconds(10_000, addresses)), [5_000, 2_500]);
    }
}
