//! The library that Millrace's functions share.
//!
//! Its modules form layers. A module imports only from its own layer and the layers listed before it:
//!
//! - Domain types, which do not depend on AWS: [`user`], [`revision`], [`change`], [`number`], [`clock`],
//!   [`version_fence`], [`folding`], [`invocation`], [`metric`] and [`http`].
//! - Codecs, which convert external formats to domain types and back, without network access: [`stream`], [`item`],
//!   [`raw_item`] and [`replica_item`].
//! - Pure computation of the position from which Lambda retries a batch: [`checkpoint`].
//! - Adapters, which do I/O: [`table`], [`table_reader`], [`cache`], [`quarantine`], [`postgres`] (a database
//!   connection) and [`iam_token`] (the password of a database or of the cache).
//! - Process setup, for a function's `main` and `config` only: [`environment`], [`telemetry`] and [`aws`].

pub mod aws;
pub mod cache;
pub mod change;
pub mod checkpoint;
pub mod clock;
pub mod environment;
pub mod error_chain;
pub mod folding;
pub mod http;
pub mod iam_token;
pub mod invocation;
pub mod item;
pub mod metric;
pub mod number;
pub mod postgres;
pub mod quarantine;
pub mod raw_item;
pub mod replica_item;
pub mod revision;
pub mod stream;
pub mod table;
pub mod table_reader;
pub mod telemetry;
pub mod user;
pub mod version_fence;
