//! The deadline of a request: that of the Lambda context or, without one, the function's timeout.
//!
//! A function that Lambda terminates returns nothing, and the next request waits for a new process. Therefore a request
//! is answered before its deadline: 503 with the time after which to retry.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::response::Response;
use millrace_shared::invocation::RequestBudget;
use tokio::time::{Instant, timeout_at};
use tower::ServiceExt;

use crate::problem::Problem;

/// Extractor of the request's time budget.
#[derive(Clone, Copy, Debug)]
pub struct RequestDeadline(pub RequestBudget);

impl<S: Send + Sync> FromRequestParts<S> for RequestDeadline {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let given = parts.extensions.get::<RequestBudget>().copied();
        Ok(Self(given.unwrap_or_else(|| RequestBudget::new(Instant::now(), RequestBudget::DEFAULT))))
    }
}

/// Returns the router of a function with this timeout, for requests that carry no deadline.
pub fn within(router: Router, time: Duration) -> Router {
    Router::new().fallback_service(router.map_request(move |mut request: Request| {
        request.extensions_mut().get_or_insert_with(|| RequestBudget::new(Instant::now(), time));
        request
    }))
}

/// Returns the request's time budget, which is the default if it has none.
pub(crate) fn budget(request: &mut Request) -> RequestBudget {
    let default = || RequestBudget::new(Instant::now(), RequestBudget::DEFAULT);
    *request.extensions_mut().get_or_insert_with(default)
}

/// Responds before the request's deadline, even if the handler is not done.
///
/// # Errors
/// [`Problem::ServiceUnavailable`] if the handler is not done by then.
pub(crate) async fn limit(
    budget: RequestBudget,
    handling: impl Future<Output = Result<Response, Problem>>,
) -> Result<Response, Problem> {
    let late = |_| Problem::ServiceUnavailable { cause: "the request's deadline has passed".into() };
    timeout_at(budget.respond_by(), handling).await.map_err(late).flatten()
}
