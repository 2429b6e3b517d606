//! `POST /users:batchGet`: reads up to 100 records by key.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use millrace_http::auth::AuthenticatedCaller;
use millrace_http::problem::Problem;
use millrace_http::response::{UserListWriter, json};
use millrace_shared::http::query::QueryParameters;
use millrace_shared::user::UserKey;
use millrace_shared::user::fields::FieldMask;
use serde::Serialize;

use super::{ApiResult, AppState, RequestScope};
use crate::body;
use crate::openapi::schema;

/// Number of keys per table read. The records of one read are written to the response and dropped before the next read:
/// 100 records of 400 KB would take half of the function's memory as text, and several times all of it as parsed
/// values.
const KEYS_AT_ONCE: usize = 20;

/// A key in the response.
#[derive(Serialize)]
struct RecordKeyBody<'a> {
    user_id: &'a str,
    timestamp: i64,
}

impl<'a> From<&'a UserKey> for RecordKeyBody<'a> {
    fn from(key: &'a UserKey) -> Self {
        Self { user_id: key.id.as_str(), timestamp: key.timestamp.seconds() }
    }
}

/// Each key is in exactly one list: its record is in `users`, or the key is in `missing`, `corrupt` or `unprocessed`.
/// Keys of another user's records are `missing` and are not read. The client requests the `unprocessed` keys again: the
/// table throttled the read, or the response was full.
#[utoipa::path(
    post,
    path = "/users:batchGet",
    operation_id = "batchGetUsers",
    tag = "users",
    summary = "Get up to 100 records by key",
    params(schema::ProjectionParams),
    request_body(content = schema::BatchGetUsersRequest, description = "The keys of the records"),
    responses(
        (status = 200, description = "The records, and the keys without one", body = schema::BatchGetUsersResponse),
    ),
    security(("token" = ["users:read"]), ("token" = ["users:admin"])),
)]
pub(crate) async fn read_batch(
    State(users): State<AppState>,
    scope: RequestScope,
    AuthenticatedCaller(caller): AuthenticatedCaller,
    request: Request,
) -> ApiResult {
    let now = users.clock.now();
    let mut query = QueryParameters::parse(request.uri().query(), &["fields"]);
    let fields = query.take("fields", FieldMask::parse).unwrap_or(FieldMask::ALL);
    query.finish().map_err(Problem::Request)?;
    let keys = body::keys(&body::json(request).await?)?;

    let table = users.table(&scope);
    let mut listed = UserListWriter::open(fields);
    let (mut missing, mut unprocessed, mut corrupt) = (Vec::new(), Vec::new(), Vec::new());
    let mut is_full = false;
    for part in keys.chunks(KEYS_AT_ONCE) {
        let own = part.iter().filter(|key| !is_full && caller.owns(&key.id));
        let batch = table.read_batch(&own.cloned().collect::<Vec<_>>(), now).await?;
        for key in part {
            if !caller.owns(&key.id) {
                missing.push(RecordKeyBody::from(key));
            } else if is_full {
                unprocessed.push(RecordKeyBody::from(key));
            } else if let Some(user) = batch.users.iter().find(|user| user.key == *key) {
                is_full = !listed.add(user)?;
                if is_full {
                    unprocessed.push(RecordKeyBody::from(key));
                }
            } else if batch.unprocessed.contains(key) {
                unprocessed.push(RecordKeyBody::from(key));
            } else if batch.corrupt.contains(key) {
                corrupt.push(RecordKeyBody::from(key));
            } else {
                missing.push(RecordKeyBody::from(key));
            }
        }
    }
    if !corrupt.is_empty() {
        tracing::warn!(batch.corrupt = corrupt.len(), "items left out of a batch");
    }
    listed.push_field("missing", &missing)?;
    listed.push_field("corrupt", &corrupt)?;
    listed.push_field("unprocessed", &unprocessed)?;
    Ok(json(StatusCode::OK, listed.finish()))
}
