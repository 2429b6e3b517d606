//! A router as a function: [`serve`].

use axum::Router;
use lambda_http::{Error, Request, RequestExt, service_fn};
use shared::telemetry::Telemetry;
use tower::ServiceExt;

/// Answers what API Gateway sends, one request at a time, until Lambda ends the process. Metrics are flushed with each answer.
///
/// # Errors
/// The Runtime API cannot be asked.
pub async fn serve(app: Router, telemetry: Telemetry) -> Result<(), Error> {
    lambda_http::run(service_fn(move |request: Request| {
        let request_id = request.lambda_context().request_id;
        let answer = app.clone().oneshot(request);
        async move {
            let answer = answer.await;
            telemetry.flush(&request_id);
            answer
        }
    }))
    .await
}
