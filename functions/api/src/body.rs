//! Request bodies: parse JSON text into the parts of a user, and report all errors at once.
//!
//! The text is parsed member by member as raw JSON, so that an unknown member is named, a repeated member is detected,
//! and a number in `attributes` keeps its digits.

mod fields;
mod keys;

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use millrace_http::problem::{JSON, MAX_BODY_BYTES, MERGE_PATCH, Problem};
use millrace_shared::user::Timestamp;
use millrace_shared::user::attributes::UserAttributes;
use millrace_shared::user::email::Email;
use millrace_shared::user::expiry::ExpiresAt;
use millrace_shared::user::id::UserId;
use millrace_shared::user::{AttributesPatch, FieldPatch, UserKey, UserName, UserPatch, UserProfile, UserStatus};
use time::OffsetDateTime;

use fields::BodyReader;
pub(crate) use keys::keys;

/// The parsed body of a POST.
pub(crate) struct CreateUserBody {
    pub(crate) id: Option<UserId>,
    pub(crate) timestamp: Option<Timestamp>,
    pub(crate) profile: UserProfile,
}

/// Reads a JSON body.
pub(crate) async fn json(request: Request) -> Result<Bytes, Problem> {
    if media_type(request.headers()).is_none_or(|media_type| !media_type.eq_ignore_ascii_case(JSON)) {
        return Err(Problem::UnsupportedMediaType { expected: JSON });
    }
    read(request).await
}

/// Reads a merge patch body.
pub(crate) async fn merge_patch(request: Request) -> Result<Bytes, Problem> {
    if media_type(request.headers()).is_none_or(|media_type| !media_type.eq_ignore_ascii_case(MERGE_PATCH)) {
        return Err(Problem::UnsupportedMediaType { expected: MERGE_PATCH });
    }
    read(request).await
}

/// Returns the media type without its parameters: JSON is UTF-8 regardless of `charset` (RFC 8259, section 8.1).
fn media_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(CONTENT_TYPE)?.to_str().ok()?.split(';').next().map(str::trim)
}

async fn read(request: Request) -> Result<Bytes, Problem> {
    let headers = request.headers();
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Problem::UnsupportedContentEncoding);
    }
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > MAX_BODY_BYTES) {
        return Err(Problem::BodyTooLarge);
    }
    collect(request.into_body()).await
}

async fn collect(body: Body) -> Result<Bytes, Problem> {
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::BodyTooLarge),
        Err(_) => Err(Problem::IncompleteBody),
    }
}

/// Parses the body of a POST.
pub(crate) fn parse_create(body: &[u8], now: OffsetDateTime) -> Result<CreateUserBody, Problem> {
    let mut fields = BodyReader::open(body)?;
    let id = fields.text("user_id", UserId::parse).set();
    let timestamp = fields.integer("timestamp", Timestamp::parse).set();
    let profile = profile(fields, now)?;
    Ok(CreateUserBody { id, timestamp, profile })
}

/// Parses the body of a PUT on this key. The body may repeat the key.
pub(crate) fn replacement(body: &[u8], key: &UserKey, now: OffsetDateTime) -> Result<UserProfile, Problem> {
    let mut fields = BodyReader::open(body)?;
    check_key_unchanged(&mut fields, key);
    profile(fields, now)
}

/// Parses the body of a PATCH on this key. The body may repeat the key.
pub(crate) fn parse_merge_patch(body: &[u8], key: &UserKey, now: OffsetDateTime) -> Result<UserPatch, Problem> {
    let mut fields = BodyReader::open(body)?;
    check_key_unchanged(&mut fields, key);
    let name = match fields.text("name", UserName::parse) {
        FieldPatch::Remove => {
            fields.add_error("name", "name cannot be removed");
            None
        }
        edit => edit.set(),
    };
    let edits = UserPatch {
        name,
        email: fields.text("email", Email::parse),
        status: fields.text("status", UserStatus::parse),
        expires_at: fields.integer("expires_at", |seconds| ExpiresAt::parse(seconds, now)),
        attributes: match fields.attributes() {
            FieldPatch::Set(attributes) => FieldPatch::Set(AttributesPatch::new(attributes)),
            FieldPatch::Remove => FieldPatch::Remove,
            FieldPatch::Keep => FieldPatch::Keep,
        },
    };
    fields.finish()?;
    Ok(edits)
}

fn profile(mut fields: BodyReader<'_>, now: OffsetDateTime) -> Result<UserProfile, Problem> {
    let name = fields.text("name", UserName::parse).set();
    if name.is_none() {
        fields.add_missing_error("name", "name is required");
    }
    let email = fields.text("email", Email::parse).set();
    let status = fields.text("status", UserStatus::parse).set();
    let attributes: Option<UserAttributes> = fields.attributes().set();
    let expires_at = fields.integer("expires_at", |seconds| ExpiresAt::parse(seconds, now)).set();
    fields.finish()?;
    match name {
        Some(name) => Ok(UserProfile { name, email, status, attributes, expires_at }),
        None => Err(Problem::Body(Vec::new())),
    }
}

fn check_key_unchanged(fields: &mut BodyReader<'_>, key: &UserKey) {
    let id = fields.text("user_id", UserId::parse);
    if !matches!(&id, FieldPatch::Keep) && id != FieldPatch::Set(key.id.clone()) {
        fields.add_error("user_id", "user_id must equal the one in the path");
    }
    let timestamp = fields.integer("timestamp", Timestamp::parse);
    if !matches!(timestamp, FieldPatch::Keep) && timestamp != FieldPatch::Set(key.timestamp) {
        fields.add_error("timestamp", "timestamp must equal the one in the path");
    }
}

#[cfg(test)]
mod tests;
