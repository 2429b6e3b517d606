//! The command line of Millrace: [`options`] parses the arguments and runs the command. The commands `athena`,
//! `attach`, `console`, `doctor`, `plan`, `task` and `transform` have modules of their own, and so have the options that
//! select what a stack replicates and the messages about invalid arguments.
//!
//! [`banner`] is the text that a started stack prints, and [`demo`] is the self-checking demo. Everything else is in the
//! crate `millrace-local`, the stack on one machine, and in the functions that it runs.

mod athena_command;
mod attach;
pub mod banner;
mod console_command;
mod cost;
pub mod demo;
mod doctor;
pub mod options;
mod plan;
mod signed_request;
mod stack_source;
mod standard_output;
mod task_command;
mod transform_command;
mod usage_error;
