//! Tables of different key schemas, for tests that run over more than one of them: [`TableShape`].

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use millrace_shared::change::CanonicalKey;
use millrace_shared::raw_item::RawItem;
use serde_json::{Value, json};

/// An item as the SDK reads it.
pub(crate) type ShapeItem = HashMap<String, AttributeValue>;

/// The number of keys that [`TableShape::edge_keys`] returns.
pub(crate) const EDGE_KEYS: usize = 8;
/// DynamoDB's limits of a partition key and of a sort key, in bytes.
const KEY_BYTES: [usize; 2] = [2048, 1024];

/// A source table: its name, its key and its TTL attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TableShape {
    pub(crate) table: &'static str,
    /// The name and the type (`S`, `N` or `B`) of each key attribute, the partition key first.
    pub(crate) key: &'static [(&'static str, &'static str)],
    pub(crate) ttl_attribute: &'static str,
}

/// The table of the users service.
pub(crate) const USERS: TableShape =
    TableShape { table: "Users", key: &[("user_id", "S"), ("timestamp", "N")], ttl_attribute: "expires_at" };

/// A table whose key shares neither a type nor a name with the users table's. One attribute is named like a concept of
/// replication, the other contains a dot and begins like the attributes that replication adds.
pub(crate) const ORDERS: TableShape =
    TableShape { table: "Orders", key: &[("revision", "N"), ("_sort.key", "B")], ttl_attribute: "ttl" };

/// The shapes over which the guarantees are tested.
pub(crate) const GUARANTEED: [TableShape; 2] = [USERS, ORDERS];

impl TableShape {
    /// Returns the names of the key attributes.
    pub(crate) fn key_names(&self) -> Vec<String> {
        self.key.iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    /// Returns the key attributes of an item.
    pub(crate) fn key_of(&self, item: &ShapeItem) -> ShapeItem {
        self.key.iter().map(|(name, _)| ((*name).to_owned(), item[*name].clone())).collect()
    }

    /// Returns the canonical key of an item.
    pub(crate) fn canonical_key(&self, item: &ShapeItem) -> CanonicalKey {
        RawItem::new(item.clone()).key(&self.key_names()).unwrap()
    }

    /// Returns the key of a user with this ID and timestamp. IDs have at most 12 characters.
    pub(crate) fn key(&self, user_id: &str, timestamp: &str) -> ShapeItem {
        let values = self.key.iter().zip([user_id, timestamp]).enumerate();
        values.map(|(position, ((name, kind), text))| ((*name).to_owned(), value(kind, text, position == 0))).collect()
    }

    /// Returns the ID of the user of a key.
    pub(crate) fn user_id(&self, item: &ShapeItem) -> String {
        let (name, _) = self.key[0];
        match &item[name] {
            AttributeValue::S(text) => text.clone(),
            AttributeValue::N(number) => {
                let digits = &number.as_bytes()[1..];
                let letter = |digits: &[u8]| std::str::from_utf8(digits).unwrap().parse::<u8>().unwrap();
                String::from_utf8(digits.chunks(3).map(letter).collect()).unwrap()
            }
            AttributeValue::B(bytes) => String::from_utf8(bytes.as_ref()[2..].to_vec()).unwrap(),
            other => panic!("{other:?} is not a key"),
        }
    }

    /// Turns the stream record of a user, as Lambda delivers it, into that of the item of the user
    /// in this table.
    pub(crate) fn translate(&self, record: &mut Value) {
        if *self == USERS {
            return;
        }
        for part in ["Keys", "NewImage", "OldImage"] {
            let Some(image) = record["dynamodb"].get_mut(part).and_then(Value::as_object_mut) else { continue };
            let (user_id, timestamp) = (image.remove("user_id").unwrap(), image.remove("timestamp").unwrap());
            let key = self.key(user_id["S"].as_str().unwrap(), timestamp["N"].as_str().unwrap());
            image.extend(key.iter().map(|(name, value)| (name.clone(), json_of(value))));
        }
        if let Some(arn) = record["eventSourceARN"].as_str() {
            record["eventSourceARN"] = json!(arn.replace(":table/Users/", &format!(":table/{}/", self.table)));
        }
    }

    /// Returns keys with values at the limits of what DynamoDB accepts.
    pub(crate) fn edge_keys(&self) -> Vec<ShapeItem> {
        let values: Vec<_> =
            self.key.iter().zip(KEY_BYTES).map(|((name, kind), most)| (*name, edge_values(kind, most))).collect();
        let key = |index: usize| {
            // The values of the sort key are taken in another order, so that most pairs are unlike each other.
            let parts = values.iter().enumerate();
            parts
                .map(|(position, (name, values))| {
                    ((*name).to_owned(), values[(index + 3 * position) % EDGE_KEYS].clone())
                })
                .collect()
        };
        (0..EDGE_KEYS).map(key).collect()
    }
}

/// Returns a value of this type for a text.
fn value(kind: &str, text: &str, is_partition_key: bool) -> AttributeValue {
    match kind {
        // Each letter as three digits: another text is another number.
        "N" if is_partition_key => {
            let digits = text.bytes().fold("1".to_owned(), |digits, byte| digits + &format!("{byte:03}"));
            AttributeValue::N(digits)
        }
        "N" => AttributeValue::N(text.to_owned()),
        "B" => AttributeValue::B(Blob::new([&[0, 255], text.as_bytes()].concat())),
        _ => AttributeValue::S(text.to_owned()),
    }
}

/// Returns a key attribute as DynamoDB JSON.
pub(crate) fn json_of(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::S(text) => json!({"S": text}),
        AttributeValue::N(number) => json!({"N": number}),
        AttributeValue::B(bytes) => json!({"B": BASE64.encode(bytes.as_ref())}),
        other => panic!("{other:?} is not a key"),
    }
}

fn edge_values(kind: &str, most: usize) -> [AttributeValue; EDGE_KEYS] {
    match kind {
        "N" => [
            "12345678901234567890123456789012345678",
            "1E125",
            "-9.9999999999999999999999999999999999999E125",
            "1E-130",
            "-0",
            "0.1",
            "-7.50",
            "100000000000000000000000000000000000000000",
        ]
        .map(|number| AttributeValue::N(number.to_owned())),
        "B" => [
            vec![0],
            vec![255],
            vec![0, 255, b'"', b'\\', b'\n'],
            vec![0; most],
            vec![255; most],
            b"{\"S\":\"text\"}".to_vec(),
            vec![0, 0],
            vec![0xf0, 0x9f, 0xa6],
        ]
        .map(|bytes| AttributeValue::B(Blob::new(bytes))),
        _ => [
            "plain".to_owned(),
            "a#b/c?d%2Fe".to_owned(),
            "\"quoted\" it's \\ `$HOME` {\"N\":\"1\"}".to_owned(),
            "🦀 é e\u{301} Größe".to_owned(),
            "\u{1}\n\t\u{7f}\u{2028}".to_owned(),
            " ".to_owned(),
            "x".repeat(most),
            // Two bytes for each character.
            "ß".repeat(most / 2),
        ]
        .map(AttributeValue::S),
    }
}
