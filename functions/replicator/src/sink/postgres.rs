//! The PostgreSQL replica: its tables ([`migrate`]).

mod migrations;

pub use migrations::{Unmigrated, migrate, pending};
