//! The parts of HTTP requests and responses that the HTTP APIs share, independent of any HTTP library.
//!
//! - The caller and its permissions ([`caller`]).
//! - Canonical paths ([`path`]), query parameters ([`query`]) and percent-encoding ([`percent`]).
//! - Page limits and cursors ([`page_limit`]), and sealed texts that only this service can create ([`cursor_seal`]).
//! - Problem details of error responses ([`problem`]).

pub mod caller;
pub mod cursor_seal;
pub mod page_limit;
pub mod path;
pub mod percent;
pub mod problem;
pub mod query;
