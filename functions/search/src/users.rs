//! The handlers of search: each parses the request, queries the database and returns the response.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use futures::TryStreamExt as _;
use millrace_http::auth::AuthenticatedCaller;
use millrace_http::deadline::RequestDeadline;
use millrace_http::path::{StagePrefix, UserIdPath};
use millrace_http::problem::Problem;
use millrace_http::response::{UserListWriter, cursor_nonce, json, serialization_error, set_next_link_header};
use millrace_shared::clock::Clock;
use millrace_shared::http::cursor_seal::SealKeys;
use millrace_shared::http::page_limit;
use millrace_shared::http::query::QueryParameters;
use millrace_shared::item;
use millrace_shared::postgres::PostgresSession;
use millrace_shared::raw_item::RawItem;
use millrace_shared::user::User;
use millrace_shared::user::fields::{FieldMask, MaskedUser};
use serde::Serialize;
use serde_json::value::RawValue;
use std::pin::pin;
use std::sync::Arc;
use time::OffsetDateTime;
use tokio_postgres::{Error, Row};

use crate::database::{QUERY_TIMEOUT, SearchDatabases, SearchError};
use crate::openapi;
use crate::request::{SearchCursors, SearchRequest};
use crate::sort::KeysetPosition;
use crate::statement::{AS_OF, STATS, SUMMARY, SearchQuery};

/// Default and maximum number of days and of domains in the statistics.
const DAYS: (u32, u32) = (30, 366);
const DOMAINS: (u32, u32) = (10, 100);

/// The state of the handlers: the databases, the clock and the cursor keys.
#[derive(Clone, Debug)]
pub(crate) struct SearchState {
    databases: Arc<SearchDatabases>,
    clock: Clock,
    cursors: SealKeys,
}

impl SearchState {
    pub(crate) fn new(databases: SearchDatabases, clock: Clock, cursors: SealKeys) -> Self {
        Self { databases: Arc::new(databases), clock, cursors }
    }
}

type SearchResult = Result<Response, Problem>;

/// The rows of a query, with a lower bound of their freshness.
struct FreshRows {
    rows: Vec<Row>,
    as_of: Option<String>,
}

/// `GET /search/users`
#[utoipa::path(
    get,
    path = "/search/users",
    operation_id = "searchUsers",
    tag = "search",
    summary = "Search users",
    description = "Searches the relational replica; available if the relational tier is on. A record must satisfy all \
        filters. `as_of` is the time of the latest change in the replica.",
    params(openapi::FilterParams, openapi::SortParams, openapi::SearchPagingParams),
    responses(
        (status = 200, description = "A page of search results", body = openapi::SearchUsersResponse,
            headers(("link" = String, description = "The URL of the next page, except on the last page"))),
    ),
    security(("token" = ["users:admin"])),
)]
pub(crate) async fn find(
    State(search): State<SearchState>,
    AuthenticatedCaller(caller): AuthenticatedCaller,
    RequestDeadline(budget): RequestDeadline,
    stage: StagePrefix,
    uri: Uri,
) -> SearchResult {
    let mut query = SearchRequest::parameters(uri.query());
    let question = SearchRequest::read(&mut query);
    let now = search.clock.now();
    let cursors = SearchCursors { keys: &search.cursors, question: &question, caller: &caller };
    // A cursor is bound to its query, so it can be checked only if all parameters that define the query are valid.
    let after = query
        .is_valid()
        .then(|| query.take("cursor", |text| cursors.decode(text, now).ok_or(page_limit::INVALID_CURSOR)));
    let after = after.flatten();
    let rest = query.without("cursor");
    query.finish().map_err(Problem::Request)?;

    let wanted = question.to_query(after.as_ref(), now.unix_timestamp());
    let (wanted, question) = (&wanted, &question);
    let page = search
        .databases
        .run_with_failover(budget.work_until(), |session| page(session, wanted, question, now))
        .await??;
    let mut listed = page.listed;
    let cursor = match page.next {
        None => None,
        Some(position) => {
            let sealed = cursors.encode(&position, now, cursor_nonce(&search.clock));
            Some(sealed.ok_or_else(|| Problem::Internal { cause: "cannot seal the cursor".into() })?)
        }
    };
    listed.push_field("next_cursor", &cursor)?;
    listed.push_field("as_of", &page.as_of)?;
    let mut response = json(StatusCode::OK, listed.finish());
    if let Some(cursor) = cursor {
        set_next_link_header(&mut response, &(stage.0 + uri.path()), &rest, &cursor)?;
    }
    Ok(response)
}

/// A page of search results.
struct SearchPage {
    listed: UserListWriter,
    /// The position after which the next page starts.
    next: Option<KeysetPosition>,
    as_of: Option<String>,
}

/// Reads a page. It reads the replica's freshness before the records, so that the records are at least as fresh as
/// `as_of` says. Rows are streamed until the page is full, by number of records or by bytes; the remaining rows are
/// never in memory.
async fn page(
    session: Arc<PostgresSession>,
    wanted: &SearchQuery<'_>,
    question: &SearchRequest,
    now: OffsetDateTime,
) -> Result<Result<SearchPage, Problem>, Error> {
    let as_of = as_of(&session).await?;
    let mut page = SearchPage { listed: UserListWriter::open(question.fields), next: None, as_of };
    let mut count = 0;
    let mut last = None;
    for stretch in 0..wanted.page_ranges() {
        // One row more than the page contains, which shows whether there is a next page.
        let sql = wanted.statement(stretch, question.limit + 1 - count);
        let statement = session.statement(sql.text()).await?;
        let mut rows = pin!(session.client().query_raw(&statement, sql.parameters()).await?);
        while let Some(row) = rows.try_next().await? {
            if count == question.limit {
                page.next = last;
                return Ok(Ok(page));
            }
            match add(&mut page.listed, &row, now) {
                Ok((true, position)) => last = Some(position),
                Ok((false, _)) => {
                    session.abandon();
                    page.next = last;
                    return Ok(Ok(page));
                }
                Err(problem) => return Ok(Err(problem)),
            }
            count += 1;
        }
    }
    Ok(Ok(page))
}

/// Adds a row to a list, unless the list is full. Returns whether it was added, and the row's position.
fn add(listed: &mut UserListWriter, row: &Row, now: OffsetDateTime) -> Result<(bool, KeysetPosition), Problem> {
    let fits = match decoded(row, now)? {
        Some(user) => listed.add(&user)?,
        None => true,
    };
    Ok((fits, row_position(row)?))
}

async fn as_of(session: &PostgresSession) -> Result<Option<String>, Error> {
    let rows = run_query(session, AS_OF, &[]).await?;
    rows.first().map_or(Ok(None), |row| row.try_get(0))
}

async fn run_query(session: &PostgresSession, sql: &str, parameters: &[String]) -> Result<Vec<Row>, Error> {
    let statement = session.statement(sql).await?;
    let parameters: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> = parameters.iter().map(|text| text as _).collect();
    session.client().query(&statement, &parameters).await
}

/// Decodes the user of a row. Returns `None` if the item is not a valid user record, which is logged; a list omits it.
fn decoded(row: &Row, now: OffsetDateTime) -> Result<Option<User>, Problem> {
    match user(text(row, 0)?.as_deref().unwrap_or_default(), now) {
        Ok(user) => Ok(Some(user)),
        Err(error) => {
            tracing::warn!(error, "invalid item omitted from a list");
            Ok(None)
        }
    }
}

fn user(item: &str, now: OffsetDateTime) -> Result<User, String> {
    let item = RawItem::parse(item).map_err(|_| "the item is not valid DynamoDB JSON".to_owned())?;
    item::decode(item.into_attributes(), now).map_err(|error| error.to_string())
}

/// Returns the row's position: all columns after the item.
fn row_position(row: &Row) -> Result<KeysetPosition, Problem> {
    (1..row.len()).map(|column| text(row, column)).collect::<Result<_, _>>().map(KeysetPosition)
}

fn text(row: &Row, column: usize) -> Result<Option<String>, Problem> {
    row.try_get(column).map_err(|error| Problem::Internal { cause: format!("invalid query result: {error}") })
}

/// Returns the row of a result that always has one row.
fn single_row(rows: &[Row]) -> Result<&Row, Problem> {
    rows.first().ok_or_else(|| Problem::Internal { cause: "the query returned no row".into() })
}

/// `GET /users/{user_id}/summary`
#[utoipa::path(
    get,
    path = "/users/{user_id}/summary",
    operation_id = "getUserSummary",
    tag = "search",
    summary = "Get a user's latest record and aggregates over all of the user's records",
    description = "Reads the relational replica; available if the relational tier is on.",
    params(openapi::SearchUserIdParams),
    responses((status = 200, description = "The latest record and the aggregates", body = openapi::Summary)),
    security(("token" = ["users:read"]), ("token" = ["users:admin"])),
)]
pub(crate) async fn summary(
    State(search): State<SearchState>,
    RequestDeadline(budget): RequestDeadline,
    UserIdPath(id): UserIdPath,
    uri: Uri,
) -> SearchResult {
    #[derive(Serialize)]
    struct Summary<'a> {
        user: MaskedUser<'a>,
        records: i64,
        first_timestamp: i64,
        last_timestamp: i64,
        first_created_at: Option<String>,
        last_updated_at: Option<String>,
        as_of: Option<String>,
    }
    QueryParameters::parse(uri.query(), &[]).finish().map_err(Problem::Request)?;
    let now = search.clock.now();
    let parameters = [now.unix_timestamp().to_string(), id.as_str().to_owned()];
    let found =
        search.databases.run_with_failover(budget.work_until(), |session| one(session, SUMMARY, &parameters)).await?;
    let row = found.rows.first().ok_or(Problem::NotFound)?;
    let user =
        user(text(row, 0)?.as_deref().unwrap_or_default(), now).map_err(|cause| Problem::CorruptRecord { cause })?;
    let seconds = |column| {
        let seconds = text(row, column)?.and_then(|text| text.parse().ok());
        seconds.ok_or_else(|| Problem::CorruptRecord { cause: "a timestamp is not in whole seconds".into() })
    };
    let summary = Summary {
        user: user.only(FieldMask::ALL),
        records: number(row, 1)?,
        first_timestamp: seconds(2)?,
        last_timestamp: seconds(3)?,
        first_created_at: text(row, 4)?,
        last_updated_at: text(row, 5)?,
        as_of: found.as_of,
    };
    Ok(json(StatusCode::OK, serde_json::to_vec(&summary).map_err(serialization_error)?))
}

async fn one(session: Arc<PostgresSession>, sql: &str, parameters: &[String]) -> Result<FreshRows, Error> {
    let as_of = as_of(&session).await?;
    Ok(FreshRows { rows: run_query(&session, sql, parameters).await?, as_of })
}

fn number(row: &Row, column: usize) -> Result<i64, Problem> {
    row.try_get(column).map_err(|error| Problem::Internal { cause: format!("invalid query result: {error}") })
}

/// `GET /stats/users`
#[utoipa::path(
    get,
    path = "/stats/users",
    operation_id = "getUserStats",
    tag = "search",
    summary = "Get the number of records by status, day and domain",
    description = "Reads the relational replica; available if the relational tier is on. All counts are from one snapshot.",
    params(openapi::StatsParams),
    responses((status = 200, description = "The statistics", body = openapi::Stats)),
    security(("token" = ["users:admin"])),
)]
pub(crate) async fn stats(
    State(search): State<SearchState>,
    RequestDeadline(budget): RequestDeadline,
    uri: Uri,
) -> SearchResult {
    #[derive(Serialize)]
    struct Stats<'a> {
        records: i64,
        statuses: &'a RawValue,
        days: &'a RawValue,
        domains: &'a RawValue,
        as_of: Option<String>,
    }
    let mut query = QueryParameters::parse(uri.query(), &["days", "domains"]);
    let mut count = |name, (usual, most): (u32, u32)| {
        let count = query.take(name, |text| match text.parse::<u32>() {
            Ok(count) if (1..=most).contains(&count) => Ok(count),
            _ => Err(format!("must be a whole number from 1 to {most}")),
        });
        count.unwrap_or(usual)
    };
    let (days, domains) = (count("days", DAYS), count("domains", DOMAINS));
    query.finish().map_err(Problem::Request)?;
    // The number of days includes today.
    let parameters = [search.clock.now().unix_timestamp().to_string(), (days - 1).to_string(), domains.to_string()];
    let found =
        search.databases.run_with_failover(budget.work_until(), |session| one(session, STATS, &parameters)).await?;
    let row = single_row(&found.rows)?;
    let [statuses, days, domains] = [raw(row, 1)?, raw(row, 2)?, raw(row, 3)?];
    let stats =
        Stats { records: number(row, 0)?, statuses: &statuses, days: &days, domains: &domains, as_of: found.as_of };
    Ok(json(StatusCode::OK, serde_json::to_vec(&stats).map_err(serialization_error)?))
}

fn raw(row: &Row, column: usize) -> Result<Box<RawValue>, Problem> {
    // PostgreSQL inserts line breaks between the elements; line breaks within their texts are always escaped.
    let json = text(row, column)?.unwrap_or_default().replace('\n', "");
    RawValue::from_string(json)
        .map_err(|error| Problem::Internal { cause: format!("the statistics are not valid JSON: {error}") })
}

impl From<SearchError> for Problem {
    fn from(failure: SearchError) -> Self {
        match failure {
            SearchError::Timeout(fault) => {
                Self::QueryTimeout { seconds: QUERY_TIMEOUT.as_secs(), cause: fault.to_string() }
            }
            SearchError::Late(fault) | SearchError::Unavailable(fault) => {
                Self::ServiceUnavailable { cause: fault.to_string() }
            }
            SearchError::Refused(fault) => Self::Internal { cause: fault.to_string() },
        }
    }
}
