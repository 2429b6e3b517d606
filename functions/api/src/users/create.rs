//! `POST /users`: creates a record, once per idempotency key.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use millrace_http::auth::AuthenticatedCaller;
use millrace_http::path::StagePrefix;
use millrace_http::problem::Problem;
use millrace_shared::clock::new_uuid;
use millrace_shared::http::caller::Caller;
use millrace_shared::table::{IdempotencyOutcome, IdempotencyRecord, WriteError};
use millrace_shared::user::Timestamp;
use millrace_shared::user::id::UserId;
use millrace_shared::user::{User, UserKey};
use millrace_shared::version_fence::MinVersion;
use time::OffsetDateTime;

use super::response::{record_path, write_response};
use super::write::WriteIntent;
use super::{ApiResult, AppState, RequestScope};
use crate::body::{self, CreateUserBody};
use crate::idempotency;
use crate::openapi::schema;

/// `POST /users`
#[utoipa::path(
    post,
    path = "/users",
    operation_id = "createUser",
    tag = "users",
    summary = "Create a user record",
    params(schema::IdempotencyParams),
    request_body(content = schema::CreateUserRequest, description = "The new record"),
    responses(
        (status = 201, description = "The record was created by this request or by an earlier one with the same Idempotency-Key",
            body = schema::WriteUserResponse,
            headers(("location" = String, description = "The path of the record"), ("etag" = String))),
    ),
    security(("token" = ["users:write"]), ("token" = ["users:admin"])),
)]
pub(crate) async fn create(
    State(users): State<AppState>,
    scope: RequestScope,
    AuthenticatedCaller(caller): AuthenticatedCaller,
    stage: StagePrefix,
    request: Request,
) -> ApiResult {
    let now = users.clock.now();
    let given = idempotency::key(request.headers())?;
    let body = body::json(request).await?;
    let draft = body::parse_create(&body, now)?;
    let is_new_user = draft.id.is_none() && caller.restricted_to().is_none();
    let key = key(&users, &caller, &draft, now)?;
    let fingerprint = given.as_ref().map(|_| idempotency::fingerprint(&draft));
    let user = User::created(key, draft.profile, now);

    let table = users.table(&scope);
    let intent = WriteIntent { created: Some(user.version), ..WriteIntent::default() };
    let (Some(given), Some(fingerprint)) = (given, fingerprint) else {
        let write = async {
            match table.create(&user, now).await {
                // No one else can know a new random identifier: an earlier attempt of this call landed, and its
                // response was lost.
                Err(WriteError::Exists) if is_new_user => {}
                other => other?,
            }
            Ok(((), Some(MinVersion::after_write(0, user.version))))
        };
        users.write(&scope, &user.key, &intent, Box::pin(write)).await?;
        return Ok(created(&user, stage));
    };
    let Some(attempts) = &users.attempts else {
        return Err(idempotency::unsupported());
    };
    let attempt = IdempotencyRecord {
        id: given.id(&caller, "POST", "/users"),
        fingerprint,
        owner: new_uuid(users.clock.now()).to_string(),
    };
    let write = async { Ok((table.create_idempotent(attempts, &attempt, &user, now).await?, None)) };
    let user = match users.write(&scope, &user.key, &intent, Box::pin(write)).await? {
        IdempotencyOutcome::Created => user,
        IdempotencyOutcome::Replayed { key, created_at } => {
            // The same body, parsed with the time and the key of the first attempt, gives the same response.
            User::created(key, body::parse_create(&body, created_at)?.profile, created_at)
        }
        IdempotencyOutcome::Exists => return Err(Problem::AlreadyExists),
        IdempotencyOutcome::InProgress(left) => {
            return Err(Problem::IdempotencyKeyInUse { seconds: idempotency::retry_after(left) });
        }
        IdempotencyOutcome::PayloadMismatch => return Err(Problem::IdempotencyKeyReused),
    };
    // The attempt that wrote the record may have ended before it could invalidate the cache.
    users.invalidate_cache(&user.key, MinVersion::after_write(0, user.version)).await;
    Ok(created(&user, stage))
}

/// Returns the key of the record. The identifier is the one in the body, else the caller's own, else a new one; the
/// timestamp is the one in the body, else the current second.
fn key(users: &AppState, caller: &Caller, draft: &CreateUserBody, now: OffsetDateTime) -> Result<UserKey, Problem> {
    let mismatch = Problem::UserIdMismatch { pointer: "/user_id" };
    let id = match (&draft.id, caller.restricted_to()) {
        (Some(id), _) if !caller.owns(id) => return Err(mismatch),
        (Some(id), _) => Ok(id.clone()),
        (None, Some(own)) => Ok(UserId::parse(own).map_err(|_| mismatch)?),
        (None, None) => UserId::parse(new_uuid(users.clock.now())),
    };
    let timestamp = draft.timestamp.map_or_else(|| Timestamp::parse(now.unix_timestamp()), Ok);
    match (id, timestamp) {
        (Ok(id), Ok(timestamp)) => Ok(UserKey { id, timestamp }),
        _ => Err(Problem::Internal { cause: "the system clock is before 1970".into() }),
    }
}

fn created(user: &User, stage: StagePrefix) -> axum::response::Response {
    write_response(StatusCode::CREATED, user, Some((LOCATION, stage.0 + &record_path(&user.key))))
}
