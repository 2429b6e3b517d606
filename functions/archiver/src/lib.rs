//! The archiver: writes the items that TTL removed to S3, and acknowledges them once S3 has confirmed the write.
//!
//! It is invoked by the table's stream, filtered to TTL removals, and does not know the user record: an item is
//! archived as the bytes that the stream carried. [`millrace_archive`] contains the format and the store;
//! [`handler`] processes a batch.
//!
//! Not included: deduplication by key. The replicator reduces a batch to the latest change of each item; here every
//! removal is a row.

pub mod config;
pub mod handler;

pub use config::connect;
pub use handler::{ArchiverError, ArchiverHandler};
