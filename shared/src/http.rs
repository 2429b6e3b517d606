//! What the HTTP APIs share, without a request in it: who calls and what they may do ([`caller`]), a path's one form
//! ([`path`]), a query's parameters ([`query`]), percent-encoding ([`percent`]), pages and their cursors ([`page`]), what a failure looks like ([`problem`]), and texts that only this
//! service can have written ([`seal`]).

pub mod caller;
pub mod page;
pub mod path;
pub mod percent;
pub mod problem;
pub mod query;
pub mod seal;
