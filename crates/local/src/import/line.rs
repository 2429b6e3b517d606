//! A line of an import: an item in DynamoDB JSON, checked against the key of the table.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use aws_sdk_dynamodb::types::AttributeValue;
use millrace_shared::change::CanonicalKey;
use millrace_shared::number;
use millrace_shared::raw_item::{MAX_ITEM_BYTES, RawItem};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Attributes;
use crate::template::TableResource;

/// The longest part of a value that an error shows, in characters.
const SHOWN: usize = 40;

/// A line that is not an item of the table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportItemError {
    /// The line is not JSON.
    #[error("not JSON ({0}): write one item in DynamoDB JSON on each line, such as {{\"pk\":{{\"S\":\"a\"}}}}")]
    Syntax(String),
    /// The line is part of a document, such as the output of `aws dynamodb scan`.
    #[error("the file is one JSON document, not one item per line: convert it with jq -c '{0}' FILE")]
    Document(&'static str),
    /// The line is JSON, but not an object.
    #[error("not an item but {0}: write one item in DynamoDB JSON on each line, such as {{\"pk\":{{\"S\":\"a\"}}}}")]
    NotObject(String),
    /// The line is a change of an incremental export.
    #[error(
        "a change of an incremental export, not an item: export the table with --export-type FULL_EXPORT (the default)"
    )]
    Change,
    /// The item contains an attribute twice.
    #[error("attribute {0:?} occurs twice: remove one of them")]
    Duplicate(String),
    /// A value has no type, as in plain JSON.
    #[error(
        "attribute {name:?} is plain JSON ({found}): write the value with its type, as in DynamoDB JSON, such as \
         {example}"
    )]
    Untyped {
        /// The attribute.
        name: String,
        /// The value.
        found: String,
        /// A value in DynamoDB JSON.
        example: String,
    },
    /// A value is not DynamoDB JSON.
    #[error(
        "attribute {name:?} is not DynamoDB JSON ({found}): expected one of the types S, N, B, BOOL, NULL, M, L, SS, NS \
         and BS with a value of this type; numbers and binaries are strings"
    )]
    Value {
        /// The attribute.
        name: String,
        /// The value.
        found: String,
    },
    /// The item does not have an attribute of the key.
    #[error(
        "attribute {name:?} is missing, which is the table's {role} key ({kind}): add it, or describe the table that \
         these items are from"
    )]
    MissingKey {
        /// The attribute.
        name: String,
        /// `partition` or `sort`.
        role: &'static str,
        /// `S`, `N` or `B`.
        kind: String,
    },
    /// An attribute of the key has another type than in the table.
    #[error(
        "attribute {name:?} has the type {found}, but the table's {role} key has the type {kind}: convert the value, \
         or describe the table that these items are from"
    )]
    KeyType {
        /// The attribute.
        name: String,
        /// The type in the item.
        found: &'static str,
        /// `partition` or `sort`.
        role: &'static str,
        /// `S`, `N` or `B`.
        kind: String,
    },
    /// An attribute of the key is empty.
    #[error("attribute {name:?} is empty, but it is the table's {role} key: a key has at least 1 byte")]
    EmptyKey {
        /// The attribute.
        name: String,
        /// `partition` or `sort`.
        role: &'static str,
    },
    /// A key attribute of type N is not a number.
    #[error("attribute {name:?} is not a number ({found:?}), but it is the table's {role} key: correct the number")]
    KeyNumber {
        /// The attribute.
        name: String,
        /// The value.
        found: String,
        /// `partition` or `sort`.
        role: &'static str,
    },
    /// The key is not valid for another reason.
    #[error("{0}: correct the key")]
    Key(String),
    /// The item is larger than DynamoDB allows.
    #[error("the item has {0} bytes, but an item may have {MAX_ITEM_BYTES}: remove or shorten attributes")]
    Size(usize),
    /// The table rejected the item.
    #[error("the table rejects the item ({0}): correct it")]
    Rejected(String),
}

/// The attributes of a table's key.
#[derive(Debug, Clone)]
pub(super) struct KeyAttributes {
    names: Vec<String>,
    kinds: Vec<String>,
}

/// The roles of the attributes of a key, in the order of a key schema.
const ROLES: [&str; 2] = ["partition", "sort"];

impl KeyAttributes {
    pub(super) fn from_table(table: &TableResource) -> Self {
        let names: Vec<String> = table.keys.iter().map(|key| key.name.clone()).collect();
        let kind = |name: &String| table.attributes.iter().find(|attribute| attribute.name == *name);
        let kinds = names.iter().map(|name| kind(name).map_or_else(String::new, |found| found.kind.clone())).collect();
        Self { names, kinds }
    }

    /// Checks that the item has every attribute of the key, with the type of the table.
    fn check(&self, item: &RawItem) -> Result<(), ImportItemError> {
        for ((name, kind), role) in self.names.iter().zip(&self.kinds).zip(ROLES) {
            let (name, kind) = (name.clone(), kind.clone());
            let Some(value) = item.get(&name) else {
                return Err(ImportItemError::MissingKey { name, role, kind });
            };
            let found = type_name(value);
            if found != kind {
                return Err(ImportItemError::KeyType { name, found, role, kind });
            }
            if let AttributeValue::N(number) = value
                && number::canonical(number).is_none()
            {
                return Err(ImportItemError::KeyNumber { name, found: shown(number), role });
            }
            let is_empty = match value {
                AttributeValue::S(text) => text.is_empty(),
                AttributeValue::B(bytes) => bytes.as_ref().is_empty(),
                _ => false,
            };
            if is_empty {
                return Err(ImportItemError::EmptyKey { name, role });
            }
        }
        Ok(())
    }

    /// Checks the key and the size of an item, and returns both.
    pub(super) fn check_item(&self, item: &RawItem) -> Result<(CanonicalKey, usize), ImportItemError> {
        self.check(item)?;
        let key = item.key(&self.names).map_err(|error| ImportItemError::Key(error.to_string()))?;
        let bytes = item.size_bytes();
        if bytes > MAX_ITEM_BYTES {
            return Err(ImportItemError::Size(bytes));
        }
        Ok((key, bytes))
    }
}

/// An item of a line.
#[derive(Debug)]
pub(super) struct ImportedItem {
    pub(super) key: CanonicalKey,
    pub(super) attributes: Attributes,
    pub(super) bytes: usize,
}

impl ImportedItem {
    /// Parses a line; `None` if it is empty.
    pub(super) fn parse(line: &str, keys: &KeyAttributes) -> Result<Option<Self>, ImportItemError> {
        let Some((_, item)) = parse_item(line)? else { return Ok(None) };
        let (key, bytes) = keys.check_item(&item)?;
        Ok(Some(Self { key, attributes: item.into_attributes(), bytes }))
    }
}

/// Parses a line as the item of any table, and returns its text in the line as well; `None` if the line is empty.
pub(super) fn parse_item(line: &str) -> Result<Option<(&str, RawItem)>, ImportItemError> {
    let line = line.trim_matches([' ', '\t', '\r', '\n']);
    if line.is_empty() {
        return Ok(None);
    }
    if !line.starts_with('{') {
        return Err(not_an_object(line));
    }
    let members = match serde_json::from_str::<Members<'_>>(line) {
        Ok(members) => members.0,
        // An object that continues on the next line.
        Err(error) if error.is_eof() && (line == "{" || line.starts_with("{\"Items\"")) => {
            return Err(ImportItemError::Document(".Items[]"));
        }
        Err(error) => return Err(ImportItemError::Syntax(without_position(&error))),
    };
    let (text, members) = match members.as_slice() {
        [(name, value)] if name == "Item" && !is_key_value(value) => {
            let inner = value.get();
            let members = serde_json::from_str::<Members<'_>>(inner);
            let members = members.map_err(|_| ImportItemError::NotObject(format!("\"Item\": {}", shown(inner))))?;
            (inner, members.0)
        }
        _ => (line, members),
    };
    check_members(&members)?;
    let item = RawItem::parse(text).map_err(|error| {
        let invalid = members.iter().find_map(|(name, value)| value_error(name, value));
        invalid.unwrap_or_else(|| ImportItemError::Syntax(error.to_string()))
    })?;
    Ok(Some((text, item)))
}

fn not_an_object(line: &str) -> ImportItemError {
    if line.starts_with('[') {
        return ImportItemError::Document(".[]");
    }
    match serde_json::from_str::<&RawValue>(line) {
        Ok(value) => ImportItemError::NotObject(shown(value.get())),
        Err(error) => ImportItemError::Syntax(without_position(&error)),
    }
}

/// Rejects members that are recognizably not the attributes of an item.
fn check_members(members: &[(Cow<'_, str>, &RawValue)]) -> Result<(), ImportItemError> {
    let mut known = HashSet::with_capacity(members.len());
    if let Some((name, _)) = members.iter().find(|(name, _)| !known.insert(name.as_ref())) {
        return Err(ImportItemError::Duplicate(name.clone().into_owned()));
    }
    let is_list = |name: &str| members.iter().any(|(known, value)| known == name && value.get().starts_with('['));
    if is_list("Items") {
        return Err(ImportItemError::Document(".Items[]"));
    }
    let has = |name: &str| members.iter().any(|(known, _)| known == name);
    if has("Metadata") && has("Keys") && (has("NewImage") || has("OldImage")) {
        return Err(ImportItemError::Change);
    }
    Ok(())
}

/// Returns whether the value of a member `Item` is the value of a key attribute of this name, and not an item. A line with
/// no other attribute has no other key.
fn is_key_value(value: &RawValue) -> bool {
    match serde_json::from_str::<Members<'_>>(value.get()) {
        Ok(Members(members)) => match members.as_slice() {
            [(kind, value)] => ["S", "N", "B"].contains(&kind.as_ref()) && value.get().starts_with('"'),
            _ => false,
        },
        Err(_) => false,
    }
}

/// Returns the error of a value that is not DynamoDB JSON.
fn value_error(name: &str, value: &RawValue) -> Option<ImportItemError> {
    let text = value.get();
    if RawItem::parse(&format!("{{\"a\":{text}}}")).is_ok() {
        return None;
    }
    let (name, found) = (name.to_owned(), shown(text));
    let example = match text.as_bytes().first() {
        Some(b'"') => Some(format!("{{\"S\":{found}}}")),
        Some(b'-' | b'0'..=b'9') => Some(format!("{{\"N\":\"{found}\"}}")),
        Some(b't' | b'f') => Some(format!("{{\"BOOL\":{found}}}")),
        Some(b'n') => Some("{\"NULL\":true}".to_owned()),
        Some(b'[') => Some("{\"L\":[{\"S\":\"a\"}]} or {\"SS\":[\"a\"]}".to_owned()),
        _ => None,
    };
    Some(match example {
        Some(example) => ImportItemError::Untyped { name, found, example },
        None => ImportItemError::Value { name, found },
    })
}

/// Returns the type of a value as DynamoDB JSON names it.
fn type_name(value: &AttributeValue) -> &'static str {
    match value {
        AttributeValue::S(_) => "S",
        AttributeValue::N(_) => "N",
        AttributeValue::B(_) => "B",
        AttributeValue::Bool(_) => "BOOL",
        AttributeValue::Null(_) => "NULL",
        AttributeValue::M(_) => "M",
        AttributeValue::L(_) => "L",
        AttributeValue::Ss(_) => "SS",
        AttributeValue::Ns(_) => "NS",
        AttributeValue::Bs(_) => "BS",
        _ => "unknown",
    }
}

fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// Returns serde's message without its line number, which is always 1.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.replace(" at line 1 column", " at column")
}

/// The members of a JSON object in their order, with duplicates.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((MemberName(name), value)) = map.next_entry::<MemberName<'de>, &'de RawValue>()? {
            members.push((name, value));
        }
        Ok(Members(members))
    }
}

/// A name, borrowed unless it contains an escape.
#[derive(serde::Deserialize)]
struct MemberName<'a>(#[serde(borrow)] Cow<'a, str>);
