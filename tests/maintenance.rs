//! Tests of the maintenance tasks on the local stack: real engines, streams and functions.

mod archive_sink;
mod audits;
mod backfills;
mod columns;
mod compactions;
mod emails;
mod end_to_end;
mod exports;
mod failures;
mod fault_tests;
mod foreign_tables;
mod interruptions;
mod item_lifecycle;
mod key_shapes;
mod masking;
mod predictions;
mod redrives;
mod refusals;
mod repairs;
pub(crate) mod replicas;
mod restores;
pub(crate) mod scene;
mod sinks;
pub(crate) mod transforms;
mod uploads;
mod verifications;
