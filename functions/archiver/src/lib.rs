//! The archiver: writes the items that TTL removed to S3, and acknowledges them once S3 has confirmed.
//!
//! It is triggered by the table's stream, filtered to TTL removals, and knows no users: an item is archived as the
//! bytes that the stream carried. [`archive`] is the pure format, both ways; [`store`] puts objects; [`handler`] is the
//! order of events.
//!
//! Absent: settling. The replicator keeps of each item what a replica would end with; here every removal is a row.

pub mod archive;
pub mod config;
pub mod handler;
pub mod store;

pub use config::connect;
pub use handler::{Archiver, ArchiverError};
