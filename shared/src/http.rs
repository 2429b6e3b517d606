//! What the HTTP APIs share, without a request in it: who calls and what they may do ([`caller`]), a path's one form
//! ([`path`]), a query's parameters ([`query`]), percent-encoding ([`percent`]), pages and their cursors ([`page_limit`]), what a failure looks like ([`problem`]), and texts that only this
//! service can have written ([`cursor_seal`]).

pub mod caller;
pub mod cursor_seal;
pub mod page_limit;
pub mod path;
pub mod percent;
pub mod problem;
pub mod query;
