//! The rules as pure functions over the model of a deployment, one file for each subject.
//!
//! A rule returns the fault, `None` if there is none, or an error with the reason why the rule cannot be checked.

pub mod delivery;
pub mod destination;
pub mod encryption;
pub mod filter;
pub mod function;
pub mod network;
pub mod replica;
pub mod resource;
pub mod stream;

/// The result of a rule about one resource.
pub type RuleOutcome = Result<Option<String>, String>;

/// The number of seconds for which DynamoDB retains a stream record.
pub const STREAM_RETENTION_S: i64 = 86_400;
