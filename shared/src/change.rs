//! A change of one item: a [`Change`], with its key decoded and its images opaque.
//!
//! A stream image is already the JSON that DynamoDB's API accepts, so it keeps its original text: no attribute can be
//! dropped and no number rounded on the way to a replica or into the archive. Only keys are decoded, because items are
//! compared, grouped and named by their keys. This module does not depend on the user model: the items may be those of
//! any table.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use millrace_json_scanner::{JsonScanner, JsonText};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;

use crate::number;
use crate::revision::{Revision, RevisionError, StreamLabel};

/// An item's image as delivered by the stream: a DynamoDB JSON map, e.g. `{"name":{"S":"Ada"}}`.
#[derive(Debug, Clone, Copy)]
pub struct ItemImage<'a>(JsonText<'a>);

impl<'a> ItemImage<'a> {
    /// Accepts the JSON as an item's image; returns `None` if it is not an object.
    #[must_use]
    pub fn parse(json: &'a RawValue) -> Option<Self> {
        Self::from_text(json.into())
    }

    /// Accepts a text as an item's image; returns `None` if it is not a JSON object.
    #[must_use]
    pub fn scan(text: &'a str) -> Option<Self> {
        // The scanner does not accept very deep text.
        let parsed = || serde_json::from_str::<&RawValue>(text).ok().map(JsonText::from);
        Self::from_text(JsonText::scan(text).or_else(parsed)?)
    }

    /// Like [`ItemImage::parse`], for the text of a JSON value.
    pub(crate) fn from_text(json: JsonText<'a>) -> Option<Self> {
        json.get().starts_with('{').then_some(Self(json))
    }

    /// Returns the image's original text, from `{` to `}`.
    #[must_use]
    pub fn get(self) -> &'a str {
        self.0.get()
    }
}

/// An item's image that owns its text.
#[derive(Debug, Clone)]
pub struct OwnedItemImage(Box<RawValue>);

impl OwnedItemImage {
    /// Accepts the JSON as an item's image; returns `None` if it is not an object.
    #[must_use]
    pub fn parse(json: Box<RawValue>) -> Option<Self> {
        ItemImage::parse(&json).is_some().then_some(Self(json))
    }

    /// Returns the image.
    #[must_use]
    pub fn as_image(&self) -> ItemImage<'_> {
        ItemImage((&*self.0).into())
    }
}

/// A record's key that cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The JSON is not a map of key attributes.
    #[error("dynamodb.Keys is not a map of S, N or B attributes: {0}")]
    Shape(String),
    /// The map is empty, or has more attributes than a partition key and a sort key.
    #[error("dynamodb.Keys contains {0} attributes: expected one or two")]
    Count(usize),
    /// An N attribute is not a number.
    #[error("dynamodb.Keys.{0} is not a number")]
    Number(String),
    /// A B attribute is not base64.
    #[error("dynamodb.Keys.{0} is not base64")]
    Binary(String),
}

/// A contradiction between an item's image and the key in its record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageKeyError {
    /// The image lacks a key attribute.
    #[error("has no attribute {0:?}, which is part of the key in dynamodb.Keys")]
    Missing(String),
    /// The image contains a different value for a key attribute.
    #[error("and dynamodb.Keys differ in the key attribute {0:?}: they belong to different items")]
    Different(String),
    /// The image's attribute names cannot be read.
    #[error("cannot be read: {0}")]
    Malformed(String),
}

/// An item's primary key: its text as delivered, and its canonical form.
#[derive(Debug, Clone)]
pub struct ItemKey<'a> {
    json: JsonText<'a>,
    canonical: CanonicalKey,
}

impl<'a> ItemKey<'a> {
    /// Decodes a record's `Keys`, a DynamoDB JSON map of one or two S, N or B attributes.
    ///
    /// # Errors
    /// [`KeyError`], which names the attribute.
    pub fn parse(raw: &'a RawValue) -> Result<Self, KeyError> {
        Self::from_text(raw.into())
    }

    /// Like [`ItemKey::parse`], for the text of a JSON value.
    pub(crate) fn from_text(json: JsonText<'a>) -> Result<Self, KeyError> {
        Ok(Self { json, canonical: CanonicalKey::parse(json.get())? })
    }

    /// Builds the key from its text and the canonical form of the same key.
    pub(crate) fn with_canonical(json: JsonText<'a>, canonical: CanonicalKey) -> Self {
        Self { json, canonical }
    }

    /// Returns the key as DynamoDB JSON, as delivered.
    #[must_use]
    pub fn text(&self) -> &'a str {
        self.json.get()
    }

    /// Returns the key as DynamoDB JSON, as delivered, in `serde_json`'s type, for which the text is parsed.
    #[must_use]
    pub fn raw(&self) -> &'a RawValue {
        self.json.to_raw()
    }

    /// Returns the key's canonical form, by which keys are compared.
    #[must_use]
    pub fn canonical(&self) -> &CanonicalKey {
        &self.canonical
    }

    /// Checks that an image belongs to the item with this key: every key attribute is present, with the same value.
    ///
    /// The image's top level is read once. Nothing is copied; a value is decoded only if its text differs from the
    /// key's.
    ///
    /// # Errors
    /// [`ImageKeyError`], which names the attribute and shows no value.
    pub fn check_image(&self, image: ItemImage<'_>) -> Result<(), ImageKeyError> {
        let malformed = |error: serde_json::Error| ImageKeyError::Malformed(error.to_string());
        let attributes: KeyAttributes<'_> = serde_json::from_str(self.text()).map_err(malformed)?;
        let mut json = serde_json::Deserializer::from_str(image.get());
        let found = KeySearch(&attributes).deserialize(&mut json).map_err(malformed)?;
        for (attribute, found) in attributes.0.iter().zip(found) {
            match (attribute, found) {
                (Some((name, _)), None) => return Err(ImageKeyError::Missing(name.to_string())),
                (Some((name, _)), Some(false)) => return Err(ImageKeyError::Different(name.to_string())),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The one or two attributes of a key, each with the original text of its value.
struct KeyAttributes<'a>([Option<(Cow<'a, str>, &'a RawValue)>; 2]);

impl<'de> Deserialize<'de> for KeyAttributes<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Attributes;
        impl<'de> Visitor<'de> for Attributes {
            type Value = KeyAttributes<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of one or two key attributes")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut attributes: [Option<(Cow<'de, str>, &'de RawValue)>; 2] = [None, None];
                while let Some((BorrowedText(name), value)) = map.next_entry::<BorrowedText<'de>, &'de RawValue>()? {
                    // If a name is given twice, the last value counts, as in every other parser here.
                    let free = |slot: &Option<(Cow<'_, str>, _)>| slot.as_ref().is_none_or(|(known, _)| *known == name);
                    let slot = attributes.iter_mut().find(|slot| free(slot));
                    *slot.ok_or_else(|| serde::de::Error::custom("more than two attributes"))? = Some((name, value));
                }
                Ok(KeyAttributes(attributes))
            }
        }
        deserializer.deserialize_map(Attributes)
    }
}

/// Searches the top level of an image for the attributes of a key. For each attribute, the result says whether its
/// value equals the key's; it is `None` if the attribute is absent.
struct KeySearch<'k, 'a>(&'k KeyAttributes<'a>);

impl<'de> DeserializeSeed<'de> for KeySearch<'_, '_> {
    type Value = [Option<bool>; 2];

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for KeySearch<'_, '_> {
    type Value = [Option<bool>; 2];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of attributes")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut found = [None, None];
        while let Some(BorrowedText(name)) = map.next_key::<BorrowedText<'de>>()? {
            let of_key = |slot: &Option<(Cow<'_, str>, _)>| slot.as_ref().is_some_and(|(known, _)| *known == name);
            let Some(index) = self.0.0.iter().position(of_key) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let value = map.next_value::<&'de RawValue>()?;
            let is_same = self.0.0[index].as_ref().is_some_and(|(_, own)| is_same_value(own, value));
            // If a name is given twice, both values must match.
            found[index] = Some(found[index].unwrap_or(true) && is_same);
        }
        Ok(found)
    }
}

/// Returns whether two attributes have the same value: numbers are compared numerically, binaries by their bytes.
fn is_same_value(one: &RawValue, other: &RawValue) -> bool {
    use KeyAttribute::{B, N, S};
    if one.get() == other.get() {
        return true;
    }
    match (serde_json::from_str(one.get()).ok(), serde_json::from_str(other.get()).ok()) {
        (Some(S(BorrowedText(one))), Some(S(BorrowedText(other)))) => one == other,
        (Some(N(BorrowedText(one))), Some(N(BorrowedText(other)))) => {
            number::canonical(&one).is_some_and(|one| number::canonical(&other).is_some_and(|other| one == other))
        }
        (Some(B(BorrowedText(one))), Some(B(BorrowedText(other)))) => {
            let bytes = |text: &str| BASE64.decode(text.as_bytes()).ok();
            bytes(&one).is_some_and(|one| bytes(&other).is_some_and(|other| one == other))
        }
        _ => false,
    }
}

/// A key in canonical form: DynamoDB JSON without white space, attributes sorted by name, numbers in canonical number
/// format. Two keys identify the same item if and only if their canonical forms are equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct CanonicalKey(Box<str>);

impl CanonicalKey {
    /// Parses a key from DynamoDB JSON in any format, including the canonical one.
    ///
    /// # Errors
    /// [`KeyError`], which names the attribute.
    pub fn parse(json: &str) -> Result<Self, KeyError> {
        let shape = |error: serde_json::Error| KeyError::Shape(error.to_string());
        let attributes: BTreeMap<BorrowedText<'_>, KeyAttribute<'_>> = serde_json::from_str(json).map_err(shape)?;
        Self::canonicalize(attributes)
    }

    /// Builds the key from these attributes, each with its value as DynamoDB JSON; the names must be sorted.
    ///
    /// # Errors
    /// [`KeyError`], which names the attribute.
    pub fn from_attributes<'a>(attributes: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Result<Self, KeyError> {
        let length = attributes.clone().map(|(name, value)| name.len() + value.len() + "{\"\":".len()).sum::<usize>();
        let mut json = String::with_capacity(length + 1);
        json.push('{');
        let (mut count, mut is_spelled) = (0, true);
        for (name, value) in attributes {
            count += 1;
            is_spelled &= !has_escape(name) && is_canonical(value);
            if count > 1 {
                json.push(',');
            }
            if has_escape(name) {
                json.push_str(&serde_json::to_string(name).map_err(|error| KeyError::Shape(error.to_string()))?);
            } else {
                json.extend(["\"", name, "\""]);
            }
            json.push(':');
            json.push_str(value);
        }
        json.push('}');
        // The common case: nearly every key already has the canonical form.
        if is_spelled && (1..=2).contains(&count) { Ok(Self(json.into_boxed_str())) } else { Self::parse(&json) }
    }

    /// Returns the key of an item, given as DynamoDB JSON: the attributes with these one or two names, which must be
    /// sorted. The item is scanned to its end and its other values are not decoded.
    ///
    /// Returns `None` if the item has to be parsed: it is not valid JSON, lacks a part of its key or has an attribute name
    /// with escape sequences.
    #[must_use]
    pub fn from_item_text(item: &str, names: &[String]) -> Option<Self> {
        let mut values = [None; 2];
        let values = values.get_mut(..names.len())?;
        let mut scanner = JsonScanner::new(item);
        let mut members = scanner.object()?;
        while let Some(name) = scanner.plain_member(&mut members)? {
            let value = scanner.value()?;
            if let Some(index) = names.iter().position(|wanted| wanted == name) {
                values[index] = Some(value.get());
            }
        }
        if !scanner.is_at_end() || values.contains(&None) {
            return None;
        }
        let attributes = names.iter().zip(&*values).filter_map(|(name, value)| Some((name.as_str(), (*value)?)));
        Self::from_attributes(attributes).ok()
    }

    /// Returns the canonical form of these attributes.
    pub(crate) fn canonicalize(mut attributes: BTreeMap<BorrowedText<'_>, KeyAttribute<'_>>) -> Result<Self, KeyError> {
        let shape = |error: serde_json::Error| KeyError::Shape(error.to_string());
        if !(1..=2).contains(&attributes.len()) {
            return Err(KeyError::Count(attributes.len()));
        }
        for (name, attribute) in &mut attributes {
            match attribute {
                KeyAttribute::S(_) => {}
                KeyAttribute::N(BorrowedText(text)) => {
                    let canonical = number::canonical(text).ok_or_else(|| KeyError::Number(name.0.to_string()))?;
                    *text = Cow::Owned(canonical.into_owned());
                }
                KeyAttribute::B(BorrowedText(text)) => {
                    let bytes = BASE64.decode(text.as_bytes()).map_err(|_| KeyError::Binary(name.0.to_string()))?;
                    *text = Cow::Owned(BASE64.encode(bytes));
                }
            }
        }
        Ok(Self(serde_json::to_string(&attributes).map_err(shape)?.into_boxed_str()))
    }

    /// Returns the canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the key as a raw JSON object.
    #[must_use]
    pub fn to_raw(&self) -> Box<RawValue> {
        // The text was produced by the JSON serializer, so it is valid JSON.
        RawValue::from_string(self.0.clone().into_string()).unwrap_or_default()
    }
}

/// Returns whether the text contains a character that JSON has to escape.
fn has_escape(text: &str) -> bool {
    text.bytes().any(|byte| matches!(byte, b'"' | b'\\' | ..b' '))
}

/// Returns `true` only if a key attribute's JSON certainly has the canonical form.
fn is_canonical(value: &str) -> bool {
    let of = |kind| value.strip_prefix(kind)?.strip_suffix("\"}");
    match (of("{\"S\":\""), of("{\"N\":\"")) {
        (Some(text), _) => !has_escape(text),
        (_, Some(number)) => number::is_plain_integer(number),
        _ => false,
    }
}

/// Deserializes from a string that contains the key's JSON.
impl<'de> Deserialize<'de> for CanonicalKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for CanonicalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The value of a key attribute.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum KeyAttribute<'a> {
    S(#[serde(borrow)] BorrowedText<'a>),
    N(#[serde(borrow)] BorrowedText<'a>),
    B(#[serde(borrow)] BorrowedText<'a>),
}

/// A string that borrows from its JSON unless it contains an escape. serde borrows a bare `Cow` field, but not one
/// inside an `Option` or a map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(transparent)]
pub(crate) struct BorrowedText<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// The source of a change: a table's stream, identified by its ARN.
#[derive(Debug, Clone)]
pub struct StreamSource<'a> {
    arn: Cow<'a, str>,
    label: StreamLabel,
    table_arn_length: usize,
    table_start: usize,
}

/// An ARN that does not identify a table's stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamArnError {
    /// The ARN does not have the expected format.
    #[error("eventSourceARN {0:?} is not arn:…:table/<table>/stream/<label>")]
    Shape(String),
    /// The last part of the ARN is not a stream label.
    #[error("eventSourceARN ends in an invalid label: {0}")]
    Label(#[from] RevisionError),
}

impl<'a> StreamSource<'a> {
    /// Parses `arn:aws:dynamodb:<region>:<account>:table/<table>/stream/<label>`.
    ///
    /// # Errors
    /// [`StreamArnError`], which shows the ARN or its label.
    pub fn parse(arn: Cow<'a, str>) -> Result<Self, StreamArnError> {
        let parts = arn.split_once(":table/").and_then(|(before, rest)| {
            let (table, label) = rest.split_once("/stream/")?;
            let table_start = before.len() + ":table/".len();
            (!table.is_empty() && !table.contains('/')).then_some((table_start, table_start + table.len(), label))
        });
        let Some((table_start, table_arn_length, label)) = parts else {
            return Err(StreamArnError::Shape(arn.into_owned()));
        };
        let label = StreamLabel::parse(label)?;
        Ok(Self { arn, label, table_arn_length, table_start })
    }

    /// Returns the stream's ARN.
    #[must_use]
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// Returns the table's ARN.
    #[must_use]
    pub fn table_arn(&self) -> &str {
        &self.arn[..self.table_arn_length]
    }

    /// Returns the table's name.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.arn[self.table_start..self.table_arn_length]
    }

    /// Returns the stream's label, which is its creation time.
    #[must_use]
    pub fn label(&self) -> StreamLabel {
        self.label
    }
}

/// The event source mapping of a function reads the stream of another table than the configured one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the event source mapping reads {stream}, but SOURCE_TABLE_ARN (parameter SourceTableArn) is {table}: set the \
     parameter SourceStreamArn to the latest stream of that table, which {} prints, or SourceTableArn to the table \
     of the stream",
    latest_stream_command(table)
)]
pub struct OtherTableError {
    /// The ARN of the stream.
    pub stream: String,
    /// The ARN of the configured table.
    pub table: String,
}

/// Returns the command that turns the stream of a table on, with all images.
#[must_use]
pub fn stream_on_command(table: &str) -> String {
    format!(
        "aws dynamodb update-table --table-name {table} \
         --stream-specification StreamEnabled=true,StreamViewType=NEW_AND_OLD_IMAGES"
    )
}

/// Returns the command that prints the ARN of a table's latest stream. The table is that of this ARN of a table or of a
/// stream.
#[must_use]
pub fn latest_stream_command(arn: &str) -> String {
    let mut parts = arn.splitn(6, ':').skip(3);
    let (region, resource) = (parts.next().unwrap_or_default(), parts.nth(1).unwrap_or_default());
    let table = resource.split('/').nth(1).unwrap_or("TABLE");
    format!(
        "aws dynamodb describe-table --region {region} --table-name {table} --query Table.LatestStreamArn --output text"
    )
}

/// Returns the steps that give a table a stream with all images in place of the one with this ARN. The view type of a
/// stream cannot be changed.
#[must_use]
pub fn replace_stream_steps(stream_arn: &str) -> String {
    let source = StreamSource::parse(stream_arn.into());
    let table = source.as_ref().map_or("TABLE", StreamSource::table);
    format!(
        "the view of a stream cannot be changed, so replace the stream with one of the view NEW_AND_OLD_IMAGES: \
         aws dynamodb update-table --table-name {table} --stream-specification StreamEnabled=false; then {}; then \
         deploy with the ARN of the new stream, and run the task repair, since no stream contains the changes in \
         between",
        stream_on_command(table)
    )
}

/// The effect of a change on its item.
#[derive(Debug, Clone, Copy)]
pub enum ChangeKind<'a> {
    /// The item was created or modified.
    Write {
        /// The item after the change; `None` if the stream's view contains no new images.
        image: Option<ItemImage<'a>>,
    },
    /// The item was removed.
    Remove {
        /// Whether DynamoDB's TTL removed the item, and not a caller.
        expired: bool,
        /// The item before the removal; `None` if the stream's view contains no old images, or the record has lost its
        /// old image.
        image: Option<ItemImage<'a>>,
    },
}

/// The state under the key before a change.
#[derive(Debug, Clone, Copy)]
pub enum OldImage<'a> {
    /// No item: the change created it.
    Nothing,
    /// This item.
    Image(ItemImage<'a>),
    /// An item that the record does not show.
    Unknown,
}

/// One change of one item.
#[derive(Debug, Clone)]
pub struct Change<'a> {
    /// The change's index in the batch.
    pub index: usize,
    /// The item's key.
    pub key: ItemKey<'a>,
    /// The change's age.
    pub revision: Revision,
    /// The change's effect.
    pub effect: ChangeKind<'a>,
    /// The state before the change.
    pub before: OldImage<'a>,
    /// The table's stream that the change came from.
    pub source: StreamSource<'a>,
    /// The time of the change, usually with a resolution of one second; `None` if the record has no time, or one
    /// outside the years 1970 to 9999. It is a clock reading and must never be used as a version.
    pub approximate_creation_time: Option<OffsetDateTime>,
    /// The record's own identifier.
    pub event_id: Option<Cow<'a, str>>,
    /// The stream's view type, which determines the images in its records, e.g. `NEW_AND_OLD_IMAGES`.
    pub view: Option<Cow<'a, str>>,
}

#[cfg(test)]
mod tests;
