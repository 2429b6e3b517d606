//! User records as DynamoDB items. No other module names the table's attributes.
//!
//! The scalar attributes of an item are read by `serde_dynamo`. `attributes` is not, because there a number would be
//! rounded to an f64; [`attributes`] converts it value by value. Attributes that another program added to an item are
//! not read, and they are preserved, because writes name the attributes that they change.

pub mod attributes;
pub mod columns;
mod image_fields;
pub mod restored;
pub mod size;
pub mod stored;

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use serde::Deserialize;
use serde_dynamo::from_attribute_value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::user::Timestamp;
use crate::user::email::Email;
use crate::user::expiry::ExpiresAt;
use crate::user::id::UserId;
use crate::user::{User, UserKey, UserName, UserProfile, UserStatus, format_rfc3339_millis};

/// The partition key (S).
pub const USER_ID: &str = "user_id";
/// The sort key (N), epoch seconds.
pub const TIMESTAMP: &str = "timestamp";
/// The user's name (S).
pub const NAME: &str = "name";
/// The user's email (S), the key of the sparse email index.
pub const EMAIL: &str = "email";
/// The status that the client assigns (S).
pub const STATUS: &str = "status";
/// The client-defined attributes (M).
pub const ATTRIBUTES: &str = "attributes";
/// The TTL attribute (N), epoch seconds.
pub const EXPIRES_AT: &str = "expires_at";
/// The version for optimistic locking (N).
pub const VERSION: &str = "version";
/// The time at which the record was created (S, RFC 3339).
pub const CREATED_AT: &str = "created_at";
/// The time at which the record was last written (S, RFC 3339).
pub const UPDATED_AT: &str = "updated_at";

pub use image_fields::{image_key, image_version};

/// A DynamoDB item.
pub type AttributeMap = HashMap<String, AttributeValue>;

/// A stored item that is not a valid user record, because another program wrote it. The message names the attribute and
/// never contains a value.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("attribute {attribute}: {reason}")]
pub struct ItemParseError {
    /// The attribute that is invalid.
    pub attribute: &'static str,
    /// The reason.
    pub reason: String,
}

/// Returns a string attribute.
#[must_use]
pub fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

/// Returns an integer attribute.
#[must_use]
#[expect(clippy::needless_pass_by_value, reason = "the numbers passed are all Copy")]
pub fn integer(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// Returns the primary key of a record.
#[must_use]
pub fn key(key: &UserKey) -> AttributeMap {
    HashMap::from([
        (USER_ID.to_owned(), text(key.id.as_str())),
        (TIMESTAMP.to_owned(), integer(key.timestamp.seconds())),
    ])
}

/// Encodes a record as an item.
#[must_use]
pub fn encode(user: &User) -> AttributeMap {
    let (profile, mut item) = (&user.profile, key(&user.key));
    let optional = [
        (EMAIL, profile.email.as_ref().map(|email| text(email.as_str()))),
        (STATUS, profile.status.as_ref().map(|status| text(status.as_str()))),
        (EXPIRES_AT, profile.expires_at.map(|ends| integer(ends.seconds()))),
        (CREATED_AT, user.created_at.map(format_rfc3339_millis).map(text)),
        (UPDATED_AT, user.updated_at.map(format_rfc3339_millis).map(text)),
        (ATTRIBUTES, profile.attributes.as_ref().map(attributes::encode)),
    ];
    let present = optional.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let required = [(NAME, text(profile.name.as_str())), (VERSION, integer(user.version))];
    item.extend(required.into_iter().chain(present).map(|(name, value)| (name.to_owned(), value)));
    item
}

/// Returns the expiry of a stored record as DynamoDB's TTL interprets it, or `None` if TTL never removes the record.
#[must_use]
pub fn expires_at(item: &AttributeMap, now: OffsetDateTime) -> Option<ExpiresAt> {
    expiry(item, EXPIRES_AT, now)
}

/// Returns the expiry of an item whose table has this TTL attribute, as DynamoDB's TTL interprets it.
fn expiry(item: &AttributeMap, ttl_attribute: &str, now: OffsetDateTime) -> Option<ExpiresAt> {
    match item.get(ttl_attribute) {
        Some(AttributeValue::N(number)) => ExpiresAt::from_stored(number, now),
        _ => None,
    }
}

/// Returns whether a record is visible at `now`, which it is until TTL is due to remove it. The table's condition
/// expressions have the same rule.
#[must_use]
pub fn is_live(item: &AttributeMap, now: OffsetDateTime) -> bool {
    expires_at(item, now).is_none_or(|ends| !ends.is_past(now))
}

/// Returns the version of a stored record, or 0 if another program wrote it without one.
///
/// # Errors
/// The version is not an unsigned integer.
pub fn version(item: &AttributeMap) -> Result<u64, ItemParseError> {
    Ok(optional(item.get(VERSION).cloned(), VERSION)?.unwrap_or(0))
}

/// Returns the time at which a stored record was created, if it contains it.
///
/// # Errors
/// The attribute is not an RFC 3339 timestamp.
pub fn created_at(item: &AttributeMap) -> Result<Option<OffsetDateTime>, ItemParseError> {
    rfc3339_time(item.get(CREATED_AT).cloned(), CREATED_AT)
}

/// Decodes a record. An expiry that TTL ignores is left out, and one with a fraction is rounded up to the next second.
///
/// # Errors
/// A required attribute is missing, or an attribute has another type or an invalid value.
pub fn decode(mut item: AttributeMap, now: OffsetDateTime) -> Result<User, ItemParseError> {
    let (version, expires_at) = (version(&item)?, expires_at(&item, now));
    let mut take = |attribute| item.remove(attribute);
    Ok(User {
        key: UserKey {
            id: part(USER_ID, UserId::parse(required::<String>(take(USER_ID), USER_ID)?))?,
            timestamp: part(TIMESTAMP, Timestamp::parse(required(take(TIMESTAMP), TIMESTAMP)?))?,
        },
        profile: UserProfile {
            name: part(NAME, UserName::parse(required::<String>(take(NAME), NAME)?))?,
            email: optional::<String>(take(EMAIL), EMAIL)?
                .map(Email::parse)
                .transpose()
                .or_else(|e| part(EMAIL, Err(e)))?,
            status: optional::<String>(take(STATUS), STATUS)?
                .map(UserStatus::parse)
                .transpose()
                .or_else(|e| part(STATUS, Err(e)))?,
            attributes: take(ATTRIBUTES).map(attributes::decode).transpose().or_else(|e| part(ATTRIBUTES, Err(e)))?,
            expires_at,
        },
        version,
        created_at: rfc3339_time(take(CREATED_AT), CREATED_AT)?,
        updated_at: rfc3339_time(take(UPDATED_AT), UPDATED_AT)?,
    })
}

fn part<T>(attribute: &'static str, parsed: Result<T, impl std::fmt::Display>) -> Result<T, ItemParseError> {
    parsed.map_err(|error| ItemParseError { attribute, reason: error.to_string() })
}

fn required<T: for<'de> Deserialize<'de>>(
    value: Option<AttributeValue>,
    attribute: &'static str,
) -> Result<T, ItemParseError> {
    optional(value, attribute)?.ok_or_else(|| ItemParseError { attribute, reason: "missing".into() })
}

/// Returns `None` for a missing attribute and for a NULL. The error does not contain the message of `serde_dynamo`,
/// which would show the value.
fn optional<T: for<'de> Deserialize<'de>>(
    value: Option<AttributeValue>,
    attribute: &'static str,
) -> Result<Option<T>, ItemParseError> {
    match value {
        None | Some(AttributeValue::Null(_)) => Ok(None),
        Some(value) => from_attribute_value(value)
            .map(Some)
            .map_err(|_| ItemParseError { attribute, reason: "wrong type or out of range".into() }),
    }
}

fn rfc3339_time(
    value: Option<AttributeValue>,
    attribute: &'static str,
) -> Result<Option<OffsetDateTime>, ItemParseError> {
    optional::<String>(value, attribute)?
        .map(|text| OffsetDateTime::parse(&text, &Rfc3339))
        .transpose()
        .map_err(|_| ItemParseError { attribute, reason: "must be an RFC 3339 time".into() })
}

#[cfg(test)]
mod tests;
