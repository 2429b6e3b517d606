//! The command line of Millrace: [`options`] parses the arguments and runs the command.
//!
//! [`banner`] is the text that a started stack prints, and [`demo`] the story that checks itself. Everything else is in
//! the crate `millrace-local`, the stack on one machine, and in the functions that it runs.

pub mod banner;
pub mod demo;
pub mod options;
