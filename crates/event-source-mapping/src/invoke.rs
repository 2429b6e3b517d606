//! Functions that a mapping invokes: in this process, or served by `cargo lambda watch`.

use bytes::Bytes;
use futures::future::LocalBoxFuture;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use millrace_shared::invocation::Invocation;
use millrace_shared::stream::BatchResponse;
use serde_json::value::RawValue;

/// An invocation that ended without a response, which is a function error on Lambda.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvokeError(String);

impl InvokeError {
    /// Creates an error with this message, for a function that wraps another one.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// Joins the error and its sources to one line.
    fn from_error(error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        Self(text)
    }
}

/// A function that accepts a stream event.
pub trait StreamFunction: Send + Sync {
    /// Invokes the function with the event and returns the body of the response.
    fn invoke<'a>(
        &'a self,
        event: &'a RawValue,
        invocation: Invocation,
    ) -> LocalBoxFuture<'a, Result<String, InvokeError>>;
}

/// Returns the result that Lambda would receive from a function in this process: the response as JSON, or the error.
///
/// # Errors
/// The function's error, or that of the encoding.
pub fn encode_response(response: Result<BatchResponse, impl std::error::Error>) -> Result<String, InvokeError> {
    let response = response.map_err(|fault| InvokeError::from_error(&fault))?;
    serde_json::to_string(&response).map_err(|error| InvokeError::from_error(&error))
}

/// A function behind the Lambda API that `cargo lambda watch` serves.
#[derive(Debug, Clone)]
pub struct ServedFunction {
    client: Client<HttpConnector, Full<Bytes>>,
    address: http::Uri,
}

impl ServedFunction {
    /// Returns the function `name` at the base URL, e.g. `http://127.0.0.1:9000`.
    ///
    /// # Errors
    /// Fails if the two do not form an `http` URL.
    pub fn new(base: &str, name: &str) -> Result<Self, InvokeError> {
        let url = format!("{}/2015-03-31/functions/{name}/invocations", base.trim_end_matches('/'));
        let address: http::Uri = url.parse().map_err(|error| InvokeError(format!("{url}: {error}")))?;
        if address.scheme() != Some(&http::uri::Scheme::HTTP) || address.host().is_none() {
            return Err(InvokeError(format!("{base} is not an http:// URL")));
        }
        Ok(Self { client: Client::builder(TokioExecutor::new()).build_http(), address })
    }

    async fn post(&self, event: &RawValue) -> Result<String, InvokeError> {
        let request = http::Request::post(self.address.clone())
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::copy_from_slice(event.get().as_bytes())))
            .map_err(|error| InvokeError::from_error(&error))?;
        let response = self.client.request(request).await.map_err(|error| InvokeError::from_error(&error))?;
        let status = response.status();
        // Lambda reports a function's error in this header; `cargo lambda watch` returns 500 without it.
        let failed = !status.is_success() || response.headers().contains_key("x-amz-function-error");
        let body = response.into_body().collect().await.map_err(|error| InvokeError::from_error(&error))?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        if failed { Err(InvokeError(format!("{status}: {body}"))) } else { Ok(body) }
    }
}

impl StreamFunction for ServedFunction {
    fn invoke<'a>(&'a self, event: &'a RawValue, _: Invocation) -> LocalBoxFuture<'a, Result<String, InvokeError>> {
        Box::pin(self.post(event))
    }
}
