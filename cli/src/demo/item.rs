//! Formats items, archive rows and responses of the API as one readable line.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;
use millrace_shared::revision::Revision;
use serde_json::value::RawValue;

pub(super) type DemoItem = HashMap<String, AttributeValue>;

/// Attributes that are left out: the heading names the user, and the times are not relevant.
const LEFT_OUT: [&str; 4] = ["user_id", "timestamp", "created_at", "updated_at"];

/// Formats an item as `name "Ada", version 2, …`: the distinguishing attributes first, those of replication last.
pub(super) fn describe(item: &DemoItem) -> String {
    listed(item.iter().map(|(name, value)| (name.as_str(), describe_value(value))))
}

/// Formats a JSON object in the same way, with each value as it is in the JSON; any other text is returned unchanged.
pub(super) fn summarize_json(json: &str) -> String {
    let fields: Result<BTreeMap<String, &RawValue>, _> = serde_json::from_str(json);
    match fields {
        Ok(fields) => listed(fields.iter().map(|(name, value)| (name.as_str(), value.get().to_owned()))),
        Err(_) => json.to_owned(),
    }
}

/// Formats DynamoDB JSON in the same way, without the attribute types.
pub(super) fn summarize_row(json: &str) -> String {
    let fields: Result<BTreeMap<String, BTreeMap<String, &RawValue>>, _> = serde_json::from_str(json);
    let untyped = |value: &BTreeMap<String, &RawValue>| match value.iter().next() {
        Some((kind, value)) if kind == "N" => value.get().trim_matches('"').to_owned(),
        Some((_, value)) => value.get().to_owned(),
        None => String::new(),
    };
    fields.map_or_else(
        |_| json.to_owned(),
        |fields| listed(fields.iter().map(|(name, value)| (name.as_str(), untyped(value)))),
    )
}

fn listed<'a>(attributes: impl Iterator<Item = (&'a str, String)>) -> String {
    let order = |name: &str| match name {
        "name" => 0,
        "email" => 1,
        _ if name.starts_with('_') => 3,
        _ => 2,
    };
    let mut attributes: Vec<_> = attributes.filter(|(name, _)| !LEFT_OUT.contains(name)).collect();
    attributes.sort_by_key(|(name, _)| (order(name), *name));
    let words: Vec<_> = attributes.into_iter().map(|(name, value)| format!("{name} {value}")).collect();
    words.join(", ")
}

fn describe_value(value: &AttributeValue) -> String {
    match value {
        AttributeValue::S(text) => format!("{text:?}"),
        AttributeValue::N(number) => number.clone(),
        AttributeValue::Bool(flag) => flag.to_string(),
        AttributeValue::Null(_) => "null".to_owned(),
        AttributeValue::M(map) => format!("{{{}}}", describe(map)),
        AttributeValue::L(list) => format!("[{}]", list.iter().map(describe_value).collect::<Vec<_>>().join(", ")),
        AttributeValue::B(bytes) => Revision::decode(bytes.as_ref())
            .map_or_else(|_| format!("{} bytes", bytes.as_ref().len()), |revision| revision.to_string()),
        other => format!("{other:?}"),
    }
}

/// Returns the item without the attributes that replication adds.
pub(super) fn without_revision(item: &DemoItem) -> DemoItem {
    let mut item = item.clone();
    item.remove("_rev");
    item
}

pub(super) fn has(item: Option<&DemoItem>, name: &str) -> bool {
    item.is_some_and(|item| item.contains_key(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn item_description_is_sorted_by_name_with_reserved_attributes_last() {
        let item: DemoItem = [
            ("version".to_owned(), AttributeValue::N("2".to_owned())),
            ("_tombstone_expires_at".to_owned(), AttributeValue::N("9".to_owned())),
            ("name".to_owned(), AttributeValue::S("Ada".to_owned())),
            ("user_id".to_owned(), AttributeValue::S("ada".to_owned())),
        ]
        .into();
        assert_eq!(describe(&item), r#"name "Ada", version 2, _tombstone_expires_at 9"#);
    }

    #[test]
    fn json_keeps_its_spelling() {
        assert_eq!(
            summarize_json(r#"{"version":2,"name":"Ada","a":{"x":1.0}}"#),
            r#"name "Ada", a {"x":1.0}, version 2"#
        );
        assert_eq!(summarize_row(r#"{"version":{"N":"2"},"name":{"S":"Ada"}}"#), r#"name "Ada", version 2"#);
        assert_eq!(summarize_json("no json"), "no json");
    }
}
