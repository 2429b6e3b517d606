//! Tasks on the replicas: fill, compare, repair, process failed records again, and create the tables of the relational
//! replica.

pub mod backfill;
pub mod migrate;
pub mod redrive;
pub mod repair;
pub mod verify;
