//! Search: queries over all users, served by the relational replica.
//!
//! The API reads single records by key from the table. This function serves the queries that a key-value table does not
//! support: filters, sort orders, aggregates. The results are those of the replica, and each response contains the time
//! of the latest change that they include (`as_of`).

pub mod config;
mod database;
mod filter;
pub mod openapi;
mod request;
mod router;
mod sort;
mod statement;
mod users;

use axum::Router;
use millrace_http::auth::AuthLayer;
use millrace_shared::clock::Clock;
use millrace_shared::iam_token::TokenSigner;

use config::SearchConfig;

/// Creates the routes of search. It does no I/O; clones share the connections.
///
/// Without a signer, the databases are accessed with passwords, regardless of the configuration.
pub fn app(config: &SearchConfig, signer: Option<TokenSigner>, clock: Clock) -> Router {
    let auth_layer = AuthLayer {
        auth: config.auth,
        scopes: config.scopes.clone(),
        clock: clock.clone(),
        required_scope: router::required_scope,
    };
    let databases = database::SearchDatabases::new(&config.writer, config.reader.as_ref(), signer);
    router::routes(
        users::SearchState::new(databases, clock, config.cursor_keys.clone()),
        auth_layer,
        config.base_path.clone(),
    )
}

/// Returns the SQL statement and the parameters of a query string, at this second and after the position with these
/// texts. It serves to inspect the query plan.
///
/// # Errors
/// The errors of the query string, as JSON.
pub fn statement(query: &str, after: Option<&[&str]>, now: i64) -> Result<(String, Vec<String>), String> {
    let mut read = request::SearchRequest::parameters(Some(query));
    let question = request::SearchRequest::read(&mut read);
    read.finish().map_err(|mistakes| serde_json::to_string(&mistakes).unwrap_or_default())?;
    let after = after.map(|texts| sort::KeysetPosition(texts.iter().map(|text| Some((*text).to_owned())).collect()));
    let sql = question.to_query(after.as_ref(), now).statement(0, question.limit + 1);
    Ok((sql.text().to_owned(), sql.parameters().to_vec()))
}
