//! Maintenance tasks, for everything that replication through the stream does not cover.
//!
//! - Replicas: filling a new or lost one ([`task::backfill`]), comparing one with its source and repairing it
//!   ([`task::verify`]), processing failed records again ([`task::redrive`]), and creating the tables of the relational
//!   one ([`task::migrate`]).
//! - Archive: merging its objects ([`task::compact`]), converting them to Parquet ([`task::export_parquet`]), restoring
//!   items ([`task::restore`]), exporting them for import as a new table ([`task::export`]), and verifying that no row
//!   is missing ([`task::audit`]).
//!
//! The function runs one JSON task per invocation ([`task`]). Tasks are resumable: an invocation stops before its
//! deadline and returns a cursor, and the next invocation resumes from it. On AWS a state machine invokes the function
//! until the task is done, with a map over the segments; on a single machine, `millrace task` does.
//!
//! Apart from the stream, a replica is written in exactly two ways: only where it has neither an item nor a tombstone
//! (backfill), or by the rule of [`reconcile`], which [`repair`] carries out.

pub mod archive_objects;
pub mod archive_scan;
pub mod catalog;
pub mod config;
pub mod deployment;
pub mod failure_bucket;
pub mod failure_index;
pub mod failure_record;
pub mod handler;
pub mod mapping;
pub mod parquet;
pub mod progress;
pub mod reconcile;
pub mod repair;
pub mod row_versions;
pub mod source;
pub mod task;

pub use config::{AwsClients, connect};
pub use handler::{MaintenanceHandler, TaskError};
