//! Tests of the API on a real engine: records, conditions, patches, lists and expiry.

mod batches;
mod conditions;
mod emails;
pub(crate) mod events;
mod expiry;
mod http_layer;
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
