//! The HTTP front: the API's own router, and beside it `GET /metrics` and, at `/docs`, the API's contract as a page, whose
//! renderer comes with the program.
//!
//! With `--functions` the API is the one that `cargo lambda watch` serves: requests are handed on to its function URL.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{StatusCode, Uri, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use utoipa_swagger_ui::{Config, SwaggerUi};

/// Where `cargo lambda watch` serves a function's URL, before the function's name.
const FUNCTION_URL: &str = "/lambda-url/";

/// The running front.
pub struct Front {
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Front {
    /// Serves the router and the metrics.
    #[must_use]
    pub fn start(listener: TcpListener, api: Router) -> Self {
        let metrics = crate::metrics::recorded();
        let text = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
        let router = api
            .route("/metrics", get(move || async move { (text, metrics.render()) }))
            .merge(SwaggerUi::new("/docs").config(Config::from("/openapi.json")));
        let (stop, stopped) = oneshot::channel::<()>();
        let server = axum::serve(listener, router).with_graceful_shutdown(async {
            // A front that was dropped is one to stop.
            let _ = stopped.await;
        });
        Self { stop, task: tokio::spawn(async move { server.await }) }
    }

    /// Takes no more requests; those under way have a moment to finish.
    pub async fn stop(self) {
        // It may have ended by itself.
        let _ = self.stop.send(());
        let moment = std::time::Duration::from_secs(2);
        // Idle connections that clients keep open end with the process.
        let _ = tokio::time::timeout(moment, self.task).await;
    }
}

/// A router that hands every request on to a function at a base URL.
pub fn proxy(base: &str, function: &str) -> Router {
    let base = format!("{}{FUNCTION_URL}{function}", base.trim_end_matches('/'));
    let client: Client<HttpConnector, Body> = Client::builder(TokioExecutor::new()).build_http();
    Router::new().fallback(move |request: Request| forward(client.clone(), base.clone(), request))
}

async fn forward(client: Client<HttpConnector, Body>, base: String, mut request: Request) -> Response {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let target: Uri = match format!("{base}{path}").parse() {
        Ok(target) => target,
        Err(error) => return gone_wrong(&base, &error),
    };
    request.headers_mut().remove(header::HOST);
    *request.uri_mut() = target;
    match client.request(request).await {
        Ok(response) => response.map(Body::new).into_response(),
        Err(error) => gone_wrong(&base, &error),
    }
}

fn gone_wrong(base: &str, error: &dyn std::error::Error) -> Response {
    let detail = format!("no answer from {base}: {error}: is cargo lambda watch running there?");
    let problem = serde_json::json!({"title": "Bad Gateway", "status": 502, "detail": detail});
    let content = [(header::CONTENT_TYPE, "application/problem+json")];
    (StatusCode::BAD_GATEWAY, content, problem.to_string()).into_response()
}
