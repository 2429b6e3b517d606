//! Search: what is asked of all users at once, answered by the relational replica.
//!
//! Reading a record by its key is the API's business and the table's. Here are the questions that a table of keys cannot
//! answer: filters, orders, sums. The answers are as fresh as the replica, and say how fresh that is.

mod access;
pub mod config;
mod cursor;
mod database;
mod filter;
pub mod openapi;
mod request;
mod router;
mod sort;
mod sql;
mod statement;
mod users;

use axum::Router;
use front::auth::AuthLayer;
use shared::clock::Clock;
use shared::iam_token::TokenSigner;

use config::SearchConfig;

/// The routes of search. Building them does no I/O; a clone shares the connections.
///
/// Without a signer logins are by password, whatever the configuration says.
pub fn app(config: &SearchConfig, signer: Option<TokenSigner>, clock: Clock) -> Router {
    let door = AuthLayer {
        auth: config.auth,
        scopes: config.scopes.clone(),
        clock: clock.clone(),
        required_scope: access::need,
    };
    let databases = database::SearchDatabases::new(&config.writer, config.reader.as_ref(), signer);
    router::routes(
        users::SearchState::new(databases, clock, config.cursor_keys.clone()),
        door,
        config.base_path.clone(),
    )
}

/// The statement that a query's question becomes, and its parameters, at this second and after the place of these texts:
/// for whoever wants to have it explained.
///
/// # Errors
/// What is wrong with the query, as JSON.
pub fn statement(query: &str, after: Option<&[&str]>, now: i64) -> Result<(String, Vec<String>), String> {
    let mut read = request::SearchRequest::parameters(Some(query));
    let question = request::SearchRequest::read(&mut read);
    read.finish().map_err(|mistakes| serde_json::to_string(&mistakes).unwrap_or_default())?;
    let after = after.map(|texts| sort::KeysetPosition(texts.iter().map(|text| Some((*text).to_owned())).collect()));
    let sql = question.to_query(after.as_ref(), now).statement(0, question.limit + 1);
    Ok((sql.text().to_owned(), sql.parameters().to_vec()))
}
