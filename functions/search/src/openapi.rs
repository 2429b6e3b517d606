//! What search adds to the contract: its operations and shapes, for whoever puts the whole document together.

pub mod schema;

use utoipa::OpenApi;

use crate::users;

/// The operations of search.
#[derive(OpenApi)]
#[openapi(paths(users::find, users::summary, users::stats))]
pub struct SearchContract;
