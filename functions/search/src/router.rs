//! The route table of search, whose routes are all read-only, and the scope that each route requires.

use std::convert::identity;

use axum::Router;
use axum::http::Method;
use axum::routing::get;
use millrace_http::auth::AuthLayer;
use millrace_http::base_path::BasePath;
use millrace_http::route::{READ, resource, with_middleware};
use millrace_shared::http::caller::Scope;

use crate::users::{self, SearchState};

/// Returns all routes of search with this state, authentication and base path.
pub(crate) fn routes(search: SearchState, auth_layer: AuthLayer, base: BasePath) -> Router {
    let routes = Router::new()
        .route("/search/users", resource(get(users::find), READ))
        .route("/users/{user_id}/summary", resource(get(users::summary), READ))
        .route("/stats/users", resource(get(users::stats), READ));
    with_middleware(auth_layer, base, identity, routes, search)
}

/// Returns the scope that a request requires, or `None` if its response contains no user data. Access is denied by
/// default: a route without an entry here requires the widest scope.
pub(crate) fn required_scope(route: &str, method: &Method) -> Option<Scope> {
    match route {
        _ if method == Method::OPTIONS => None,
        // Only the caller's own records: the path's extractor checks the owner.
        "/users/{user_id}/summary" if method == Method::GET || method == Method::HEAD => Some(Scope::Read),
        // The other routes return data of all users.
        _ => Some(Scope::Admin),
    }
}
