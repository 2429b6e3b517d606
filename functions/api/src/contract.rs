//! The API's part of the contract, OpenAPI 3.1, made from the handlers: their `utoipa::path` attributes and the shapes of
//! [`schema`]. The crate `contract` puts the whole together; the function serves the file that came of it as far as its
//! deployment keeps it ([`deployed`]).

pub mod deployed;
pub mod schema;

use utoipa::OpenApi;

use crate::{router, users};

/// The whole document, with every tier on and the scheme of tokens.
pub const SERVED: &str = include_str!("../openapi.json");

/// The operations of the API.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Millrace users",
        version = "1",
        description = "Records of users, each at its own second. Every resource answers OPTIONS, and HEAD where it \
            answers GET. Unknown parameters and members are refused by name. docs/problems.md explains every problem type.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        users::create::create,
        users::lists::list,
        users::batch::read_batch,
        users::lists::history,
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
pub struct Contract;
