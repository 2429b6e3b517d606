//! JSON with exact numbers. The tree is parsed child by child from raw text, because `serde_json::Value` rounds numbers
//! to f64 and keeps only the last of two members with the same name.
//!
//! A value of these types can be stored in DynamoDB without changes: numbers have at most 38 digits ([`JsonNumber`]),
//! and values are nested at most [`MAX_DEPTH`] levels below the root. Errors contain a JSON pointer (RFC 6901) to the
//! value.

mod number;
mod object_members;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::number::canonical;
pub use number::JsonNumber;
pub use object_members::JsonMembers;

/// The maximum depth of a value below the root. DynamoDB allows 32 levels, the first of which is the attribute itself.
pub const MAX_DEPTH: usize = 31;

/// The maximum length of a member's name, in bytes. DynamoDB allows 64 KB for the name of an attribute, including
/// nested ones, and no empty names.
const MAX_NAME_BYTES: usize = 65_535;

/// A JSON value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum JsonValue {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, stored exactly.
    Number(JsonNumber),
    /// A string.
    String(String),
    /// An array.
    Array(Vec<JsonValue>),
    /// An object. The order of its members has no meaning and is not preserved.
    Object(BTreeMap<String, JsonValue>),
}

/// A JSON text that is malformed or contains a value that the table cannot store.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{reason}")]
pub struct JsonError {
    /// The JSON pointer (RFC 6901) of the invalid value, relative to the parsed text.
    pub pointer: String,
    /// The reason, with the fix.
    pub reason: String,
}

impl JsonError {
    pub(crate) fn at_root(reason: impl Into<String>) -> Self {
        Self { pointer: String::new(), reason: reason.into() }
    }

    fn below(mut self, name: &str) -> Self {
        let mut pointer = String::with_capacity(self.pointer.len() + name.len() + 1);
        push_pointer(&mut pointer, name);
        pointer.push_str(&self.pointer);
        self.pointer = pointer;
        self
    }
}

/// Appends one reference token to a JSON pointer.
pub fn push_pointer(pointer: &mut String, name: &str) {
    pointer.push('/');
    for character in name.chars() {
        match character {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
}

impl JsonValue {
    /// Parses any JSON text.
    ///
    /// # Errors
    /// The text is malformed, or contains a value that the table cannot store.
    pub fn parse(text: &str) -> Result<Self, JsonError> {
        let raw = serde_json::from_str::<&RawValue>(text).map_err(malformed)?;
        parse(raw.get(), 0)
    }
}

impl JsonValue {
    /// Appends the value in canonical form: members sorted by name, no white space, one escaping of each string, and
    /// numbers in canonical format.
    pub fn write_canonical(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(number) => out.push_str(&canonical(number.as_str()).unwrap_or(Cow::Borrowed(number.as_str()))),
            Self::String(text) => write_canonical_text(text, out),
            Self::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    item.write_canonical(out);
                }
                out.push(']');
            }
            Self::Object(members) => write_canonical_object(members, out),
        }
    }
}

/// Appends an object in canonical form.
pub fn write_canonical_object(members: &BTreeMap<String, JsonValue>, out: &mut String) {
    out.push('{');
    for (index, (name, value)) in members.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_canonical_text(name, out);
        out.push(':');
        value.write_canonical(out);
    }
    out.push('}');
}

/// Appends a string in canonical form: only the characters that JSON requires to be escaped are, each in one way.
pub fn write_canonical_text(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\0'..='\u{1f}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

fn parse(text: &str, depth: usize) -> Result<JsonValue, JsonError> {
    if depth > MAX_DEPTH {
        return Err(JsonError::at_root("nested too deep: at most 32 levels, this object's own included"));
    }
    match text.as_bytes().first() {
        Some(b'{') => {
            let JsonMembers(raw) = serde_json::from_str(text).map_err(malformed)?;
            let mut members = BTreeMap::new();
            for (name, value) in raw {
                if !(1..=MAX_NAME_BYTES).contains(&name.len()) {
                    let reason = "a member's name must have 1 to 65535 bytes";
                    return Err(JsonError::at_root(reason).below(&name));
                }
                let value = parse(value.get(), depth + 1).map_err(|error| error.below(&name))?;
                if members.contains_key(&name) {
                    return Err(JsonError::at_root("duplicate: a member's name must be unique").below(&name));
                }
                members.insert(name, value);
            }
            Ok(JsonValue::Object(members))
        }
        Some(b'[') => {
            let raw: Vec<&RawValue> = serde_json::from_str(text).map_err(malformed)?;
            let item = |(index, value): (usize, &&RawValue)| {
                parse(value.get(), depth + 1).map_err(|error| error.below(&index.to_string()))
            };
            raw.iter().enumerate().map(item).collect::<Result<_, _>>().map(JsonValue::Array)
        }
        Some(b'"') => serde_json::from_str(text).map(JsonValue::String).map_err(malformed),
        Some(b't') => Ok(JsonValue::Bool(true)),
        Some(b'f') => Ok(JsonValue::Bool(false)),
        Some(b'n') => Ok(JsonValue::Null),
        _ => JsonNumber::parse(text).map(JsonValue::Number).map_err(|error| JsonError::at_root(error.to_string())),
    }
}

/// Removes the position from the message of `serde_json`, because it would be relative to the child's first character.
fn malformed(error: impl std::fmt::Display) -> JsonError {
    let text = error.to_string();
    let words = text.split(" at line ").next().unwrap_or_default();
    let mut reason = String::from("malformed JSON: ");
    let _ = write!(reason, "{words}");
    JsonError::at_root(reason)
}

impl Serialize for JsonValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(number) => number.serialize(serializer),
            Self::String(text) => serializer.serialize_str(text),
            Self::Array(items) => items.serialize(serializer),
            Self::Object(members) => members.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::any_json;
