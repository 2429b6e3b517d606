//! What happened to one item: a [`Change`], with its key decoded and its image opaque.
//!
//! A stream image is already the JSON that DynamoDB's API takes, so it stays the text it came as: no attribute can be
//! dropped and no number rounded on the way to a replica or into the archive. Keys alone are decoded, because they
//! are compared, grouped and named by. Nothing here knows what a user is: the items are those of any table.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;

use crate::number;
use crate::revision::{Revision, RevisionError, StreamLabel};

/// An item as the stream carried it: a DynamoDB JSON map, e.g. `{"name":{"S":"Ada"}}`.
#[derive(Debug, Clone, Copy)]
pub struct ItemImage<'a>(&'a RawValue);

impl<'a> ItemImage<'a> {
    /// Takes the JSON as an item's image, or nothing if it is not an object.
    #[must_use]
    pub fn parse(json: &'a RawValue) -> Option<Self> {
        json.get().starts_with('{').then_some(Self(json))
    }

    /// The image's own text, from `{` to `}`.
    #[must_use]
    pub fn get(self) -> &'a str {
        self.0.get()
    }

    /// The image as JSON.
    #[must_use]
    pub fn raw(self) -> &'a RawValue {
        self.0
    }
}

/// Why a record's key cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The JSON is not a map of key attributes.
    #[error("dynamodb.Keys is not a map of S, N or B attributes: {0}")]
    Shape(String),
    /// The map is empty, or has more than a partition and a sort key.
    #[error("dynamodb.Keys holds {0} attributes; a key has one or two")]
    Count(usize),
    /// An N attribute is not a number.
    #[error("dynamodb.Keys.{0} is not a number")]
    Number(String),
    /// A B attribute is not base64.
    #[error("dynamodb.Keys.{0} is not base64")]
    Binary(String),
}

/// How the image of an item contradicts the key that its record names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageKeyError {
    /// The image lacks an attribute of the key.
    #[error("has no attribute {0:?}, which is part of the key in dynamodb.Keys")]
    Missing(String),
    /// The image holds another value of an attribute of the key.
    #[error("and dynamodb.Keys differ in the key attribute {0:?}: they are of two items")]
    Different(String),
    /// The names of the image's attributes cannot be read.
    #[error("cannot be read: {0}")]
    Malformed(String),
}

/// An item's primary key: the text that it came as, and its one spelling.
#[derive(Debug, Clone)]
pub struct ItemKey<'a> {
    raw: &'a RawValue,
    canonical: CanonicalKey,
}

impl<'a> ItemKey<'a> {
    /// Decodes a record's `Keys`, a DynamoDB JSON map of one or two S, N or B attributes.
    ///
    /// # Errors
    /// [`KeyError`], which names the attribute.
    pub fn parse(raw: &'a RawValue) -> Result<Self, KeyError> {
        Ok(Self { raw, canonical: CanonicalKey::of(raw)? })
    }

    /// The key as DynamoDB JSON, as delivered.
    #[must_use]
    pub fn raw(&self) -> &'a RawValue {
        self.raw
    }

    /// The key's one spelling, by which keys are compared.
    #[must_use]
    pub fn canonical(&self) -> &CanonicalKey {
        &self.canonical
    }

    /// Checks that an image is of the item that this key names: every attribute of the key is there, with the same value.
    ///
    /// The image's top level is read once. Nothing is copied; a value is decoded only if its spelling differs.
    ///
    /// # Errors
    /// [`ImageKeyError`], which names the attribute and shows no value.
    pub fn check_image(&self, image: ItemImage<'_>) -> Result<(), ImageKeyError> {
        let malformed = |error: serde_json::Error| ImageKeyError::Malformed(error.to_string());
        let attributes: KeyAttributes<'_> = serde_json::from_str(self.raw.get()).map_err(malformed)?;
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

/// The one or two attributes of a key, each with its value's own text.
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
                    // Of a name that is given twice the last value counts, as everywhere.
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

/// Looks for the attributes of a key at the top level of an image. The result says of each whether its value is the key's;
/// nothing if it is not there.
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
            let Some(place) = self.0.0.iter().position(of_key) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let value = map.next_value::<&'de RawValue>()?;
            let is_same = self.0.0[place].as_ref().is_some_and(|(_, own)| is_same_value(own, value));
            // A name that is given twice must be right both times.
            found[place] = Some(found[place].unwrap_or(true) && is_same);
        }
        Ok(found)
    }
}

/// Whether two attributes have one value: numbers by what they are, binaries by their bytes.
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

/// A key in its one spelling: DynamoDB JSON without white space, attributes by name, numbers by value. Two keys name
/// the same item exactly if these are equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct CanonicalKey(Box<str>);

impl CanonicalKey {
    /// Reads a key from DynamoDB JSON in any spelling, its own too.
    ///
    /// # Errors
    /// [`KeyError`], which names the attribute.
    pub fn parse(json: &str) -> Result<Self, KeyError> {
        Self::of(serde_json::from_str(json).map_err(|error| KeyError::Shape(error.to_string()))?)
    }

    fn of(raw: &RawValue) -> Result<Self, KeyError> {
        let shape = |error: serde_json::Error| KeyError::Shape(error.to_string());
        let attributes: BTreeMap<BorrowedText<'_>, KeyAttribute<'_>> =
            serde_json::from_str(raw.get()).map_err(shape)?;
        Self::canonicalize(attributes)
    }

    /// The key of these attributes, each with its value as DynamoDB JSON; their names in order.
    ///
    /// # Errors
    /// [`KeyError`], which names the attribute.
    pub fn of_attributes<'a>(attributes: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Result<Self, KeyError> {
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
        // As nearly every key comes.
        if is_spelled && (1..=2).contains(&count) { Ok(Self(json.into_boxed_str())) } else { Self::parse(&json) }
    }

    /// The one spelling of these attributes.
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

    /// The spelling.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key as the JSON object that it is.
    #[must_use]
    pub fn to_raw(&self) -> Box<RawValue> {
        // It was written as JSON.
        RawValue::from_string(self.0.clone().into_string()).unwrap_or_default()
    }
}

/// Whether JSON would spell it with a backslash.
fn has_escape(text: &str) -> bool {
    text.bytes().any(|byte| matches!(byte, b'"' | b'\\' | ..b' '))
}

/// Whether a key attribute's JSON is surely in its one spelling.
fn is_canonical(value: &str) -> bool {
    let of = |kind| value.strip_prefix(kind)?.strip_suffix("\"}");
    match (of("{\"S\":\""), of("{\"N\":\"")) {
        (Some(text), _) => !has_escape(text),
        (_, Some(number)) => number::is_plain_integer(number),
        _ => false,
    }
}

/// From the text that it is written as.
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

/// The value of a key's attribute.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum KeyAttribute<'a> {
    S(#[serde(borrow)] BorrowedText<'a>),
    N(#[serde(borrow)] BorrowedText<'a>),
    B(#[serde(borrow)] BorrowedText<'a>),
}

/// A string that borrows from its JSON where it holds no escape. serde borrows a bare `Cow` field, but not one inside
/// an `Option` or a map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(transparent)]
pub(crate) struct BorrowedText<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// Where a change comes from: a table's stream, as its ARN names them.
#[derive(Debug, Clone)]
pub struct StreamSource<'a> {
    arn: Cow<'a, str>,
    label: StreamLabel,
    table_arn_length: usize,
    table_start: usize,
}

/// Why an ARN is not that of a table's stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamArnError {
    /// The ARN is of another shape.
    #[error("eventSourceARN {0:?} is not arn:…:table/<table>/stream/<label>")]
    Shape(String),
    /// Its last part is not a stream's label.
    #[error("eventSourceARN ends in a wrong label: {0}")]
    Label(#[from] RevisionError),
}

impl<'a> StreamSource<'a> {
    /// Reads `arn:aws:dynamodb:<region>:<account>:table/<table>/stream/<label>`.
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

    /// The stream's ARN.
    #[must_use]
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// The table's ARN.
    #[must_use]
    pub fn table_arn(&self) -> &str {
        &self.arn[..self.table_arn_length]
    }

    /// The table's name.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.arn[self.table_start..self.table_arn_length]
    }

    /// When the stream was created.
    #[must_use]
    pub fn label(&self) -> StreamLabel {
        self.label
    }
}

/// What a change did to its item.
#[derive(Debug, Clone, Copy)]
pub enum ChangeKind<'a> {
    /// The item was created or changed.
    Write {
        /// The item since then; nothing if the stream's view carries no new images.
        image: Option<ItemImage<'a>>,
    },
    /// The item was removed.
    Remove {
        /// Whether DynamoDB's TTL did it, not a caller.
        expired: bool,
        /// The item until then; nothing if the stream's view carries no old images, or the record lost its one.
        image: Option<ItemImage<'a>>,
    },
}

/// What stood under the key until a change.
#[derive(Debug, Clone, Copy)]
pub enum OldImage<'a> {
    /// Nothing: the change created the item.
    Nothing,
    /// This item.
    Image(ItemImage<'a>),
    /// An item that the record does not show.
    Unknown,
}

/// One change of one item.
#[derive(Debug, Clone)]
pub struct Change<'a> {
    /// Its place in the batch.
    pub index: usize,
    /// The item's key.
    pub key: ItemKey<'a>,
    /// Its age.
    pub revision: Revision,
    /// What it did.
    pub effect: ChangeKind<'a>,
    /// What stood there until then.
    pub before: OldImage<'a>,
    /// The table's stream that it came from.
    pub source: StreamSource<'a>,
    /// When it happened, to the second as a rule; nothing if the record says none, or none of the years 1970 to 9999.
    /// A clock, never a version.
    pub approximate_creation_time: Option<OffsetDateTime>,
    /// The record's own identifier.
    pub event_id: Option<Cow<'a, str>>,
    /// What the stream's images show, e.g. `NEW_AND_OLD_IMAGES`.
    pub view: Option<Cow<'a, str>>,
}

#[cfg(test)]
mod tests;
