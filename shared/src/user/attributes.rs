//! The client-defined attributes of a user: any JSON object that the table can store exactly.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::json::{JsonError, JsonValue};

/// A JSON object with exact numbers and unique member names, nested no deeper than the table allows.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct UserAttributes(BTreeMap<String, JsonValue>);

impl UserAttributes {
    /// Parses an object from JSON text.
    ///
    /// # Errors
    /// The text is not a JSON object, or contains a value that the table cannot store; the error points at it.
    pub fn parse(text: &str) -> Result<Self, JsonError> {
        match JsonValue::parse(text)? {
            JsonValue::Object(members) => Ok(Self(members)),
            _ => Err(JsonError::at_root("attributes must be a JSON object")),
        }
    }

    /// Creates attributes from members that are valid already.
    #[must_use]
    pub fn new(members: BTreeMap<String, JsonValue>) -> Self {
        Self(members)
    }

    /// Returns the members by name.
    #[must_use]
    pub fn members(&self) -> &BTreeMap<String, JsonValue> {
        &self.0
    }

    /// Returns the members by name.
    #[must_use]
    pub fn into_members(self) -> BTreeMap<String, JsonValue> {
        self.0
    }
}

impl Serialize for UserAttributes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_object_is_attributes() {
        assert_eq!(
            serde_json::to_string(&UserAttributes::parse(r#"{"b":1,"a":[]}"#).unwrap()).unwrap(),
            r#"{"a":[],"b":1}"#
        );
        for text in ["[]", "null", "1", "\"a\"", "true"] {
            assert_eq!(
                UserAttributes::parse(text).unwrap_err().to_string(),
                "attributes must be a JSON object",
                "{text}"
            );
        }
    }
}
