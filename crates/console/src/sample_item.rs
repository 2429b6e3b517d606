//! Items that the page "Break it" writes to the source table, of any key schema. [`SampleItem`]

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use millrace_local::template::TableResource;
use millrace_shared::replica_item::ReservedNames;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The beginning of the key of every sample item.
pub(crate) const PREFIX: &str = "console-";

/// An item with a key of the table's schema.
#[derive(Debug, Clone)]
pub(crate) struct SampleItem(pub(crate) HashMap<String, AttributeValue>);

impl SampleItem {
    /// Creates an item whose key contains `name`. The partition key is a text or binary if the table has one; number keys
    /// are `number`.
    pub(crate) fn new(table: &TableResource, name: &str, number: i64, now: OffsetDateTime) -> Self {
        let kind = |name: &str| {
            table.attributes.iter().find(|own| own.name == name).map_or("S", |own| own.kind.as_str()).to_owned()
        };
        let text = format!("{PREFIX}{name}");
        let value = |kind: &str| match kind {
            "N" => AttributeValue::N(number.to_string()),
            "B" => AttributeValue::B(Blob::new(text.as_bytes())),
            _ => AttributeValue::S(text.clone()),
        };
        let mut item: HashMap<_, _> = [
            ("name", AttributeValue::S(format!("Sample {name}"))),
            // The attributes that a record of the users service must have.
            ("status", AttributeValue::S("active".to_owned())),
            ("attributes", AttributeValue::M(HashMap::new())),
            ("version", AttributeValue::N(number.to_string())),
            ("created_at", AttributeValue::S(now.format(&Rfc3339).unwrap_or_default())),
            ("updated_at", AttributeValue::S(now.format(&Rfc3339).unwrap_or_default())),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let keys =
            table.keys.iter().chain(table.indexes.iter().chain(&table.local_indexes).flat_map(|index| &index.keys));
        for key in keys {
            // An attribute of an index that is present must have the index's type.
            let is_key = table.keys.iter().any(|own| own.name == key.name);
            if is_key || item.contains_key(&key.name) {
                let fitting = value(&kind(&key.name));
                let present = item.get(&key.name);
                let fits = present.is_some_and(|own| std::mem::discriminant(own) == std::mem::discriminant(&fitting));
                if is_key || !fits {
                    item.insert(key.name.clone(), fitting);
                }
            }
        }
        Self(item)
    }

    /// Makes the item one that replicas cannot store: it has an attribute that replication reserves.
    pub(crate) fn poisoned(mut self, names: &ReservedNames) -> Self {
        self.0.insert(names.tombstone_expires_at.clone(), AttributeValue::N("1".to_owned()));
        self
    }

    /// Sets the TTL attribute.
    pub(crate) fn expiring(mut self, attribute: &str, at: OffsetDateTime) -> Self {
        self.0.insert(attribute.to_owned(), AttributeValue::N(at.unix_timestamp().to_string()));
        self
    }
}
