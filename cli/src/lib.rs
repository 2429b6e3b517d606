//! The command line of Millrace: [`options`] parses the arguments and runs the command, and
//! [`usage_error`] explains arguments that it rejects.
//!
//! [`banner`] is the text that a started stack prints, and [`demo`] the story that checks itself. Everything else is in
//! the crate `millrace-local`, the stack on one machine, and in the functions that it runs.

pub mod banner;
pub mod demo;
pub mod options;
pub mod usage_error;
