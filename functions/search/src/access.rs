//! What each route needs. Default deny: what has no line in [`need`] needs the widest scope.

use axum::http::Method;
use shared::http::caller::Scope;

/// The scope that a request needs; none if it shows nothing of anybody.
pub(crate) fn need(route: &str, method: &Method) -> Option<Scope> {
    match route {
        _ if method == Method::OPTIONS => None,
        // Of its own records alone: the path's user is asked for.
        "/users/{user_id}/summary" if method == Method::GET || method == Method::HEAD => Some(Scope::Read),
        // Over all users.
        _ => Some(Scope::Admin),
    }
}
