//! Applies every change of a table's stream to the replicas, under the one rule of delivery: a change is applied only
//! where nothing or a lower revision stands.
//!
//! [`handler`] reads a batch, has [`deduplicate`] decide what it comes to, hands that to every [`sink`] side by side, puts
//! aside what can never be applied, and answers the lowest position that a replica may lack. Whose items they are
//! does not matter here: keys come from the record, images stay unread.

pub mod config;
pub mod confirmed;
pub mod deduplicate;
pub mod handler;
pub mod sink;

pub use config::connect;
pub use handler::{ReplicatorError, ReplicatorHandler};
