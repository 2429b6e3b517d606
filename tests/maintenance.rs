//! What the operators' tasks do, over the booted stack: the real engines, streams and functions.

mod backfills;
mod redrives;
mod refusals;
mod repairs;
pub(crate) mod scene;
mod stories;
mod troubles;
mod verifications;
