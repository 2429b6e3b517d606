//! The scope that each route requires. Deny by default: a route without an entry in [`need`] requires the widest scope.

use axum::http::Method;
use millrace_shared::http::caller::Scope;

/// Returns the scope that a request requires, or `None` if its response contains no user data.
pub(crate) fn need(route: &str, method: &Method) -> Option<Scope> {
    match route {
        _ if method == Method::OPTIONS => None,
        // Only the caller's own records: the path's extractor checks the owner.
        "/users/{user_id}/summary" if method == Method::GET || method == Method::HEAD => Some(Scope::Read),
        // The other routes return data of all users.
        _ => Some(Scope::Admin),
    }
}
