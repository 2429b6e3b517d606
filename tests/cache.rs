//! Tests of the cache on a real server, on its own and in front of the table.

pub(crate) mod api_suite;
mod cache_aside;
mod cache_model;
mod connection_faults;
mod limit;
mod load;
mod model_check;
mod proxy;
pub(crate) mod servers;
mod sink;
mod token_logins;
mod writes;
