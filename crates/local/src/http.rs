//! HTTP server: the API's router, `GET /metrics`, and the API's OpenAPI document as a page at `/docs`, whose renderer
//! (Swagger UI) is compiled into the program.
//!
//! With `--lambda-endpoint`, the API is the one that `cargo lambda watch` serves: requests are forwarded to its function URL.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{StatusCode, Uri, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use millrace_shared::http::path::RequestPath;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use utoipa_swagger_ui::{Config, SwaggerUi};

/// The path prefix under which `cargo lambda watch` serves function URLs; the function's name follows it.
const FUNCTION_URL: &str = "/lambda-url/";

/// The running HTTP server.
pub struct HttpServer {
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

impl HttpServer {
    /// Serves the router and the metrics on `listener`.
    #[must_use]
    pub fn start(listener: TcpListener, api: Router) -> Self {
        let metrics = crate::metrics::prometheus_handle();
        let text = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
        let router = api
            .route("/metrics", get(move || async move { (text, metrics.render()) }))
            .merge(SwaggerUi::new("/docs").config(Config::from("/openapi.json")));
        let (stop, stopped) = oneshot::channel::<()>();
        let server = axum::serve(listener, router).with_graceful_shutdown(async {
            // A dropped sender stops the server as well.
            let _ = stopped.await;
        });
        Self { stop, task: tokio::spawn(async move { server.await }) }
    }

    /// Stops accepting requests; requests in progress have 2 s to finish.
    pub async fn stop(self) {
        // The server may already have ended: there is nothing to stop then.
        let _ = self.stop.send(());
        let moment = std::time::Duration::from_secs(2);
        // Idle connections that clients keep open are closed when the process ends.
        let _ = tokio::time::timeout(moment, self.task).await;
    }
}

/// Returns a router that forwards every request to a function at a base URL.
pub fn proxy(base: &str, function: &str) -> Router {
    let base = format!("{}{FUNCTION_URL}{function}", base.trim_end_matches('/'));
    let client: Client<HttpConnector, Body> = Client::builder(TokioExecutor::new()).build_http();
    Router::new().fallback(move |request: Request| forward(client.clone(), base.clone(), request))
}

async fn forward(client: Client<HttpConnector, Body>, base: String, mut request: Request) -> Response {
    let target: Uri = match target(&base, request.uri()).parse() {
        Ok(target) => target,
        Err(error) => return bad_gateway(&base, &error),
    };
    request.headers_mut().remove(header::HOST);
    *request.uri_mut() = target;
    match client.request(request).await {
        Ok(response) => response.map(Body::new).into_response(),
        Err(error) => bad_gateway(&base, &error),
    }
}

/// Returns the URL that a request is forwarded to. `cargo lambda watch` passes the path to the function as received,
/// and API Gateway passes it decoded, so it is decoded here. A path that is not canonical is passed unchanged, and the
/// function rejects it.
fn target(base: &str, uri: &Uri) -> String {
    let path = RequestPath::from_encoded(uri.path());
    let path = path.as_ref().map_or(uri.path(), RequestPath::as_str);
    match uri.query() {
        Some(query) => format!("{base}{path}?{query}"),
        None => format!("{base}{path}"),
    }
}

fn bad_gateway(base: &str, error: &dyn std::error::Error) -> Response {
    let detail = format!("no response from {base}: {error}: check that cargo lambda watch is running");
    let problem = serde_json::json!({"title": "Bad Gateway", "status": 502, "detail": detail});
    let content = [(header::CONTENT_TYPE, "application/problem+json")];
    (StatusCode::BAD_GATEWAY, content, problem.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_handed_on_decoded_as_api_gateway_does() {
        let of = |uri: &'static str| target("http://f/lambda-url/api", &Uri::from_static(uri));
        for (uri, path) in [
            ("/users/auth0%7Cada/7?fields=name%2Cemail", "/users/auth0|ada/7?fields=name%2Cemail"),
            ("/users/a%2Bb", "/users/a+b"),
            ("/users/a/%2e%2e", "/users/a/%2e%2e"),
            ("/", "/"),
        ] {
            assert_eq!(of(uri), format!("http://f/lambda-url/api{path}"));
            assert!(of(uri).parse::<Uri>().is_ok(), "{uri}");
        }
    }
}
