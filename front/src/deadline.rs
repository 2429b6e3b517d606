//! Until when a request may work: by the deadline of Lambda's context, or, where there is none, by the function's time.
//!
//! A function that Lambda kills answers nothing, and the next request waits for a new process. So a request is answered
//! before: 503 with the time to come again.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use shared::invocation::RequestBudget;
use tokio::time::{Instant, timeout_at};
use tower::ServiceExt;

use crate::problem::Problem;

/// The request's time.
#[derive(Clone, Copy, Debug)]
pub struct RequestDeadline(pub RequestBudget);

impl<S: Send + Sync> FromRequestParts<S> for RequestDeadline {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let given = parts.extensions.get::<RequestBudget>().copied();
        Ok(Self(given.unwrap_or_else(|| RequestBudget::new(Instant::now(), RequestBudget::DEFAULT))))
    }
}

/// The router as a function of this time, whose requests come without a deadline.
pub fn within(router: Router, time: Duration) -> Router {
    Router::new().fallback_service(router.map_request(move |mut request: Request| {
        request.extensions_mut().get_or_insert_with(|| RequestBudget::new(Instant::now(), time));
        request
    }))
}

/// Answers before the request's time is up, whatever is under way.
///
/// # Errors
/// [`Problem::ServiceUnavailable`] if it is not done by then.
pub async fn limit(mut request: Request, next: Next) -> Result<Response, Problem> {
    let default = || RequestBudget::new(Instant::now(), RequestBudget::DEFAULT);
    let budget = *request.extensions_mut().get_or_insert_with(default);
    let late = |_| Problem::ServiceUnavailable { cause: "the request's deadline has passed".into() };
    timeout_at(budget.answer_by(), next.run(request)).await.map_err(late)
}
