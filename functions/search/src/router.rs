//! The route table of search; all routes are read-only.

use std::convert::identity;

use axum::Router;
use axum::routing::get;
use millrace_http::auth::AuthLayer;
use millrace_http::base_path::BasePath;
use millrace_http::route::{READ, resource, with_middleware};

use crate::users::{self, SearchState};

/// Returns all routes of search with this state, authentication and base path.
pub(crate) fn routes(search: SearchState, auth_layer: AuthLayer, base: BasePath) -> Router {
    let routes = Router::new()
        .route("/search/users", resource(get(users::find), READ))
        .route("/users/{user_id}/summary", resource(get(users::summary), READ))
        .route("/stats/users", resource(get(users::stats), READ));
    with_middleware(auth_layer, base, identity, routes, search)
}
