//! The API's part of the OpenAPI 3.1 document, generated from the `utoipa::path` attributes of the handlers and the
//! types of [`schema`]. The crate `millrace-contract` assembles the complete document; the function serves that file, reduced to
//! the parts that its deployment supports ([`deployed`]).

pub mod deployed;
pub mod schema;

use utoipa::OpenApi;

use crate::{router, users};

/// The complete document, with all tiers enabled and the token security scheme.
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
