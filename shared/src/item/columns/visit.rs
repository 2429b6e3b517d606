//! Searches of an item's JSON for what a relational table cannot store. Most items are only searched as text.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::RowError;
use crate::replica_item::RESERVED;

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
    if !item.contains('\\') || !["\\u0000", "\\ud", "\\uD"].iter().any(|escape| item.contains(escape)) {
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

/// Returns the first of the item's top-level attributes that has a name reserved for replication. Only an item with a
/// name that may be one of them is parsed; such items are rare.
///
/// # Errors
/// [`RowError::Malformed`] if such an item is not a map of attributes.
pub fn first_reserved_attribute(item: &str) -> Result<Option<&'static str>, RowError> {
    // All of these names begin with an underscore, which may be escaped.
    if !["\"_", "\"\\u005"].iter().any(|start| item.contains(start)) {
        return Ok(None);
    }
    let attributes: BTreeMap<String, &RawValue> = serde_json::from_str(item).map_err(|error| malformed(&error))?;
    Ok(RESERVED.into_iter().find(|reserved| attributes.contains_key(*reserved)))
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
