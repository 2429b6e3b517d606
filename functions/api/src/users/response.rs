//! The response with a record: its JSON, its entity tag and its path.

use axum::http::header::{CONTENT_LENGTH, CONTENT_LOCATION, ETAG};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use millrace_http::problem::Problem;
use millrace_http::response::{json, serialization_error};
use millrace_shared::user::fields::{FieldMask, MaskedUser};
use millrace_shared::user::precondition::Precondition;
use millrace_shared::user::{User, UserKey};
use serde::Serialize;

use super::ApiResult;
use crate::cache::CachedRead;
use crate::precondition;

/// The initial size of the buffer of a body, in which most bodies fit.
const BODY_BYTES: usize = 1_024;

#[derive(Serialize)]
struct RecordBody<'a> {
    user: MaskedUser<'a>,
}

/// Returns the response to a read.
pub(super) fn read_response(
    record: &CachedRead,
    fields: FieldMask,
    precondition: &Precondition,
    at: Option<String>,
) -> ApiResult {
    // RFC 9110, section 13.2.2: If-Match is evaluated first, then If-None-Match, which fails a read with "not
    // modified".
    if precondition.if_match.as_ref().is_some_and(|tags| !tags.matches(Some(record.version()))) {
        return Err(Problem::PreconditionFailed);
    }
    let unmodified = precondition.if_none_match.as_ref().is_some_and(|tags| tags.matches(Some(record.version())));
    let text = read_body(record, fields)?;
    let mut response = if unmodified {
        // Section 8.6: the length that a 200 response would have. If it were omitted, the length of an empty body would
        // be sent.
        (StatusCode::NOT_MODIFIED, [(CONTENT_LENGTH, HeaderValue::from(text.len()))]).into_response()
    } else {
        json(StatusCode::OK, text)
    };
    tag(&mut response, record.version(), at.map(|at| (CONTENT_LOCATION, at)));
    Ok(response)
}

/// Returns the body of a read: the record with these members, and its source.
fn read_body(record: &CachedRead, fields: FieldMask) -> Result<Vec<u8>, Problem> {
    let mut text = Vec::with_capacity(BODY_BYTES);
    text.extend(br#"{"user":"#);
    let source = match record {
        CachedRead::Cached(entry) if fields == FieldMask::ALL => {
            text.extend(&entry.json);
            "cache"
        }
        CachedRead::Cached(entry) => {
            text.extend(fields.mask_json(&entry.json).map_err(serialization_error)?);
            "cache"
        }
        CachedRead::FromTable(user) => {
            serde_json::to_writer(&mut text, &user.only(fields)).map_err(serialization_error)?;
            "database"
        }
    };
    text.extend(br#","source":""#);
    text.extend(source.as_bytes());
    text.extend(br#""}"#);
    Ok(text)
}

/// Returns the response to a write.
pub(super) fn write_response(status: StatusCode, user: &User, at: Option<(HeaderName, String)>) -> Response {
    let single = RecordBody { user: user.only(FieldMask::ALL) };
    let mut response = match serde_json::to_vec(&single) {
        Ok(text) => json(status, text),
        Err(error) => serialization_error(error).into_response(),
    };
    tag(&mut response, user.version, at);
    response
}

fn tag(response: &mut Response, version: u64, at: Option<(HeaderName, String)>) {
    let headers = response.headers_mut();
    if let Some(tag) = precondition::entity_tag(version) {
        headers.insert(ETAG, tag);
    }
    if let Some((name, at)) = at
        && let Ok(at) = HeaderValue::try_from(at)
    {
        headers.insert(name, at);
    }
}

/// Returns a record's path. Of the characters that an identifier may contain, only `|` is not allowed in a path (RFC
/// 3986).
pub(super) fn record_path(key: &UserKey) -> String {
    format!("/users/{}/{}", key.id.as_str().replace('|', "%7C"), key.timestamp.seconds())
}
