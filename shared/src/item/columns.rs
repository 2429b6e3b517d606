//! Checks of the items that a relational table stores: [`RowError`].
//!
//! The item itself remains the text in which it was received. A value with a column is converted to plain JSON
//! ([`plain`]) if it is not a scalar.

pub mod plain;
mod visit;

use std::borrow::Cow;

use serde::Deserialize;

use super::{TIMESTAMP, USER_ID};
use crate::change::CanonicalKey;

pub use visit::{first_attribute_with_nul, first_reserved_attribute};

/// The maximum length of an indexed text, in bytes. PostgreSQL limits an index entry to a third of a page of 8 KB, and
/// some entries contain two texts and numbers.
pub const TEXT_BYTES: usize = 1_024;

/// An item that the relational table cannot store. The message names the attribute and never contains a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// The key is not a user key.
    #[error("the key is not {USER_ID} (S) and {TIMESTAMP} (N)")]
    Key,
    /// The item is not valid DynamoDB JSON.
    #[error("the image is not a map of attributes: {0}")]
    Malformed(String),
    /// An attribute that has a column is of another type.
    #[error("attribute {attribute} is not {wanted}")]
    Type {
        /// The name of the attribute.
        attribute: &'static str,
        /// The expected type.
        wanted: &'static str,
    },
    /// The text of a column is too long for an index.
    #[error("attribute {0} is longer than {TEXT_BYTES} bytes, the limit of a PostgreSQL index")]
    Long(&'static str),
    /// The attribute contains the character U+0000.
    #[error("attribute {0} contains a NUL character (U+0000), which PostgreSQL text cannot store")]
    Zero(String),
}

/// Returns the user identifier and the timestamp of a key.
///
/// # Errors
/// [`RowError`] if it is the key of another table, or too long for an index.
pub fn key(key: &CanonicalKey) -> Result<(Cow<'_, str>, Cow<'_, str>), RowError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct UserKey<'k> {
        #[serde(borrow)]
        user_id: OfText<'k>,
        #[serde(borrow)]
        timestamp: OfNumber<'k>,
    }
    #[derive(Deserialize)]
    struct OfText<'k> {
        #[serde(borrow, rename = "S")]
        text: Cow<'k, str>,
    }
    #[derive(Deserialize)]
    struct OfNumber<'k> {
        #[serde(borrow, rename = "N")]
        text: Cow<'k, str>,
    }
    let UserKey { user_id, timestamp } = serde_json::from_str(key.as_str()).map_err(|_| RowError::Key)?;
    let user_id = fitting(USER_ID, user_id.text)?;
    Ok((user_id, timestamp.text))
}

fn fitting<'a>(attribute: &'static str, text: Cow<'a, str>) -> Result<Cow<'a, str>, RowError> {
    if text.len() > TEXT_BYTES {
        Err(RowError::Long(attribute))
    } else if text.contains('\0') {
        Err(RowError::Zero(attribute.to_owned()))
    } else {
        Ok(text)
    }
}

#[cfg(test)]
mod tests;
