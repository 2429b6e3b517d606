//! The transformation of an item into what a replica stores of it: [`ItemTransform`].
//!
//! The function is pure and total: it depends on the item alone, and for every item it returns the replicated item,
//! that there is none, or an error. A replica ends with the transformation of its source, whichever writer wrote it.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use millrace_json_scanner::JsonScanner;
use millrace_shared::change::{CanonicalKey, ItemImage, OwnedItemImage};
use millrace_shared::hash::to_hex;
use millrace_shared::raw_item::RawItem;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::attribute_path::ImageSyntaxError;
use crate::attribute_rules::{AttributeRules, AttributeSettings, RuleProblem};
use crate::row_filter::{RowFilter, canonical_json};
use crate::value_hash::HashKey;

/// The version of the function. A higher one changes every digest, because it may give other results.
const VERSION: u32 = 2;

/// The settings of a transformation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct TransformSettings {
    /// The items that are replicated; `None` for all.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub filter: Option<RowFilter>,
    /// The rules for their attributes.
    #[serde(skip_serializing_if = "AttributeSettings::is_empty")]
    pub attributes: AttributeSettings,
}

impl TransformSettings {
    /// Returns whether items are replicated as they are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filter.is_none() && self.attributes.is_empty()
    }
}

/// An item that cannot be transformed. It is not replicated: the record is quarantined.
///
/// The message contains names of attributes, and no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransformError {
    /// The image is not DynamoDB JSON.
    #[error("the image {0}")]
    Malformed(ImageSyntaxError),
    /// The patterns cannot be evaluated on the image.
    #[error("the patterns of where cannot be evaluated: the image is not DynamoDB JSON")]
    Unmatchable,
    /// No hash can be computed of a value.
    #[error("the value of {0} is not a DynamoDB value, so its hash cannot be computed")]
    Unhashable(String),
    /// A value that is truncated is not a string.
    #[error("the value of {0} is not a string, so it cannot be truncated: hash or exclude it instead")]
    NotAString(String),
    /// A value on the path to a value that is removed or masked is not the map or list that the path requires.
    #[error("the value of {0} is not the map or list that the path of a rule requires, so it cannot be masked")]
    Unexpected(String),
    /// An attribute has the new name of another one.
    #[error("the item has an attribute {0}, the new name of another attribute: exclude it or choose another name")]
    Collision(String),
}

impl TransformError {
    pub(crate) fn from_json(error: serde_json::Error) -> Self {
        Self::Malformed(ImageSyntaxError::from(error))
    }
}

/// A hash whose key was not given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("hash key {0:?} is missing")]
pub struct MissingHashKeyError(String);

/// Decides what a replica stores of an item.
#[derive(Debug, Clone)]
pub struct ItemTransform {
    settings: TransformSettings,
    rules: Option<AttributeRules>,
    digest: String,
}

/// Transformations are equal if their digests are.
impl PartialEq for ItemTransform {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for ItemTransform {}

impl ItemTransform {
    /// Creates a transformation with settings without contradictions, and the keys of its hashes.
    ///
    /// # Errors
    /// [`MissingHashKeyError`] if a hash names a key that is not among `keys`.
    pub fn new(settings: &TransformSettings, keys: &BTreeMap<String, HashKey>) -> Result<Self, MissingHashKeyError> {
        let attributes = &settings.attributes;
        let rules = (!attributes.is_empty()).then(|| AttributeRules::new(attributes, keys)).transpose();
        let rules = rules.map_err(MissingHashKeyError)?;
        let used = attributes.hash.values().filter_map(|name| Some((name.clone(), keys.get(name)?.fingerprint())));
        let used: BTreeMap<String, String> = used.collect();
        let canonical = canonical_json(&json!({
            "version": VERSION,
            "where": settings.filter.as_ref().map(RowFilter::canonical),
            "attributes": sorted(attributes),
            "hash_keys": used,
        }));
        let digest = to_hex(digest(&SHA256, canonical.as_bytes()).as_ref());
        Ok(Self { settings: settings.clone(), rules, digest })
    }

    /// Returns the settings.
    #[must_use]
    pub fn settings(&self) -> &TransformSettings {
        &self.settings
    }

    /// Returns the digest of the settings and of the keys: two transformations with the same digest are equal.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Returns the digest of this transformation and of the table whose items it writes: after a change of either, the
    /// items of the table may be those of another transformation.
    #[must_use]
    pub fn digest_at(&self, table: &str) -> String {
        let canonical = canonical_json(&json!({"rules": self.digest, "table": table}));
        to_hex(digest(&SHA256, canonical.as_bytes()).as_ref())
    }

    /// Returns the rules that a table with these key attributes does not allow.
    #[must_use]
    pub fn key_problems(&self, key_names: &[String]) -> Vec<RuleProblem> {
        self.settings.attributes.key_problems(key_names)
    }

    /// Returns the rules whose values a table with an index of this key does not store.
    #[must_use]
    pub fn index_problems(&self, table: &str, index: &str, key: &[(String, String)]) -> Vec<RuleProblem> {
        self.settings.attributes.index_problems(table, index, key)
    }

    /// Returns whether the item with this image is replicated.
    ///
    /// # Errors
    /// [`TransformError`] if the patterns cannot be evaluated.
    pub fn matches(&self, image: ItemImage<'_>) -> Result<bool, TransformError> {
        let Some(filter) = &self.settings.filter else { return Ok(true) };
        filter.matches(image).map_err(|_| TransformError::Unmatchable)
    }

    /// Returns the image that the replica stores; `None` if the item is not replicated. Attributes with one of the
    /// names `key_names` are never changed.
    ///
    /// # Errors
    /// [`TransformError`] if the patterns cannot be evaluated or a value cannot be masked.
    pub fn apply(&self, key_names: &[String], image: ItemImage<'_>) -> Result<Option<String>, TransformError> {
        if !self.matches(image)? {
            return Ok(None);
        }
        match &self.rules {
            Some(rules) => rules.apply(key_names, image.get()).map(Some),
            None => Ok(Some(image.get().to_owned())),
        }
    }

    /// Returns the image that the replica stores, for an image that was read from the source; otherwise as
    /// [`ItemTransform::apply`].
    ///
    /// # Errors
    /// As [`ItemTransform::apply`].
    pub fn apply_to_image(
        &self,
        key: &CanonicalKey,
        image: ItemImage<'_>,
    ) -> Result<Option<OwnedItemImage>, TransformError> {
        let Some(text) = self.apply(&key_names(key), image)? else { return Ok(None) };
        let text = RawValue::from_string(text).map_err(TransformError::from_json)?;
        OwnedItemImage::parse(text).map(Some).ok_or(TransformError::Unmatchable)
    }

    /// As [`ItemTransform::apply_to_image`], for the attributes of an item.
    ///
    /// # Errors
    /// As [`ItemTransform::apply`].
    pub fn apply_to_item(&self, key: &CanonicalKey, item: &RawItem) -> Result<Option<RawItem>, TransformError> {
        let image = RawValue::from_string(item.encode()).map_err(TransformError::from_json)?;
        let image = ItemImage::parse(&image).ok_or(TransformError::Unmatchable)?;
        let Some(text) = self.apply(&key_names(key), image)? else { return Ok(None) };
        RawItem::parse(&text).map(Some).map_err(|_| TransformError::Unmatchable)
    }
}

/// Returns the names of a key's attributes.
#[must_use]
pub fn key_names(key: &CanonicalKey) -> Vec<String> {
    scan_names(key.as_str()).unwrap_or_else(|| {
        // The canonical form is a JSON object.
        let names: Result<BTreeMap<String, &RawValue>, _> = serde_json::from_str(key.as_str());
        names.unwrap_or_default().into_keys().collect()
    })
}

/// Returns the names of an object's members, which are sorted; `None` if one has escape sequences.
fn scan_names(object: &str) -> Option<Vec<String>> {
    let mut scanner = JsonScanner::new(object);
    let (mut members, mut names) = (scanner.object()?, Vec::new());
    while let Some(name) = scanner.plain_member(&mut members)? {
        scanner.value()?;
        names.push(name.to_owned());
    }
    Some(names)
}

/// Returns the rules as JSON, independent of the order in which they are listed.
fn sorted(attributes: &AttributeSettings) -> Value {
    let mut attributes = attributes.clone();
    for paths in [&mut attributes.include, &mut attributes.exclude].into_iter().flatten() {
        paths.sort_unstable();
    }
    // Paths, texts and numbers can always be serialized.
    serde_json::to_value(attributes).unwrap_or_default()
}

#[cfg(test)]
mod tests;
