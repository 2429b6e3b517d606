//! One HTTP/1.1 connection, with TLS or without: [`HttpConnection`].
//!
//! The future of a request drives its connection, so a request needs no other task, and a request that is dropped
//! closes its connection. An idle connection is not driven; before it is used, [`HttpConnection::is_alive`] notices that
//! the server has closed it.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::response::Parts;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::transport::within;

/// The longest attempt to connect to one of several addresses, if no timeout is set.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(10);

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
}

/// An established connection.
pub(crate) struct HttpConnection {
    sender: SendRequest<Full<Bytes>>,
    driver: Pin<Box<http1::Connection<TokioIo<SocketStream>, Full<Bytes>>>>,
}

impl ConnectTarget {
    /// Connects within the connect timeout.
    pub(crate) async fn connect(&self) -> Result<HttpConnection, ConnectError> {
        let connected = within(self.connect_timeout, self.open()).await;
        let connected = connected.map_err(|limit| self.error(format!("no connection within {limit:?}"), true))?;
        connected.map_err(|error| self.error(error.to_string(), false))
    }

    fn error(&self, reason: String, is_timeout: bool) -> ConnectError {
        ConnectError { host: self.host.clone(), port: self.port, reason, is_timeout }
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
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let mut connection = HttpConnection { sender, driver: Box::pin(driver) };
        // The first poll makes the connection ready for a request.
        connection.is_alive();
        Ok(connection)
    }

    /// Connects to the first address that accepts, each within its part of the connect timeout.
    async fn open_tcp(&self) -> io::Result<TcpStream> {
        let addresses: Vec<_> = lookup_host((self.host.as_str(), self.port)).await?.collect();
        let number = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        let limit = self.connect_timeout.map_or(ADDRESS_TIMEOUT, |limit| limit / number.max(1));
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

impl HttpConnection {
    /// Sends a request and receives the response with its body.
    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<(Parts, Bytes), hyper::Error> {
        let Self { sender, driver } = self;
        let sent = sender.send_request(request);
        let mut exchange = pin!(async move {
            let (parts, body) = sent.await?.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok((parts, body))
        });
        let mut is_closed = false;
        let received = poll_fn(|context| {
            // The exchange receives the reason of a connection that ends.
            is_closed = is_closed || driver.as_mut().poll(context).is_ready();
            exchange.as_mut().poll(context)
        });
        received.await
    }

    /// Returns whether another request can be sent: the server has not closed the connection, and the last response is
    /// complete. It takes notice of what the runtime has received, and does not read from the socket otherwise.
    pub(crate) fn is_alive(&mut self) -> bool {
        let driven = self.driver.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        driven.is_pending() && self.sender.is_ready()
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

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
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
