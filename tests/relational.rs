//! Tests of the PostgreSQL replica on a real server: the properties of every sink, and those of this one.

mod added_columns;
pub(crate) mod any_table;
mod contract;
mod fault_tests;
mod load;
mod logins;
mod maintenance_tasks;
mod startup_checks;
pub(crate) mod store;
pub(crate) mod tcp_proxy;
mod token_logins;
mod values;
