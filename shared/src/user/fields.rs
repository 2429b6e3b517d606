//! The selection of user fields that a client requests.

use serde::{Serialize, Serializer};

use super::attributes::UserAttributes;
use super::email::Email;
use super::expiry::ExpiresAt;
use super::json::JsonMembers;
use super::{User, UserStatus, format_rfc3339_millis};

/// The field names, in the order in which they are serialized.
const NAMES: [&str; 10] = [
    "user_id",
    "timestamp",
    "name",
    "email",
    "status",
    "attributes",
    "expires_at",
    "version",
    "created_at",
    "updated_at",
];

/// A selection of user fields.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FieldMask(u16);

impl FieldMask {
    /// All fields.
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);

    /// Parses comma-separated field names.
    ///
    /// # Errors
    /// A name is unknown or repeated.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut chosen = 0;
        for name in text.split(',') {
            let index = NAMES.iter().position(|known| *known == name);
            let bit = 1 << index.ok_or_else(|| format!("must be a list of {}", NAMES.join(",")))?;
            if chosen & bit != 0 {
                return Err(format!("contains {name} twice"));
            }
            chosen |= bit;
        }
        Ok(Self(chosen))
    }

    /// Applies the selection to a user that is already serialized with all of its fields.
    ///
    /// # Errors
    /// The text is not a JSON object.
    pub fn mask_json(self, user: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
        let JsonMembers(members) = serde_json::from_slice(user)?;
        let mut text = vec![b'{'];
        for (name, value) in members {
            let index = NAMES.iter().position(|known| *known == name);
            if index.and_then(|index| self.pick(index, ())).is_none() {
                continue;
            }
            if text.len() > 1 {
                text.push(b',');
            }
            serde_json::to_writer(&mut text, &name)?;
            text.push(b':');
            text.extend(value.get().as_bytes());
        }
        text.push(b'}');
        Ok(text)
    }

    fn pick<T>(self, index: usize, value: T) -> Option<T> {
        (self.0 & (1 << index) != 0).then_some(value)
    }
}

/// A user that is serialized with only some of its fields.
#[derive(Clone, Copy, Debug)]
pub struct MaskedUser<'a> {
    user: &'a User,
    fields: FieldMask,
}

impl User {
    /// Returns the user for serialization with these fields only.
    #[must_use]
    pub fn only(&self, fields: FieldMask) -> MaskedUser<'_> {
        MaskedUser { user: self, fields }
    }
}

impl Serialize for User {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.only(FieldMask::ALL).serialize(serializer)
    }
}

impl Serialize for MaskedUser<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// The JSON of a record, with its fields in the order of `NAMES`.
        #[derive(Serialize)]
        struct Flat<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            user_id: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            timestamp: Option<i64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            name: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            email: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            status: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            attributes: Option<&'a UserAttributes>,
            #[serde(skip_serializing_if = "Option::is_none")]
            expires_at: Option<i64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            version: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            created_at: Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            updated_at: Option<String>,
        }
        let (user, profile, fields) = (self.user, &self.user.profile, self.fields);
        Flat {
            user_id: fields.pick(0, user.key.id.as_str()),
            timestamp: fields.pick(1, user.key.timestamp.seconds()),
            name: fields.pick(2, profile.name.as_str()),
            email: fields.pick(3, profile.email.as_ref().map(Email::as_str)).flatten(),
            status: fields.pick(4, profile.status.as_ref().map(UserStatus::as_str)).flatten(),
            attributes: fields.pick(5, profile.attributes.as_ref()).flatten(),
            expires_at: fields.pick(6, profile.expires_at.map(ExpiresAt::seconds)).flatten(),
            version: fields.pick(7, user.version),
            created_at: fields.pick(8, user.created_at).flatten().map(format_rfc3339_millis),
            updated_at: fields.pick(9, user.updated_at).flatten().map(format_rfc3339_millis),
        }
        .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::super::{Timestamp, UserKey, UserName, UserProfile, id::UserId};
    use super::*;

    #[test]
    fn only_what_is_chosen_is_written_and_what_is_absent_is_not() {
        let user = User::created(
            UserKey { id: UserId::parse("ada").unwrap(), timestamp: Timestamp::parse(7).unwrap() },
            UserProfile {
                name: UserName::parse("Ada").unwrap(),
                email: None,
                status: Some(UserStatus::parse("on").unwrap()),
                attributes: None,
                expires_at: None,
            },
            datetime!(2026-11-22 10:00 UTC),
        );
        let json = |fields: &str| serde_json::to_string(&user.only(FieldMask::parse(fields).unwrap())).unwrap();
        assert_eq!(json("status,user_id"), r#"{"user_id":"ada","status":"on"}"#);
        assert_eq!(json("email"), "{}");
        assert_eq!(json(&NAMES.join(",")), serde_json::to_string(&user).unwrap());
        for name in NAMES {
            let whole: serde_json::Value = serde_json::to_value(&user).unwrap();
            let one: serde_json::Value = serde_json::from_str(&json(name)).unwrap();
            assert_eq!(one.get(name), whole.get(name), "{name}");
        }
        let written = serde_json::to_vec(&user).unwrap();
        for fields in ["status,user_id", "email", "version,name", &NAMES.join(",")] {
            let of_json = FieldMask::parse(fields).unwrap().mask_json(&written).unwrap();
            assert_eq!(String::from_utf8(of_json).unwrap(), json(fields), "as from the user itself");
        }
    }

    #[test]
    fn an_unknown_or_repeated_name_is_refused() {
        for text in ["", "name,", "nmae", "name,name", "Name", "name, email"] {
            assert!(FieldMask::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(FieldMask::parse(&NAMES.join(",")), Ok(FieldMask::ALL));
    }
}
