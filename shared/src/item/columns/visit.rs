//! A single pass over an item's JSON that parses only the attributes with a column.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::RowError;
use crate::change::BorrowedText;
use crate::item::{ATTRIBUTES, CREATED_AT, EMAIL, EXPIRES_AT, NAME, STATUS, UPDATED_AT, VERSION};
use crate::replica_item::RESERVED;

/// The value of an attribute with a column.
pub(super) enum ColumnValue<'a> {
    Text(Cow<'a, str>),
    Number(Cow<'a, str>),
    Null,
    Other,
}

/// The attributes that the pass found.
#[derive(Default)]
pub(super) struct ParsedColumns<'a> {
    pub(super) name: Option<ColumnValue<'a>>,
    pub(super) email: Option<ColumnValue<'a>>,
    pub(super) status: Option<ColumnValue<'a>>,
    pub(super) expires_at: Option<ColumnValue<'a>>,
    pub(super) version: Option<ColumnValue<'a>>,
    pub(super) created_at: Option<ColumnValue<'a>>,
    pub(super) updated_at: Option<ColumnValue<'a>>,
    pub(super) attributes: Option<&'a RawValue>,
    pub(super) reserved: Option<&'static str>,
}

impl<'a> ParsedColumns<'a> {
    pub(super) fn read(item: &'a str) -> Result<Self, RowError> {
        serde_json::from_str(item).map_err(|error| malformed(&error))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for ParsedColumns<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Attributes<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Attributes<'a> {
            type Value = ParsedColumns<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of attributes")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<ParsedColumns<'a>, M::Error> {
                let mut found = ParsedColumns::default();
                while let Some(BorrowedText(name)) = map.next_key::<BorrowedText<'a>>()? {
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

impl<'de: 'a, 'a> Deserialize<'de> for ColumnValue<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Typed<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Typed<'a> {
            type Value = ColumnValue<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value with its type tag")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<ColumnValue<'a>, M::Error> {
                let mut value = ColumnValue::Other;
                while let Some(BorrowedText(name)) = map.next_key::<BorrowedText<'a>>()? {
                    value = match name.as_ref() {
                        "S" => ColumnValue::Text(map.next_value::<BorrowedText<'a>>()?.0),
                        "N" => ColumnValue::Number(map.next_value::<BorrowedText<'a>>()?.0),
                        "NULL" => map.next_value::<IgnoredAny>().map(|_| ColumnValue::Null)?,
                        _ => map.next_value::<IgnoredAny>().map(|_| ColumnValue::Other)?,
                    };
                }
                Ok(value)
            }
        }
        deserializer.deserialize_map(Typed(std::marker::PhantomData))
    }
}

/// Reports only the position, because the message of `serde_json` may quote a value.
fn malformed(error: &serde_json::Error) -> RowError {
    RowError::Malformed(format!("line {} column {}", error.line(), error.column()))
}

/// Returns the name of the first top-level attribute that contains U+0000. Only an item with the escape of that
/// character, or with one that may be an unpaired surrogate, is parsed a second time; such items are rare.
///
/// # Errors
/// [`RowError::Malformed`] if such an item is not valid JSON text.
pub fn first_attribute_with_nul(item: &str) -> Result<Option<String>, RowError> {
    if !["\\u0000", "\\ud", "\\uD"].iter().any(|escape| item.contains(escape)) {
        return Ok(None);
    }
    // Fails for an unpaired surrogate, which is not valid text.
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
