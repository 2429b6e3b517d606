//! The OpenAPI 3.1 document, assembled from the API's part, the part of search, the formats of texts
//! (`patterns`) and the problems that each operation can return (`problems`).
//!
//! It is generated when it changes, not on request: `cargo run -p millrace-contract --example openapi` writes the document, the
//! repository contains it as `functions/api/openapi.json`, a test compares the two, and the API serves the file.
//! Therefore this crate is not part of any function.

mod patterns;
mod problems;

use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use patterns::PatternModifier;
use problems::ProblemResponses;

/// The security scheme of deployments that require tokens. If a deployment requires a signature or no authentication,
/// the API replaces the scheme in the document that it serves.
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

/// Returns the document that the code defines.
///
/// # Errors
/// The document cannot be serialized as JSON.
pub fn openapi() -> Result<String, serde_json::Error> {
    let mut document = millrace_api::openapi::UsersContract::openapi();
    // Components in both parts are taken from the API's part, which describes the record.
    document.merge(millrace_search::openapi::SearchContract::openapi());
    for modifier in [&TokenScheme as &dyn Modify, &PatternModifier, &ProblemResponses] {
        modifier.modify(&mut document);
    }
    serde_json::to_string_pretty(&document).map(|text| text + "\n")
}

#[cfg(test)]
mod tests;
