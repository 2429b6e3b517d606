//! Puts right what happened outside the promise: a replica that is new or lost ([`task::backfill`]), one that may differ
//! ([`task::verify`], which also repairs), records that failed ([`task::redrive`]); and
//! makes the archive usable: its objects are merged ([`task::compact`]) and written as columns
//! ([`task::columns`]), items are brought back ([`task::restore`]) or
//! made a new table of ([`task::export`]), and that none is missing is proven ([`task::audit`]).
//!
//! One function, one JSON task an invocation ([`task`]), resumable: it stops before its deadline and is called again with
//! the cursor that it answered. A state machine does that on AWS, with a map over segments; `local task` on one machine.
//!
//! A replica is written in two ways beside its stream, and no third: over nothing, or by the rule of [`reconcile`], which
//! [`mend`] carries out.

pub mod archived;
pub mod catalog;
pub mod columns;
pub mod config;
pub mod deployment;
pub mod facts;
pub mod failure;
pub mod failure_bucket;
pub mod handler;
pub mod mapping;
pub mod mend;
pub mod outstanding;
pub mod progress;
pub mod reconcile;
pub mod source;
pub mod sweep;
pub mod task;

pub use config::{AwsClients, connect};
pub use handler::{MaintenanceHandler, TaskError};
