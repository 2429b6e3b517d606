//! Tests of the PostgreSQL replica on a real server: the properties of every sink, and those of this one.

mod contract;
pub(crate) mod line;
mod load;
mod logins;
mod maintenance_tasks;
mod startup_checks;
pub(crate) mod store;
mod troubles;
mod values;
