//! The words and dialects that Millrace's functions have in common.
//!
//! Words ([`user`], [`revision`], [`change`], [`number`], [`clock`], [`version_fence`], [`folding`], [`invocation`], [`metric`], [`http`]) know nothing
//! of AWS. Dialects
//! ([`stream`], [`item`], [`raw_item`], [`replica_item`]) turn a foreign shape into words and back, without a network. [`checkpoint`] decides;
//! [`table`], [`table_reader`], [`cache`] and [`quarantine`] apply, [`postgres`] is a line to a database and [`iam_token`] its password, or
//! the cache's. [`environment`], [`telemetry`] and [`aws`] are process plumbing, for a
//! function's `main` and `config` alone. Imports point only downwards, in that order from right to left.

pub mod aws;
pub mod cache;
pub mod change;
pub mod checkpoint;
pub mod clock;
pub mod environment;
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
