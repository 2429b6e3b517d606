//! How a record is answered: its JSON, its entity tag, and where it stands.

use axum::http::header::{CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_TYPE, ETAG};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use shared::user::fields::{Fields, Selected};
use shared::user::precondition::Precondition;
use shared::user::{User, UserKey};

use super::Answer;
use crate::precondition;
use crate::problem::Problem;

#[derive(Serialize)]
struct Single<'a> {
    user: Selected<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'static str>,
}

/// The answer to a read.
pub(super) fn found(user: &User, fields: Fields, precondition: &Precondition, at: Option<String>) -> Answer {
    // RFC 9110, section 13.2.2: If-Match first; then If-None-Match, whose refusal of a read is "not modified".
    if precondition.if_match.as_ref().is_some_and(|tags| !tags.name(Some(user.version))) {
        return Err(Problem::PreconditionFailed);
    }
    let unmodified = precondition.if_none_match.as_ref().is_some_and(|tags| tags.name(Some(user.version)));
    let single = Single { user: user.only(fields), source: Some("database") };
    let text = serde_json::to_vec(&single).map_err(unwritable)?;
    let mut response = if unmodified {
        // Section 8.6: the length that a 200 would have. Left out, it would be filled in as that of no body.
        (StatusCode::NOT_MODIFIED, [(CONTENT_LENGTH, HeaderValue::from(text.len()))]).into_response()
    } else {
        json(StatusCode::OK, text)
    };
    tag(&mut response, user, at.map(|at| (CONTENT_LOCATION, at)));
    Ok(response)
}

/// The answer to a write.
pub(super) fn written(status: StatusCode, user: &User, at: Option<(HeaderName, String)>) -> Response {
    let single = Single { user: user.only(Fields::ALL), source: None };
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

pub(super) fn json(status: StatusCode, text: Vec<u8>) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], text).into_response()
}

#[expect(clippy::needless_pass_by_value, reason = "a function for map_err")]
pub(super) fn unwritable(error: serde_json::Error) -> Problem {
    Problem::Internal { cause: format!("a user cannot be written as JSON: {error}") }
}

/// A record's path. Of the characters that an identifier may have, only `|` may not stand in a path (RFC 3986).
pub(super) fn address(key: &UserKey) -> String {
    format!("/users/{}/{}", key.id.as_str().replace('|', "%7C"), key.timestamp.seconds())
}

/// A list's body stops before this, counted as a Lambda function's answer counts it: as a JSON string, of which it has at
/// most 6 MB. The largest single record stays below it.
const MAX_LIST_BYTES: usize = 5 * 1024 * 1024;

/// The JSON of many records, up to the longest that can be answered.
pub(super) struct Listed {
    text: Vec<u8>,
    quoted_bytes: usize,
    fields: Fields,
    is_empty: bool,
    is_closed: bool,
}

impl Listed {
    pub(super) fn open(fields: Fields) -> Self {
        Self { text: br#"{"users":["#.to_vec(), quoted_bytes: 0, fields, is_empty: true, is_closed: false }
    }

    /// Adds a record, unless it would make the answer too long.
    pub(super) fn add(&mut self, user: &User) -> Result<bool, Problem> {
        let before = self.text.len();
        if !self.is_empty {
            self.text.push(b',');
        }
        serde_json::to_writer(&mut self.text, &user.only(self.fields)).map_err(unwritable)?;
        // JSON has no other characters that a JSON string escapes.
        let escapes = self.text[before..].iter().filter(|byte| matches!(byte, b'"' | b'\\')).count();
        self.quoted_bytes += self.text.len() - before + escapes;
        let fits = self.is_empty || self.quoted_bytes <= MAX_LIST_BYTES;
        if !fits {
            self.text.truncate(before);
        }
        self.is_empty = false;
        Ok(fits)
    }

    /// Ends the list and goes on with another member.
    pub(super) fn member(&mut self, name: &str, value: &impl Serialize) -> Result<(), Problem> {
        if !self.is_closed {
            self.text.push(b']');
            self.is_closed = true;
        }
        self.text.extend(format!(",\"{name}\":").as_bytes());
        serde_json::to_writer(&mut self.text, value).map_err(unwritable)
    }

    /// The whole text.
    pub(super) fn close(mut self) -> Vec<u8> {
        if !self.is_closed {
            self.text.push(b']');
        }
        self.text.push(b'}');
        self.text
    }
}
