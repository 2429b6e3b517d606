//! API client of the demo.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::DemoError;
use super::item::summarize_json;

pub(super) struct ApiClient {
    base: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// A response together with its request.
pub(super) struct ApiResponse {
    pub(super) request: String,
    pub(super) status: u16,
    pub(super) body: String,
}

impl ApiClient {
    pub(super) fn new(base: &str) -> Self {
        Self { base: base.to_owned(), client: Client::builder(TokioExecutor::new()).build_http() }
    }

    pub(super) async fn send(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        body: &str,
    ) -> Result<ApiResponse, DemoError> {
        let failed = |error: &dyn std::error::Error| DemoError::Api(error.to_string());
        let request = http::Request::builder().method(method).uri(format!("{}{path}", self.base));
        let request = if body.is_empty() { request } else { request.header(CONTENT_TYPE, kind) };
        let request =
            request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).map_err(|error| failed(&error))?;
        let response = self.client.request(request).await.map_err(|error| failed(&error))?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|error| failed(&error))?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(ApiResponse { request: format!("{method} {path}"), status, body })
    }
}

#[derive(Deserialize)]
struct WithUser<'a> {
    #[serde(borrow)]
    user: &'a RawValue,
}

#[derive(Deserialize)]
struct ProblemBody {
    title: String,
    detail: String,
}

impl ApiResponse {
    /// Returns the status, and the user or the problem, as text.
    pub(super) fn describe(&self) -> String {
        let description = if let Ok(WithUser { user }) = serde_json::from_str(&self.body) {
            summarize_json(user.get())
        } else if let Ok(ProblemBody { title, detail }) = serde_json::from_str(&self.body) {
            format!("{title}: {detail}")
        } else {
            self.body.clone()
        };
        format!("{} {description}", self.status).trim_end().to_owned()
    }

    fn user(&self) -> Option<Value> {
        serde_json::from_str::<Value>(&self.body).ok()?.get("user").cloned()
    }

    /// Returns the timestamp of the user in the response, which is the sort key; 0 without a user, which then fails a
    /// check.
    pub(super) fn timestamp(&self) -> i64 {
        self.user().and_then(|user| user.get("timestamp")?.as_i64()).unwrap_or(0)
    }

    /// Returns the URL path of the record in the response.
    pub(super) fn path(&self, user_id: &str) -> String {
        format!("/users/{user_id}/{}", self.timestamp())
    }
}
