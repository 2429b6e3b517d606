//! The client: [`TableClient`].

use std::borrow::Cow;
use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{ConfigBag, FrozenLayer};
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::delete_item::{DeleteItem, DeleteItemError};
use aws_sdk_dynamodb::operation::get_item::{GetItem, GetItemError};
use aws_sdk_dynamodb::operation::put_item::{PutItem, PutItemError};
use aws_sdk_dynamodb::operation::scan::{Scan, ScanError};
use aws_sdk_dynamodb::operation::update_item::{UpdateItem, UpdateItemError};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::identity::Identity;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_plugin::RuntimePlugin;
use aws_smithy_runtime_api::client::ser_de::{DeserializeResponse as _, SharedResponseDeserializer};
use aws_smithy_types::endpoint::Endpoint;
use aws_smithy_types::retry::ErrorKind;
use bytes::Bytes;
use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::{Mutex as AsyncMutex, OnceCell};
use tokio::time::{Instant, sleep};

use crate::clock_skew::ClockSkew;
use crate::connection::ConnectError;
use crate::response::ReceivedResponse;
use crate::retry::{ErrorResponse, RetryQuota, SharedCharge, backoff, is_expired_token, retryable_kind};
use crate::sdk_components::{SdkComponents, credentials, usable_until};
use crate::signer::{RequestSigner, SigningScope};
use crate::transport::{HttpTransport, RequestChannel, TransportError, UnsignedRequest, within, within_attempt};

/// The service's response to a successful request that returns nothing.
const NOTHING: &[u8] = b"{}";
/// The members of a response to an operation on one item:
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_UpdateItem.html>.
const ITEM_MEMBERS: &[&str] = &["Item", "Attributes", "ConsumedCapacity", "ItemCollectionMetrics"];
/// The members of a response to `Scan`:
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_Scan.html>.
const SCAN_MEMBERS: &[&str] = &["Items", "Count", "ScannedCount", "LastEvaluatedKey", "ConsumedCapacity"];
/// The number of access keys that are remembered as expired.
const EXPIRED_KEYS: usize = 8;
/// The reason of a response that is not one of the service. A parser's error is left out, because it may quote the
/// response, which may contain an item.
const OTHER_RESPONSE: &str = "the response is not that of the operation";
/// The reason of an error that is not one of the service.
const OTHER_ERROR: &str = "the response is not an error of the service";
/// The header with the pause, in milliseconds, that the service requests before a retry.
const RETRY_AFTER: &str = "x-amz-retry-after";

/// A client for requests to one table.
///
/// Its clones share connections, credentials and the retry quota.
#[derive(Clone)]
pub struct TableClient(Arc<ClientState>);

struct ClientState {
    client: Client,
    table: String,
    max_connections: usize,
    get_item: WireOperation,
    put_item: WireOperation,
    update_item: WireOperation,
    delete_item: WireOperation,
    scan: WireOperation,
    sdk: OnceCell<SdkComponents>,
    /// The access to the endpoint with the last credentials.
    access: Mutex<Option<Arc<SignedAccess>>>,
    /// Requests wait while another one resolves the credentials or the endpoint.
    resolution: AsyncMutex<()>,
    quota: RetryQuota,
    skew: ClockSkew,
}

impl fmt::Debug for TableClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableClient").field("table", &self.0.table).finish_non_exhaustive()
    }
}

/// An operation of the service.
struct WireOperation {
    /// The header `X-Amz-Target`.
    target: HeaderValue,
    /// The SDK's configuration of the operation, which has the parser of responses.
    config: Option<FrozenLayer>,
    /// The members of a response that reports success.
    members: &'static [&'static str],
}

impl WireOperation {
    fn new(target: &'static str, plugin: &impl RuntimePlugin, members: &'static [&'static str]) -> Self {
        Self { target: HeaderValue::from_static(target), config: plugin.config(), members }
    }

    /// Returns the SDK's parser of responses.
    fn parser(&self) -> Result<&SharedResponseDeserializer, BoxError> {
        let parser = self.config.as_ref().and_then(|config| config.load::<SharedResponseDeserializer>());
        parser.ok_or_else(|| "the SDK has no parser for the operation".into())
    }
}

/// The endpoint, with the signer for the credentials that were valid when it was resolved.
#[derive(Debug)]
struct SignedAccess {
    signer: Arc<RequestSigner>,
    uri: Uri,
    transport: Arc<HttpTransport>,
    /// The time of the next read of the SDK's credentials cache.
    usable_until: SystemTime,
    /// The last access keys that the service has reported as expired, without that of these credentials.
    expired_keys: Vec<String>,
    access_key: String,
}

/// A request that has failed, once.
struct FailedAttempt<E> {
    error: SdkError<E>,
    kind: Option<ErrorKind>,
    retry_after: Option<Duration>,
    /// The cost of the retry, if other requests have failed for the same reason.
    charge: Option<SharedCharge>,
}

impl<E> FailedAttempt<E> {
    fn transient(error: SdkError<E>) -> Box<Self> {
        Box::new(Self { error, kind: Some(ErrorKind::TransientError), retry_after: None, charge: None })
    }

    fn final_error(source: impl Into<BoxError>) -> Box<Self> {
        Box::new(Self { error: SdkError::construction_failure(source), kind: None, retry_after: None, charge: None })
    }

    fn late(limit: Duration) -> Box<Self> {
        let late = format!("no response within the attempt timeout of {limit:?}");
        Self::transient(SdkError::timeout_error(late))
    }

    /// The failure of a connection, which is that of all requests that have waited for it.
    fn unconnected(error: ConnectError) -> Box<Self> {
        let charge = error.charge.clone();
        let mut failed = Self::transient(SdkError::dispatch_failure(error.into()));
        failed.charge = Some(charge);
        failed
    }
}

impl TableClient {
    /// Creates a client for `table` with the configuration of an SDK client, and at most `max_connections` connections.
    ///
    /// Credentials, Region, endpoint, retries and timeouts are those of `client`. If it has an HTTP client of its own,
    /// or if an HTTP proxy is configured, the requests are sent through that HTTP client.
    #[must_use]
    pub fn new(client: Client, table: impl Into<String>, max_connections: usize) -> Self {
        Self(Arc::new(ClientState {
            client,
            table: table.into(),
            max_connections,
            get_item: WireOperation::new("DynamoDB_20120810.GetItem", &GetItem::new(), ITEM_MEMBERS),
            put_item: WireOperation::new("DynamoDB_20120810.PutItem", &PutItem::new(), ITEM_MEMBERS),
            update_item: WireOperation::new("DynamoDB_20120810.UpdateItem", &UpdateItem::new(), ITEM_MEMBERS),
            delete_item: WireOperation::new("DynamoDB_20120810.DeleteItem", &DeleteItem::new(), ITEM_MEMBERS),
            scan: WireOperation::new("DynamoDB_20120810.Scan", &Scan::new(), SCAN_MEMBERS),
            sdk: OnceCell::new(),
            access: Mutex::new(None),
            resolution: AsyncMutex::new(()),
            quota: RetryQuota::default(),
            skew: ClockSkew::default(),
        }))
    }

    /// Resolves credentials and the endpoint, and opens the first connection, so that the first request does not wait
    /// for them. Errors are ignored here: the first request returns them.
    pub async fn warm(&self) {
        let Ok(sdk) = self.sdk().await else { return };
        if let Ok(access) = self.resolve_access(sdk).await {
            access.transport.warm().await;
        }
    }

    /// Calls `GetItem` with this body, which is the JSON of the request, and parses the JSON of the response as `T`.
    ///
    /// # Errors
    /// As the SDK's `GetItem`, after retries. A response that is not a `T` is a transient failure.
    pub async fn get_item<T: DeserializeOwned>(&self, body: Bytes) -> Result<T, SdkError<GetItemError>> {
        self.call(&self.0.get_item, body, parse_success).await
    }

    /// Calls `PutItem` with this body, which is the JSON of the request.
    ///
    /// # Errors
    /// As the SDK's `PutItem`, after retries.
    pub async fn put_item(&self, body: Bytes) -> Result<(), SdkError<PutItemError>> {
        self.call(&self.0.put_item, body, accept).await
    }

    /// As [`Self::put_item`], and parses the JSON of the response as `T`.
    ///
    /// # Errors
    /// As the SDK's `PutItem`, after retries. A response that is not a `T` is a transient failure.
    pub async fn put_item_returning<T: DeserializeOwned>(&self, body: Bytes) -> Result<T, SdkError<PutItemError>> {
        self.call(&self.0.put_item, body, parse_success).await
    }

    /// Calls `UpdateItem` with this body, which is the JSON of the request, and parses the JSON of the response as `T`.
    ///
    /// # Errors
    /// As the SDK's `UpdateItem`, after retries. A response that is not a `T` is a transient failure.
    pub async fn update_item<T: DeserializeOwned>(&self, body: Bytes) -> Result<T, SdkError<UpdateItemError>> {
        self.call(&self.0.update_item, body, parse_success).await
    }

    /// Calls `DeleteItem` with this body, which is the JSON of the request, and parses the JSON of the response as `T`.
    ///
    /// # Errors
    /// As the SDK's `DeleteItem`, after retries. A response that is not a `T` is a transient failure.
    pub async fn delete_item<T: DeserializeOwned>(&self, body: Bytes) -> Result<T, SdkError<DeleteItemError>> {
        self.call(&self.0.delete_item, body, parse_success).await
    }

    /// Calls `Scan` with this body, which is the JSON of the request, and parses the JSON of the response as `T`.
    ///
    /// # Errors
    /// As the SDK's `Scan`, after retries. A response that is not a `T` is a transient failure.
    pub async fn scan<T: DeserializeOwned>(&self, body: Bytes) -> Result<T, SdkError<ScanError>> {
        self.call(&self.0.scan, body, parse_success).await
    }

    /// Calls an operation, with retries; returns the parsed response that reports success.
    async fn call<T, E>(
        &self,
        operation: &WireOperation,
        body: Bytes,
        parse: ResponseParser<T, E>,
    ) -> Result<T, SdkError<E>>
    where
        E: Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let sdk = self.sdk().await.map_err(SdkError::construction_failure)?;
        let retried = pin!(self.call_with_retries(sdk, operation, body, parse));
        match within(sdk.timeouts.operation_timeout(), retried).await {
            Ok(called) => called,
            Err(limit) => {
                Err(SdkError::timeout_error(format!("no response within the operation timeout of {limit:?}")))
            }
        }
    }

    async fn call_with_retries<T, E>(
        &self,
        sdk: &SdkComponents,
        operation: &WireOperation,
        body: Bytes,
        parse: ResponseParser<T, E>,
    ) -> Result<T, SdkError<E>>
    where
        E: Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let ClientState { quota, .. } = &*self.0;
        let mut taken = None;
        for attempt in 1.. {
            let failed = match self.attempt(sdk, operation, &body, parse).await {
                Ok(parsed) => {
                    quota.release(taken);
                    return Ok(parsed);
                }
                Err(failed) => failed,
            };
            let Some(kind) = failed.kind.filter(|_| attempt < sdk.retries.max_attempts()) else {
                return Err(failed.error);
            };
            taken = match &failed.charge {
                Some(charge) => quota.acquire_shared(kind, charge),
                None => quota.acquire(kind),
            };
            if taken.is_none() {
                return Err(failed.error);
            }
            sleep(backoff(&sdk.retries, kind, attempt, failed.retry_after, fastrand::f64())).await;
        }
        unreachable!("the loop ends with a response or an error")
    }

    /// Calls an operation once. The attempt timeout limits the resolution of the credentials and the exchange; the
    /// connect timeout, the operation timeout and the caller limit the wait for a connection. Otherwise a burst would
    /// end requests before they are sent, or soon after, and the latter close their connections.
    async fn attempt<T, E>(
        &self,
        sdk: &SdkComponents,
        operation: &WireOperation,
        body: &Bytes,
        parse: ResponseParser<T, E>,
    ) -> Result<T, Box<FailedAttempt<E>>>
    where
        E: Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let limit = sdk.timeouts.operation_attempt_timeout();
        let access = if let Some(access) = self.usable_access(sdk) {
            access
        } else {
            let resolved = within(limit, Box::pin(self.resolve_access(sdk)).as_mut()).await;
            // As with the SDK, this is a failure to send: the provider of the credentials may respond a moment later.
            let failed = |error| unanswered(ConnectorError::other(error, None));
            resolved.map_err(FailedAttempt::late)?.map_err(failed)?
        };
        loop {
            let channel = access.transport.reserve().await.map_err(FailedAttempt::unconnected)?;
            if let Some(exchanged) = self.exchange(sdk, operation, body, &access, channel).await {
                return exchanged.and_then(|response| parse(operation, response));
            }
        }
    }

    /// Sends a request and evaluates the status of the response, within the attempt timeout. Returns `None` if the
    /// connection was closed before the request was sent.
    async fn exchange<E>(
        &self,
        sdk: &SdkComponents,
        operation: &WireOperation,
        body: &Bytes,
        access: &SignedAccess,
        channel: RequestChannel<'_>,
    ) -> Option<Result<ReceivedResponse, Box<FailedAttempt<E>>>>
    where
        E: Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let limit = sdk.timeouts.operation_attempt_timeout();
        // A limit that exceeds the range of the clock is none.
        let attempt_end = limit.and_then(|limit| Instant::now().checked_add(limit));
        let late = || Err(FailedAttempt::late(limit.unwrap_or_default()));
        let at = self.0.skew.apply(sdk.now());
        let SignedAccess { signer, uri, .. } = access;
        let request = UnsignedRequest { signer, uri, target: &operation.target, body, at };
        Some(match channel.send(sdk, request, attempt_end).await {
            Ok(response) if response.status.is_success() => Ok(response),
            Ok(response) => {
                let rejected = Box::pin(self.rejected(sdk, operation, response, at, access));
                within_attempt(attempt_end, rejected).await.map_or_else(late, Err)
            }
            Err(TransportError::Unsent) => return None,
            Err(TransportError::Late) => late(),
            Err(TransportError::Connector(error)) => Err(unanswered(error)),
            Err(TransportError::Checksum(response, error)) => Err(not_understood(*response, error)),
        })
    }

    /// Parses a response with an error, and corrects its cause, if that is the clock or expired credentials.
    async fn rejected<E>(
        &self,
        sdk: &SdkComponents,
        operation: &WireOperation,
        response: ReceivedResponse,
        signed_at: SystemTime,
        access: &SignedAccess,
    ) -> Box<FailedAttempt<E>>
    where
        E: Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let status = response.status.as_u16();
        let retry_after =
            response.header(RETRY_AFTER).and_then(|millis| millis.parse().ok()).map(Duration::from_millis);
        let date = response.header("date").map(str::to_owned);
        let raw = match response.into_sdk() {
            Ok(raw) => raw,
            Err(error) => return FailedAttempt::final_error(error),
        };
        let error = match parse_error::<E>(operation, &raw) {
            Ok(error) if error.code().is_some() => error,
            // An error that is not one of the service, such as the page of a proxy, has no code. The SDK's parser accepts
            // it as an unknown error.
            parsed => {
                let is_retryable = retryable_kind(ErrorResponse { status, code: None, is_skewed: false });
                let error = parsed.err().unwrap_or_else(|| OTHER_ERROR.into());
                let error = SdkError::response_error(error, raw);
                let kind = is_retryable.or(Some(ErrorKind::TransientError));
                return Box::new(FailedAttempt { error, kind, retry_after, charge: None });
            }
        };
        let is_skewed = self.0.skew.correct(signed_at, date.as_deref(), sdk.now());
        let kind = retryable_kind(ErrorResponse { status, code: error.code(), is_skewed });
        if error.code().is_some_and(is_expired_token)
            && let Err(error) = self.renew(sdk, access).await
        {
            return unanswered(ConnectorError::other(error, None));
        }
        Box::new(FailedAttempt { error: SdkError::service_error(error, raw), kind, retry_after, charge: None })
    }

    async fn sdk(&self) -> Result<&SdkComponents, BoxError> {
        let ClientState { client, table, sdk, .. } = &*self.0;
        sdk.get_or_try_init(|| Box::pin(SdkComponents::from_client(client, table))).await
    }

    /// Returns the access to the endpoint, if its credentials were read recently.
    fn usable_access(&self, sdk: &SdkComponents) -> Option<Arc<SignedAccess>> {
        self.known_access().filter(|access| sdk.now() < access.usable_until)
    }

    /// Returns the access to the endpoint with valid credentials.
    async fn resolve_access(&self, sdk: &SdkComponents) -> Result<Arc<SignedAccess>, BoxError> {
        let _resolution = self.0.resolution.lock().await;
        // Another request may have resolved it in the meantime.
        if let Some(access) = self.usable_access(sdk) {
            return Ok(access);
        }
        let identity = Box::pin(sdk.identity()).await?;
        Box::pin(self.access_with(sdk, &identity, None)).await
    }

    /// Replaces credentials that the service reports as expired, unless another request has replaced them.
    async fn renew(&self, sdk: &SdkComponents, expired: &SignedAccess) -> Result<(), BoxError> {
        let _resolution = self.0.resolution.lock().await;
        if self.known_access().is_some_and(|known| known.access_key != expired.access_key) {
            return Ok(());
        }
        let identity = Box::pin(sdk.new_identity()).await?;
        let new_key = credentials(&identity)?.access_key_id().to_owned();
        let mut expired_keys = expired.expired_keys.clone();
        expired_keys.push(expired.access_key.clone());
        // A provider can return the same credentials again.
        expired_keys.retain(|key| *key != new_key);
        expired_keys.drain(..expired_keys.len().saturating_sub(EXPIRED_KEYS));
        Box::pin(self.access_with(sdk, &identity, Some(expired_keys))).await.map(drop)
    }

    fn known_access(&self) -> Option<Arc<SignedAccess>> {
        self.0.access.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Creates the access with these credentials, and keeps the parts that are still right. `expired_keys` are the
    /// access keys that have expired, if that has changed: they are not used again while they are in the SDK's cache.
    async fn access_with(
        &self,
        sdk: &SdkComponents,
        identity: &Identity,
        expired_keys: Option<Vec<String>>,
    ) -> Result<Arc<SignedAccess>, BoxError> {
        let credentials = credentials(identity)?;
        let known = self.known_access();
        let known = known.as_deref();
        let expired_keys = expired_keys.or_else(|| known.map(|known| known.expired_keys.clone())).unwrap_or_default();
        let (signer, uri, transport, access_key) = match known {
            Some(known)
                if expired_keys.iter().any(|key| key == credentials.access_key_id())
                    && known.access_key != credentials.access_key_id() =>
            {
                (Arc::clone(&known.signer), known.uri.clone(), Arc::clone(&known.transport), known.access_key.clone())
            }
            _ => {
                let endpoint = sdk.endpoint(identity).await?;
                let uri: Uri = format!("{}/", endpoint.url().trim_end_matches('/')).parse()?;
                let scope = signing_scope(sdk, &endpoint, &uri)?;
                let transport = match known.filter(|known| known.uri == uri) {
                    Some(known) => Arc::clone(&known.transport),
                    None => Arc::new(HttpTransport::new(sdk, &uri, &Matcher::from_env(), self.0.max_connections)?),
                };
                let signer = match known.filter(|known| known.signer.is_of(credentials, &scope)) {
                    Some(known) => Arc::clone(&known.signer),
                    None => Arc::new(RequestSigner::new(credentials.clone(), scope)?),
                };
                (signer, uri, transport, credentials.access_key_id().to_owned())
            }
        };
        let usable_until = usable_until(sdk.now());
        let access = Arc::new(SignedAccess { signer, uri, transport, usable_until, expired_keys, access_key });
        *self.0.access.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&access));
        Ok(access)
    }
}

/// Returns the scope of signatures for an endpoint, which can require another Region or service name.
fn signing_scope(sdk: &SdkComponents, endpoint: &Endpoint, uri: &Uri) -> Result<SigningScope, BoxError> {
    let scheme = endpoint.auth_schemes().iter().find(|scheme| scheme.name() == "sigv4");
    let property = |name| scheme.and_then(|scheme| scheme.get(name)?.as_string());
    let region = property("signingRegion").or(sdk.region.as_ref().map(AsRef::as_ref));
    Ok(SigningScope {
        region: region.ok_or("no Region is configured: set AWS_REGION")?.to_owned(),
        service: property("signingName").unwrap_or("dynamodb").to_owned(),
        host: host_header(uri)?,
        path: signed_path(uri)?,
    })
}

/// Returns the header `Host`, without a port that is the scheme's default.
fn host_header(uri: &Uri) -> Result<String, BoxError> {
    let host = uri.host().ok_or_else(|| format!("the endpoint {uri} has no host"))?;
    Ok(match (uri.port_u16(), uri.scheme_str()) {
        (None, _) | (Some(443), Some("https")) | (Some(80), Some("http")) => host.to_owned(),
        (Some(port), _) => format!("{host}:{port}"),
    })
}

/// Returns the path of the endpoint, which a signature contains as it is.
fn signed_path(uri: &Uri) -> Result<String, BoxError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let path = uri.path();
    if uri.query().is_some() || !path.bytes().all(is_plain) || path.contains("//") || path.contains("/.") {
        return Err(format!("the endpoint {uri} has a path or a query that is not supported: use a plain URL").into());
    }
    Ok(path.to_owned())
}

/// Returns the failure of a request that was not sent, or got no response, with the SDK's classification.
fn unanswered<E>(error: ConnectorError) -> Box<FailedAttempt<E>> {
    let kind = if error.is_timeout() || error.is_io() { Some(ErrorKind::TransientError) } else { error.as_other() };
    Box::new(FailedAttempt { error: SdkError::dispatch_failure(error), kind, retry_after: None, charge: None })
}

/// Returns the failure of a request whose response is not one of the service.
fn not_understood<E>(response: ReceivedResponse, reason: impl Into<BoxError>) -> Box<FailedAttempt<E>> {
    match response.into_sdk() {
        Ok(raw) => FailedAttempt::transient(SdkError::response_error(reason, raw)),
        Err(error) => FailedAttempt::final_error(error),
    }
}

/// Parses a response with the status of a success.
///
/// Its body must be that of the operation: a proxy or a load balancer can return a page with this status, although no
/// item was read or written.
type ResponseParser<T, E> = fn(&WireOperation, ReceivedResponse) -> Result<T, Box<FailedAttempt<E>>>;

/// Accepts a body that the SDK parses as one of the operation, and drops it.
fn accept<E>(operation: &WireOperation, response: ReceivedResponse) -> Result<(), Box<FailedAttempt<E>>> {
    if response.body == NOTHING {
        return Ok(());
    }
    let parser = operation.parser().map_err(FailedAttempt::final_error)?;
    let raw = response.clone().into_sdk().map_err(FailedAttempt::final_error)?;
    // The SDK's parser accepts an empty body, and an object of any members.
    match parser.deserialize_nonstreaming_with_config(&raw, &ConfigBag::base()) {
        Ok(_) if is_response_of(operation, &response.body) => Ok(()),
        _ => Err(not_understood(response, OTHER_RESPONSE)),
    }
}

/// Returns whether a body is a JSON object that is empty or has a member of a response to this operation.
fn is_response_of(operation: &WireOperation, body: &[u8]) -> bool {
    let begins_with = |member: &str| {
        let rest = body.strip_prefix(b"{\"").and_then(|rest| rest.strip_prefix(member.as_bytes()));
        rest.is_some_and(|rest| rest.starts_with(b"\":"))
    };
    if body == NOTHING || operation.members.iter().copied().any(begins_with) {
        return true;
    }
    let members: Result<HashMap<Cow<'_, str>, &RawValue>, _> = serde_json::from_slice(body);
    members
        .is_ok_and(|members| members.is_empty() || operation.members.iter().any(|member| members.contains_key(*member)))
}

/// Parses a body as the caller's type.
fn parse_success<T: DeserializeOwned, E>(
    operation: &WireOperation,
    response: ReceivedResponse,
) -> Result<T, Box<FailedAttempt<E>>> {
    match serde_json::from_slice(&response.body) {
        Ok(parsed) if is_response_of(operation, &response.body) => Ok(parsed),
        _ => Err(not_understood(response, OTHER_RESPONSE)),
    }
}

/// Parses an error with the SDK's parser of the operation. Fails without quoting the response, which may contain an item.
fn parse_error<E: Error + Send + Sync + 'static>(operation: &WireOperation, raw: &HttpResponse) -> Result<E, BoxError> {
    let parsed = operation.parser()?.deserialize_nonstreaming_with_config(raw, &ConfigBag::base());
    let mut error = None;
    if let Err(failed) = parsed {
        // `map_operation_error` is the only access to the error by value.
        drop(failed.map_operation_error(|failed| error = failed.downcast::<E>().ok()));
    }
    error.ok_or_else(|| OTHER_ERROR.into())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use aws_sdk_dynamodb::config::retry::RetryConfig;
    use aws_sdk_dynamodb::config::timeout::TimeoutConfig;

    use super::*;
    use crate::pool::ConnectionPool;
    use crate::tests::tls_server::TlsServer;
    use crate::tests::{config, put_all_with};

    /// Returns a client whose connections are those to a TLS server, with a certificate that the system does not trust.
    async fn table_at(server: &TlsServer, timeouts: TimeoutConfig) -> TableClient {
        let target = server.start().await;
        let config = config(&format!("https://localhost:{}", target.port)).timeout_config(timeouts);
        let table = TableClient::new(Client::from_conf(config.build()), "Orders", 128);
        let resolved = table.resolve_access(table.sdk().await.unwrap()).await.unwrap();
        let SignedAccess { signer, uri, usable_until, expired_keys, access_key, .. } = &*resolved;
        let access = SignedAccess {
            signer: Arc::clone(signer),
            uri: uri.clone(),
            transport: Arc::new(HttpTransport::Pool(ConnectionPool::new(target, 128))),
            usable_until: *usable_until,
            expired_keys: expired_keys.clone(),
            access_key: access_key.clone(),
        };
        *table.0.access.lock().unwrap() = Some(Arc::new(access));
        table
    }

    #[test]
    fn future_of_a_request_is_small() {
        // Each request in flight has one, and a large one is copied several times before its first poll.
        let table = TableClient::new(Client::from_conf(config("http://127.0.0.1:1").build()), "Orders", 8);
        let bytes = size_of_val(&table.put_item(Bytes::new()));
        assert!(bytes <= 2_048, "{bytes}");
    }

    #[tokio::test]
    async fn distant_server_is_reached_with_many_connections_and_without_errors() {
        let delay = Duration::from_millis(150);
        let server = TlsServer { accept_delay: delay, response_delay: delay, ..TlsServer::default() };
        // The timeouts of the replicator.
        let timeouts = TimeoutConfig::builder();
        let timeouts = timeouts.connect_timeout(Duration::from_secs(1));
        let table = table_at(&server, timeouts.operation_attempt_timeout(Duration::from_secs(3)).build()).await;
        let started = Instant::now();
        for result in put_all_with(&table, 128).await {
            result.unwrap();
        }
        let (elapsed, accepted) = (started.elapsed(), server.accepted.load(Ordering::Relaxed));
        // One connection would take 19 s, and connections one after another with pauses 5 s.
        assert!((16..=128).contains(&accepted) && elapsed < Duration::from_secs(4), "{accepted} in {elapsed:?}");
        assert_eq!(*table.0.quota.tokens(), *RetryQuota::default().tokens(), "no request was repeated");
    }

    #[tokio::test]
    async fn failed_connection_takes_the_tokens_of_one_retry() {
        let config = config("http://127.0.0.1:1");
        let retries = RetryConfig::standard().with_initial_backoff(Duration::from_millis(1)).with_max_attempts(2);
        let table = TableClient::new(Client::from_conf(config.retry_config(retries).build()), "Orders", 8);
        for result in put_all_with(&table, 64).await {
            assert!(matches!(result.unwrap_err(), SdkError::DispatchFailure(_)));
        }
        // The requests do not all wait for the same connections.
        let taken = *RetryQuota::default().tokens() - *table.0.quota.tokens();
        assert!((10..=60).contains(&taken), "{taken}");
    }
}
