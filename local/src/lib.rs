//! Millrace on one machine: [`stack::LocalStack`] boots everything, from embedded engines to functions.
//!
//! [`template`] reads what to run. [`dynamodb`] and [`s3`] are the engines, [`clients`] the official SDKs pointed at
//! them, [`postgres`] and [`cache`] the servers of the optional [`tier`]s, each on a [`port`] of its own. [`event_source_mapping`] is Lambda's event source mapping in small, [`ttl_sweeper`] its TTL sweeper, [`http`] the front with
//! [`metrics`] and [`lambda`] beside it and [`token`]'s authorizer before it. [`options`] is the command line, which
//! [`banner`], [`env_file`], [`task`] and [`demo`] belong to.
//! Sees every other crate of the workspace; only the acceptance tests see it.

pub mod banner;
pub mod cache;
pub mod clients;
pub mod demo;
pub mod dynamodb;
pub mod env_file;
pub mod event_source_mapping;
pub mod http;
pub mod lambda;
pub mod metrics;
pub mod options;
pub mod port;
pub mod postgres;
pub mod s3;
mod serve;
pub mod stack;
pub mod task;
pub mod template;
pub mod tier;
pub mod token;
pub mod ttl_sweeper;
