//! What the operators' tasks do, over the booted stack: the real engines, streams and functions.

mod addresses;
mod audits;
mod backfills;
mod columns;
mod compactions;
mod exports;
mod failures;
mod interruptions;
mod lives;
mod predictions;
mod redrives;
mod refusals;
mod repairs;
mod restores;
pub(crate) mod scene;
mod sinks;
mod stories;
mod troubles;
mod uploads;
mod verifications;
