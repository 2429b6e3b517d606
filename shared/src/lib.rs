//! The library that Millrace's functions share.
//!
//! Its modules form layers. A module imports only from its own layer and the layers listed before it, but adapters do
//! not import [`checkpoint`]:
//!
//! - Domain types, which do not depend on AWS: [`user`], [`revision`], [`change`], [`address`], [`number`],
//!   [`clock`], [`version_fence`], [`folding`], [`hash`], [`invocation`], [`metric`], [`error_chain`], [`shell`] and
//!   [`http`].
//! - Codecs, which convert external formats to domain types and back, without network access: [`stream`], [`item`],
//!   [`raw_item`] and [`replica_item`].
//! - Pure computation of the position from which Lambda retries a batch: [`checkpoint`].
//! - Adapters, which do I/O: [`table`], [`table_reader`], [`cache`], [`s3`], [`file`](mod@file), [`quarantine`], [`postgres`]
//!   (a database connection), [`iam_token`] (the password of a database or of the cache) and [`concurrency`] (a limited
//!   number of calls at a time).
//! - Process setup, for a function's `main` and `config` only: [`environment`], [`telemetry`], [`aws`] and
//!   [`runtime`].
//!
//! # Example
//!
//! Parse a batch of a table's stream, and order two changes of one item by their revisions:
//!
//! ```
//! use serde_json::value::RawValue;
//! use millrace_shared::change::ChangeKind;
//! use millrace_shared::stream;
//!
//! let event = r#"{"Records": [
//!   {"eventID": "1", "eventName": "INSERT", "eventSource": "aws:dynamodb", "awsRegion": "eu-west-1",
//!    "eventSourceARN": "arn:aws:dynamodb:eu-west-1:123456789012:table/Users/stream/2026-11-27T09:30:00.000",
//!    "dynamodb": {"SequenceNumber": "100000000000000000001", "StreamViewType": "NEW_AND_OLD_IMAGES",
//!                 "Keys": {"user_id": {"S": "ada"}}, "NewImage": {"user_id": {"S": "ada"}, "name": {"S": "Ada"}}}},
//!   {"eventID": "2", "eventName": "REMOVE", "eventSource": "aws:dynamodb", "awsRegion": "eu-west-1",
//!    "eventSourceARN": "arn:aws:dynamodb:eu-west-1:123456789012:table/Users/stream/2026-11-27T09:30:00.000",
//!    "dynamodb": {"SequenceNumber": "100000000000000000002", "StreamViewType": "NEW_AND_OLD_IMAGES",
//!                 "Keys": {"user_id": {"S": "ada"}}, "OldImage": {"user_id": {"S": "ada"}, "name": {"S": "Ada"}}}}
//! ]}"#;
//! let event: &RawValue = serde_json::from_str(event)?;
//! let batch = stream::read(event)?;
//! let change = |index: usize| batch.records[index].read.as_ref().expect("a well-formed record");
//! let (created, removed) = (change(0), change(1));
//!
//! assert!(matches!(created.effect, ChangeKind::Write { image: Some(_) }));
//! assert_eq!(created.key.canonical(), removed.key.canonical());
//! assert!(created.revision < removed.revision, "a sink applies a change only over a lower revision");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod address;
pub mod aws;
pub mod aws_service;
pub mod cache;
pub mod change;
pub mod checkpoint;
pub mod clock;
pub mod concurrency;
pub mod environment;
pub mod error_chain;
pub mod file;
pub mod folding;
pub mod hash;
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
pub mod runtime;
pub mod s3;
pub mod secrets;
pub mod shell;
pub mod stream;
pub mod table;
pub mod table_reader;
pub mod telemetry;
pub mod transform_record;
pub mod user;
pub mod version_fence;
