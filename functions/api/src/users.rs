//! The handlers of the API: each parses the request, calls the table and returns the response.

pub(crate) mod batch;
pub(crate) mod create;
pub(crate) mod lists;
mod response;
mod write;

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use millrace_http::deadline::RequestDeadline;
use millrace_http::path::{StagePrefix, UserIdPath, UserKeyPath};
use millrace_http::problem::Problem;
use millrace_shared::clock::Clock;
use millrace_shared::http::cursor_seal::SealKeys;
use millrace_shared::http::query::QueryParameters;
use millrace_shared::invocation::RequestBudget;
use millrace_shared::table::{CapacityMeter, ListOrder, ListQuery, TableError, UserTable};
use millrace_shared::user::fields::FieldMask;
use millrace_shared::user::precondition::Precondition;
use millrace_shared::user::{UserKey, first_version};
use millrace_shared::version_fence::MinVersion;
use time::OffsetDateTime;

use crate::cache::{CacheAside, CachedRead};
use crate::openapi::schema;
use crate::{body, precondition};
pub(crate) use batch::read_batch;
pub(crate) use create::create;
pub(crate) use lists::{list, list_records};
use response::{read_response, record_path, write_response};
use write::WriteIntent;

/// Maximum number of pages that are read to find the latest live record; each reads some hundred records or 5 MB.
const LATEST_PAGES: usize = 4;

/// The state of the handlers: the table, the cache, the clock and their settings.
#[derive(Clone, Debug)]
pub(crate) struct AppState {
    table: UserTable,
    clock: Clock,
    cursors: SealKeys,
    attempts: Option<Arc<str>>,
    preconditions_required: bool,
    cache: Option<CacheAside>,
}

impl AppState {
    pub(crate) fn new(table: UserTable, clock: Clock, cursors: SealKeys) -> Self {
        Self { table, clock, cursors, attempts: None, preconditions_required: false, cache: None }
    }

    /// Enables idempotency keys for creates, with their records in this table.
    pub(crate) fn with_idempotency_table(self, table: Option<&str>) -> Self {
        Self { attempts: table.map(Into::into), ..self }
    }

    /// Sets whether a write requires a precondition.
    pub(crate) fn with_preconditions(self, required: bool) -> Self {
        Self { preconditions_required: required, ..self }
    }

    /// Sets the cache, which is read first for single records.
    pub(crate) fn with_cache(self, cache: Option<CacheAside>) -> Self {
        Self { cache, ..self }
    }

    /// Returns the table for one request, whose capacity units it counts.
    fn table(&self, scope: &RequestScope) -> UserTable {
        self.table.with_capacity_meter(scope.meter.clone())
    }

    /// Reads one record from the cache or the table.
    async fn read(
        &self,
        scope: &RequestScope,
        key: &UserKey,
        now: OffsetDateTime,
    ) -> Result<Option<CachedRead>, Problem> {
        let table = self.table(scope);
        match &self.cache {
            Some(cache) => cache.read(key, &table, now).await.map_err(|error| Problem::from(&*error)),
            None => Ok(table.read(key, now).await?.map(|user| CachedRead::FromTable(Arc::new(user)))),
        }
    }

    /// Invalidates the cached record before the response to a write that may have been done earlier.
    async fn invalidate_cache(&self, key: &UserKey, min_version: MinVersion) {
        if let Some(cache) = &self.cache {
            cache.invalidate(key, min_version).await;
        }
    }

    /// Parses the preconditions of a write to an existing record.
    fn precondition(&self, headers: &HeaderMap) -> Result<Precondition, Problem> {
        let precondition = precondition::read(headers)?;
        let silent = precondition == Precondition::default();
        if silent && self.preconditions_required { Err(Problem::PreconditionRequired) } else { Ok(precondition) }
    }
}

/// Extractor of the values that belong to one request: the meter of its capacity units and its time budget. The
/// middleware adds both to the request.
#[derive(Clone, Debug)]
pub(crate) struct RequestScope {
    meter: CapacityMeter,
    budget: RequestBudget,
}

impl<S: Send + Sync> FromRequestParts<S> for RequestScope {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let RequestDeadline(budget) = RequestDeadline::from_request_parts(parts, state).await?;
        let meter = parts.extensions.get::<CapacityMeter>().cloned().unwrap_or_default();
        Ok(Self { meter, budget })
    }
}

/// Extractor of the parameters of a read of one record. It copies neither the headers nor the URI.
#[derive(Debug)]
pub(crate) struct ReadParameters {
    fields: FieldMask,
    precondition: Precondition,
}

impl<S: Send + Sync> FromRequestParts<S> for ReadParameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let fields = fields(&parts.uri)?;
        Ok(Self { fields, precondition: precondition::read(&parts.headers)? })
    }
}

type ApiResult = Result<Response, Problem>;

/// `GET /users/{user_id}/{timestamp}`
#[utoipa::path(
    get,
    path = "/users/{user_id}/{timestamp}",
    operation_id = "getUser",
    tag = "users",
    summary = "Get a user record",
    params(schema::UserKeyParams, schema::ProjectionParams, schema::ConditionalParams),
    responses(
        (status = 200, description = "The record", body = schema::ReadUserResponse, headers(("etag" = String))),
        (status = 304, description = "The record's entity tag matches If-None-Match", headers(("etag" = String))),
    ),
    security(("token" = ["users:read"]), ("token" = ["users:admin"])),
)]
pub(crate) async fn read(
    State(users): State<AppState>,
    scope: RequestScope,
    UserKeyPath(key): UserKeyPath,
    ReadParameters { fields, precondition }: ReadParameters,
) -> ApiResult {
    let record = users.read(&scope, &key, users.clock.now()).await?.ok_or(Problem::NotFound)?;
    read_response(&record, fields, &precondition, None)
}

/// `GET /users/{user_id}/latest`
#[utoipa::path(
    get,
    path = "/users/{user_id}/latest",
    operation_id = "getLatestUser",
    tag = "users",
    summary = "Get a user's latest record",
    params(schema::UserIdParams, schema::ProjectionParams, schema::ConditionalParams),
    responses(
        (status = 200, description = "The latest record", body = schema::ReadUserResponse,
            headers(("etag" = String), ("content-location" = String, description = "The path of the record"))),
        (status = 304, description = "The record's entity tag matches If-None-Match", headers(("etag" = String))),
    ),
    security(("token" = ["users:read"]), ("token" = ["users:admin"])),
)]
pub(crate) async fn latest(
    State(users): State<AppState>,
    scope: RequestScope,
    UserIdPath(id): UserIdPath,
    stage: StagePrefix,
    ReadParameters { fields, precondition }: ReadParameters,
) -> ApiResult {
    let listing = ListQuery::User { id: &id, from: None, to: None, order: ListOrder::NewestFirst };
    let now = users.clock.now();
    let table = users.table(&scope);
    let mut after = None;
    for _ in 0..LATEST_PAGES {
        let mut page = table.list(listing, after.as_ref(), 1, now).await?;
        if let Some(corrupt) = page.corrupt.pop() {
            // The corrupt item is newer than every readable record, and an older record must not be returned as the
            // latest.
            return Err(TableError::from(corrupt).into());
        }
        match (page.users.pop(), page.next) {
            (Some(user), _) => {
                let at = stage.0 + &record_path(&user.key);
                return read_response(&CachedRead::FromTable(Arc::new(user)), fields, &precondition, Some(at));
            }
            (None, None) => return Err(Problem::NotFound),
            (None, next) => after = next,
        }
    }
    Err(Problem::TooManyExpired)
}

/// `PUT /users/{user_id}/{timestamp}`
#[utoipa::path(
    put,
    path = "/users/{user_id}/{timestamp}",
    operation_id = "replaceUser",
    tag = "users",
    summary = "Create or replace a user record",
    params(schema::UserKeyParams, schema::ConditionalParams),
    request_body(content = schema::Replacement, description = "The complete record"),
    responses(
        (status = 200, description = "The record was replaced", body = schema::WriteUserResponse,
            headers(("etag" = String))),
        (status = 201, description = "The record was created", body = schema::WriteUserResponse,
            headers(("etag" = String))),
    ),
    security(("token" = ["users:write"]), ("token" = ["users:admin"])),
)]
pub(crate) async fn replace(
    State(users): State<AppState>,
    scope: RequestScope,
    UserKeyPath(key): UserKeyPath,
    request: Request,
) -> ApiResult {
    let precondition = users.precondition(request.headers())?;
    let now = users.clock.now();
    let profile = body::replacement(&body::json(request).await?, &key, now)?;
    let intent = WriteIntent { created: Some(first_version(now)), precondition };
    let table = users.table(&scope);
    let write = async {
        let replaced = table.replace(key.clone(), profile, &intent.precondition, now).await?;
        let min_version = MinVersion::after_write(0, replaced.user.version);
        Ok((replaced, Some(min_version)))
    };
    let replaced = users.write(&scope, &key, &intent, Box::pin(write)).await?;
    Ok(write_response(if replaced.created { StatusCode::CREATED } else { StatusCode::OK }, &replaced.user, None))
}

/// `PATCH /users/{user_id}/{timestamp}`
#[utoipa::path(
    patch,
    path = "/users/{user_id}/{timestamp}",
    operation_id = "updateUser",
    tag = "users",
    summary = "Update a user record",
    params(schema::UserKeyParams, schema::ConditionalParams),
    request_body(content = schema::Patch, content_type = "application/merge-patch+json",
        description = "The changes"),
    responses(
        (status = 200, description = "The record was updated", body = schema::WriteUserResponse,
            headers(("etag" = String))),
    ),
    security(("token" = ["users:write"]), ("token" = ["users:admin"])),
)]
pub(crate) async fn patch(
    State(users): State<AppState>,
    scope: RequestScope,
    UserKeyPath(key): UserKeyPath,
    request: Request,
) -> ApiResult {
    let precondition = users.precondition(request.headers())?;
    let now = users.clock.now();
    let edits = body::parse_merge_patch(&body::merge_patch(request).await?, &key, now)?;
    let intent = WriteIntent { created: None, precondition };
    let table = users.table(&scope);
    let write = async {
        let user = table.patch(&key, &edits, &intent.precondition, now).await?;
        let min_version = MinVersion::after_write(0, user.version);
        Ok((user, Some(min_version)))
    };
    let user = users.write(&scope, &key, &intent, Box::pin(write)).await?;
    Ok(write_response(StatusCode::OK, &user, None))
}

/// `DELETE /users/{user_id}/{timestamp}`
#[utoipa::path(
    delete,
    path = "/users/{user_id}/{timestamp}",
    operation_id = "deleteUser",
    tag = "users",
    summary = "Delete a user record",
    params(schema::UserKeyParams, schema::ConditionalParams),
    responses(
        (status = 204, description = "The record was deleted"),
    ),
    security(("token" = ["users:write"]), ("token" = ["users:admin"])),
)]
pub(crate) async fn delete(
    State(users): State<AppState>,
    scope: RequestScope,
    UserKeyPath(key): UserKeyPath,
    headers: HeaderMap,
) -> ApiResult {
    let precondition = users.precondition(&headers)?;
    let intent = WriteIntent { created: None, precondition };
    let table = users.table(&scope);
    let write = async {
        let version = table.delete(&key, &intent.precondition, users.clock.now()).await?;
        Ok(((), Some(MinVersion::after_delete(version))))
    };
    users.write(&scope, &key, &intent, Box::pin(write)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Parses the parameter `fields`, the members to return.
fn fields(uri: &Uri) -> Result<FieldMask, Problem> {
    let mut query = QueryParameters::parse(uri.query(), &["fields"]);
    let fields = query.take("fields", FieldMask::parse).unwrap_or(FieldMask::ALL);
    query.finish().map(|()| fields).map_err(Problem::Request)
}
