//! A user's record, in words: what can be built from these types is what the service accepts.
//!
//! Every part is parsed once, at the door, and has private fields, so that no later line asks again whether a name is
//! blank. Nothing here knows of DynamoDB's items or of HTTP; the JSON of a [`User`] stands here ([`fields`]) because every
//! reader of users answers the same one.

pub mod attributes;
pub mod email;
pub mod expiry;
pub mod fields;
pub mod id;
pub mod json;
pub mod name;
pub mod precondition;
pub mod status;
pub mod timestamp;

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use attributes::UserAttributes;
use email::Email;
use expiry::ExpiresAt;
use id::UserId;
use json::JsonValue;
use name::UserName;
use status::UserStatus;
use timestamp::Timestamp;

/// The reason why a text or a number is not the part of a user that it was given as. It names the part and the fix,
/// and never the value.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidField(pub(crate) &'static str);

/// Where a record stands: one user has many records, each at its own second.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UserKey {
    /// The user.
    pub id: UserId,
    /// The record's second.
    pub timestamp: Timestamp,
}

/// What a client writes of a record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UserProfile {
    /// The user's name.
    pub name: UserName,
    /// The user's address; records without one are not found by email.
    pub email: Option<Email>,
    /// A word of the client's own about the user.
    pub status: Option<UserStatus>,
    /// Whatever else the client keeps.
    pub attributes: Option<UserAttributes>,
    /// From this second on the record is absent.
    pub expires_at: Option<ExpiresAt>,
}

/// One record of a user.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    /// Where it stands.
    pub key: UserKey,
    /// What was written.
    pub profile: UserProfile,
    /// The optimistic lock and the entity tag: the creation time in microseconds, and one more with every later write.
    /// 0 is a record that another program wrote without a version.
    pub version: u64,
    /// When it was created; another program may have left it out.
    pub created_at: Option<OffsetDateTime>,
    /// When it was last written; another program may have left it out.
    pub updated_at: Option<OffsetDateTime>,
}

impl User {
    /// The record that a create at `now` writes.
    #[must_use]
    pub fn created(key: UserKey, profile: UserProfile, now: OffsetDateTime) -> Self {
        Self { key, profile, version: first_version(now), created_at: Some(now), updated_at: Some(now) }
    }
}

/// The version of a record created at `now`: microseconds since 1970, so that a record that is deleted and created
/// again does not count from one again and meet an old client's entity tag.
#[must_use]
pub fn first_version(now: OffsetDateTime) -> u64 {
    u64::try_from(now.unix_timestamp_nanos() / 1_000).unwrap_or(0).max(1)
}

/// What a merge patch does to one optional part.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum FieldPatch<T> {
    /// The patch does not name it.
    #[default]
    Keep,
    /// The patch says `null`.
    Remove,
    /// The patch gives it.
    Set(T),
}

impl<T> FieldPatch<T> {
    /// The value that it gives, if it gives one.
    pub fn set(self) -> Option<T> {
        match self {
            Self::Set(value) => Some(value),
            Self::Keep | Self::Remove => None,
        }
    }
}

/// A merge patch (RFC 7396) of a record, parsed: what it would do is valid whatever the record holds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct UserPatch {
    /// A new name; a name cannot be removed.
    pub name: Option<UserName>,
    /// What happens to the address.
    pub email: FieldPatch<Email>,
    /// What happens to the status.
    pub status: FieldPatch<UserStatus>,
    /// What happens to the expiry.
    pub expires_at: FieldPatch<ExpiresAt>,
    /// The patch of `attributes`, merged member by member into what is there.
    pub attributes: FieldPatch<AttributesPatch>,
}

/// A merge patch of `attributes`: an object whose `null` members remove.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AttributesPatch(JsonValue);

impl AttributesPatch {
    /// Takes attributes for a patch of attributes.
    #[must_use]
    pub fn new(members: UserAttributes) -> Self {
        Self(JsonValue::Object(members.into_members()))
    }

    /// The patch as JSON, always an object.
    #[must_use]
    pub fn json(&self) -> &JsonValue {
        &self.0
    }
}

const MOMENT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// A moment as records spell it: RFC 3339 in UTC with milliseconds.
#[must_use]
pub fn format_rfc3339_millis(moment: OffsetDateTime) -> String {
    // Formatting fails only for a year that RFC 3339 cannot spell, and no clock shows one.
    moment.to_offset(time::UtcOffset::UTC).format(MOMENT).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    fn user() -> User {
        User::created(
            UserKey { id: UserId::parse("ada").unwrap(), timestamp: Timestamp::parse(7).unwrap() },
            UserProfile {
                name: UserName::parse("Ada").unwrap(),
                email: None,
                status: None,
                attributes: Some(UserAttributes::parse(r#"{"n": 0.12345678901234567890123456789012345678}"#).unwrap()),
                expires_at: None,
            },
            datetime!(2026-11-22 10:00:00.123456 UTC),
        )
    }

    #[test]
    fn a_user_s_json_leaves_out_what_is_absent_and_rounds_no_number() {
        assert_eq!(
            serde_json::to_string(&user()).unwrap(),
            r#"{"user_id":"ada","timestamp":7,"name":"Ada","attributes":{"n":0.12345678901234567890123456789012345678},"#
                .to_owned()
                + r#""version":1795341600123456,"created_at":"2026-11-22T10:00:00.123Z","updated_at":"2026-11-22T10:00:00.123Z"}"#
        );
    }

    #[test]
    fn a_created_record_s_version_is_its_microsecond_and_never_zero() {
        assert_eq!(user().version, 1_795_341_600_123_456);
        assert_eq!(first_version(OffsetDateTime::UNIX_EPOCH), 1);
        assert_eq!(first_version(datetime!(1969-01-01 0:00 UTC)), 1);
    }
}
