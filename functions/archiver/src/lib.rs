//! The archiver: writes the items that TTL removed to S3, and acknowledges them once S3 has confirmed the write.
//!
//! It is invoked by the table's stream, filtered to TTL removals, and does not know the user record: an item is
//! archived as the bytes that the stream carried. [`archive`] is the pure format (encoding and decoding), [`store`]
//! accesses the bucket, and [`handler`] processes a batch.
//!
//! Not included: deduplication by key. The replicator reduces a batch to the latest change of each item; here every
//! removal is a row.

pub mod archive;
pub mod config;
pub mod handler;
pub mod store;

pub use config::connect;
pub use handler::{ArchiverError, ArchiverHandler};
