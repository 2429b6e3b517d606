//! The HTTP API over the Users table.
//!
//! [`app`] is one axum router that runs both behind API Gateway ([`millrace_http::gateway`]) and on a socket (through
//! hyper). Reads of single records use a cache first, if there is one ([`cache`]).

mod body;
pub mod cache;
pub mod config;
mod cursor;
mod idempotency;
pub mod openapi;
mod precondition;
mod rate_limit;
mod router;
mod users;

use aws_sdk_dynamodb::Client;
use axum::Router;
use millrace_http::auth::AuthLayer;
use millrace_shared::clock::Clock;
use millrace_shared::table::{NonceSource, UserTable};

use crate::openapi::deployed::ContractDeployment;
use cache::CacheAside;
use config::ApiConfig;

/// Creates the access to the users table. It does no I/O.
#[must_use]
pub fn users_table(config: &ApiConfig, client: Client, clock: &Clock) -> UserTable {
    UserTable::new(client, config.users_table.clone(), config.email_index.clone())
        .with_unique_emails(config.unique_emails_table.as_deref(), NonceSource::new(clock.clone()))
}

/// Creates the API, with or without a cache in front of its table. It does no I/O; clones share all state.
pub fn app(config: &ApiConfig, client: Client, cache: Option<CacheAside>, clock: Clock) -> Router {
    app_over(config, users_table(config, client, &clock), cache, clock)
}

/// As [`app`], over this access to the table.
pub fn app_over(config: &ApiConfig, table: UserTable, cache: Option<CacheAside>, clock: Clock) -> Router {
    let scopes = config.scopes.clone();
    let deployment =
        ContractDeployment { auth: config.auth, scopes: scopes.clone(), has_relational: config.has_relational };
    let auth_layer =
        AuthLayer { auth: config.auth, scopes, clock: clock.clone(), required_scope: router::required_scope };
    let cache_client = cache.as_ref().map(CacheAside::client);
    let users = users::AppState::new(table, clock, config.cursor_keys.clone())
        .with_idempotency_table(config.idempotency_table.as_deref())
        .with_preconditions(config.preconditions_required)
        .with_cache(cache);
    let limit = cache_client.zip(config.rate_limit).map(|(cache, quota)| rate_limit::RateLimiter { cache, quota });
    router::routes(users, auth_layer, &config.base_path, deployment, limit)
}
