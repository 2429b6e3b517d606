//! The URI that routes are matched against: a canonical path ([`RequestPath`]) and the unmodified query. The same rule
//! applies to requests from a Lambda payload and from a connection.

use axum::extract::{MatchedPath, Request};
use axum::http::Uri;
use millrace_shared::http::path::{PathError, RequestPath, is_route};

use crate::gateway::{CanonicalUri, GatewayContext};
use crate::problem::Problem;

/// Returns the URI of this path and this query.
///
/// # Errors
/// [`PathError::TooLong`] if they are too long together.
pub fn uri(path: &RequestPath, query: Option<&str>) -> Result<Uri, PathError> {
    // The length is the only possible error, because all special characters are escaped.
    Uri::try_from(path.uri(query)).map_err(|_| PathError::TooLong)
}

/// Converts the path of a request from a connection to its canonical form. If the path has none, the request gets the
/// root path and the [`PathError`], which `refuse` returns. Idempotent. The URI of an event is canonical already.
pub fn canonical(mut request: Request) -> Request {
    let extensions = request.extensions();
    if extensions.get::<CanonicalUri>().is_some() || extensions.get::<PathError>().is_some() {
        return request;
    }
    let found = RequestPath::from_encoded(request.uri().path()).and_then(|path| uri(&path, request.uri().query()));
    put(&mut request, found);
    request
}

/// Sets the request's URI, or attaches the error if there is none.
pub(crate) fn put<B>(request: &mut axum::http::Request<B>, found: Result<Uri, PathError>) {
    *request.uri_mut() = found.unwrap_or_else(|error| {
        request.extensions_mut().insert(error);
        Uri::from_static("/")
    });
}

/// Rejects a path that is not canonical, and a route other than the one that API Gateway authorized, so that an IAM
/// policy by path allows or denies exactly the paths that it names.
///
/// # Errors
/// [`Problem::InvalidPath`]
pub(crate) fn refuse(request: &Request) -> Result<(), Problem> {
    let extensions = request.extensions();
    if let Some(error) = extensions.get::<PathError>() {
        return Err(Problem::InvalidPath { error: error.clone() });
    }
    if let (Some(context), Some(matched)) = (extensions.get::<GatewayContext>(), extensions.get::<MatchedPath>())
        && let Some(authorized) = context.route_key.as_deref()
        && !is_route(authorized, matched.as_str())
    {
        return Err(Problem::InvalidPath { error: PathError::OtherRoute(authorized.to_owned()) });
    }
    Ok(())
}
