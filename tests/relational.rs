//! The PostgreSQL replica, on a real server: every law of a sink, and what is its own.

mod contract;
pub(crate) mod line;
mod load;
mod logins;
mod maintenance_tasks;
mod startup_checks;
pub(crate) mod store;
mod troubles;
mod values;
