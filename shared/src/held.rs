//! What a replica holds under a key: [`Held`], the item and what replication adds to it.
//!
//! A replica marks what it holds with three attributes of its own: `_rev`, the revision that it was written with, and on
//! a tombstone `_gone`, when the tombstone expires itself, and `_expired`, if TTL removed the item. They are reserved: a
//! source's item that carries one cannot be told from a replica's own, so it is refused.

use aws_sdk_dynamodb::types::AttributeValue;

use crate::raw_item::RawItem;
use crate::revision::{Revision, RevisionError};

/// The attribute that holds a revision (B).
pub const REVISION: &str = "_rev";
/// The attribute that makes a tombstone (N): when it expires itself, in epoch seconds.
pub const GONE: &str = "_gone";
/// The attribute of a tombstone that TTL made (BOOL).
pub const EXPIRED: &str = "_expired";
/// All that replication adds.
pub const RESERVED: [&str; 3] = [REVISION, GONE, EXPIRED];

/// What a replica holds under a key.
#[derive(Debug, Clone)]
pub struct Held {
    /// The age of it, or why that cannot be told; nothing if somebody else wrote it.
    pub revision: Option<Result<Revision, RevisionError>>,
    /// What it is.
    pub state: State,
}

/// What stands under a key that a replica knows.
#[derive(Debug, Clone)]
pub enum State {
    /// An item, without what replication adds.
    Item(RawItem),
    /// A tombstone.
    Gone {
        /// Whether TTL removed the item.
        expired: bool,
    },
}

impl Held {
    /// Takes apart what replication adds and what the item is.
    #[must_use]
    pub fn decode(mut item: RawItem) -> Self {
        let revision = item.take(REVISION).map(|value| match value {
            AttributeValue::B(bytes) => Revision::decode(bytes.as_ref()),
            _ => Err(RevisionError::Bytes(0)),
        });
        let gone = item.take(GONE).is_some();
        let expired = matches!(item.take(EXPIRED), Some(AttributeValue::Bool(true)));
        Self { revision, state: if gone { State::Gone { expired } } else { State::Item(item) } }
    }

    /// The item, if it is one. A tombstone is as good as nothing.
    #[must_use]
    pub fn item(&self) -> Option<&RawItem> {
        match &self.state {
            State::Item(item) => Some(item),
            State::Gone { .. } => None,
        }
    }

    /// Whether it is the tombstone of an item that TTL removed.
    #[must_use]
    pub fn expired(&self) -> bool {
        matches!(self.state, State::Gone { expired: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(json: &str) -> Held {
        Held::decode(RawItem::parse(json).unwrap())
    }

    #[test]
    fn an_item_is_told_without_what_replication_adds() {
        let of = held(r#"{"k":{"S":"a"},"x":{"N":"1"},"_rev":{"B":"AAAAAAABAAAAAAAAAAAAAAAAAAAAAAU="}}"#);
        assert_eq!(of.item().unwrap().encode(), r#"{"k":{"S":"a"},"x":{"N":"1"}}"#);
        assert_eq!(of.revision.unwrap().unwrap().sequence().to_string(), "5");
    }

    #[test]
    fn a_tombstone_is_no_item() {
        let gone = held(r#"{"k":{"S":"a"},"_gone":{"N":"1"}}"#);
        assert!(gone.item().is_none() && !gone.expired() && gone.revision.is_none());
        assert!(held(r#"{"k":{"S":"a"},"_gone":{"N":"1"},"_expired":{"BOOL":true}}"#).expired());
    }

    #[test]
    fn a_foreign_revision_is_told_as_one() {
        for rev in [r#"{"S":"7"}"#, r#"{"B":"AAA="}"#] {
            assert!(held(&format!(r#"{{"k":{{"S":"a"}},"_rev":{rev}}}"#)).revision.unwrap().is_err());
        }
    }
}
