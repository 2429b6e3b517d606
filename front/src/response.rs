//! Answers with a body: JSON, and lists of records that stop before they are too long.

use axum::http::header::{CONTENT_TYPE, LINK};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use shared::user::User;
use shared::user::fields::FieldMask;

use crate::problem::Problem;

/// An answer of JSON.
#[must_use]
pub fn json(status: StatusCode, text: Vec<u8>) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], text).into_response()
}

/// What could not be written as JSON.
#[expect(clippy::needless_pass_by_value, reason = "a function for map_err")]
#[must_use]
pub fn serialization_error(error: serde_json::Error) -> Problem {
    Problem::Internal { cause: format!("a user cannot be written as JSON: {error}") }
}

/// A list's body stops before this, counted as a Lambda function's answer counts it: as a JSON string, of which it has at
/// most 6 MB. The largest single record stays below it.
const MAX_LIST_BYTES: usize = 5 * 1024 * 1024;

/// Tells where the next page is (RFC 8288): at this path, with this query and this cursor.
///
/// # Errors
/// The path or the query cannot stand in a header.
pub fn set_next_link_header(response: &mut Response, path: &str, query: &str, cursor: &str) -> Result<(), Problem> {
    let separator = if query.is_empty() { "" } else { "&" };
    let link = HeaderValue::try_from(format!("<{path}?{query}{separator}cursor={cursor}>; rel=\"next\""));
    let link = link.map_err(|error| Problem::Internal { cause: format!("the link to the next page: {error}") })?;
    response.headers_mut().insert(LINK, link);
    Ok(())
}

/// The JSON of many records, up to the longest that can be answered.
#[derive(Debug)]
pub struct UserListWriter {
    text: Vec<u8>,
    quoted_bytes: usize,
    fields: FieldMask,
    is_empty: bool,
    is_closed: bool,
}

impl UserListWriter {
    /// A list that shows these fields.
    #[must_use]
    pub fn open(fields: FieldMask) -> Self {
        Self { text: br#"{"users":["#.to_vec(), quoted_bytes: 0, fields, is_empty: true, is_closed: false }
    }

    /// Adds a record, unless it would make the answer too long.
    ///
    /// # Errors
    /// The record cannot be written as JSON.
    pub fn add(&mut self, user: &User) -> Result<bool, Problem> {
        let before = self.text.len();
        if !self.is_empty {
            self.text.push(b',');
        }
        serde_json::to_writer(&mut self.text, &user.only(self.fields)).map_err(serialization_error)?;
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
    ///
    /// # Errors
    /// The value cannot be written as JSON.
    pub fn push_field(&mut self, name: &str, value: &impl Serialize) -> Result<(), Problem> {
        if !self.is_closed {
            self.text.push(b']');
            self.is_closed = true;
        }
        self.text.extend(format!(",\"{name}\":").as_bytes());
        serde_json::to_writer(&mut self.text, value).map_err(serialization_error)
    }

    /// The whole text.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        if !self.is_closed {
            self.text.push(b']');
        }
        self.text.push(b'}');
        self.text
    }
}
