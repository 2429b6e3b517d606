//! Search, over rows that the replicator's own sink wrote into a real PostgreSQL.

mod answers;
mod callers;
mod model;
mod outages;
mod plans;
mod questions;
mod scene;
mod stack;
