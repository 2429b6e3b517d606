//! An HTTP proxy in front of an engine that injects faults.

use std::convert::Infallible;
use std::future::{pending, ready};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use http::request::Parts;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;

/// The fault that is injected into a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HttpFault {
    /// The engine responds.
    None,
    /// The engine never receives the request; the service returns an error with this status and code.
    Error(u16, &'static str),
    /// The engine executes the request, and the connection is closed before the response is complete.
    ResponseLost,
    /// The engine executes the request, and the connection is closed in the middle of the response body.
    HalfAResponse,
    /// The connection is closed before the engine has received the request.
    CutBefore,
    /// The engine executes the request after this delay, and responds. A plan that sleeps itself would block the
    /// runtime's timers.
    Slow(Duration),
    /// The connection is closed, and the engine executes the request after this delay: a write for which no client
    /// waits any more.
    Zombie(Duration),
    /// The engine executes the request, and the client gets no response.
    Landed,
    /// The engine never receives the request, and the client gets no response.
    Silence,
}

/// The parts of a request that a plan receives.
pub(crate) struct ProxiedCall<'c> {
    /// The HTTP method, e.g. `PUT`.
    pub(crate) method: &'c str,
    /// The path of an S3 request, e.g. `/bucket/key`.
    pub(crate) path: &'c str,
    /// The operation of a DynamoDB request, e.g. `PutItem`.
    pub(crate) operation: &'c str,
    /// The body; empty if it is not UTF-8 text.
    pub(crate) body: &'c str,
}

type FaultPlan = dyn Fn(&ProxiedCall<'_>) -> HttpFault + Send + Sync;
/// A function that returns, for an operation, the future that its request waits for.
type CallOrder = dyn Fn(&str) -> BoxFuture<'static, ()> + Send + Sync;

#[derive(Clone)]
struct FaultProxy {
    engine: String,
    client: Client<HttpConnector, Full<Bytes>>,
    turn: Arc<CallOrder>,
    plan: Arc<FaultPlan>,
}

/// Serves the engine at `engine` with the faults of `plan`, for as long as the runtime lives; returns the URL.
pub(crate) async fn before(
    engine: &str,
    plan: impl Fn(&ProxiedCall<'_>) -> HttpFault + Send + Sync + 'static,
) -> String {
    serve(engine, Arc::new(|_| ready(()).boxed()), Arc::new(plan)).await
}

/// Serves the engine at `engine`; each request first waits for the future that `turn` returns for its operation.
/// Returns the URL.
pub(crate) async fn before_with<F>(engine: &str, turn: impl Fn(&str) -> F + Send + Sync + 'static) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    serve(engine, Arc::new(move |operation| turn(operation).boxed()), Arc::new(|_| HttpFault::None)).await
}

async fn serve(engine: &str, turn: Arc<CallOrder>, plan: Arc<FaultPlan>) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let client = Client::builder(TokioExecutor::new()).build_http();
    let proxy = FaultProxy { engine: engine.to_owned(), client, turn, plan };
    let router = Router::new().fallback(respond).with_state(proxy);
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

async fn respond(State(proxy): State<FaultProxy>, request: Request) -> Result<Response, Infallible> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let target = parts.headers.get("x-amz-target").map_or("", |target| target.to_str().unwrap());
    let call = ProxiedCall {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        operation: target.rsplit('.').next().unwrap(),
        body: std::str::from_utf8(&body).unwrap_or_default(),
    };
    (proxy.turn)(call.operation).await;
    let mishap = (proxy.plan)(&call);
    let of_s3 = call.operation.is_empty();
    Ok(match mishap {
        HttpFault::Silence => pending().await,
        HttpFault::Landed => {
            proxy.forward(parts, body).await;
            pending().await
        }
        HttpFault::CutBefore => cut(),
        HttpFault::Error(status, code) => {
            let body = if of_s3 {
                format!("<Error><Code>{code}</Code><Message>as planned</Message></Error>")
            } else {
                format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","message":"as planned"}}"#)
            };
            http::Response::builder().status(status).body(Body::from(body)).unwrap()
        }
        HttpFault::Zombie(late) => {
            tokio::spawn(async move {
                tokio::time::sleep(late).await;
                proxy.forward(parts, body).await
            });
            cut()
        }
        HttpFault::Slow(time) => {
            tokio::time::sleep(time).await;
            proxy.forward(parts, body).await
        }
        HttpFault::ResponseLost => {
            proxy.forward(parts, body).await;
            cut()
        }
        HttpFault::HalfAResponse => {
            let (head, body) = proxy.forward(parts, body).await.into_parts();
            let body = to_bytes(body, usize::MAX).await.unwrap();
            let half = futures::stream::iter([Ok(body.slice(..body.len() / 2))]);
            let cut = futures::stream::once(async {
                // The data sent so far must reach the client first.
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err(io::Error::other("the line is cut"))
            });
            Response::from_parts(head, Body::from_stream(half.chain(cut)))
        }
        HttpFault::None => proxy.forward(parts, body).await,
    })
}

impl FaultProxy {
    /// Returns the response of the engine.
    async fn forward(&self, parts: Parts, body: Bytes) -> Response {
        let mut forward = http::Request::builder().method(parts.method).uri(format!("{}{}", self.engine, parts.uri));
        *forward.headers_mut().unwrap() = parts.headers;
        self.client.request(forward.body(Full::new(body)).unwrap()).await.unwrap().map(Body::new)
    }
}

/// A response that is truncated: the client sees a closed connection.
fn cut() -> Response {
    let cut = futures::stream::once(async { Err::<Bytes, _>(io::Error::other("the line is cut")) });
    http::Response::new(Body::from_stream(cut))
}
