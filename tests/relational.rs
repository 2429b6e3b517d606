//! The PostgreSQL replica, on a real server: every law of a sink, and what is its own.

mod contract;
pub(crate) mod line;
mod load;
mod logins;
mod setups;
pub(crate) mod store;
mod troubles;
mod upkeep;
mod values;
