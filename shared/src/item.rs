//! Users as DynamoDB items: the only place that names the table's attributes.
//!
//! The flat part goes through `serde_dynamo`; `attributes` does not, because on that way a number would pass through
//! f64 ([`attributes`] converts it value by value). What another program put into an item, and this one does not know,
//! is left alone: it is not read here, and writes name the attributes that they change.

pub mod attributes;
pub mod columns;
mod image_fields;
pub mod restored;
pub mod size;

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use serde::{Deserialize, Serialize};
use serde_dynamo::from_attribute_value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::user::email::Email;
use crate::user::expiry::ExpiresAt;
use crate::user::id::UserId;
use crate::user::name::UserName;
use crate::user::status::UserStatus;
use crate::user::timestamp::Timestamp;
use crate::user::{User, UserKey, UserProfile, format_rfc3339_millis};

/// The partition key (S).
pub const USER_ID: &str = "user_id";
/// The sort key (N), epoch seconds.
pub const TIMESTAMP: &str = "timestamp";
/// The user's name (S).
pub const NAME: &str = "name";
/// The address (S), key of the sparse email index.
pub const EMAIL: &str = "email";
/// A word of the client's own (S).
pub const STATUS: &str = "status";
/// Whatever else the client keeps (M).
pub const ATTRIBUTES: &str = "attributes";
/// The TTL attribute (N), epoch seconds.
pub const EXPIRES_AT: &str = "expires_at";
/// The optimistic lock (N).
pub const VERSION: &str = "version";
/// When the record was created (S, RFC 3339).
pub const CREATED_AT: &str = "created_at";
/// When the record was last written (S, RFC 3339).
pub const UPDATED_AT: &str = "updated_at";

pub use image_fields::{image_key, image_version};

/// A DynamoDB item.
pub type AttributeMap = HashMap<String, AttributeValue>;

/// A stored item that is no user: another program wrote it. The text names the attribute and never a value.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("attribute {attribute}: {reason}")]
pub struct ItemParseError {
    /// The attribute at fault.
    pub attribute: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

/// A text.
#[must_use]
pub fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

/// A whole number.
#[must_use]
#[expect(clippy::needless_pass_by_value, reason = "the numbers passed are all Copy")]
pub fn whole(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// The key of a record.
#[must_use]
pub fn key(key: &UserKey) -> AttributeMap {
    HashMap::from([(USER_ID.to_owned(), text(key.id.as_str())), (TIMESTAMP.to_owned(), whole(key.timestamp.seconds()))])
}

/// The flat part of an item; its field names are the attributes' names above.
#[derive(Serialize)]
struct StoredUser<'a> {
    user_id: &'a str,
    timestamp: i64,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<i64>,
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<String>,
}

/// A record as an item.
///
/// # Errors
/// `serde_dynamo` refuses the flat part; no user that can be built makes it do so.
pub fn encode(user: &User) -> Result<AttributeMap, serde_dynamo::Error> {
    let profile = &user.profile;
    let mut item: AttributeMap = serde_dynamo::to_item(StoredUser {
        user_id: user.key.id.as_str(),
        timestamp: user.key.timestamp.seconds(),
        name: profile.name.as_str(),
        email: profile.email.as_ref().map(Email::as_str),
        status: profile.status.as_ref().map(UserStatus::as_str),
        expires_at: profile.expires_at.map(ExpiresAt::seconds),
        version: user.version,
        created_at: user.created_at.map(format_rfc3339_millis),
        updated_at: user.updated_at.map(format_rfc3339_millis),
    })?;
    if let Some(members) = &profile.attributes {
        item.insert(ATTRIBUTES.to_owned(), attributes::encode(members));
    }
    Ok(item)
}

/// When a stored record ends, as DynamoDB's TTL understands it; none if TTL never removes it.
#[must_use]
pub fn expires_at(item: &AttributeMap, now: OffsetDateTime) -> Option<ExpiresAt> {
    match item.get(EXPIRES_AT) {
        Some(AttributeValue::N(number)) => ExpiresAt::of_stored(number, now),
        _ => None,
    }
}

/// Whether a record can be seen at `now`: TTL is not to remove it yet. The same rule as the table's condition.
#[must_use]
pub fn is_live(item: &AttributeMap, now: OffsetDateTime) -> bool {
    expires_at(item, now).is_none_or(|ends| !ends.is_past(now))
}

/// The version of a stored record; 0 if another program wrote it without one.
///
/// # Errors
/// The version is no whole number.
pub fn version(item: &AttributeMap) -> Result<u64, ItemParseError> {
    Ok(optional(item.get(VERSION).cloned(), VERSION)?.unwrap_or(0))
}

/// When a stored record was created, if it says so.
///
/// # Errors
/// The attribute is no RFC 3339 text.
pub fn created_at(item: &AttributeMap) -> Result<Option<OffsetDateTime>, ItemParseError> {
    moment(item.get(CREATED_AT).cloned(), CREATED_AT)
}

/// Reads a record. An expiry that TTL never acts on is left out, and one with a fraction is the next whole second.
///
/// # Errors
/// An attribute that a user needs is missing or of another type, or holds what no user can hold.
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
        created_at: moment(take(CREATED_AT), CREATED_AT)?,
        updated_at: moment(take(UPDATED_AT), UPDATED_AT)?,
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

/// A missing attribute, like a NULL, is none. `serde_dynamo`'s own words would show the value: they are not passed on.
fn optional<T: for<'de> Deserialize<'de>>(
    value: Option<AttributeValue>,
    attribute: &'static str,
) -> Result<Option<T>, ItemParseError> {
    match value {
        None | Some(AttributeValue::Null(_)) => Ok(None),
        Some(value) => from_attribute_value(value)
            .map(Some)
            .map_err(|_| ItemParseError { attribute, reason: "of another type, or out of its range".into() }),
    }
}

fn moment(value: Option<AttributeValue>, attribute: &'static str) -> Result<Option<OffsetDateTime>, ItemParseError> {
    optional::<String>(value, attribute)?
        .map(|text| OffsetDateTime::parse(&text, &Rfc3339))
        .transpose()
        .map_err(|_| ItemParseError { attribute, reason: "must be an RFC 3339 time".into() })
}

#[cfg(test)]
mod tests;
