//! The API over the Users table: HTTP in, records out.
//!
//! [`app`] is one axum router that runs behind API Gateway (through `lambda_http`) and on a socket (through hyper)
//! alike. Nothing is cached in this crate.

mod access;
mod body;
pub mod config;
pub mod contract;
mod idempotency;
mod page;
mod precondition;
mod router;
mod users;

use aws_sdk_dynamodb::Client;
use axum::Router;
use front::door::Door;
use shared::clock::Clock;
use shared::table::UserTable;

use config::Config;

/// The API. Building it does no I/O; a clone shares everything.
pub fn app(config: &Config, client: Client, clock: Clock) -> Router {
    let table = UserTable::new(client, config.users_table.clone(), config.email_index.clone())
        .with_unique_emails(config.unique_emails_table.as_deref());
    let door = Door { auth: config.auth, clock: clock.clone(), need: access::need };
    let users = users::Users::new(table, clock, config.cursor_keys.clone())
        .with_attempts(config.idempotency_table.as_deref())
        .with_preconditions(config.preconditions_required);
    router::routes(users, door)
}
