//! What each route does: read the request, ask the table, answer.

use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_TYPE, ETAG, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use shared::clock::Clock;
use shared::table::{Fault, Listing, Page, Position, UserTable, WriteError};
use shared::user::email::Email;
use shared::user::id::UserId;
use shared::user::precondition::Precondition;
use shared::user::timestamp::Timestamp;
use shared::user::{User, UserKey};
use time::OffsetDateTime;

use crate::access::By;
use crate::observe::new_uuid;
use crate::path::{OfRecord, OfUser, Stage, seconds};
use crate::problem::Problem;
use crate::query::Query;
use crate::{body, page, precondition};

/// A list's body stops before this, counted as a Lambda function's answer counts it: as a JSON string, of which it has at
/// most 6 MB. The largest single record stays below it.
const MAX_LIST_BYTES: usize = 5 * 1024 * 1024;

/// The users, and the time.
#[derive(Clone, Debug)]
pub(crate) struct Users {
    table: UserTable,
    clock: Clock,
    preconditions_required: bool,
}

impl Users {
    pub(crate) fn new(table: UserTable, clock: Clock, preconditions_required: bool) -> Self {
        Self { table, clock, preconditions_required }
    }

    /// What a write demands of the record that it is over.
    fn precondition(&self, headers: &HeaderMap) -> Result<Precondition, Problem> {
        let precondition = precondition::read(headers)?;
        let silent = precondition == Precondition::default();
        if silent && self.preconditions_required { Err(Problem::PreconditionRequired) } else { Ok(precondition) }
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }
}

type Answer = Result<Response, Problem>;

/// `POST /users`
pub(crate) async fn create(State(users): State<Users>, By(caller): By, request: Request) -> Answer {
    let now = users.clock.now();
    let stage = request.extensions().get::<Stage>().cloned().unwrap_or_default();
    let draft = body::draft(&body::json(request).await?, now)?;
    let is_new_user = draft.id.is_none() && caller.bound_to().is_none();
    let id = match (draft.id, caller.bound_to()) {
        (Some(id), _) if !caller.owns(&id) => return Err(Problem::ForeignUser { pointer: "/user_id" }),
        (Some(id), _) => Ok(id),
        (None, Some(own)) => Ok(UserId::parse(own).map_err(|_| Problem::ForeignUser { pointer: "/user_id" })?),
        (None, None) => UserId::parse(new_uuid(&users.clock)),
    };
    let timestamp = draft.timestamp.map_or_else(|| Timestamp::parse(now.unix_timestamp()), Ok);
    let (Ok(id), Ok(timestamp)) = (id, timestamp) else {
        return Err(Problem::Internal { cause: "the clock shows no time since 1970".into() });
    };
    let user = User::created(UserKey { id, timestamp }, draft.profile, now);
    match users.table.create(&user, now).await {
        Ok(()) => {}
        // Nobody else can know a new random identifier: an earlier attempt of this very call landed, unheard.
        Err(WriteError::Exists) if is_new_user => {}
        Err(error) => return Err(error.into()),
    }
    let location = stage.0 + &address(&user.key);
    Ok(written(StatusCode::CREATED, &user, Some((LOCATION, location))))
}

/// `GET /users/{user_id}/{timestamp}`
pub(crate) async fn read(State(users): State<Users>, OfRecord(key): OfRecord, headers: HeaderMap) -> Answer {
    let precondition = precondition::read(&headers)?;
    let user = users.table.read(&key, users.clock.now()).await?.ok_or(Problem::NotFound)?;
    found(&user, &precondition, None)
}

/// `GET /users/{user_id}/latest`
pub(crate) async fn latest(State(users): State<Users>, OfUser(id): OfUser, request: Request) -> Answer {
    let precondition = precondition::read(request.headers())?;
    let stage = request.extensions().get::<Stage>().cloned().unwrap_or_default();
    let listing = Listing::User { id: &id, from: None, to: None };
    let now = users.clock.now();
    let mut after = None;
    loop {
        let mut page = users.table.list(listing, after.as_ref(), 1, now).await?;
        if let Some(unreadable) = page.unreadable.pop() {
            // It is newer than the newest that can be read: an older one must not pass for the latest.
            return Err(Fault::from(unreadable).into());
        }
        match (page.users.pop(), page.next) {
            (Some(user), _) => return found(&user, &precondition, Some(stage.0 + &address(&user.key))),
            (None, None) => return Err(Problem::NotFound),
            (None, next) => after = next,
        }
    }
}

/// `PUT /users/{user_id}/{timestamp}`
pub(crate) async fn replace(State(users): State<Users>, OfRecord(key): OfRecord, request: Request) -> Answer {
    let precondition = users.precondition(request.headers())?;
    let now = users.clock.now();
    let profile = body::replacement(&body::json(request).await?, &key, now)?;
    let replaced = users.table.replace(key, profile, &precondition, now).await?;
    Ok(written(if replaced.created { StatusCode::CREATED } else { StatusCode::OK }, &replaced.user, None))
}

/// `PATCH /users/{user_id}/{timestamp}`
pub(crate) async fn patch(State(users): State<Users>, OfRecord(key): OfRecord, request: Request) -> Answer {
    let precondition = users.precondition(request.headers())?;
    let now = users.clock.now();
    let edits = body::edits(&body::merge_patch(request).await?, &key, now)?;
    let user = users.table.patch(&key, &edits, &precondition, now).await?;
    Ok(written(StatusCode::OK, &user, None))
}

/// `DELETE /users/{user_id}/{timestamp}`
pub(crate) async fn delete(State(users): State<Users>, OfRecord(key): OfRecord, headers: HeaderMap) -> Answer {
    let precondition = users.precondition(&headers)?;
    users.table.delete(&key, &precondition, users.clock.now()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /users`, of all or by email
pub(crate) async fn list(State(users): State<Users>, uri: Uri) -> Answer {
    let mut query = Query::parse(uri.query(), &["email", "limit", "cursor"]);
    let email = query.take("email", |text| Email::parse(text));
    let listing = email.as_ref().map_or(Listing::All, Listing::Email);
    let limit = page::limit(&mut query);
    // Of a list that cannot be told, no cursor can be told from a wrong one.
    let after = if query.is_sound() { page::cursor(&mut query, listing) } else { None };
    query.finish()?;
    listed(&users, listing, after.as_ref(), limit).await
}

/// `GET /users/{user_id}`
pub(crate) async fn history(State(users): State<Users>, OfUser(id): OfUser, uri: Uri) -> Answer {
    let mut query = Query::parse(uri.query(), &["from", "to", "limit", "cursor"]);
    let (from, to) = (query.take("from", seconds), query.take("to", seconds));
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        query.refuse("from", "must not be after to");
    }
    let listing = Listing::User { id: &id, from, to };
    let limit = page::limit(&mut query);
    let after = if query.is_sound() { page::cursor(&mut query, listing) } else { None };
    query.finish()?;
    listed(&users, listing, after.as_ref(), limit).await
}

async fn listed(users: &Users, listing: Listing<'_>, after: Option<&Position>, limit: usize) -> Answer {
    let now: OffsetDateTime = users.clock.now();
    let page = users.table.list(listing, after, limit, now).await?;
    if let Some(first) = page.unreadable.first() {
        tracing::warn!(
            page.unreadable = page.unreadable.len(),
            attribute = first.attribute,
            "items left out of a list"
        );
    }
    Ok(json(StatusCode::OK, spell(&page, listing)?))
}

/// A page's JSON, cut where it would grow too long to be answered.
fn spell(page: &Page, listing: Listing<'_>) -> Result<Vec<u8>, Problem> {
    let mut text = br#"{"users":["#.to_vec();
    let mut next = page.next.clone();
    let (mut quoted_bytes, mut last): (usize, Option<&User>) = (0, None);
    for user in &page.users {
        let before = text.len();
        if last.is_some() {
            text.push(b',');
        }
        serde_json::to_writer(&mut text, user).map_err(unwritable)?;
        // JSON has no other characters that a JSON string escapes.
        let escapes = text[before..].iter().filter(|byte| matches!(byte, b'"' | b'\\')).count();
        quoted_bytes += text.len() - before + escapes;
        if let Some(last) = last.filter(|_| quoted_bytes > MAX_LIST_BYTES) {
            text.truncate(before);
            next = Some(Position::from(&last.key));
            break;
        }
        last = Some(user);
    }
    text.extend(br#"],"next":"#);
    let cursor = next.map(|position| page::encode(&position, listing));
    serde_json::to_writer(&mut text, &cursor).map_err(unwritable)?;
    text.push(b'}');
    Ok(text)
}

#[derive(Serialize)]
struct Single<'a> {
    user: &'a User,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'static str>,
}

fn found(user: &User, precondition: &Precondition, at: Option<String>) -> Answer {
    // RFC 9110, section 13.2.2: If-Match first; then If-None-Match, whose refusal of a read is "not modified".
    if precondition.if_match.as_ref().is_some_and(|tags| !tags.name(Some(user.version))) {
        return Err(Problem::PreconditionFailed);
    }
    let unmodified = precondition.if_none_match.as_ref().is_some_and(|tags| tags.name(Some(user.version)));
    let text = serde_json::to_vec(&Single { user, source: Some("database") }).map_err(unwritable)?;
    let mut response = if unmodified {
        // Section 8.6: the length that a 200 would have. Left out, it would be filled in as that of no body.
        (StatusCode::NOT_MODIFIED, [(CONTENT_LENGTH, HeaderValue::from(text.len()))]).into_response()
    } else {
        json(StatusCode::OK, text)
    };
    tag(&mut response, user, at.map(|at| (CONTENT_LOCATION, at)));
    Ok(response)
}

fn written(status: StatusCode, user: &User, at: Option<(HeaderName, String)>) -> Response {
    let single = Single { user, source: None };
    let mut response = match serde_json::to_vec(&single) {
        Ok(text) => json(status, text),
        Err(error) => unwritable(error).into_response(),
    };
    tag(&mut response, user, at);
    response
}

fn tag(response: &mut Response, user: &User, at: Option<(HeaderName, String)>) {
    let headers = response.headers_mut();
    if let Some(tag) = precondition::entity_tag(user.version) {
        headers.insert(ETAG, tag);
    }
    if let Some((name, at)) = at
        && let Ok(at) = HeaderValue::try_from(at)
    {
        headers.insert(name, at);
    }
}

fn json(status: StatusCode, text: Vec<u8>) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], text).into_response()
}

#[expect(clippy::needless_pass_by_value, reason = "a function for map_err")]
fn unwritable(error: serde_json::Error) -> Problem {
    Problem::Internal { cause: format!("a user cannot be written as JSON: {error}") }
}

/// A record's path. Of the characters that an identifier may have, only `|` may not stand in a path (RFC 3986).
fn address(key: &UserKey) -> String {
    format!("/users/{}/{}", key.id.as_str().replace('|', "%7C"), key.timestamp.seconds())
}
