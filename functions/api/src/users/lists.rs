//! `GET /users` and `GET /users/{user_id}`: lists of records, page by page.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use millrace_http::auth::AuthenticatedCaller;
use millrace_http::path::{StagePrefix, UserIdPath, parse_epoch_seconds};
use millrace_http::problem::Problem;
use millrace_http::response::{UserListWriter, cursor_nonce, json, set_next_link_header};
use millrace_shared::http::page_limit;
use millrace_shared::http::query::QueryParameters;
use millrace_shared::table::{ListOrder, ListQuery, ListSegment};
use millrace_shared::user::email::Email;
use millrace_shared::user::fields::FieldMask;

use super::{ApiResult, AppState, RequestScope};
use crate::cursor::{ListCursors, cursor};
use crate::openapi::schema;

/// Maximum number of segments of a parallel scan.
const MAX_SEGMENTS: u16 = 1_000;

/// `GET /users`: all records, or the records with an email
#[utoipa::path(
    get,
    path = "/users",
    operation_id = "listUsers",
    tag = "users",
    summary = "List all records, or the records with an email",
    params(schema::ListUsersParams, schema::ProjectionParams, schema::PagingParams),
    responses(
        (status = 200, description = "A page of records", body = schema::ListUsersResponse,
            headers(("link" = String, description = "The URL of the next page, except on the last page"))),
    ),
    security(("token" = ["users:admin"])),
)]
pub(crate) async fn list(
    State(users): State<AppState>,
    scope: RequestScope,
    AuthenticatedCaller(caller): AuthenticatedCaller,
    stage: StagePrefix,
    uri: Uri,
) -> ApiResult {
    let known = ["email", "order", "segment", "segments", "fields", "limit", "cursor"];
    let mut query = QueryParameters::parse(uri.query(), &known);
    let email = query.take("email", |text| Email::parse(text));
    let by_email = query.has("email");
    let order = list_order(&mut query);
    if order.is_some() && !by_email {
        query.refuse("order", "requires email: the list of all records has no order");
    }
    let segment = segment(&mut query);
    if by_email && (query.has("segment") || query.has("segments")) {
        query.refuse("segment", "cannot be combined with email: segments divide the list of all records");
    }
    let listing = match &email {
        Some(email) => ListQuery::Email { email, order: order.unwrap_or_default() },
        None => ListQuery::All { segment },
    };
    let cursors = ListCursors { keys: &users.cursors, listing, caller: &caller };
    listed(&users, &scope, query, cursors, &(stage.0 + uri.path())).await
}

/// `GET /users/{user_id}`
#[utoipa::path(
    get,
    path = "/users/{user_id}",
    operation_id = "listUserHistory",
    tag = "users",
    summary = "List a user's records",
    params(schema::UserIdParams, schema::HistoryRangeParams, schema::ProjectionParams, schema::PagingParams),
    responses(
        (status = 200, description = "A page of the user's records", body = schema::ListUsersResponse,
            headers(("link" = String, description = "The URL of the next page, except on the last page"))),
    ),
    security(("token" = ["users:read"]), ("token" = ["users:admin"])),
)]
pub(crate) async fn list_records(
    State(users): State<AppState>,
    scope: RequestScope,
    AuthenticatedCaller(caller): AuthenticatedCaller,
    UserIdPath(id): UserIdPath,
    stage: StagePrefix,
    uri: Uri,
) -> ApiResult {
    let mut query = QueryParameters::parse(uri.query(), &["from", "to", "order", "fields", "limit", "cursor"]);
    let (from, to) = (query.take("from", parse_epoch_seconds), query.take("to", parse_epoch_seconds));
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        query.refuse("from", "must not be after to");
    }
    let order = list_order(&mut query).unwrap_or_default();
    let listing = ListQuery::User { id: &id, from, to, order };
    let cursors = ListCursors { keys: &users.cursors, listing, caller: &caller };
    listed(&users, &scope, query, cursors, &(stage.0 + uri.path())).await
}

fn list_order(query: &mut QueryParameters) -> Option<ListOrder> {
    query.take("order", |text| match text {
        "desc" => Ok(ListOrder::NewestFirst),
        "asc" => Ok(ListOrder::OldestFirst),
        _ => Err("must be desc (newest first) or asc (oldest first)"),
    })
}

fn segment(query: &mut QueryParameters) -> Option<ListSegment> {
    let of = query.take("segments", |text| match text.parse() {
        Ok(of) if (1..=MAX_SEGMENTS).contains(&of) => Ok(of),
        _ => Err(format!("must be a whole number from 1 to {MAX_SEGMENTS}")),
    });
    let index = query.take("segment", |text| {
        text.parse::<u16>().map_err(|_| "must be a whole number from 0 to one less than segments")
    });
    match (index, of) {
        (Some(index), Some(of)) if index >= of => query.refuse("segment", "must be less than segments"),
        (None, Some(_)) if !query.has("segment") => query.refuse("segment", "is required if segments is given"),
        (Some(_), None) if !query.has("segments") => query.refuse("segments", "is required if segment is given"),
        _ => {}
    }
    index.zip(of).map(|(index, of)| ListSegment { index, of })
}

async fn listed(
    users: &AppState,
    scope: &RequestScope,
    mut query: QueryParameters,
    cursors: ListCursors<'_>,
    path: &str,
) -> ApiResult {
    let now = users.clock.now();
    let fields = query.take("fields", FieldMask::parse).unwrap_or(FieldMask::ALL);
    let limit = page_limit::limit(&mut query);
    // A cursor is bound to its list, so it can be checked only if all parameters that define the list are valid.
    let after = if query.is_valid() { cursor(&mut query, &cursors, now) } else { None };
    let rest = query.without("cursor");
    query.finish().map_err(Problem::Request)?;

    let page = users.table(scope).list(cursors.listing, after.as_ref(), limit, now).await?;
    if let Some(first) = page.corrupt.first() {
        tracing::warn!(page.corrupt = page.corrupt.len(), attribute = first.attribute, "items left out of a list");
    }
    let mut listed = UserListWriter::open(fields);
    let mut next = page.next;
    let mut last = None;
    for user in &page.users {
        if !listed.add(user)? {
            next = last;
            break;
        }
        last = Some((&user.key).into());
    }
    let cursor = match next {
        None => None,
        Some(position) => Some(cursors.encode(&position, now, cursor_nonce(&users.clock))?),
    };
    listed.push_field("next_cursor", &cursor)?;
    let mut response = json(StatusCode::OK, listed.finish());
    if let Some(cursor) = cursor {
        set_next_link_header(&mut response, path, &rest, &cursor)?;
    }
    Ok(response)
}
