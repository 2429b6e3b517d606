//! The HTTP layer that Millrace's HTTP functions share: authorization ([`auth`]), deadlines ([`deadline`]), common
//! response headers, logs and metrics ([`request_telemetry`]), problem details ([`problem`]), the parsing and
//! construction of requests and responses ([`uri`], [`route`], [`path`], [`response`]), API Gateway's events
//! ([`gateway`]), the Lambda adapter ([`lambda`]) and the prefixes of a path ([`base_path`]).
//!
//! It knows records and callers, but defines no routes.
//!
//! # Example
//!
//! Handle two events of API Gateway with the same middleware as the API and search. The caller reads its own record; a
//! record of another user does not exist for it:
//!
//! ```
//! use std::convert::identity;
//!
//! use axum::Router;
//! use axum::body::to_bytes;
//! use axum::http::StatusCode;
//! use axum::routing::get;
//! use millrace_http::auth::AuthLayer;
//! use millrace_http::base_path::BasePath;
//! use millrace_http::lambda;
//! use millrace_http::path::UserIdPath;
//! use millrace_http::route::{READ, resource, with_middleware};
//! use millrace_shared::clock::Clock;
//! use millrace_shared::http::caller::{AuthMode, Scope, ScopeMapping};
//! use serde_json::{Value, json};
//! use tower::ServiceExt;
//!
//! async fn greeting(UserIdPath(id): UserIdPath) -> String {
//!     format!("hello, {id}")
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let auth_layer = AuthLayer {
//!     auth: AuthMode::Jwt,
//!     scopes: ScopeMapping::default(),
//!     clock: Clock::system(),
//!     required_scope: |_route, _method| Some(Scope::Read),
//! };
//! let routes = Router::new().route("/users/{user_id}", resource(get(greeting), READ));
//! let app = with_middleware(auth_layer, BasePath::parse("/v1")?, identity, routes, ());
//!
//! // The payload that API Gateway passes to the function for a request with the token of the user `ada`.
//! let event = |path: &str| {
//!     json!({
//!         "version": "2.0", "routeKey": "GET /users/{user_id}", "rawPath": path, "rawQueryString": "",
//!         "headers": {}, "isBase64Encoded": false,
//!         "requestContext": {
//!             "stage": "$default", "timeEpoch": 0, "routeKey": "GET /users/{user_id}",
//!             "authorizer": {"jwt": {"claims": {"sub": "ada", "scope": "users:read"}, "scopes": null}},
//!             "http": {"method": "GET", "path": path, "protocol": "HTTP/1.1", "sourceIp": "203.0.113.7",
//!                      "userAgent": ""},
//!         },
//!     })
//! };
//!
//! let response = app.clone().oneshot(lambda::request(serde_json::from_value(event("/v1/users/ada"))?)).await?;
//! assert_eq!(response.status(), StatusCode::OK);
//! assert_eq!(response.headers()["cache-control"], "no-store");
//! assert_eq!(to_bytes(response.into_body(), 1024).await?, "hello, ada");
//!
//! let response = app.oneshot(lambda::request(serde_json::from_value(event("/v1/users/eve"))?)).await?;
//! assert_eq!(response.status(), StatusCode::NOT_FOUND);
//! assert_eq!(response.headers()["content-type"], "application/problem+json");
//! let problem: Value = serde_json::from_slice(&to_bytes(response.into_body(), 1024).await?)?;
//! assert_eq!(problem["type"], "urn:millrace:problem:not-found");
//! # Ok(())
//! # }
//! ```

pub mod auth;
pub mod base_path;
pub mod deadline;
pub mod gateway;
pub mod lambda;
pub mod path;
pub mod problem;
pub mod request_telemetry;
pub mod response;
pub mod route;
pub mod uri;
