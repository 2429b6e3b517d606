//! Responses with a body: JSON, and lists of records that end before they exceed the size limit.

use axum::http::header::{CONTENT_TYPE, LINK};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use millrace_shared::clock::{Clock, new_uuid};
use millrace_shared::http::cursor_seal::SealNonce;
use millrace_shared::user::User;
use millrace_shared::user::fields::FieldMask;
use serde::Serialize;

use crate::problem::Problem;

/// Returns a JSON response.
#[must_use]
pub fn json(status: StatusCode, text: Vec<u8>) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], text).into_response()
}

/// Returns the problem of a user that cannot be serialized.
#[expect(clippy::needless_pass_by_value, reason = "passed to map_err")]
#[must_use]
pub fn serialization_error(error: serde_json::Error) -> Problem {
    Problem::Internal { cause: format!("cannot serialize the user as JSON: {error}") }
}

/// The size limit of a list's body, measured as a JSON string, as it is embedded in a Lambda function's response, which
/// is limited to 6 MB. The largest single record is smaller than this.
const MAX_LIST_BYTES: usize = 5 * 1024 * 1024;

/// Sets the header with the link to the next page (RFC 8288), from this path, query and cursor.
///
/// # Errors
/// The path or the query contains characters that are not allowed in a header.
pub fn set_next_link_header(response: &mut Response, path: &str, query: &str, cursor: &str) -> Result<(), Problem> {
    let separator = if query.is_empty() { "" } else { "&" };
    let link = HeaderValue::try_from(format!("<{path}?{query}{separator}cursor={cursor}>; rel=\"next\""));
    let link = link.map_err(|error| Problem::Internal { cause: format!("cannot create the Link header: {error}") })?;
    response.headers_mut().insert(LINK, link);
    Ok(())
}

/// Returns the nonce of one cursor: the last 96 bits of a new UUID version 7, of which 74 are random.
#[must_use]
pub fn cursor_nonce(clock: &Clock) -> SealNonce {
    let [_, _, _, _, nonce @ ..] = new_uuid(clock.now()).into_bytes();
    nonce
}

/// A writer for the JSON of a list of records, up to the size limit of a response.
#[derive(Debug)]
pub struct UserListWriter {
    text: Vec<u8>,
    quoted_bytes: usize,
    fields: FieldMask,
    is_empty: bool,
    is_closed: bool,
}

impl UserListWriter {
    /// Starts a list of records with these fields.
    #[must_use]
    pub fn open(fields: FieldMask) -> Self {
        Self { text: br#"{"users":["#.to_vec(), quoted_bytes: 0, fields, is_empty: true, is_closed: false }
    }

    /// Adds a record, unless the response would become too long. Returns whether it was added. The first record always
    /// fits.
    ///
    /// # Errors
    /// The record cannot be serialized as JSON.
    pub fn add(&mut self, user: &User) -> Result<bool, Problem> {
        let before = self.text.len();
        if !self.is_empty {
            self.text.push(b',');
        }
        serde_json::to_writer(&mut self.text, &user.only(self.fields)).map_err(serialization_error)?;
        // These are the only characters in JSON text that a JSON string escapes.
        let escapes = self.text[before..].iter().filter(|byte| matches!(byte, b'"' | b'\\')).count();
        self.quoted_bytes += self.text.len() - before + escapes;
        let fits = self.is_empty || self.quoted_bytes <= MAX_LIST_BYTES;
        if !fits {
            self.text.truncate(before);
        }
        self.is_empty = false;
        Ok(fits)
    }

    /// Closes the list and adds another member after it.
    ///
    /// # Errors
    /// The value cannot be serialized as JSON.
    pub fn push_field(&mut self, name: &str, value: &impl Serialize) -> Result<(), Problem> {
        if !self.is_closed {
            self.text.push(b']');
            self.is_closed = true;
        }
        self.text.extend(format!(",\"{name}\":").as_bytes());
        serde_json::to_writer(&mut self.text, value).map_err(serialization_error)
    }

    /// Returns the complete JSON.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        if !self.is_closed {
            self.text.push(b']');
        }
        self.text.push(b'}');
        self.text
    }
}
