//! Lambda Runtime API, limited to the operations that a function's runtime calls:
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Router, response::IntoResponse};
use tokio::sync::{Mutex, mpsc};

/// The timeout of an invocation, which is also the deadline that the function receives.
const TIMEOUT: Duration = Duration::from_mins(1);

struct ApiState {
    events: Mutex<mpsc::Receiver<Bytes>>,
    responses: mpsc::Sender<Result<Bytes, String>>,
}

/// The Runtime API of one function.
pub(crate) struct RuntimeApi {
    /// The value of `AWS_LAMBDA_RUNTIME_API`.
    pub(crate) address: String,
    events: mpsc::Sender<Bytes>,
    responses: mpsc::Receiver<Result<Bytes, String>>,
}

impl RuntimeApi {
    /// Serves the Runtime API on a free port of the loopback interface.
    pub(crate) async fn serve() -> std::io::Result<Self> {
        let (events, events_received) = mpsc::channel(1);
        let (responses_sent, responses) = mpsc::channel(1);
        let shared = Arc::new(ApiState { events: Mutex::new(events_received), responses: responses_sent });
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/{outcome}", post(respond))
            .with_state(shared);
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?.to_string();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, events, responses })
    }

    /// Invokes the function and waits for its response.
    pub(crate) async fn invoke(&mut self, event: Bytes) -> Result<Bytes, String> {
        self.events.send(event).await.map_err(|error| error.to_string())?;
        let response = tokio::time::timeout(TIMEOUT, self.responses.recv()).await;
        response.map_err(|_| format!("the function did not respond within {TIMEOUT:?}"))?.ok_or("no response")?
    }
}

async fn next(State(shared): State<Arc<ApiState>>) -> impl IntoResponse {
    let Some(event) = shared.events.lock().await.recv().await else {
        // The benchmark is about to stop the process. Any response without an event would make it fail before.
        return std::future::pending().await;
    };
    let deadline = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default() + TIMEOUT;
    let headers = [
        ("lambda-runtime-aws-request-id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd".to_owned()),
        ("lambda-runtime-deadline-ms", deadline.as_millis().to_string()),
        ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:eu-west-1:123456789012:function:bench".to_owned()),
        ("content-type", "application/json".to_owned()),
    ];
    (headers, event).into_response()
}

async fn respond(
    State(shared): State<Arc<ApiState>>,
    Path((_, outcome)): Path<(String, String)>,
    body: Bytes,
) -> StatusCode {
    let response = match outcome.as_str() {
        "response" => Ok(body),
        _ => Err(format!("the function failed: {}", String::from_utf8_lossy(&body))),
    };
    // The receiver is only dropped at the end of the benchmark.
    let _ = shared.responses.send(response).await;
    StatusCode::ACCEPTED
}
