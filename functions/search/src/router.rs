//! The routes, all of them only read.

use axum::Router;
use axum::routing::get;
use front::door::Door;
use front::route::{READ, behind, resource};

use crate::users::{self, Search};

/// Every route of search, behind this door.
pub(crate) fn routes(search: Search, door: Door) -> Router {
    let routes = Router::new()
        .route("/search/users", resource(get(users::find), READ))
        .route("/users/{user_id}/summary", resource(get(users::summary), READ))
        .route("/stats/users", resource(get(users::stats), READ));
    behind(door, routes, search)
}
