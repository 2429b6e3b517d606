//! The item that a replica stores under a key: [`ReplicaItem`], a source item plus the attributes that replication
//! adds.
//!
//! A replica adds up to three attributes of its own to each stored item: `_rev`, the revision of its last write, and on
//! a tombstone `_tombstone_expires_at`, and `_deleted_by_ttl` if TTL deleted the item. They are reserved: a source item
//! that contains one cannot be distinguished from a replica's own, so it is rejected. A source whose items have such
//! attributes needs another prefix than `_` ([`ReservedNames`]).

use aws_sdk_dynamodb::types::AttributeValue;

use crate::raw_item::RawItem;
use crate::revision::{Revision, RevisionError};

/// The attribute that contains the revision (B).
pub const REVISION: &str = "_rev";
/// The attribute that makes an item a tombstone (N): the expiry of the tombstone itself in epoch seconds, for TTL.
pub const TOMBSTONE_EXPIRES_AT: &str = "_tombstone_expires_at";
/// The attribute on the tombstone of an item that TTL deleted (BOOL).
pub const DELETED_BY_TTL: &str = "_deleted_by_ttl";
/// All attributes that replication adds.
pub const RESERVED: [&str; 3] = [REVISION, TOMBSTONE_EXPIRES_AT, DELETED_BY_TTL];

/// The maximum length of a prefix.
const MAX_PREFIX: usize = 32;

/// The names of the attributes that replication adds to the items of a `DynamoDB` replica: a prefix, and what each
/// contains. The default prefix is `_`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservedNames {
    /// The attribute that contains the revision, by default [`REVISION`].
    pub revision: String,
    /// The attribute of a tombstone, by default [`TOMBSTONE_EXPIRES_AT`].
    pub tombstone_expires_at: String,
    /// The attribute of a tombstone that TTL caused, by default [`DELETED_BY_TTL`].
    pub deleted_by_ttl: String,
}

impl ReservedNames {
    /// Parses the prefix of the names.
    ///
    /// # Errors
    /// The text is empty, longer than 32 characters, or contains other characters than letters, digits, `_` and `-`,
    /// all of which are the same in JSON.
    pub fn parse(prefix: &str) -> Result<Self, String> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if prefix.is_empty() || prefix.len() > MAX_PREFIX || !prefix.bytes().all(is_plain) {
            return Err(format!("is {prefix:?}: set it to 1 to {MAX_PREFIX} letters, digits, _ or -, such as mr_"));
        }
        let named = |name: &str| format!("{prefix}{}", name.trim_start_matches('_'));
        Ok(Self {
            revision: named(REVISION),
            tombstone_expires_at: named(TOMBSTONE_EXPIRES_AT),
            deleted_by_ttl: named(DELETED_BY_TTL),
        })
    }

    /// Returns all names.
    #[must_use]
    pub fn all(&self) -> [&str; 3] {
        [&self.revision, &self.tombstone_expires_at, &self.deleted_by_ttl]
    }
}

impl Default for ReservedNames {
    fn default() -> Self {
        let [revision, tombstone_expires_at, deleted_by_ttl] = RESERVED.map(str::to_owned);
        Self { revision, tombstone_expires_at, deleted_by_ttl }
    }
}

/// The item that a replica stores under a key.
#[derive(Debug, Clone)]
pub struct ReplicaItem {
    /// The revision, or the error if it is not valid; `None` if the item has no revision, because another program wrote
    /// it.
    pub revision: Option<Result<Revision, RevisionError>>,
    /// The stored item or tombstone.
    pub state: ReplicaState,
    /// Whether the replica stores, in addition to the item, columns that do not have the values which the item gives. A
    /// replica without such columns has none that differ.
    pub columns_differ: bool,
}

/// The state of a stored key in a replica.
#[derive(Debug, Clone)]
pub enum ReplicaState {
    /// An item, without the attributes that replication adds.
    Item(RawItem),
    /// A tombstone.
    Tombstone {
        /// Whether TTL removed the item.
        expired: bool,
    },
}

impl ReplicaItem {
    /// Separates the attributes that replication adds from the item.
    #[must_use]
    pub fn decode(mut item: RawItem, names: &ReservedNames) -> Self {
        let revision = item.take(&names.revision).map(|value| match value {
            AttributeValue::B(bytes) => Revision::decode(bytes.as_ref()),
            _ => Err(RevisionError::Bytes(0)),
        });
        let gone = item.take(&names.tombstone_expires_at).is_some();
        let expired = matches!(item.take(&names.deleted_by_ttl), Some(AttributeValue::Bool(true)));
        let state = if gone { ReplicaState::Tombstone { expired } } else { ReplicaState::Item(item) };
        Self { revision, state, columns_differ: false }
    }

    /// Returns the item; `None` for a tombstone, which counts as absent.
    #[must_use]
    pub fn item(&self) -> Option<&RawItem> {
        match &self.state {
            ReplicaState::Item(item) => Some(item),
            ReplicaState::Tombstone { .. } => None,
        }
    }

    /// Returns whether this is the tombstone of an item that TTL removed.
    #[must_use]
    pub fn expired(&self) -> bool {
        matches!(self.state, ReplicaState::Tombstone { expired: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(json: &str) -> ReplicaItem {
        ReplicaItem::decode(RawItem::parse(json).unwrap(), &ReservedNames::default())
    }

    #[test]
    fn prefix_determines_the_names() {
        assert_eq!(ReservedNames::parse("_").unwrap(), ReservedNames::default());
        let names = ReservedNames::parse("mr_").unwrap();
        assert_eq!(names.all(), ["mr_rev", "mr_tombstone_expires_at", "mr_deleted_by_ttl"]);
        let json = r#"{"k":{"S":"a"},"_rev":{"S":"x"},"mr_rev":{"B":"AAAAAAABAAAAAAAAAAAAAAAAAAAAAAU="}}"#;
        let item = ReplicaItem::decode(RawItem::parse(json).unwrap(), &names);
        assert_eq!(item.item().unwrap().encode(), r#"{"_rev":{"S":"x"},"k":{"S":"a"}}"#);
        assert_eq!(item.revision.unwrap().unwrap().sequence().to_string(), "5");
        for prefix in ["", "a b", "é", "\"", "a23456789012345678901234567890123"] {
            assert!(ReservedNames::parse(prefix).unwrap_err().contains("such as mr_"), "{prefix}");
        }
    }

    #[test]
    fn replica_item_is_returned_without_replication_attributes() {
        let of = held(r#"{"k":{"S":"a"},"x":{"N":"1"},"_rev":{"B":"AAAAAAABAAAAAAAAAAAAAAAAAAAAAAU="}}"#);
        assert_eq!(of.item().unwrap().encode(), r#"{"k":{"S":"a"},"x":{"N":"1"}}"#);
        assert_eq!(of.revision.unwrap().unwrap().sequence().to_string(), "5");
    }

    #[test]
    fn a_tombstone_is_no_item() {
        let gone = held(r#"{"k":{"S":"a"},"_tombstone_expires_at":{"N":"1"}}"#);
        assert!(gone.item().is_none() && !gone.expired() && gone.revision.is_none());
        assert!(held(r#"{"k":{"S":"a"},"_tombstone_expires_at":{"N":"1"},"_deleted_by_ttl":{"BOOL":true}}"#).expired());
    }

    #[test]
    fn unrecognized_revision_is_an_error() {
        for rev in [r#"{"S":"7"}"#, r#"{"B":"AAA="}"#] {
            assert!(held(&format!(r#"{{"k":{{"S":"a"}},"_rev":{rev}}}"#)).revision.unwrap().is_err());
        }
    }
}
