//! HTTP proxy of the engine's own server: implements operations that the engine lacks or whose results differ from AWS.
//!
//! Operations on streams are implemented in [`super::streams`], and `DescribeContinuousBackups` here. Descriptions of
//! tables are returned with the stream's label rewritten, and tables that a request names by ARN are forwarded by name
//! ([`TableArns`]); all other requests and responses are forwarded unchanged. Requests of Lambda's API are forwarded to
//! the HTTP API, so that a program which sends all calls to one endpoint reaches both.
//!
//! Each request that may write is signalled after its response.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use axum::body::Body;
use bytes::Bytes;
use dynoxide::{Database, DynoxideError};
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_LENGTH, CONTENT_TYPE, ORIGIN, TRANSFER_ENCODING};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::streams;
use super::table_arn::TableArns;
use crate::lambda;

const PREFIX: &str = "DynamoDB_20120810.";
const JSON: &str = "application/x-amz-json-1.0";
/// The header with the engine's checksum of a body.
const CRC32: &str = "x-amz-crc32";

/// The beginnings of the names of operations that write nothing.
const READS: [&str; 6] = ["BatchGet", "Describe", "Get", "List", "Query", "Scan"];

/// An error response.
struct ErrorResponse {
    status: StatusCode,
    json: String,
}

impl From<DynoxideError> for ErrorResponse {
    fn from(error: DynoxideError) -> Self {
        let status = StatusCode::from_u16(error.status_code()).unwrap_or(StatusCode::BAD_REQUEST);
        Self { status, json: error.to_json() }
    }
}

impl ErrorResponse {
    fn internal(error: &dyn std::error::Error) -> Self {
        DynoxideError::InternalServerError(error.to_string()).into()
    }

    fn into_response(self) -> Response<Body> {
        json_response(self.status, self.json)
    }
}

/// Proxy of the engine's server at an authority.
#[derive(Clone)]
pub(super) struct EngineFront {
    database: Database,
    engine: Authority,
    client: Client<HttpConnector, Full<Bytes>>,
    signals: EngineSignals,
}

/// The state that the proxy shares with its engine.
#[derive(Clone, Default)]
pub(super) struct EngineSignals {
    /// Signals each write.
    pub(super) writes: watch::Sender<()>,
    /// The address of the server of Lambda's API, once it is known.
    pub(super) lambda: Arc<OnceLock<Authority>>,
}

impl EngineFront {
    pub(super) fn new(database: Database, engine: Authority, signals: EngineSignals) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self { database, engine, client: Client::builder(TokioExecutor::new()).build(connector), signals }
    }

    /// Handles a request.
    pub(super) async fn respond(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        if request.uri().path().starts_with(lambda::PATH_PREFIX)
            && let Some(lambda) = self.signals.lambda.get()
        {
            return Ok(self.forward(request, lambda).await.unwrap_or_else(ErrorResponse::into_response));
        }
        let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
        let is_write =
            target.strip_prefix(PREFIX).is_some_and(|operation| !READS.iter().any(|read| operation.starts_with(read)));
        let response = if let Some(operation) = target.strip_prefix(streams::PREFIX) {
            let operation = operation.to_owned();
            self.own(request, |database, body| {
                let by_name = TableArns::from_request(body).map(|(body, _)| body);
                Ok(streams::respond(database, &operation, by_name.as_deref().unwrap_or(body))?)
            })
            .await
        } else {
            match target.strip_prefix(PREFIX) {
                Some("DescribeContinuousBackups") => self.own(request, backups).await,
                Some("CreateTable" | "UpdateTable" | "DescribeTable" | "DeleteTable") => {
                    match self.engine(request).await {
                        Ok(response) => relabelled(response).await,
                        Err(refusal) => refusal.into_response(),
                    }
                }
                _ => self.engine(request).await.unwrap_or_else(ErrorResponse::into_response),
            }
        };
        if is_write {
            self.signals.writes.send_replace(());
        }
        Ok(response)
    }

    async fn own(
        &self,
        request: Request<Incoming>,
        decide: impl Fn(&Database, &[u8]) -> Result<Value, ErrorResponse>,
    ) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let mut response = match body.collect().await {
            Ok(body) => match decide(&self.database, &body.to_bytes()) {
                Ok(response) => json_response(StatusCode::OK, response.to_string()),
                Err(refusal) => refusal.into_response(),
            },
            Err(error) => ErrorResponse::internal(&error).into_response(),
        };
        if parts.headers.contains_key(ORIGIN) {
            response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
        response
    }

    async fn engine(&self, request: Request<Incoming>) -> Result<Response<Body>, ErrorResponse> {
        self.forward(request, &self.engine).await
    }

    async fn forward(&self, request: Request<Incoming>, to: &Authority) -> Result<Response<Body>, ErrorResponse> {
        let (mut parts, body) = request.into_parts();
        let mut uri = std::mem::take(&mut parts.uri).into_parts();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(to.clone());
        parts.uri = Uri::from_parts(uri).map_err(|error| ErrorResponse::internal(&error))?;
        let body = body.collect().await.map_err(|error| ErrorResponse::internal(&error))?.to_bytes();
        let (body, arns) = match TableArns::from_request(&body) {
            Some((by_name, arns)) => {
                parts.headers.remove(TRANSFER_ENCODING);
                parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(by_name.len()));
                (Bytes::from(by_name), Some(arns))
            }
            None => (body, None),
        };
        let response = self.client.request(Request::from_parts(parts, Full::new(body))).await;
        let response = response.map_err(|error| ErrorResponse::internal(&error))?;
        let Some(arns) = arns else { return Ok(response.map(Body::new)) };
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| ErrorResponse::internal(&error))?.to_bytes();
        Ok(match arns.restored(&body) {
            Some(restored) => with_body(parts, restored.into()),
            None => Response::from_parts(parts, Body::from(body)),
        })
    }
}

/// Returns a description of a table with its stream's label in AWS's format.
async fn relabelled(response: Response<Body>) -> Response<Body> {
    let (parts, body) = response.into_parts();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return ErrorResponse::internal(&error).into_response(),
    };
    let Ok(mut value) = serde_json::from_slice::<Value>(&body) else {
        return Response::from_parts(parts, Body::from(body));
    };
    streams::relabel(&mut value);
    with_body(parts, value.to_string().into())
}

/// Returns a response of the engine with another body.
fn with_body(mut parts: http::response::Parts, body: Bytes) -> Response<Body> {
    parts.headers.remove(CRC32);
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    Response::from_parts(parts, Body::from(body))
}

/// Returns the backup description of a table: backups are always disabled.
fn backups(database: &Database, body: &[u8]) -> Result<Value, ErrorResponse> {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let name = request["TableName"].as_str().unwrap_or_default();
    // The request may also name the table by its ARN.
    let name = name.rsplit_once(":table/").map_or(name, |(_, name)| name);
    if database.get_table_metadata(name)?.is_none() {
        let kind = "com.amazonaws.dynamodb.v20120810#TableNotFoundException";
        let json = json!({"__type": kind, "message": format!("Table not found: {name}")}).to_string();
        return Err(ErrorResponse { status: StatusCode::BAD_REQUEST, json });
    }
    Ok(json!({"ContinuousBackupsDescription": {
        "ContinuousBackupsStatus": "DISABLED",
        "PointInTimeRecoveryDescription": {"PointInTimeRecoveryStatus": "DISABLED"},
    }}))
}

fn json_response(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    *response.headers_mut() = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(JSON))]);
    response
}
