//! The domain types of a user record. A value of these types is valid: the service accepts it.
//!
//! Every field is parsed once, when the request is read, into a type with private fields, so no later code has to check
//! again whether a name is blank. The types depend neither on DynamoDB items nor on HTTP. The JSON of a [`User`] is
//! defined here ([`fields`]), because all APIs that return users return the same JSON.

pub mod attributes;
pub mod email;
pub mod expiry;
pub mod fields;
pub mod id;
pub mod json;
pub mod precondition;

use time::OffsetDateTime;

use attributes::UserAttributes;
use email::Email;
use expiry::ExpiresAt;
use id::UserId;
use json::JsonValue;

/// A value that is not valid for a field of a user. The message names the field and the fix, and never contains the
/// value.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidFieldError(pub(crate) &'static str);

/// A record's timestamp, the sort key of the table: epoch seconds, up to the end of the year 9999. The upper bound
/// detects the most frequent mistake, a time in milliseconds.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 9999-12-31T23:59:59Z.
    pub const MAX_SECONDS: i64 = 253_402_300_799;

    /// Parses a timestamp.
    ///
    /// # Errors
    /// The timestamp is negative or after the year 9999.
    pub fn parse(seconds: i64) -> Result<Self, InvalidFieldError> {
        if (0..=Self::MAX_SECONDS).contains(&seconds) {
            Ok(Self(seconds))
        } else {
            Err(InvalidFieldError("timestamp must be whole seconds since 1970, from 0 to 253402300799 (the year 9999)"))
        }
    }

    /// Returns the epoch second.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.0
    }
}

/// A user's name of 1 to 256 characters that is not blank and contains no control character. PostgreSQL text cannot
/// store `\0`, and a line break could forge a log line or a mail header elsewhere. White space is preserved.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UserName(String);

impl UserName {
    /// The maximum length of a name, in characters.
    pub const MAX_CHARS: usize = 256;

    /// Parses a name.
    ///
    /// # Errors
    /// The text is blank or too long, or contains a control character.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidFieldError> {
        let text = text.into();
        if text.trim().is_empty() {
            Err(InvalidFieldError("name must not be blank"))
        } else if text.chars().count() > Self::MAX_CHARS {
            Err(InvalidFieldError("name must have at most 256 characters"))
        } else if text.chars().any(char::is_control) {
            Err(InvalidFieldError("name must not contain control characters such as line breaks"))
        } else {
            Ok(Self(text))
        }
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A user's status, a word that the client assigns, such as `active`: 1 to 64 characters, not blank and without control
/// characters. The service attaches no meaning to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UserStatus(String);

impl UserStatus {
    /// The maximum length of a status, in characters.
    pub const MAX_CHARS: usize = 64;

    /// Parses a status.
    ///
    /// # Errors
    /// The text is blank or too long, or contains a control character.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidFieldError> {
        let text = text.into();
        let length = text.chars().count();
        if text.trim().is_empty() || length > Self::MAX_CHARS || text.chars().any(char::is_control) {
            Err(InvalidFieldError("status must be 1 to 64 characters, not blank and without control characters"))
        } else {
            Ok(Self(text))
        }
    }

    /// Returns the status as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The key of a record. A user has many records, each with its own timestamp.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UserKey {
    /// The user's identifier.
    pub id: UserId,
    /// The record's timestamp.
    pub timestamp: Timestamp,
}

/// The fields of a record that a client writes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UserProfile {
    /// The user's name.
    pub name: UserName,
    /// The user's email. A record without one is not found by email.
    pub email: Option<Email>,
    /// The status that the client assigns.
    pub status: Option<UserStatus>,
    /// The client-defined attributes.
    pub attributes: Option<UserAttributes>,
    /// The second from which on the record is absent.
    pub expires_at: Option<ExpiresAt>,
}

/// One record of a user.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    /// The record's key.
    pub key: UserKey,
    /// The fields that the client wrote.
    pub profile: UserProfile,
    /// The version, used for optimistic locking and as entity tag: the creation time in microseconds, incremented by
    /// every later write. It is 0 if another program wrote the record without a version.
    pub version: u64,
    /// The time at which the record was created, unless another program left it out.
    pub created_at: Option<OffsetDateTime>,
    /// The time at which the record was last written, unless another program left it out.
    pub updated_at: Option<OffsetDateTime>,
}

impl User {
    /// Returns the record that a create at `now` writes.
    #[must_use]
    pub fn created(key: UserKey, profile: UserProfile, now: OffsetDateTime) -> Self {
        Self { key, profile, version: first_version(now), created_at: Some(now), updated_at: Some(now) }
    }
}

/// Returns the version of a record created at `now`: microseconds since 1970. If versions started at 1, a record that
/// is deleted and created again could match an outdated entity tag of a client.
#[must_use]
pub fn first_version(now: OffsetDateTime) -> u64 {
    u64::try_from(now.unix_timestamp_nanos() / 1_000).unwrap_or(0).max(1)
}

/// The effect of a merge patch on one optional field.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum FieldPatch<T> {
    /// The patch does not contain the field.
    #[default]
    Keep,
    /// The patch sets the field to `null`.
    Remove,
    /// The patch sets the field to this value.
    Set(T),
}

impl<T> FieldPatch<T> {
    /// Returns the value if the patch sets one.
    pub fn set(self) -> Option<T> {
        match self {
            Self::Set(value) => Some(value),
            Self::Keep | Self::Remove => None,
        }
    }
}

/// A parsed merge patch (RFC 7396) of a record. Its result is valid whatever the record contains.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct UserPatch {
    /// The new name. A name cannot be removed.
    pub name: Option<UserName>,
    /// The effect on the email.
    pub email: FieldPatch<Email>,
    /// The effect on the status.
    pub status: FieldPatch<UserStatus>,
    /// The effect on the expiry.
    pub expires_at: FieldPatch<ExpiresAt>,
    /// The patch of `attributes`, merged member by member into the stored ones.
    pub attributes: FieldPatch<AttributesPatch>,
}

/// A merge patch of `attributes`: an object whose `null` members remove members.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AttributesPatch(JsonValue);

impl AttributesPatch {
    /// Creates a patch from attributes.
    #[must_use]
    pub fn new(members: UserAttributes) -> Self {
        Self(JsonValue::Object(members.into_members()))
    }

    /// Returns the patch as JSON, which is always an object.
    #[must_use]
    pub fn json(&self) -> &JsonValue {
        &self.0
    }
}

/// Formats a time as records contain it: RFC 3339 in UTC with milliseconds. A year that RFC 3339 cannot represent,
/// which no clock returns, results in an empty text.
///
/// The result is that of the formatter of `time`, whose interpretation of the format a request would pay several times.
#[must_use]
pub fn format_rfc3339_millis(moment: OffsetDateTime) -> String {
    let moment = moment.to_offset(time::UtcOffset::UTC);
    let Some(year) = u32::try_from(moment.year()).ok().filter(|year| *year < 10_000) else { return String::new() };
    let parts = [
        (year, 4, '-'),
        (u8::from(moment.month()).into(), 2, '-'),
        (moment.day().into(), 2, 'T'),
        (moment.hour().into(), 2, ':'),
        (moment.minute().into(), 2, ':'),
        (moment.second().into(), 2, '.'),
        (moment.millisecond().into(), 3, 'Z'),
    ];
    let mut text = String::with_capacity("2026-11-22T10:00:00.123Z".len());
    for (number, digits, separator) in parts {
        for exponent in (0..digits).rev() {
            text.push(char::from(b'0' + u8::try_from(number / 10_u32.pow(exponent) % 10).unwrap_or_default()));
        }
        text.push(separator);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::{datetime, format_description};

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
    fn time_is_formatted_as_by_its_crate() {
        let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
        let utc = |time: OffsetDateTime| time.to_offset(time::UtcOffset::UTC).format(format).unwrap();
        for time in [
            datetime!(2026-11-22 10:00:00.123456 UTC),
            datetime!(1970-01-01 0:00 UTC),
            datetime!(0000-01-01 0:00 UTC),
            datetime!(9999-12-31 23:59:59.999999 UTC),
            datetime!(2024-02-29 23:59:09.009 -1:30),
        ] {
            assert_eq!(format_rfc3339_millis(time), utc(time));
        }
        assert_eq!(format_rfc3339_millis(datetime!(-0001-01-01 0:00 UTC)), "");
    }

    #[test]
    fn a_created_record_s_version_is_its_microsecond_and_never_zero() {
        assert_eq!(user().version, 1_795_341_600_123_456);
        assert_eq!(first_version(OffsetDateTime::UNIX_EPOCH), 1);
        assert_eq!(first_version(datetime!(1969-01-01 0:00 UTC)), 1);
    }

    #[test]
    fn a_second_from_1970_to_9999_is_a_timestamp() {
        for seconds in [0, 1, 1_700_000_000, Timestamp::MAX_SECONDS] {
            assert_eq!(Timestamp::parse(seconds).unwrap().seconds(), seconds);
        }
    }

    #[test]
    fn a_negative_second_or_a_millisecond_cannot_be_built() {
        for seconds in [-1, i64::MIN, 1_700_000_000_000, i64::MAX] {
            assert!(Timestamp::parse(seconds).is_err(), "{seconds}");
        }
    }

    #[test]
    fn a_name_is_kept_as_it_was_given() {
        for name in ["Ada", "  Ada ", "李 小龙", "O'Brien-Smith, Jr.", "é"] {
            assert_eq!(UserName::parse(name).unwrap().as_str(), name);
        }
        assert!(UserName::parse("é".repeat(256)).is_ok());
    }

    #[test]
    fn a_blank_a_long_or_a_broken_name_cannot_be_built() {
        for name in ["", " ", "\t\n", "\u{2003}", "a\nb", "a\0", "\u{7f}a"] {
            assert!(UserName::parse(name).is_err(), "{name:?}");
        }
        assert!(UserName::parse("é".repeat(257)).is_err());
    }

    #[test]
    fn a_status_is_a_short_word_or_two() {
        assert_eq!(UserStatus::parse("on leave").unwrap().as_str(), "on leave");
        for text in ["", " ", "a\nb", &"x".repeat(65)] {
            assert!(UserStatus::parse(text).is_err(), "{text:?}");
        }
    }
}
