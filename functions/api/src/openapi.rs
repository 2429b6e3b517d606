//! The API's part of the contract, OpenAPI 3.1, made from the handlers: their `utoipa::path` attributes and the shapes of
//! [`schema`]. The crate `contract` puts the whole together; the function serves the file that came of it as far as its
//! deployment keeps it ([`deployed`]).

pub mod deployed;
pub mod schema;

use utoipa::OpenApi;

use crate::{router, users};

/// The whole document, with every tier on and the scheme of tokens.
pub const OPENAPI_JSON: &str = include_str!("../openapi.json");

/// The operations of the API.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Millrace users",
        version = "1",
        description = "Stores user records. A record is identified by the user's id and a timestamp in epoch seconds. Every \
            resource supports OPTIONS, and HEAD if it supports GET. Unknown parameters and members are rejected by name. \
            docs/problems.md describes every problem type.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        users::create::create,
        users::lists::list,
        users::batch::read_batch,
        users::lists::list_records,
        users::latest,
        users::read,
        users::replace,
        users::patch,
        users::delete,
        router::health,
        router::contract,
    ),
    components(schemas(schema::Problem, schema::UserField))
)]
pub struct UsersContract;
