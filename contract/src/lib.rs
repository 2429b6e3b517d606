//! The contract, OpenAPI 3.1, put together from the functions that keep it: the API's part, the part of search, the rules of
//! every text ([`patterns`](self)) and every problem that an operation can end in.
//!
//! It is made when it changes, not when it is asked for: `cargo run -p contract --example openapi` writes the document, the
//! repository keeps it as `functions/api/openapi.json`, a test compares the two, and the API serves the file. So nothing of
//! this crate is in a function.

mod patterns;
mod problems;

use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use patterns::PatternModifier;
use problems::ProblemResponses;

/// How a caller shows who it is, where the deployment asks for tokens. Of a deployment that asks for a signature, or for
/// nothing, the API serves the document with that instead.
struct TokenScheme;

impl Modify for TokenScheme {
    fn modify(&self, document: &mut Document) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").description(Some(
            "A JWT from the deployment's issuer with a `sub` and one of the scopes that the operation lists.",
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
    let mut document = api::openapi::UsersContract::openapi();
    // What both have is the API's: a record is described there.
    document.merge(search::openapi::SearchContract::openapi());
    for modifier in [&TokenScheme as &dyn Modify, &PatternModifier, &ProblemResponses] {
        modifier.modify(&mut document);
    }
    serde_json::to_string_pretty(&document).map(|text| text + "\n")
}

#[cfg(test)]
mod tests;
