//! What the API answers, on a real engine: stories of records, of conditions, of patches, of lists and of time.

mod batches;
mod conditions;
mod emails;
pub(crate) mod events;
mod expiry;
mod front;
mod idempotency;
mod lists;
mod logs;
mod numbers;
mod outages;
mod patches;
mod records;
mod refusals;
pub(crate) mod service;
mod tokens;
