//! The source table of a scenario ([`SimTable`]): its key schema, the keys of its items, the names of its attributes, and
//! the rules of its replicas.
//!
//! They are drawn from the number of the scenario and not together with its actions, so that a number means the
//! same actions for any table.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use aws_sdk_dynamodb::types::{KeyType, ScalarAttributeType};
use millrace_shared::change::CanonicalKey;
use millrace_shared::raw_item::RawItem;
use millrace_transform::{AttributePath, AttributeSettings, HashKey, ItemTransform, RowFilter, TransformSettings};
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use serde_json::{Value, json};

use super::memory_replica::LARGE;
use super::source::{ITEMS, WriteKind};

/// Names of attributes: short ones as most tables have, reserved words of DynamoDB, the names of the users table, names
/// that begin or read like those of replication and of stream records, and names that only some programs can handle.
const NAMES: [&str; 34] = [
    "pk",
    "sk",
    "id",
    "PK",
    "size",
    "order",
    "name",
    "data",
    "user_id",
    "timestamp",
    "email",
    "version",
    "expires_at",
    "updated_at",
    "revision",
    "key",
    "item",
    "_x",
    "_id",
    "_revision",
    "_tombstone",
    "_deleted",
    "rev",
    "Keys",
    "NewImage",
    "SequenceNumber",
    "S",
    "user.id",
    "sort key",
    "Größe",
    "#n",
    ":v",
    "a\"b\\c",
    "🦀",
];

const TEXTS: [&str; 10] = ["u", "U", "1", "a#b/c", "\"quoted\" \\", " ", "🦀", "é", "e\u{301}", "\u{1}\n{\"N\":\"1\"}"];
const NUMBERS: [&str; 10] =
    ["0", "1", "-7", "10", "12345678901234567890123456789012345678", "1E125", "-99E124", "1E-130", "5E-1", "15E-1"];
/// Bytes in base64: 0x00, 0xFF, 0x00 0xFF, 0x00 0x00, a quote, a letter, and others of each length modulo 3.
const BYTES: [&str; 10] = ["AA==", "/w==", "AP8=", "AAA=", "Ig==", "dQ==", "////", "AAAA", "AQIDBA==", "eyJTIjoieCJ9"];

/// A key attribute: its name, its type, and its value in each item.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SimKeyAttribute {
    name: String,
    /// `S`, `N` or `B`.
    kind: &'static str,
    values: [&'static str; ITEMS],
}

/// The source table of a scenario.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct SimTable {
    key: Vec<SimKeyAttribute>,
    keys: Vec<CanonicalKey>,
    /// The name of the attribute with an item's value.
    value: String,
    /// The names of attributes that are the same in every item.
    more: Vec<String>,
    /// What each of the two replicas stores; `None` for items as they are.
    rules: [Option<Arc<ItemTransform>>; 2],
}

impl fmt::Debug for SimTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table with ")?;
        self.key.iter().try_for_each(|part| write!(f, "{:?}: {} {:?}, ", part.name, part.kind, part.values))?;
        write!(f, "{:?} and {:?}", self.value, self.more)?;
        let rules = |rules: &Option<Arc<ItemTransform>>| {
            rules.as_ref().map(|rules| serde_json::to_string(rules.settings()).unwrap_or_default())
        };
        write!(f, ", replicated by {:?}", self.rules.each_ref().map(rules))
    }
}

impl SimTable {
    fn new(key: Vec<SimKeyAttribute>, value: String, more: Vec<String>) -> Self {
        let mut table = Self { key, keys: Vec::new(), value, more, rules: [None, None] };
        let canonical = |item| CanonicalKey::parse(&table.key_json(item, 0).to_string()).unwrap();
        table.keys = (0..ITEMS).map(canonical).collect();
        table
    }

    /// The users table, which every kind of replica can store.
    pub(super) fn users() -> Self {
        let key = |name: &str, kind, values| SimKeyAttribute { name: name.to_owned(), kind, values };
        Self::new(
            vec![key("user_id", "S", ["u"; ITEMS]), key("timestamp", "N", ["0", "1", "2", "3"])],
            "v".to_owned(),
            Vec::new(),
        )
    }

    /// Sets what the replicas store.
    pub(super) fn with_rules(self, rules: [Option<Arc<ItemTransform>>; 2]) -> Self {
        Self { rules, ..self }
    }

    /// Returns what a replica stores of items; `None` for items as they are.
    pub(super) fn rules(&self, sink: usize) -> Option<&Arc<ItemTransform>> {
        self.rules[sink].as_ref()
    }

    /// Returns the item that a replica has to store for an item with a value; `None` if its filter leaves the item out.
    pub(super) fn stored(&self, sink: usize, item: usize, kind: WriteKind) -> Option<RawItem> {
        let image = RawItem::parse(&self.image(item, kind)).unwrap();
        match self.rules(sink) {
            Some(rules) => rules.apply_to_item(self.key(item), &image).unwrap(),
            None => Some(image),
        }
    }

    /// Rules of the kinds that a document can have. None of them removes an attribute that makes an item poison.
    pub(super) fn replica_rules(&self) -> impl Strategy<Value = [Option<Arc<ItemTransform>>; 2]> {
        let rules = (select(vec!["no", "one", "but one", "present"]), 0..3_u8, 0..6_u8);
        let transform = {
            let table = self.clone();
            move |(filter, value, kind): (&str, u8, u8)| table.transform(filter, value, kind)
        };
        let one = proptest::option::of(rules);
        (one.clone(), one)
            .prop_map(move |(first, second)| [first, second].map(|drawn| drawn.and_then(&transform).map(Arc::new)))
    }

    fn transform(&self, filter: &str, value: u8, kind: u8) -> Option<ItemTransform> {
        let value = value.to_string();
        let pattern = match filter {
            "one" => Some(json!({self.value.clone(): {"N": [value]}})),
            "but one" => Some(json!({self.value.clone(): {"N": [{"anything-but": [value]}]}})),
            "present" => Some(json!({self.value.clone(): {"N": [{"exists": true}]}})),
            _ => None,
        };
        let path = |name: &String| AttributePath::from_attribute(name.clone());
        let mut attributes = AttributeSettings::default();
        match kind {
            0 => {
                let mut included = self.key_names();
                included.extend([self.value.clone(), LARGE.to_owned(), "_rev".to_owned()]);
                attributes.include = Some(included.iter().map(path).collect());
            }
            1 if !self.more.is_empty() => attributes.exclude = Some(self.more.iter().map(path).collect()),
            2 => drop(attributes.hash.insert(path(&self.value), "key".to_owned())),
            3 => drop(attributes.rename.insert(path(&self.value), "another name".to_owned())),
            _ => {}
        }
        // A name with a dot cannot be part of a pattern.
        let filter = pattern.and_then(|pattern| RowFilter::parse(&[pattern]).ok());
        let settings = TransformSettings { filter, attributes };
        let keys = BTreeMap::from([("key".to_owned(), HashKey::new(b"a key of 32 bytes from a secret.").unwrap())]);
        (!settings.is_empty()).then(|| ItemTransform::new(&settings, &keys).unwrap())
    }

    /// Returns the names of the key attributes, the partition key first.
    pub(super) fn key_names(&self) -> Vec<String> {
        self.key.iter().map(|part| part.name.clone()).collect()
    }

    /// Returns the key attributes, each with its type and its role.
    pub(super) fn key_schema(&self) -> impl Iterator<Item = (&str, ScalarAttributeType, KeyType)> {
        let roles = [KeyType::Hash, KeyType::Range];
        self.key.iter().zip(roles).map(|(part, role)| (part.name.as_str(), ScalarAttributeType::from(part.kind), role))
    }

    /// Returns the canonical key of an item.
    pub(super) fn key(&self, item: usize) -> &CanonicalKey {
        &self.keys[item]
    }

    /// Returns the item with a key.
    pub(super) fn item_of(&self, key: &CanonicalKey) -> Option<usize> {
        self.keys.iter().position(|known| known == key)
    }

    /// Returns the key of an item as DynamoDB JSON, with numbers in one of several formats, as clients may write them.
    pub(super) fn key_json(&self, item: usize, format: u128) -> Value {
        let attribute = |part: &SimKeyAttribute| {
            let text = part.values[item];
            let text = if part.kind == "N" { formatted(text, format) } else { text.to_owned() };
            (part.name.clone(), json!({part.kind: text}))
        };
        self.key.iter().map(attribute).collect()
    }

    /// Returns an item with a value as DynamoDB JSON.
    pub(super) fn image(&self, item: usize, kind: WriteKind) -> String {
        let mut image = self.key_json(item, 0);
        let Value::Object(attributes) = &mut image else { unreachable!("a key is an object") };
        let more = self.more.iter().zip([json!({"S": "mine"}), json!({"NULL": true}), json!({"SS": ["b", "a"]})]);
        attributes.extend(more.map(|(name, value)| (name.clone(), value)));
        attributes.insert(self.value.clone(), json!({"N": kind.value().to_string()}));
        match kind {
            WriteKind::Plain(_) => {}
            WriteKind::Reserved(_) => drop(attributes.insert("_rev".to_owned(), json!({"S": "mine"}))),
            WriteKind::Large(_) => drop(attributes.insert(LARGE.to_owned(), json!({"S": "…"}))),
        }
        image.to_string()
    }
}

/// Writes a number in another format: `1`, `1.0` or `1e0`; `5E-1`, `5e-1` or `5.0E-1`.
fn formatted(number: &str, format: u128) -> String {
    match (number.split_once('E'), format % 3) {
        (_, 0) => number.to_owned(),
        (None, 1) => format!("{number}.0"),
        (None, _) => format!("{number}e0"),
        (Some((digits, power)), 1) => format!("{digits}e{power}"),
        (Some((digits, power)), _) => format!("{digits}.0E{power}"),
    }
}

/// Tables of any key schema.
pub(super) fn tables() -> impl Strategy<Value = SimTable> {
    let kind = || select(vec!["S", "N", "B"]);
    let names = proptest::sample::subsequence(&NAMES[..], 6).prop_shuffle();
    let values = || subsequence((0..TEXTS.len()).collect::<Vec<_>>(), ITEMS).prop_shuffle();
    let parts = (kind(), values(), proptest::option::weighted(0.7, (kind(), values())), any::<bool>());
    (names, parts, 0..=3_usize, any::<Index>()).prop_map(|(names, (first, values, second, one_partition), more, of)| {
        let part = |name: &str, kind: &'static str, values: &[usize]| {
            let pool = match kind {
                "S" => TEXTS,
                "N" => NUMBERS,
                _ => BYTES,
            };
            let values = std::array::from_fn(|item| pool[values[item]]);
            SimKeyAttribute { name: name.to_owned(), kind, values }
        };
        let mut key = vec![part(names[0], first, &values)];
        if let Some((second, others)) = second {
            if one_partition {
                let value = *of.get(&key[0].values);
                key[0].values = [value; ITEMS];
            }
            key.push(part(names[1], second, &others));
        }
        let more = names[3..3 + more].iter().map(|name| (*name).to_owned()).collect();
        SimTable::new(key, names[2].to_owned(), more)
    })
}
