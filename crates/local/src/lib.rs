//! Local stack: Millrace on one machine. [`stack::LocalStack`] starts all of it, from the embedded engines to the
//! functions.
//!
//! [`template`] reads the deployment template that describes the stack, and [`table_description`] the description of a
//! table that exists. [`dynamodb`] and [`s3`] are embedded engines, and [`clients`] contains the official SDK clients that
//! are configured for them. [`postgres`] and [`cache`] start the servers of the optional [`tier`]s, each on a [`port`] of
//! its own; [`child_program`] reports why one did not start. [`millrace_event_source_mapping`] simulates Lambda's event
//! source mappings, and [`ttl_sweeper`] simulates DynamoDB's TTL. [`http`] serves the API together with [`metrics`] and
//! [`lambda`], behind the authorizer in [`token`].
//! [`observer`] records what each change did in each replica, and [`fault_switches`] breaks parts on demand.
//! [`import`] fills a table from files, [`task`] runs a maintenance task to its end, and [`env_file`] writes the functions'
//! environment for `cargo lambda watch`.
//!
//! This crate may depend on every other crate of the workspace; only the command line, the acceptance tests and the
//! benchmarks depend on it.

pub mod cache;
pub mod child_program;
pub mod clients;
pub mod dynamodb;
pub mod env_file;
pub mod fault_switches;
pub mod http;
pub mod import;
pub mod lambda;
pub mod metrics;
pub mod observer;
pub mod port;
pub mod postgres;
pub mod s3;
mod serve;
pub mod stack;
pub mod table_description;
pub mod task;
pub mod template;
pub mod tier;
pub mod token;
pub mod ttl_sweeper;
