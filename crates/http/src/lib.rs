//! The HTTP layer that Millrace's HTTP functions share: authorization ([`auth`]), deadlines ([`deadline`]), common
//! response headers, logs and metrics ([`request_telemetry`]), problem details ([`problem`]), the parsing and
//! construction of requests and responses ([`uri`], [`route`], [`path`], [`response`]), the Lambda adapter ([`lambda`])
//! and the prefixes of a path ([`base_path`]).
//!
//! It knows records and callers, but defines no routes.

pub mod auth;
pub mod base_path;
pub mod deadline;
pub mod lambda;
pub mod path;
pub mod problem;
pub mod request_telemetry;
pub mod response;
pub mod route;
pub mod uri;
