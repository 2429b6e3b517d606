//! Applies every change of a table's stream to the replicas, under a single rule, the revision guard: a change is
//! applied only if the replica has no revision under the key, or a lower one.
//!
//! [`handler`] parses a batch, has [`deduplicate`] select the changes to apply, passes them to every [sink](millrace_sinks)
//! concurrently, quarantines the records that can never be applied, and returns the lowest position that a replica may
//! lack. It is independent of the data model of the items: keys come from the record, and images are not decoded.
//!
//! # Example
//!
//! Of several changes of one item in a batch, only the one with the highest revision is applied:
//!
//! ```
//! use millrace_replicator::deduplicate::latest_per_key;
//! use serde_json::value::RawValue;
//! use millrace_shared::change::Change;
//! use millrace_shared::stream;
//!
//! let record = |number: u32, user: &str| {
//!     format!(
//!         r#"{{"eventID": "{number}", "eventName": "MODIFY", "eventSource": "aws:dynamodb",
//!             "eventSourceARN": "arn:aws:dynamodb:eu-west-1:123456789012:table/Users/stream/2026-11-27T09:30:00.000",
//!             "dynamodb": {{"SequenceNumber": "{number}", "Keys": {{"user_id": {{"S": "{user}"}}}},
//!                           "NewImage": {{"user_id": {{"S": "{user}"}}, "version": {{"N": "{number}"}}}}}}}}"#
//!     )
//! };
//! let event = format!(r#"{{"Records": [{}, {}, {}]}}"#, record(101, "ada"), record(102, "grace"), record(103, "ada"));
//! let event: &RawValue = serde_json::from_str(&event)?;
//! let batch = stream::read(event)?;
//! let changes: Vec<&Change<'_>> = batch.records.iter().filter_map(|record| record.read.as_ref().ok()).collect();
//!
//! assert_eq!(latest_per_key(&changes), [1, 2]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod config;
pub mod confirmed;
pub mod deduplicate;
pub mod handler;

pub use config::{connect, connect_decorated};
pub use handler::{ReplicatorError, ReplicatorHandler};
