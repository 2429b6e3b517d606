//! What each route needs. Default deny: what has no line in [`required_scope`] needs the widest scope.

use axum::http::Method;
use shared::http::caller::Scope;

/// The scope that a request needs; none if it shows nothing of anybody.
pub(crate) fn required_scope(route: &str, method: &Method) -> Option<Scope> {
    let reads = method == Method::GET || method == Method::HEAD;
    match route {
        _ if method == Method::OPTIONS => None,
        // The last three are answered by search, or off: nothing is shown here of anybody.
        "/health" | "/openapi.json" | "/search/users" | "/stats/users" | "/users/{user_id}/summary" => None,
        "/users" if method == Method::POST => Some(Scope::Write),
        // Of the keys in its body, the handler asks for the caller's own.
        "/users:batchGet" if method == Method::POST => Some(Scope::Read),
        "/users/{user_id}" | "/users/{user_id}/latest" | "/users/{user_id}/{timestamp}" if reads => Some(Scope::Read),
        "/users/{user_id}/{timestamp}" if [Method::PUT, Method::PATCH, Method::DELETE].contains(method) => {
            Some(Scope::Write)
        }
        // Lists over all users, and whatever is new here.
        _ => Some(Scope::Admin),
    }
}

#[cfg(test)]
mod tests;
