//! The URI that routes are matched by: a canonical path ([`RequestPath`]) and the query as it came. Whoever made the request
//! of the payload or the connection, the rule is the one of this module.

use axum::extract::{MatchedPath, Request};
use axum::http::Uri;
use axum::middleware::Next;
use axum::response::Response;
use lambda_http::RequestExt;
use lambda_http::request::RequestContext;
use shared::http::path::{PathError, RequestPath, is_route};

use crate::problem::Problem;

/// A URI of this path and this query.
///
/// # Errors
/// They are too long together.
pub fn uri(path: &RequestPath, query: Option<&str>) -> Result<Uri, PathError> {
    // Nothing else can be wrong with it: every other character is escaped.
    Uri::try_from(path.uri(query)).map_err(|_| PathError::TooLong)
}

/// Brings the path of a request from a connection into its canonical form. A request whose path has none goes on with the
/// root's and its [`PathError`], for [`refuse`]. A second time it changes nothing.
pub fn canonical(mut request: Request) -> Request {
    let extensions = request.extensions();
    if extensions.get::<PathError>().is_some() {
        return request;
    }
    let found = RequestPath::from_encoded(request.uri().path()).and_then(|path| uri(&path, request.uri().query()));
    put(&mut request, found);
    request
}

/// Gives the request its URI, or the reason why it has none.
pub(crate) fn put<B>(request: &mut axum::http::Request<B>, found: Result<Uri, PathError>) {
    *request.uri_mut() = found.unwrap_or_else(|error| {
        request.extensions_mut().insert(error);
        Uri::from_static("/")
    });
}

/// Refuses a path that is not canonical, and a route that is not the one that API Gateway authorized: a policy by path
/// allows or denies what it says and nothing else.
///
/// # Errors
/// [`Problem::InvalidPath`]
pub async fn refuse(request: Request, next: Next) -> Result<Response, Problem> {
    if let Some(error) = request.extensions().get::<PathError>() {
        return Err(Problem::InvalidPath { error: error.clone() });
    }
    let matched = request.extensions().get::<MatchedPath>();
    if let (Some(RequestContext::ApiGatewayV2(context)), Some(matched)) = (request.request_context_ref(), matched)
        && let Some(authorized) = context.route_key.as_deref()
        && !is_route(authorized, matched.as_str())
    {
        return Err(Problem::InvalidPath { error: PathError::OtherRoute(authorized.to_owned()) });
    }
    Ok(next.run(request).await)
}
