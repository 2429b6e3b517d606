//! Transformation of replicated items: pure functions that decide what a replica stores of an item.
//!
//! Architecture invariant: nothing in this crate reads a clock, the environment or a network.

pub mod attribute_path;

pub use attribute_path::{AttributePath, PathStep};
