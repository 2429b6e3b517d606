//! The columns of a user's item in a relational table, read in one pass over its DynamoDB JSON: [`UserColumns`].
//!
//! The item itself remains the text in which it was received. The attributes that have a column are extracted: strings,
//! numbers as their text, and `attributes` as plain JSON ([`plain`]). If another program stored a value of another type
//! under one of these names, the item is rejected. The error names the attribute and never contains its value.

pub mod plain;
mod visit;

use std::borrow::Cow;

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{ATTRIBUTES, CREATED_AT, EMAIL, NAME, STATUS, TIMESTAMP, UPDATED_AT, USER_ID, VERSION};
use crate::change::CanonicalKey;
use crate::folding::fold_case;
use crate::number;
use crate::user::expiry::whole_seconds;

use visit::ColumnValue;

pub use visit::first_attribute_with_nul;

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

/// The columns of a user's item.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserColumns<'a> {
    /// The user's name.
    pub name: Option<Cow<'a, str>>,
    /// The name in the form in which searches compare it ([`fold_case`]).
    pub name_folded: Option<Cow<'a, str>>,
    /// The user's email.
    pub email: Option<Cow<'a, str>>,
    /// The part of the email after its last `@`, folded; `None` if that part is empty or the email has no `@`.
    pub email_domain: Option<Cow<'a, str>>,
    /// The status.
    pub status: Option<Cow<'a, str>>,
    /// The client-defined attributes, as plain JSON.
    pub attributes: Option<String>,
    /// The expiry in epoch seconds. As for TTL, a fraction is rounded up, and zero, a negative number and any other
    /// type count as none.
    pub expires_at: Option<Cow<'a, str>>,
    /// The version for optimistic locking.
    pub version: Option<Cow<'a, str>>,
    /// The time at which the record was created.
    pub created_at: Option<OffsetDateTime>,
    /// The time at which the record was last written.
    pub updated_at: Option<OffsetDateTime>,
    /// The first of the item's top-level attributes that has a name reserved for replication. The caller rejects such
    /// an item.
    pub reserved: Option<&'static str>,
}

impl<'a> UserColumns<'a> {
    /// Reads the columns of an item.
    ///
    /// # Errors
    /// [`RowError`], which names the attribute.
    pub fn read(item: &'a str) -> Result<Self, RowError> {
        let found = visit::ParsedColumns::read(item)?;
        if let Some(name) = visit::first_attribute_with_nul(item)? {
            return Err(RowError::Zero(name));
        }
        let name = text(NAME, found.name)?;
        let email = text(EMAIL, found.email)?;
        Ok(Self {
            name_folded: name.as_ref().map(folded),
            name,
            email_domain: email.as_ref().and_then(domain),
            email,
            status: text(STATUS, found.status)?,
            attributes: found.attributes.map(plain::object).transpose()?.flatten(),
            expires_at: expiry(found.expires_at),
            version: whole(VERSION, found.version)?,
            created_at: moment(CREATED_AT, found.created_at)?,
            updated_at: moment(UPDATED_AT, found.updated_at)?,
            reserved: found.reserved,
        })
    }
}

impl UserColumns<'_> {
    /// Returns the same columns without borrowing from the item.
    #[must_use]
    pub fn into_owned(self) -> UserColumns<'static> {
        let own = |text: Option<Cow<'_, str>>| text.map(|text| Cow::Owned(text.into_owned()));
        UserColumns {
            name: own(self.name),
            name_folded: own(self.name_folded),
            email: own(self.email),
            email_domain: own(self.email_domain),
            status: own(self.status),
            attributes: self.attributes,
            expires_at: own(self.expires_at),
            version: own(self.version),
            created_at: self.created_at,
            updated_at: self.updated_at,
            reserved: self.reserved,
        }
    }
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

fn text<'a>(attribute: &'static str, value: Option<ColumnValue<'a>>) -> Result<Option<Cow<'a, str>>, RowError> {
    match value {
        None | Some(ColumnValue::Null) => Ok(None),
        Some(ColumnValue::Text(text)) => fitting(attribute, text).map(Some),
        Some(_) => Err(RowError::Type { attribute, wanted: "a string (S)" }),
    }
}

/// Returns the folded text. It borrows if the text is borrowed and folding leaves it unchanged.
fn folded<'a>(text: &Cow<'a, str>) -> Cow<'a, str> {
    match text {
        Cow::Borrowed(text) => fold_case(text),
        Cow::Owned(text) => Cow::Owned(fold_case(text).into_owned()),
    }
}

fn domain<'a>(email: &Cow<'a, str>) -> Option<Cow<'a, str>> {
    fn after_at(email: &str) -> Option<&str> {
        email.rsplit_once('@').map(|(_, domain)| domain).filter(|domain| !domain.is_empty())
    }
    match email {
        Cow::Borrowed(email) => after_at(email).map(fold_case),
        Cow::Owned(email) => after_at(email).map(|domain| Cow::Owned(fold_case(domain).into_owned())),
    }
}

fn whole<'a>(attribute: &'static str, value: Option<ColumnValue<'a>>) -> Result<Option<Cow<'a, str>>, RowError> {
    match value {
        None | Some(ColumnValue::Null) => Ok(None),
        Some(ColumnValue::Number(text)) if number::canonical(&text).is_some() => Ok(Some(text)),
        Some(_) => Err(RowError::Type { attribute, wanted: "a number (N)" }),
    }
}

/// Returns the expiry as DynamoDB's TTL interprets it. An expiry that is too old for TTL is returned too, since its age
/// depends on the current time.
fn expiry(value: Option<ColumnValue<'_>>) -> Option<Cow<'_, str>> {
    let Some(ColumnValue::Number(text)) = value else { return None };
    let spelled = number::canonical(&text)?;
    match spelled.as_bytes() {
        [b'-', ..] | b"0" => None,
        _ if spelled.contains("E-") => whole_seconds(&spelled).map(|seconds| seconds.to_string().into()),
        _ => Some(text),
    }
}

fn moment(attribute: &'static str, value: Option<ColumnValue<'_>>) -> Result<Option<OffsetDateTime>, RowError> {
    let wrong = RowError::Type { attribute, wanted: "an RFC 3339 time (S)" };
    match value {
        None | Some(ColumnValue::Null) => Ok(None),
        Some(ColumnValue::Text(text)) => OffsetDateTime::parse(&text, &Rfc3339).map(Some).map_err(|_| wrong),
        Some(_) => Err(wrong),
    }
}

fn attributes_wanted() -> RowError {
    RowError::Type { attribute: ATTRIBUTES, wanted: "a map (M)" }
}

#[cfg(test)]
mod tests;
