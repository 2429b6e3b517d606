//! The acceptance tests: one binary, every test on engines of its own.

#![expect(clippy::unwrap_used, reason = "a story that cannot go on is a failed test, in a helper as well")]

mod architecture;
mod archival;
mod cache;
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
mod telemetry;
mod template;
mod users_api;

/// As the functions have it (docs/benchmarks.md): histories are mostly many small things that come and go.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
