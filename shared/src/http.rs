//! What the HTTP APIs share, without a request in it: who calls and what they may do ([`caller`]), a query's parameters
//! ([`query`]), pages and their cursors ([`page`]), what a failure looks like ([`problem`]), and texts that only this
//! service can have written ([`seal`]).

pub mod caller;
pub mod page;
pub mod problem;
pub mod query;
pub mod seal;
