//! The HTTP transport of signed requests and their responses: [`HttpTransport`].

use std::pin::Pin;
use std::str;
use std::time::{Duration, SystemTime};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::{HttpConnector as _, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use tokio::time::{Instant, timeout, timeout_at};

use crate::connection::{ConnectError, ConnectTarget, ExchangeError};
use crate::pool::{ConnectionLease, ConnectionPool};
use crate::response::{ReceivedResponse, ResponseHeaders};
use crate::sdk_components::SdkComponents;
use crate::signer::RequestSigner;
use crate::tls;

/// The header with the CRC-32 of the body, as a decimal number.
const CHECKSUM: &str = "x-amz-crc32";

/// A request without a complete response.
#[derive(Debug)]
pub(crate) enum TransportError {
    /// The connection was closed while idle, and the request was provably not sent.
    Unsent,
    /// The request was not sent, or the response did not arrive.
    Connector(ConnectorError),
    /// The response did not arrive within the attempt timeout.
    Late,
    /// The response is not what the service has sent.
    Checksum(Box<ReceivedResponse>, ChecksumError),
}

/// A body that differs from its checksum.
#[derive(Debug, thiserror::Error)]
#[error("the response has the checksum {actual:08x}, but x-amz-crc32 is {expected:?}")]
pub(crate) struct ChecksumError {
    actual: u32,
    expected: String,
}

/// The HTTP client that sends the requests.
#[derive(Debug)]
pub(crate) enum HttpTransport {
    /// The connections of this crate.
    Pool(ConnectionPool),
    /// The SDK's HTTP client: one that was set explicitly, or the default one if a proxy is configured.
    Sdk(SharedHttpConnector),
}

impl HttpTransport {
    /// Creates the transport to the endpoint `uri`, with the proxies of `proxies`.
    pub(crate) fn new(
        sdk: &SdkComponents,
        uri: &Uri,
        proxies: &Matcher,
        max_connections: usize,
    ) -> Result<Self, BoxError> {
        if let Some(connector) = sdk.explicit_connector() {
            return Ok(Self::Sdk(connector));
        }
        if proxies.intercept(uri).is_some() {
            return sdk.connector().map(Self::Sdk).ok_or_else(|| "the SDK has no HTTP client".into());
        }
        let host = uri.host().ok_or_else(|| format!("the endpoint {uri} has no host"))?;
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(format!("the endpoint {uri} has no known scheme: expected https or http").into()),
        };
        let target = ConnectTarget {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: uri.port_u16().unwrap_or(if is_https { 443 } else { 80 }),
            tls: if is_https { Some(tls::client_config()?) } else { None },
            connect_timeout: sdk.timeouts.connect_timeout(),
        };
        Ok(Self::Pool(ConnectionPool::new(target, max_connections)))
    }

    /// Returns a channel for one request, as soon as a connection is unused.
    pub(crate) async fn reserve(&self) -> Result<RequestChannel<'_>, ConnectError> {
        match self {
            Self::Pool(pool) => pool.lease().await.map(RequestChannel::Lease),
            Self::Sdk(connector) => Ok(RequestChannel::Sdk(connector)),
        }
    }

    /// Opens the first connection.
    pub(crate) async fn warm(&self) {
        if let Self::Pool(pool) = self {
            // The pool keeps a connection that is not used. An error is that of the first request.
            drop(pool.lease().await);
        }
    }
}

/// A channel for one request.
pub(crate) enum RequestChannel<'t> {
    Lease(ConnectionLease),
    Sdk(&'t SharedHttpConnector),
}

/// A request that is signed when it is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UnsignedRequest<'r> {
    pub(crate) signer: &'r RequestSigner,
    pub(crate) uri: &'r Uri,
    /// The header `X-Amz-Target`.
    pub(crate) target: &'r HeaderValue,
    pub(crate) body: &'r Bytes,
    /// The time of the signature.
    pub(crate) at: SystemTime,
}

impl RequestChannel<'_> {
    /// Signs a request, sends it to the endpoint and receives the response, until the end of the attempt.
    pub(crate) async fn send(
        self,
        sdk: &SdkComponents,
        request: UnsignedRequest<'_>,
        attempt_end: Option<Instant>,
    ) -> Result<ReceivedResponse, TransportError> {
        let UnsignedRequest { signer, uri, target, body, at } = request;
        let response = match self {
            Self::Lease(lease) => {
                let request = signer.render(target, body, at);
                let limit = ExchangeLimit::new(attempt_end, sdk.timeouts.read_timeout());
                lease.send(request, limit.until).await.map_err(|failed| limit.error(failed))?
            }
            Self::Sdk(connector) => {
                let sent = Box::pin(send_with(connector, uri, signer.sign(target, body, at), body.clone()));
                let sent = within_attempt(attempt_end, sent).await.ok_or(TransportError::Late)?;
                sent.map_err(TransportError::Connector)?
            }
        };
        verify(response)
    }
}

/// The limits of an exchange over a connection of this crate.
struct ExchangeLimit {
    /// The time of the shorter limit.
    until: Option<Instant>,
    /// The read timeout, if it is the shorter limit.
    read_timeout: Option<Duration>,
}

impl ExchangeLimit {
    /// Creates the limits of an exchange that begins now.
    fn new(attempt_end: Option<Instant>, read_timeout: Option<Duration>) -> Self {
        let read_end = read_timeout.and_then(|limit| Instant::now().checked_add(limit));
        let Some(read_end) = read_end else { return Self { until: attempt_end, read_timeout: None } };
        match attempt_end.filter(|attempt_end| *attempt_end <= read_end) {
            Some(attempt_end) => Self { until: Some(attempt_end), read_timeout: None },
            None => Self { until: Some(read_end), read_timeout },
        }
    }

    fn error(&self, failed: ExchangeError) -> TransportError {
        match (failed, self.read_timeout) {
            (ExchangeError::Unsent, _) => TransportError::Unsent,
            (ExchangeError::Failed(error), _) => TransportError::Connector(ConnectorError::io(error.into())),
            (ExchangeError::Late, Some(limit)) => {
                let late = format!("no response within the read timeout of {limit:?}");
                TransportError::Connector(ConnectorError::timeout(late.into()))
            }
            (ExchangeError::Late, None) => TransportError::Late,
        }
    }
}

impl From<ConnectError> for ConnectorError {
    fn from(error: ConnectError) -> Self {
        if error.is_timeout { Self::timeout(error.into()) } else { Self::io(error.into()) }
    }
}

/// Awaits a future for at most `limit`; fails with the limit. The future is pinned by the caller: the state of this one
/// would contain it twice.
pub(crate) async fn within<T>(
    limit: Option<Duration>,
    future: Pin<&mut (impl Future<Output = T> + ?Sized)>,
) -> Result<T, Duration> {
    match limit {
        Some(limit) => timeout(limit, future).await.map_err(|_| limit),
        None => Ok(future.await),
    }
}

/// Awaits a future until the end of the attempt, if it has one; `None` if that comes first.
pub(crate) async fn within_attempt<T>(
    attempt_end: Option<Instant>,
    future: Pin<Box<impl Future<Output = T>>>,
) -> Option<T> {
    match attempt_end {
        Some(end) => timeout_at(end, future).await.ok(),
        None => Some(future.await),
    }
}

async fn send_with(
    connector: &SharedHttpConnector,
    uri: &Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<ReceivedResponse, ConnectorError> {
    let mut request = Request::new(SdkBody::from(body));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = uri.clone();
    *request.headers_mut() = headers;
    // The HTTP client adds the header itself.
    request.headers_mut().remove(http::header::HOST);
    let request = HttpRequest::try_from(request).map_err(|error| ConnectorError::user(error.into()))?;
    let response = connector.call(request).await?.try_into_http1x();
    let (parts, body) = response.map_err(|error| ConnectorError::other(error.into(), None))?.into_parts();
    let body = ByteStream::new(body).collect().await.map_err(|error| ConnectorError::io(error.into()))?.into_bytes();
    Ok(ReceivedResponse { status: parts.status, headers: ResponseHeaders::Parsed(parts.headers), body })
}

/// Compares the body with its checksum, if the response has one.
fn verify(response: ReceivedResponse) -> Result<ReceivedResponse, TransportError> {
    let Some(expected) = response.headers.get(CHECKSUM) else { return Ok(response) };
    let actual = crc32fast::hash(&response.body);
    if str::from_utf8(expected).ok().and_then(|text| text.parse().ok()) == Some(actual) {
        return Ok(response);
    }
    let error = ChecksumError { actual, expected: String::from_utf8_lossy(expected).into_owned() };
    Err(TransportError::Checksum(Box::new(response), error))
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::Client;
    use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};

    use super::*;

    async fn transport(proxies: &Matcher, uri: &'static str) -> Result<HttpTransport, BoxError> {
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("eu-west-1"))
            .credentials_provider(Credentials::new("AKID", "secret", None, None, "test"))
            .build();
        let sdk = SdkComponents::from_client(&Client::from_conf(config), "Orders").await.unwrap();
        HttpTransport::new(&sdk, &Uri::from_static(uri), proxies, 8)
    }

    #[test]
    fn read_timeout_beyond_the_range_of_the_clock_is_none() {
        let limit = ExchangeLimit::new(None, Some(Duration::MAX));
        assert!(limit.until.is_none() && limit.read_timeout.is_none());
    }

    #[tokio::test]
    async fn proxied_endpoint_is_reached_with_the_http_client_of_the_sdk() {
        let proxies = Matcher::builder().https("http://proxy:3128").no("dynamodb.eu-west-1.amazonaws.com").build();
        for (uri, is_proxied) in [
            ("https://dynamodb.eu-central-1.amazonaws.com", true),
            ("https://dynamodb.eu-west-1.amazonaws.com", false),
            ("http://localhost:8000", false),
        ] {
            let transport = transport(&proxies, uri).await.unwrap();
            assert_eq!(matches!(transport, HttpTransport::Sdk(_)), is_proxied, "{uri}");
        }
    }

    #[tokio::test]
    async fn endpoint_that_is_not_http_is_rejected_by_name() {
        for uri in ["ftp://dynamodb", "/dynamodb"] {
            let error = transport(&Matcher::builder().build(), uri).await.unwrap_err().to_string();
            assert!(error.contains(uri), "{error}");
        }
    }
}
