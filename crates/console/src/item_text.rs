//! The two text formats in which the console shows and edits an item: DynamoDB JSON and plain JSON. [`ItemNotation`]
//!
//! Plain JSON has neither sets nor binary data. An item with such attributes is shown in plain JSON, and can be edited
//! only in DynamoDB JSON ([`plain_losses`]).

use std::collections::HashMap;
use std::fmt::Write as _;

use aws_sdk_dynamodb::types::AttributeValue;
use millrace_local::import::{check_table_item, parse_table_item};
use millrace_local::template::TableResource;
use millrace_shared::item::attributes::{decode_json, encode_json};
use millrace_shared::raw_item::RawItem;
use millrace_shared::user::json::JsonValue;
use serde_json::value::RawValue;

/// The notation of an item.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ItemNotation {
    /// `{"name":{"S":"Ada"}}`
    #[default]
    DynamoDb,
    /// `{"name":"Ada"}`
    Plain,
}

impl ItemNotation {
    pub(crate) const ALL: [Self; 2] = [Self::DynamoDb, Self::Plain];

    /// Returns the name in the page's address.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::DynamoDb => "dynamodb",
            Self::Plain => "plain",
        }
    }

    /// Returns the label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::DynamoDb => "DynamoDB JSON",
            Self::Plain => "plain JSON",
        }
    }

    /// Parses a name; every other text is [`ItemNotation::DynamoDb`].
    pub(crate) fn parse(text: &str) -> Self {
        if text == Self::Plain.as_str() { Self::Plain } else { Self::DynamoDb }
    }

    /// Formats an attribute's value.
    fn value(self, value: &AttributeValue) -> String {
        match self {
            Self::DynamoDb => {
                let item = RawItem::new(HashMap::from([(String::new(), value.clone())])).encode();
                let value: Result<HashMap<String, &RawValue>, _> = serde_json::from_str(&item);
                value.ok().and_then(|map| map.get("").map(|value| value.get().to_owned())).unwrap_or_default()
            }
            Self::Plain => match decode_json(value.clone()) {
                Ok(json) => serde_json::to_string(&json).unwrap_or_default(),
                // A number that is not one, or a type of a later SDK: the other notation shows what it is.
                Err(_) => Self::DynamoDb.value(value),
            },
        }
    }

    /// Formats an item with one attribute per line, sorted by name.
    pub(crate) fn format(self, item: &RawItem) -> String {
        let mut attributes: Vec<_> = item.clone().into_attributes().into_iter().collect();
        attributes.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let mut text = "{".to_owned();
        for (index, (name, value)) in attributes.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let name = serde_json::to_string(name).unwrap_or_default();
            let _ = write!(text, "{comma}\n  {name}: {}", self.value(value));
        }
        text.push_str(if attributes.is_empty() { "}" } else { "\n}" });
        text
    }

    /// Formats an item on one line, with its attributes sorted by name.
    pub(crate) fn format_compact(self, item: &RawItem) -> String {
        self.format(item).lines().map(str::trim_start).collect::<Vec<_>>().join(" ")
    }

    /// Parses the text of an item of this table.
    ///
    /// # Errors
    /// The attribute, its value and the expected form.
    pub(crate) fn parse_item(self, text: &str, table: &TableResource) -> Result<RawItem, String> {
        if text.trim().is_empty() {
            return Err("the item is empty: enter its attributes".to_owned());
        }
        match self {
            Self::DynamoDb => {
                let text: Result<&RawValue, _> = serde_json::from_str(text);
                let text = text.map_err(|error| format!("not JSON ({error}): correct the text"))?;
                parse_table_item(text.get(), table).map_err(|error| error.to_string())
            }
            Self::Plain => {
                let json = JsonValue::parse(text).map_err(|error| match error.pointer.as_str() {
                    "" => format!("not JSON that a table can store: {}", error.reason),
                    pointer => format!("{pointer}: {}", error.reason),
                })?;
                let AttributeValue::M(attributes) = encode_json(&json) else {
                    return Err("the item is not an object: write its attributes between { and }".to_owned());
                };
                let item = RawItem::new(attributes);
                check_table_item(&item, table).map_err(|error| error.to_string())?;
                Ok(item)
            }
        }
    }
}

/// Returns the names of the attributes that plain JSON cannot express, sorted: those that contain a set or binary data.
pub(crate) fn plain_losses(item: &RawItem) -> Vec<String> {
    fn is_lost(value: &AttributeValue) -> bool {
        match value {
            AttributeValue::M(members) => members.values().any(is_lost),
            AttributeValue::L(values) => values.iter().any(is_lost),
            AttributeValue::S(_) | AttributeValue::Bool(_) | AttributeValue::Null(_) => false,
            AttributeValue::N(_) => decode_json(value.clone()).is_err(),
            _ => true,
        }
    }
    let attributes = item.clone().into_attributes();
    let mut names: Vec<String> =
        attributes.into_iter().filter(|(_, value)| is_lost(value)).map(|(name, _)| name).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use millrace_local::template::{AttributeType, KeyDefinition};

    use super::*;

    fn table() -> TableResource {
        TableResource {
            logical_id: String::new(),
            name: "Orders".to_owned(),
            keys: vec![KeyDefinition { name: "id".to_owned(), role: "HASH".to_owned() }],
            attributes: vec![AttributeType { name: "id".to_owned(), kind: "S".to_owned() }],
            indexes: Vec::new(),
            local_indexes: Vec::new(),
            ttl_attribute: None,
            stream_view: None,
        }
    }

    const ITEM: &str = "{\n  \"id\": {\"S\":\"a\"},\n  \"list\": {\"L\":[{\"NULL\":true},{\"N\":\"1.50\"}]},\n  \
                        \"n\": {\"N\":\"12345678901234567890123456789012345678\"}\n}";
    const PLAIN: &str = "{\n  \"id\": \"a\",\n  \"list\": [null,1.50],\n  \
                         \"n\": 12345678901234567890123456789012345678\n}";

    #[test]
    fn both_notations_express_the_same_item_with_all_digits() {
        let item = ItemNotation::DynamoDb.parse_item(ITEM, &table()).unwrap();
        assert_eq!(ItemNotation::DynamoDb.format(&item), ITEM);
        assert_eq!(ItemNotation::Plain.format(&item), PLAIN);
        assert!(ItemNotation::Plain.parse_item(PLAIN, &table()).unwrap().eq_by_value(&item));
        assert!(plain_losses(&item).is_empty());
        assert_eq!(ItemNotation::Plain.format_compact(&RawItem::default()), "{}");
    }

    #[test]
    fn sets_and_binary_data_are_lost_in_plain_json() {
        let item = RawItem::parse(r#"{"id":{"S":"a"},"m":{"M":{"x":{"L":[{"BS":["YQ=="]}]}}},"s":{"SS":["b"]}}"#);
        assert_eq!(plain_losses(&item.unwrap()), ["m", "s"]);
    }

    #[test]
    fn invalid_text_is_named_with_the_fix() {
        let big = format!(r#"{{"id":"a","text":"{}"}}"#, "x".repeat(400 * 1024));
        for (notation, text, expected) in [
            (ItemNotation::DynamoDb, " ", "the item is empty"),
            (ItemNotation::DynamoDb, "{\"id\":\n", "not JSON"),
            (ItemNotation::DynamoDb, "{\"id\":\"a\"}", "attribute \"id\" is plain JSON"),
            (ItemNotation::DynamoDb, "{\"id\":{\"N\":\"1\"}}", "attribute \"id\" has the type N"),
            (ItemNotation::DynamoDb, "{\"x\":{\"N\":\"1\"}}", "attribute \"id\" is missing"),
            (ItemNotation::Plain, "{\"id\":", "not JSON that a table can store"),
            (ItemNotation::Plain, "[1]", "not an object"),
            (ItemNotation::Plain, "{\"id\":1}", "attribute \"id\" has the type N"),
            (ItemNotation::Plain, "{\"id\":\"\"}", "attribute \"id\" is empty"),
            (ItemNotation::Plain, "{\"id\":\"a\",\"n\":{\"m\":1e999}}", "/n/m: "),
            (ItemNotation::Plain, &big, "an item may have 409600"),
        ] {
            let error = notation.parse_item(text, &table()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
