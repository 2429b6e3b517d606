//! The API's contract, OpenAPI 3.1, made from the handlers: their `utoipa::path` attributes, the shapes of [`schema`], and
//! every problem that an operation can end in.
//!
//! It is made when it changes, not when it is asked for: `cargo run -p api --example openapi` writes the document, the
//! repository keeps it as `functions/api/openapi.json`, a test compares the two, and the function serves the file. So
//! nothing of this module is in the function.

mod patterns;
mod problems;
pub mod schema;

use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::{router, users};
use patterns::Patterns;
use problems::Problems;

/// The document as the function serves it.
pub(crate) const SERVED: &str = include_str!("../openapi.json");

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
    components(schemas(schema::Problem, schema::Field)),
    modifiers(&Token, &Patterns, &Problems),
)]
struct Contract;

/// How a caller shows who it is, where the deployment asks for tokens.
struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut Document) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").description(Some(
            "AUTH=jwt: a token with a sub and one of the scopes users:read, users:write, users:admin. \
             AUTH=iam: AWS Signature Version 4 instead. AUTH=none: nothing.",
        ));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme.build()));
    }
}

/// The document as the code has it.
///
/// # Errors
/// It cannot be written as JSON.
pub fn openapi() -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(&Contract::openapi()).map(|text| text + "\n")
}

#[cfg(test)]
mod tests;
