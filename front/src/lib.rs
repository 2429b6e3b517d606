//! What Millrace's HTTP functions have in common: [`door`] says who may pass, [`deadline`] until when, [`observe`] what every answer has,
//! [`problem`] how a failure is told, [`uri`], [`route`], [`path`] and [`answer`] how requests and answers are shaped,
//! [`lambda`] how a router is a function, [`base_path`] what stands before the routes in a path.
//!
//! It knows records and callers, and no route of its own.

pub mod answer;
pub mod base_path;
pub mod deadline;
pub mod door;
pub mod identifier;
pub mod lambda;
pub mod observe;
pub mod path;
pub mod problem;
pub mod route;
pub mod uri;
