//! Maintenance tasks, for everything that replication through the stream does not cover.
//!
//! - Replicas ([`task::replica`]): filling a new or lost one, comparing one with its source and repairing it,
//!   processing failed records again, and creating the tables of the relational one.
//! - Archive ([`task::archive`]): merging its objects, converting them to Parquet, restoring items, exporting them for
//!   import as a new table, and verifying that no row is missing.
//!
//! The function runs one JSON task per invocation ([`task`]); [`task::registry`] lists all tasks. Tasks are resumable:
//! an invocation stops before its deadline and returns a cursor, and the next invocation resumes from it. On AWS a
//! state machine invokes the function until the task is done, with a map over the segments; on a single machine,
//! `millrace task` does.
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
pub mod lambda_client;
pub mod mapping;
pub mod parquet;
pub mod progress;
pub mod reconcile;
pub mod repair;
pub mod replication_loop;
pub mod row_versions;
pub mod source;
pub mod task;

pub use config::{AwsClients, connect};
pub use handler::MaintenanceHandler;
pub use task::error::{TaskError, TaskErrorKind};
