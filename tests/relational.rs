//! The PostgreSQL replica, on a real server: every law of a sink, and what is its own.

mod contract;
mod line;
mod setups;
pub(crate) mod store;
mod troubles;
mod values;
