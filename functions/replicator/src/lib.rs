//! Applies every change of a table's stream to the replicas, under a single rule, the revision guard: a change is
//! applied only if the replica has no revision under the key, or a lower one.
//!
//! [`handler`] parses a batch, has [`deduplicate`] select the changes to apply, passes them to every [`sink`]
//! concurrently, quarantines the records that can never be applied, and returns the lowest position that a replica may
//! lack. The data model of the items does not matter here: keys come from the record, images stay undecoded.

pub mod config;
pub mod confirmed;
pub mod deduplicate;
pub mod handler;
pub mod sink;

pub use config::connect;
pub use handler::{ReplicatorError, ReplicatorHandler};
