//! What Millrace's HTTP functions have in common: [`auth`] says who may pass, [`deadline`] until when, [`request_telemetry`] what every answer has,
//! [`problem`] how a failure is told, [`uri`], [`route`], [`path`] and [`response`] how requests and answers are shaped,
//! [`lambda`] how a router is a function, [`base_path`] what stands before the routes in a path.
//!
//! It knows records and callers, and no route of its own.

pub mod auth;
pub mod base_path;
pub mod deadline;
pub mod identifier;
pub mod lambda;
pub mod path;
pub mod problem;
pub mod request_telemetry;
pub mod response;
pub mod route;
pub mod uri;
