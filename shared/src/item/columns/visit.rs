//! One pass over an item's JSON that stops at nothing but the attributes with a column.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::NoRow;
use crate::change::Text;
use crate::held::RESERVED;
use crate::item::{ATTRIBUTES, CREATED_AT, EMAIL, EXPIRES_AT, NAME, STATUS, UPDATED_AT, VERSION};

/// A value of a column's attribute.
pub(super) enum Value<'a> {
    Text(Cow<'a, str>),
    Number(Cow<'a, str>),
    Null,
    Other,
}

/// What was met.
#[derive(Default)]
pub(super) struct Found<'a> {
    pub(super) name: Option<Value<'a>>,
    pub(super) email: Option<Value<'a>>,
    pub(super) status: Option<Value<'a>>,
    pub(super) expires_at: Option<Value<'a>>,
    pub(super) version: Option<Value<'a>>,
    pub(super) created_at: Option<Value<'a>>,
    pub(super) updated_at: Option<Value<'a>>,
    pub(super) attributes: Option<&'a RawValue>,
    pub(super) reserved: Option<&'static str>,
}

impl<'a> Found<'a> {
    pub(super) fn read(item: &'a str) -> Result<Self, NoRow> {
        serde_json::from_str(item).map_err(|error| malformed(&error))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Found<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Attributes<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Attributes<'a> {
            type Value = Found<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of attributes")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Found<'a>, M::Error> {
                let mut found = Found::default();
                while let Some(Text(name)) = map.next_key::<Text<'a>>()? {
                    let place = match name.as_ref() {
                        NAME => &mut found.name,
                        EMAIL => &mut found.email,
                        STATUS => &mut found.status,
                        EXPIRES_AT => &mut found.expires_at,
                        VERSION => &mut found.version,
                        CREATED_AT => &mut found.created_at,
                        UPDATED_AT => &mut found.updated_at,
                        ATTRIBUTES => {
                            found.attributes = Some(map.next_value()?);
                            continue;
                        }
                        name => {
                            let reserved = RESERVED.into_iter().find(|reserved| *reserved == name);
                            found.reserved = found.reserved.or(reserved);
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *place = Some(map.next_value()?);
                }
                Ok(found)
            }
        }
        deserializer.deserialize_map(Attributes(std::marker::PhantomData))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Value<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Typed<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Typed<'a> {
            type Value = Value<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value with its type")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Value<'a>, M::Error> {
                let mut value = Value::Other;
                while let Some(Text(name)) = map.next_key::<Text<'a>>()? {
                    value = match name.as_ref() {
                        "S" => Value::Text(map.next_value::<Text<'a>>()?.0),
                        "N" => Value::Number(map.next_value::<Text<'a>>()?.0),
                        "NULL" => map.next_value::<IgnoredAny>().map(|_| Value::Null)?,
                        _ => map.next_value::<IgnoredAny>().map(|_| Value::Other)?,
                    };
                }
                Ok(value)
            }
        }
        deserializer.deserialize_map(Typed(std::marker::PhantomData))
    }
}

/// The sentence of serde would quote what it found.
fn malformed(error: &serde_json::Error) -> NoRow {
    NoRow::Malformed(format!("line {} column {}", error.line(), error.column()))
}

/// The first top-level attribute with a zero character anywhere in it. Only an item with such an escape, or with one that
/// may be half of a pair, is read again: almost none is.
pub(super) fn with_zero(item: &str) -> Result<Option<String>, NoRow> {
    if !["\\u0000", "\\ud", "\\uD"].iter().any(|escape| item.contains(escape)) {
        return Ok(None);
    }
    // Half a pair of surrogates is no text at all.
    let whole: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(item).map_err(|error| malformed(&error))?;
    Ok(whole
        .iter()
        .find(|(name, value)| name.contains('\0') || has_zero(value))
        .map(|(name, _)| name.replace('\0', "\\0")))
}

fn has_zero(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::String(text) => text.contains('\0'),
        serde_json::Value::Array(items) => items.iter().any(has_zero),
        serde_json::Value::Object(members) => {
            members.iter().any(|(name, value)| name.contains('\0') || has_zero(value))
        }
        _ => false,
    }
}
