//! The acceptance tests: one binary, in which every test has its own engines.

#![expect(clippy::unwrap_used, reason = "a story that cannot go on is a failed test, in a helper as well")]

mod architecture;
mod archival;
mod cache;
mod documents;
mod event_source_mapping;
mod faults;
mod guarantees;
mod log_capture;
mod maintenance;
mod postgres;
mod relational;
mod replication;
mod repository;
mod search;
mod simulation;
mod sink_contract;
mod table_shape;
mod telemetry;
mod template;
mod users_api;

/// The allocator of the functions (docs/benchmarks.md): the simulations mostly make many small, short-lived
/// allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
