//! What the HTTP APIs share, without a request in it: who calls and what they may do ([`caller`]), and texts that only
//! this service can have written ([`seal`]).

pub mod caller;
pub mod seal;
