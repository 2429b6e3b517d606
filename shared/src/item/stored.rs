//! A user's item as a response contains it: [`StoredUser`], parsed from DynamoDB JSON in one pass.
//!
//! An item of this service becomes a user without a map of attribute values in between. Any other item, such as one with
//! an attribute of an unexpected type, is parsed as a map, so that [`decode`] defines the result and the
//! errors of both.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{AttributeMap, ItemParseError, decode, is_live};
use crate::user::attributes::UserAttributes;
use crate::user::email::Email;
use crate::user::expiry::ExpiresAt;
use crate::user::id::UserId;
use crate::user::json::{JsonNumber, JsonValue};
use crate::user::{Timestamp, User, UserKey, UserName, UserProfile, UserStatus};

/// An item of the users table, which may be expired or not a valid user record.
#[derive(Clone, Debug)]
pub struct StoredUser(StoredForm);

#[derive(Clone, Debug)]
enum StoredForm {
    /// A valid record, without its expiry, whose meaning depends on the time.
    User {
        user: Box<User>,
        expires_at: Option<String>,
    },
    Attributes(AttributeMap),
}

impl StoredUser {
    /// Returns whether the record is visible at `now`, as [`is_live`] does.
    #[must_use]
    pub fn is_live(&self, now: OffsetDateTime) -> bool {
        match &self.0 {
            StoredForm::User { expires_at, .. } => {
                expiry(expires_at.as_deref(), now).is_none_or(|ends| !ends.is_past(now))
            }
            StoredForm::Attributes(item) => is_live(item, now),
        }
    }

    /// Decodes the record, as [`decode`] does.
    ///
    /// # Errors
    /// A required attribute is missing, or an attribute has another type or an invalid value.
    pub fn decode(self, now: OffsetDateTime) -> Result<User, ItemParseError> {
        match self.0 {
            StoredForm::User { mut user, expires_at } => {
                user.profile.expires_at = expiry(expires_at.as_deref(), now);
                Ok(*user)
            }
            StoredForm::Attributes(item) => decode(item, now),
        }
    }
}

fn expiry(number: Option<&str>, now: OffsetDateTime) -> Option<ExpiresAt> {
    ExpiresAt::from_stored(number?, now)
}

impl<'de> Deserialize<'de> for StoredUser {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&RawValue>::deserialize(deserializer)?.get();
        if let Some(form) = serde_json::from_str(text).ok().and_then(UserJson::parse) {
            return Ok(Self(form));
        }
        let item: serde_dynamo::Item = serde_json::from_str(text).map_err(D::Error::custom)?;
        Ok(Self(StoredForm::Attributes(item.into())))
    }
}

/// The item of a user, whose attributes have the types that this service writes. The field names are the names of the
/// attributes.
#[derive(Deserialize)]
struct UserJson<'a> {
    #[serde(borrow)]
    user_id: TextJson<'a>,
    #[serde(borrow)]
    timestamp: NumberJson<'a>,
    #[serde(borrow)]
    name: TextJson<'a>,
    #[serde(borrow)]
    email: Option<TextJson<'a>>,
    #[serde(borrow)]
    status: Option<TextJson<'a>>,
    attributes: Option<MapJson>,
    #[serde(borrow)]
    expires_at: Option<NumberJson<'a>>,
    #[serde(borrow)]
    version: Option<NumberJson<'a>>,
    #[serde(borrow)]
    created_at: Option<TextJson<'a>>,
    #[serde(borrow)]
    updated_at: Option<TextJson<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TextJson<'a> {
    #[serde(borrow, rename = "S")]
    text: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NumberJson<'a> {
    #[serde(borrow, rename = "N")]
    text: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MapJson {
    #[serde(rename = "M")]
    members: MembersJson,
}

impl UserJson<'_> {
    /// Returns `None` if a value is not valid for its field.
    fn parse(self) -> Option<StoredForm> {
        let time = |text: Option<TextJson<'_>>| match text {
            Some(TextJson { text }) => OffsetDateTime::parse(&text, &Rfc3339).ok().map(Some),
            None => Some(None),
        };
        let user = User {
            key: UserKey {
                id: UserId::parse(self.user_id.text.into_owned()).ok()?,
                timestamp: Timestamp::parse(self.timestamp.text.parse().ok()?).ok()?,
            },
            profile: UserProfile {
                name: UserName::parse(self.name.text).ok()?,
                email: self.email.map(|email| Email::parse(email.text)).transpose().ok()?,
                status: self.status.map(|status| UserStatus::parse(status.text)).transpose().ok()?,
                attributes: self.attributes.map(|map| UserAttributes::new(map.members.0)),
                expires_at: None,
            },
            version: self.version.map_or(Ok(0), |version| version.text.parse()).ok()?,
            created_at: time(self.created_at)?,
            updated_at: time(self.updated_at)?,
        };
        let expires_at = self.expires_at.map(|number| number.text.into_owned());
        Some(StoredForm::User { user: Box::new(user), expires_at })
    }
}

/// The members of a map.
struct MembersJson(BTreeMap<String, JsonValue>);

/// A value of a type that JSON has, too.
struct ValueJson(JsonValue);

impl<'de> Deserialize<'de> for MembersJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = MembersJson;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of attribute values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MembersJson, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, ValueJson(value))) = map.next_entry()? {
                    members.insert(name, value);
                }
                Ok(MembersJson(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

impl<'de> Deserialize<'de> for ValueJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;
        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = ValueJson;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an attribute value of a type that JSON has")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ValueJson, A::Error> {
                let kind = map.next_key::<ValueKind>()?.ok_or_else(|| A::Error::custom("an empty value"))?;
                let value = match kind {
                    ValueKind::S => JsonValue::String(map.next_value()?),
                    ValueKind::N => {
                        let TextValue(number) = map.next_value()?;
                        JsonValue::Number(JsonNumber::parse(&number).map_err(A::Error::custom)?)
                    }
                    ValueKind::Bool => JsonValue::Bool(map.next_value()?),
                    ValueKind::Null => {
                        map.next_value::<bool>()?;
                        JsonValue::Null
                    }
                    ValueKind::L => {
                        let items: Vec<ValueJson> = map.next_value()?;
                        JsonValue::Array(items.into_iter().map(|ValueJson(item)| item).collect())
                    }
                    ValueKind::M => JsonValue::Object(map.next_value::<MembersJson>()?.0),
                };
                match map.next_key::<ValueKind>()? {
                    None => Ok(ValueJson(value)),
                    Some(_) => Err(A::Error::custom("a value of two types")),
                }
            }
        }
        deserializer.deserialize_map(ValueVisitor)
    }
}

#[derive(Deserialize)]
enum ValueKind {
    S,
    N,
    #[serde(rename = "BOOL")]
    Bool,
    #[serde(rename = "NULL")]
    Null,
    L,
    M,
}

/// A text, borrowed if it contains no escapes.
#[derive(Deserialize)]
struct TextValue<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use time::macros::datetime;

    use super::*;
    use crate::item::{attributes, encode};
    use crate::raw_item::RawItem;
    use crate::user::json::any_json;

    const NOW: OffsetDateTime = datetime!(2026-11-22 10:00:00.123 UTC);

    fn user() -> User {
        let profile = UserProfile {
            name: UserName::parse("Ada \"Łovelace\"").unwrap(),
            email: Some(Email::parse("ada@example.com").unwrap()),
            status: Some(UserStatus::parse("active").unwrap()),
            attributes: Some(UserAttributes::parse(r#"{"n": 1.5, "l": [null, true, {"é": "\n"}], "m": {}}"#).unwrap()),
            expires_at: Some(ExpiresAt::parse(1_900_000_000, NOW).unwrap()),
        };
        let key = UserKey { id: UserId::parse("ada").unwrap(), timestamp: Timestamp::parse(7).unwrap() };
        User::created(key, profile, NOW)
    }

    /// Reads an item in one pass, and compares the result with that of [`decode`].
    fn read(item: &str) -> StoredUser {
        let stored: StoredUser = serde_json::from_str(item).unwrap();
        let map = RawItem::parse(item).unwrap().into_attributes();
        assert_eq!(stored.is_live(NOW), is_live(&map, NOW), "{item}");
        assert_eq!(stored.clone().decode(NOW), decode(map, NOW), "{item}");
        stored
    }

    fn json_of(user: &User) -> Value {
        serde_json::from_str(&RawItem::new(encode(user)).encode()).unwrap()
    }

    #[test]
    fn item_of_the_service_is_parsed_in_one_pass() {
        let stored = read(&json_of(&user()).to_string());
        assert!(matches!(stored.0, StoredForm::User { .. }));
        assert_eq!(stored.decode(NOW).unwrap(), user());
        let mut bare = user();
        bare.profile = UserProfile { email: None, status: None, attributes: None, expires_at: None, ..bare.profile };
        assert!(matches!(read(&json_of(&bare).to_string()).0, StoredForm::User { .. }));
    }

    #[test]
    fn other_item_has_the_result_and_the_error_of_its_map() {
        for (attribute, value) in [
            ("tags", json!({"SS": ["x", "y"]})),
            ("name", json!({"S": " "})),
            ("name", json!({"N": "1"})),
            ("name", Value::Null),
            ("user_id", json!({"S": "a b"})),
            ("timestamp", json!({"N": "-1"})),
            ("timestamp", json!({"N": "7.5"})),
            ("timestamp", json!({"S": "7"})),
            ("email", json!({"NULL": true})),
            ("email", json!({"S": "nobody"})),
            ("status", json!({"N": "1"})),
            ("version", json!({"S": "1"})),
            ("version", json!({"N": "-1"})),
            ("version", json!({"NULL": true})),
            ("created_at", json!({"S": "yesterday"})),
            ("updated_at", json!({"BOOL": true})),
            ("expires_at", json!({"S": "1"})),
            ("expires_at", json!({"N": "1795341600"})),
            ("expires_at", json!({"N": "1795341600.5"})),
            ("expires_at", json!({"N": "1"})),
            ("attributes", json!({"S": "{}"})),
            ("attributes", json!({"M": {"set": {"SS": ["b", "a"]}, "binary": {"B": "AQI="}}})),
            ("attributes", json!({"M": {"deep": {"L": [{"NS": ["2", "1"]}]}}})),
            ("attributes", json!({"M": {"n": {"N": "1E+400"}}})),
        ] {
            let mut item = json_of(&user());
            match value {
                Value::Null => drop(item.as_object_mut().unwrap().remove(attribute)),
                value => item[attribute] = value,
            }
            read(&item.to_string());
        }
    }

    #[test]
    fn text_that_is_not_an_item_is_an_error() {
        for text in ["7", "[]", r#"{"name":7}"#, r#"{"name":{"S":"Ada","N":"1"}}"#, r#"{"name":{"B":"*"}}"#] {
            assert!(serde_json::from_str::<StoredUser>(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn attributes_are_those_of_the_map(json in any_json()) {
            let mut item = json_of(&user());
            let value = attributes::encode_json(&json);
            let value = RawItem::new([("json".to_owned(), value)].into()).encode();
            item["attributes"] = json!({"M": serde_json::from_str::<Value>(&value).unwrap()});
            read(&item.to_string());
        }
    }
}
