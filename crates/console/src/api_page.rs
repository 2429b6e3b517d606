//! The page API: the operations of the API that runs next to the console, its documentation, and tokens to copy.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use maud::{Markup, html};
use millrace_api::openapi::OPENAPI_JSON;
use millrace_api::openapi::deployed::SEARCH_PATHS;
use millrace_local::stack::LocalStack;
use millrace_local::token::LocalAuth;
use serde_json::Value;

use crate::{LocalContext, frame};

pub(crate) const PATH: &str = "/api";
const TITLE: &str = "API";

/// An operation of the API.
struct ApiOperation {
    method: String,
    path: String,
    summary: String,
    /// The scopes of which a token needs one; none if every token is accepted.
    scopes: Vec<String>,
}

/// A token that this program signs.
struct SignedToken {
    subject: &'static str,
    scopes: &'static str,
    token: String,
}

/// Returns the operations, without those of a tier that is off.
fn operations(has_search: bool) -> Result<Vec<ApiOperation>, serde_json::Error> {
    let document: Value = serde_json::from_str(OPENAPI_JSON)?;
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        if !has_search && SEARCH_PATHS.contains(&path.as_str()) {
            continue;
        }
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let schemes = operation["security"].as_array().into_iter().flatten();
            operations.push(ApiOperation {
                method: method.to_uppercase(),
                path: path.clone(),
                summary: text(&operation["summary"]),
                scopes: schemes.flat_map(|scheme| scheme["token"].as_array().into_iter().flatten()).map(text).collect(),
            });
        }
    }
    Ok(operations)
}

fn tokens(stack: &LocalStack) -> Vec<SignedToken> {
    let signed = [("ada", "users:read users:write"), ("operator", "users:admin")];
    let signed = signed
        .into_iter()
        .filter_map(|(subject, scopes)| Some(SignedToken { subject, scopes, token: stack.token(subject, scopes)? }));
    signed.collect()
}

/// Shows the page.
pub(crate) async fn show(State(context): State<LocalContext>) -> Response {
    let stack = &context.stack;
    if stack.template().routes.is_empty() {
        let body = html! {
            p.box {
                "This template has no API: it replicates a table without the users service. The page "
                ""
                a href="/tables" {
                    "Tables"
                }
                " reads and writes its items."
            }
        };
        return frame::page(PATH, TITLE, &body).into_response();
    }
    let operations = match operations(stack.postgres_url().is_some()) {
        Ok(operations) => operations,
        Err(error) => return frame::failed(StatusCode::INTERNAL_SERVER_ERROR, "/", TITLE, &error.to_string()),
    };
    let (api, tokens) = (stack.api_url(), tokens(stack));
    let body = html! {
        p {
            "The API is at " code { (api) }
            ". " a href=(format!("{api}/docs")) { "Documentation, with a form for each operation" }
            " · " a href=(format!("{api}/openapi.json")) { "OpenAPI document" }
        }
        h2 { "Tokens" }
        (tokens_section(&stack.options().auth, &tokens))
        h2 { "First calls" }
        pre tabindex="0" data-copy="calls" { (calls(api, !tokens.is_empty())) }
        h2 { "Operations" }
        div.scroll tabindex="0" role="region" aria-label="Operations" { table {
            thead {
                tr {
                    th scope="col" { "Method" }
                    th scope="col" { "Path" }
                    th scope="col" { "Operation" }
                    th scope="col" { "Scopes" }
                }
            }
            tbody { @for operation in &operations { tr {
                td.mono { (operation.method) } th.mono scope="row" { (operation.path) } td { (operation.summary) }
                td { @if operation.scopes.is_empty() { "any caller" } @else { (operation.scopes.join(" or ")) } }
            } } }
        } }
        @if stack.postgres_url().is_none() {
            p.note { "The searches need the relational tier, which is off: start with " code { "--postgres auto" } "." }
        }
    };
    frame::page(PATH, TITLE, &body).into_response()
}

fn tokens_section(auth: &LocalAuth, tokens: &[SignedToken]) -> Markup {
    html! {
        @match auth {
            LocalAuth::None => {
                p.box {
                    "No token is needed: every caller has full access. " code { "millrace up --auth jwt" }
                    " requires tokens, and shows them here."
                }
            }
            LocalAuth::Jwt(Some(path)) => {
                p.box {
                    "Tokens are verified with the keys in " code { (path.display()) } ": use tokens of their issuer."
                }
            }
            LocalAuth::Jwt(None) => {
                p.note {
                    "Signed when this page was loaded, valid for 12 hours, and only for this start of " code {
                        "millrace up"
                    }
                    "."
                }
                div.cards { @for own in tokens {
                    section.box aria-label=(format!("Token of {}", own.subject)) {
                        h3 { (own.subject) }
                        p { "Scopes: " code { (own.scopes) } }
                        pre.token tabindex="0" data-copy=(own.subject) { (own.token) }
                    }
                } }
            }
        }
    }
}

fn calls(api: &str, has_tokens: bool) -> String {
    let bearer =
        |name: &str| if has_tokens { format!(" \\\n  -H \"authorization: Bearer ${name}\"") } else { String::new() };
    let variables = if has_tokens { "# Set ADA and OPERATOR to the tokens above.\n" } else { "" };
    format!(
        "{variables}curl -X POST {api}/users -H 'content-type: application/json'{} \\\n  -d \
         '{{\"user_id\":\"ada\",\"name\":\"Ada Lovelace\",\"email\":\"ada@example.com\"}}'\ncurl {api}/users/ada{}\ncurl \
         {api}/users{}",
        bearer("ADA"),
        bearer("ADA"),
        bearer("OPERATOR")
    )
}
