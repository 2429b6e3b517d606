//! Puts right what happened outside the promise: a replica that is new or lost ([`task::backfill`]), one that may differ
//! ([`task::verify`], which also repairs), records that failed ([`task::redrive`]); and
//! makes the archive usable: its objects are merged ([`task::compact`]) and written as columns
//! ([`task::export_parquet`]), items are brought back ([`task::restore`]) or
//! made a new table of ([`task::export`]), and that none is missing is proven ([`task::audit`]).
//!
//! One function, one JSON task an invocation ([`task`]), resumable: it stops before its deadline and is called again with
//! the cursor that it answered. A state machine does that on AWS, with a map over segments; `local task` on one machine.
//!
//! A replica is written in two ways beside its stream, and no third: over nothing, or by the rule of [`reconcile`], which
//! [`repair`] carries out.

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
