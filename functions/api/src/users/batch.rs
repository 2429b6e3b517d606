//! `POST /users:batchGet`: up to a hundred records by their keys.

use axum::extract::Request;
use axum::http::StatusCode;
use front::answer::{Listed, json};
use front::door::By;
use front::problem::Problem;
use serde::Serialize;
use shared::http::query::Query;
use shared::user::UserKey;
use shared::user::fields::Fields;

use super::{Answer, Users};
use crate::body;
use crate::contract::schema;

/// Keys that are read before any of their records is answered and dropped: 100 records of 400 KB would be half of the function's
/// memory as text, and several times all of it as values.
const KEYS_AT_ONCE: usize = 20;

/// A key as it is answered.
#[derive(Serialize)]
struct Key<'a> {
    user_id: &'a str,
    timestamp: i64,
}

impl<'a> From<&'a UserKey> for Key<'a> {
    fn from(key: &'a UserKey) -> Self {
        Self { user_id: key.id.as_str(), timestamp: key.timestamp.seconds() }
    }
}

/// Every key is answered in one place: its record is in `users`, or it is `missing` (another user's record is, and is not
/// asked for), `unreadable`, or `unprocessed`: the table was too busy for it, or the answer too long. Those can be asked
/// for again.
#[utoipa::path(
    post,
    path = "/users:batchGet",
    operation_id = "batchGetUsers",
    tag = "users",
    summary = "Read up to 100 records",
    params(schema::Projection),
    request_body(content = schema::BatchGetUsersRequest, description = "The keys"),
    responses(
        (status = 200, description = "each key in its place", body = schema::BatchGetUsersResponse),
    ),
    security(("token" = ["users:read"]), ("token" = ["users:admin"])),
)]
pub(crate) async fn read_batch(users: Users, By(caller): By, request: Request) -> Answer {
    let now = users.clock.now();
    let mut query = Query::parse(request.uri().query(), &["fields"]);
    let fields = query.take("fields", Fields::parse).unwrap_or(Fields::ALL);
    query.finish().map_err(Problem::Request)?;
    let keys = body::keys(&body::json(request).await?)?;

    let mut listed = Listed::open(fields);
    let (mut missing, mut unprocessed, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
    let mut is_full = false;
    for part in keys.chunks(KEYS_AT_ONCE) {
        let own = part.iter().filter(|key| !is_full && caller.owns(&key.id));
        let batch = users.table.read_batch(&own.cloned().collect::<Vec<_>>(), now).await?;
        for key in part {
            if !caller.owns(&key.id) {
                missing.push(Key::from(key));
            } else if is_full {
                unprocessed.push(Key::from(key));
            } else if let Some(user) = batch.users.iter().find(|user| user.key == *key) {
                is_full = !listed.add(user)?;
                if is_full {
                    unprocessed.push(Key::from(key));
                }
            } else if batch.unprocessed.contains(key) {
                unprocessed.push(Key::from(key));
            } else if batch.unreadable.contains(key) {
                unreadable.push(Key::from(key));
            } else {
                missing.push(Key::from(key));
            }
        }
    }
    if !unreadable.is_empty() {
        tracing::warn!(batch.unreadable = unreadable.len(), "items left out of a batch");
    }
    listed.member("missing", &missing)?;
    listed.member("unreadable", &unreadable)?;
    listed.member("unprocessed", &unprocessed)?;
    Ok(json(StatusCode::OK, listed.close()))
}
