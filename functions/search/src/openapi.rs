//! The search function's part of the OpenAPI document: its operations and schemas, which the crate `contract` merges
//! into the complete document.

pub mod schema;

use utoipa::OpenApi;

use crate::users;

/// The operations of search.
#[derive(OpenApi)]
#[openapi(paths(users::find, users::summary, users::stats))]
pub struct SearchContract;
