//! An item of any table as the service returns it: [`RawItem`], compared by value.
//!
//! The replicator passes items on as the stream's own text and never decodes them. Comparing a replica with its source
//! requires decoding: DynamoDB returns sets in any order and numbers in a format of its own, so equality is by value.
//! Sets are compared without regard to order, numbers numerically (1 = 1.0 = 1e0), binaries by their bytes, lists
//! element by element.

mod size;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::ser::{Error as _, Serialize, SerializeMap as _, Serializer};

use crate::change::{BorrowedText, CanonicalKey, KeyAttribute, KeyError};
use crate::number;

pub use size::{MAX_ITEM_BYTES, value_bytes};

/// A text that is not a DynamoDB JSON map of attributes.
#[derive(Debug, thiserror::Error)]
#[error("not a DynamoDB JSON map of attributes: {0}")]
pub struct ItemSyntaxError(#[source] serde_json::Error);

/// An item whose key cannot be read from its attributes.
#[derive(Debug, thiserror::Error)]
pub enum KeyAttributeError {
    /// A key attribute is missing, or has a type that is not allowed in a key.
    #[error("the item has no S, N or B attribute {0}, which is part of the key")]
    Missing(String),
    /// The attributes do not form a valid key.
    #[error(transparent)]
    Malformed(#[from] KeyError),
}

/// An item's attributes.
#[derive(Debug, Clone, Default)]
pub struct RawItem(HashMap<String, AttributeValue>);

impl RawItem {
    /// Takes the attributes as the SDK returned them.
    #[must_use]
    pub fn new(attributes: HashMap<String, AttributeValue>) -> Self {
        Self(attributes)
    }

    /// Parses DynamoDB JSON, e.g. `{"name":{"S":"Ada"}}`.
    ///
    /// # Errors
    /// [`ItemSyntaxError`] if the text is not a map of attributes.
    pub fn parse(json: &str) -> Result<Self, ItemSyntaxError> {
        let item: serde_dynamo::Item = serde_json::from_str(json).map_err(ItemSyntaxError)?;
        Ok(Self(item.into()))
    }

    /// Returns the item as DynamoDB JSON, with numbers in their original format and attributes sorted by name.
    #[must_use]
    pub fn encode(&self) -> String {
        let ordered: BTreeMap<&String, DynamoDbJson<'_>> =
            self.0.iter().map(|(name, its)| (name, DynamoDbJson(its))).collect();
        // The values are strings, numbers as strings, and flags, all of which JSON can represent.
        serde_json::to_string(&ordered).unwrap_or_default()
    }

    /// Returns the item's size as `DynamoDB` counts it against [`MAX_ITEM_BYTES`].
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        size::from_attributes(&self.0)
    }

    /// Returns the attributes in the SDK's type.
    #[must_use]
    pub fn into_attributes(self) -> HashMap<String, AttributeValue> {
        self.0
    }

    /// Returns an attribute.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&AttributeValue> {
        self.0.get(name)
    }

    /// Removes and returns an attribute.
    pub fn take(&mut self, name: &str) -> Option<AttributeValue> {
        self.0.remove(name)
    }

    /// Returns the item's key, which consists of the attributes with these names.
    ///
    /// # Errors
    /// [`KeyAttributeError`], which names the attribute.
    pub fn key(&self, names: &[String]) -> Result<CanonicalKey, KeyAttributeError> {
        let mut key = BTreeMap::new();
        for name in names {
            let value = match self.0.get(name) {
                Some(AttributeValue::S(text)) => KeyAttribute::S(BorrowedText(text.into())),
                Some(AttributeValue::N(number)) => KeyAttribute::N(BorrowedText(number.into())),
                Some(AttributeValue::B(bytes)) => KeyAttribute::B(BorrowedText(BASE64.encode(bytes).into())),
                _ => return Err(KeyAttributeError::Missing(name.clone())),
            };
            key.insert(BorrowedText(name.into()), value);
        }
        Ok(CanonicalKey::canonicalize(key)?)
    }

    /// Returns the names of the attributes that are missing from one of the two items or have different values, sorted.
    #[must_use]
    pub fn diff_attribute_names(&self, other: &Self) -> Vec<String> {
        let changed =
            |(name, value): &(&String, &AttributeValue)| !other.0.get(*name).is_some_and(|its| same(value, its));
        let lacking = |name: &&String| !self.0.contains_key(*name);
        let mut names: Vec<String> = self.0.iter().filter(changed).map(|(name, _)| name.clone()).collect();
        names.extend(other.0.keys().filter(lacking).cloned());
        names.sort_unstable();
        names
    }

    /// Returns whether both items have the same attributes with the same values.
    #[must_use]
    pub fn eq_by_value(&self, other: &Self) -> bool {
        same_maps(&self.0, &other.0)
    }
}

/// Attributes as DynamoDB JSON, for a request. Those of the top level are in no particular order.
pub(crate) struct AttributesJson<'a>(pub(crate) &'a HashMap<String, AttributeValue>);

impl Serialize for AttributesJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, DynamoDbJson(value))))
    }
}

/// A value as DynamoDB JSON. `serde_dynamo` writes the same format, but only from a copy of the value.
struct DynamoDbJson<'a>(&'a AttributeValue);

impl Serialize for DynamoDbJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use AttributeValue::{B, Bool, Bs, L, M, N, Ns, Null, S as BorrowedText, Ss};
        let mut map = serializer.serialize_map(Some(1))?;
        match self.0 {
            B(bytes) => map.serialize_entry("B", &BASE64.encode(bytes))?,
            Bool(flag) => map.serialize_entry("BOOL", flag)?,
            Bs(set) => map.serialize_entry("BS", &set.iter().map(|bytes| BASE64.encode(bytes)).collect::<Vec<_>>())?,
            L(list) => map.serialize_entry("L", &list.iter().map(DynamoDbJson).collect::<Vec<_>>())?,
            M(members) => {
                let ordered: BTreeMap<_, _> = members.iter().map(|(name, its)| (name, DynamoDbJson(its))).collect();
                map.serialize_entry("M", &ordered)?;
            }
            N(number) => map.serialize_entry("N", number)?,
            Ns(set) => map.serialize_entry("NS", set)?,
            Null(flag) => map.serialize_entry("NULL", flag)?,
            BorrowedText(text) => map.serialize_entry("S", text)?,
            Ss(set) => map.serialize_entry("SS", set)?,
            _ => return Err(S::Error::custom("an attribute type that this version of the SDK does not support")),
        }
        map.end()
    }
}

fn same_maps(one: &HashMap<String, AttributeValue>, other: &HashMap<String, AttributeValue>) -> bool {
    one.len() == other.len() && one.iter().all(|(name, value)| other.get(name).is_some_and(|its| same(value, its)))
}

fn same(one: &AttributeValue, other: &AttributeValue) -> bool {
    use AttributeValue::{B, Bs, L, M, N, Ns, Ss};
    match (one, other) {
        (N(one), N(other)) => one == other || canonical_number(one) == canonical_number(other),
        (Ns(one), Ns(other)) => {
            let canonical =
                |set: &'_ [String]| sorted(set.iter().map(|number| canonical_number(number).into_owned()).collect());
            canonical(one) == canonical(other)
        }
        (Ss(one), Ss(other)) => sorted(one.iter().collect()) == sorted(other.iter().collect()),
        (Bs(one), Bs(other)) => {
            sorted(one.iter().map(AsRef::as_ref).collect::<Vec<&[u8]>>())
                == sorted(other.iter().map(AsRef::as_ref).collect())
        }
        (B(one), B(other)) => one.as_ref() == other.as_ref(),
        (L(one), L(other)) => one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other)),
        (M(one), M(other)) => same_maps(one, other),
        (one, other) => one == other,
    }
}

/// Returns the canonical number format; a text that is not a number is equal only to itself.
fn canonical_number(number: &str) -> Cow<'_, str> {
    number::canonical(number).unwrap_or(Cow::Borrowed(number))
}

fn sorted<T: Ord>(mut set: Vec<T>) -> Vec<T> {
    set.sort_unstable();
    set
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn item(json: &str) -> RawItem {
        RawItem::parse(json).unwrap()
    }

    #[test]
    fn equality_is_by_value() {
        for (one, other) in [
            (r#"{"n":{"N":"1"}}"#, r#"{"n":{"N":"1.0"}}"#),
            (r#"{"n":{"N":"1e0"}}"#, r#"{"n":{"N":"1"}}"#),
            (r#"{"s":{"SS":["a","b"]}}"#, r#"{"s":{"SS":["b","a"]}}"#),
            (r#"{"s":{"NS":["1","2.0"]}}"#, r#"{"s":{"NS":["2","1e0"]}}"#),
            (r#"{"s":{"BS":["AQ==","Ag=="]}}"#, r#"{"s":{"BS":["Ag==","AQ=="]}}"#),
            (
                r#"{"m":{"M":{"l":{"L":[{"N":"1"},{"NS":["1","2"]}]}}}}"#,
                r#"{"m":{"M":{"l":{"L":[{"N":"1.0"},{"NS":["2","1"]}]}}}}"#,
            ),
            ("{}", "{}"),
        ] {
            assert!(item(one).eq_by_value(&item(other)), "{one} {other}");
            assert_eq!(item(one).diff_attribute_names(&item(other)), [""; 0]);
        }
    }

    #[test]
    fn differing_attributes_are_listed_by_name() {
        let (one, other) = (
            r#"{"k":{"S":"x"},"a":{"S":"1"},"b":{"L":[{"N":"1"},{"N":"2"}]},"c":{"NULL":true},"e":{"S":"1"}}"#,
            r#"{"k":{"S":"x"},"a":{"N":"1"},"b":{"L":[{"N":"2"},{"N":"1"}]},"d":{"BOOL":false},"e":{"B":"MQ=="}}"#,
        );
        assert_eq!(item(one).diff_attribute_names(&item(other)), ["a", "b", "c", "d", "e"]);
        assert_eq!(item(other).diff_attribute_names(&item(one)), ["a", "b", "c", "d", "e"]);
        assert!(!item(one).eq_by_value(&item(other)));
    }

    #[test]
    fn a_key_is_taken_in_its_one_spelling() {
        let names = ["user_id".to_owned(), "timestamp".to_owned()];
        let of = |json| item(json).key(&names).map(|key| key.to_string());
        let ada = r#"{"timestamp":{"N":"7"},"user_id":{"S":"ada"}}"#;
        assert_eq!(of(r#"{"x":{"S":""},"user_id":{"S":"ada"},"timestamp":{"N":"7.0"}}"#).unwrap(), ada);
        assert!(of(r#"{"user_id":{"S":"ada"}}"#).unwrap_err().to_string().contains("timestamp"));
        assert!(of(r#"{"user_id":{"BOOL":true},"timestamp":{"N":"7"}}"#).unwrap_err().to_string().contains("user_id"));
        assert_eq!(CanonicalKey::parse(ada).unwrap().as_str(), ada);
    }

    #[test]
    fn malformed_item_json_is_rejected() {
        for json in ["", "[]", r#"{"a":1}"#, r#"{"a":{"S":"x","N":"1"}}"#, r#"{"a":{"B":"*"}}"#] {
            assert!(RawItem::parse(json).is_err(), "{json}");
        }
    }

    proptest! {
        #[test]
        fn an_item_is_written_as_it_was_read(digits in "-?[1-9][0-9]{0,37}", text in ".{0,9}", bytes: Vec<u8>) {
            let json = serde_json::json!({
                "n": {"N": digits}, "s": {"S": text}, "b": {"B": BASE64.encode(bytes)}, "z": {"NULL": true},
                "l": {"L": [{"BOOL": false}, {"M": {"s": {"SS": ["b", "a"]}}}]},
            });
            let written: serde_json::Value = serde_json::from_str(&item(&json.to_string()).encode()).unwrap();
            prop_assert_eq!(written, json);
        }
    }
}
