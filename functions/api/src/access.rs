//! The scope that each route requires. Deny by default: a route without an entry in [`required_scope`] requires the
//! widest scope.

use axum::http::Method;
use millrace_shared::http::caller::Scope;

/// Returns the scope that a request requires, or `None` if its response contains no user data.
pub(crate) fn required_scope(route: &str, method: &Method) -> Option<Scope> {
    let reads = method == Method::GET || method == Method::HEAD;
    match route {
        _ if method == Method::OPTIONS => None,
        // The last three are served by the search function or disabled, so this function returns no user data for them.
        "/health" | "/openapi.json" | "/search/users" | "/stats/users" | "/users/{user_id}/summary" => None,
        "/users" if method == Method::POST => Some(Scope::Write),
        // The handler reads only the keys of the body that belong to the caller.
        "/users:batchGet" if method == Method::POST => Some(Scope::Read),
        "/users/{user_id}" | "/users/{user_id}/latest" | "/users/{user_id}/{timestamp}" if reads => Some(Scope::Read),
        "/users/{user_id}/{timestamp}" if [Method::PUT, Method::PATCH, Method::DELETE].contains(method) => {
            Some(Scope::Write)
        }
        // Lists over all users, and every route without an entry above.
        _ => Some(Scope::Admin),
    }
}

#[cfg(test)]
mod tests;
