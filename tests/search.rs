//! Search over rows that the replicator's own sink wrote into a real PostgreSQL.

mod callers;
mod counts;
mod events;
mod model;
mod outages;
mod query_plans;
mod questions;
mod responses;
pub(crate) mod scene;
mod stack;
