//! Puts right what happened outside the promise.

pub mod mend;
pub mod reconcile;
pub mod source;
