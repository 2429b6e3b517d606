//! Markers: which user has an address, and by which of its records, so that no other user takes it.
//!
//! A marker is an item of a table of its own, under the address in lower case. It knows each record that holds the address
//! and when that record ends; a record that ended counts for nothing, though TTL removes it later, and so does a marker
//! whose records all ended: it may be taken over, and TTL removes it as well. Arithmetic without a network; `unique`
//! writes.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{AttributeValue, Delete, Put, TransactWriteItem};
use time::OffsetDateTime;

use super::Fault;
use crate::item::{self, Item};
use crate::user::UserKey;
use crate::user::email::Email;
use crate::user::expiry::ExpiresAt;

pub(super) const ADDRESS: &str = "email";
const OWNER: &str = "user_id";
const RECORDS: &str = "records";
const EXPIRES_AT: &str = "expires_at";
const VERSION: &str = "version";

/// The spelling under which an address is somebody's: mail providers tell no case apart, though an index does.
pub(super) fn normalised(email: &str) -> String {
    email.to_ascii_lowercase()
}

/// Another user has the address.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Taken;

/// An address's marker. The default is none: nobody has it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Marker {
    /// 0 if it is not stored.
    version: u64,
    owner: String,
    /// The seconds of the owner's records that hold the address, and when each ends, if it does.
    records: BTreeMap<i64, Option<i64>>,
}

impl Marker {
    pub(super) fn read(item: Option<&Item>) -> Result<Self, Fault> {
        let Some(item) = item else {
            return Ok(Self::default());
        };
        let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).cloned();
        let number = |value: &AttributeValue| value.as_n().ok().and_then(|number| number.parse::<i64>().ok());
        let read = || {
            let mut records = BTreeMap::new();
            for (second, end) in item.get(RECORDS)?.as_m().ok()? {
                records.insert(second.parse().ok()?, Some(number(end)?).filter(|end| *end > 0));
            }
            let version = u64::try_from(number(item.get(VERSION)?)?).ok()?;
            Some(Self { version, owner: text(OWNER)?, records })
        };
        read().ok_or_else(|| Fault::refused("an address's marker cannot be read"))
    }

    /// The marker after this record of this user holds the address.
    pub(super) fn with(mut self, key: &UserKey, ends: Option<ExpiresAt>, now: OffsetDateTime) -> Result<Self, Taken> {
        self.forget_ended(now);
        if self.owner != key.id.as_str() {
            if !self.records.is_empty() {
                return Err(Taken);
            }
            key.id.as_str().clone_into(&mut self.owner);
        }
        self.records.insert(key.timestamp.seconds(), ends.map(ExpiresAt::seconds));
        Ok(self)
    }

    /// The marker after this record of this user does not hold the address.
    pub(super) fn without(mut self, key: &UserKey, now: OffsetDateTime) -> Self {
        self.forget_ended(now);
        if self.owner == key.id.as_str() {
            self.records.remove(&key.timestamp.seconds());
        }
        self
    }

    fn forget_ended(&mut self, now: OffsetDateTime) {
        self.records.retain(|_, ends| ends.is_none_or(|ends| ends > now.unix_timestamp()));
    }

    /// When its last record ends, if every one does.
    fn expires_at(&self) -> Option<i64> {
        self.records.values().copied().max_by_key(|ends| ends.unwrap_or(i64::MAX)).flatten()
    }

    /// The write that stores it, on the condition that what is stored is as it was read; none if nothing was or is.
    pub(super) fn write(&self, table: &str, address: &str) -> Result<Option<TransactWriteItem>, BuildError> {
        let unchanged = if self.version == 0 { "attribute_not_exists(email)" } else { "version = :before" };
        let before = (self.version > 0).then(|| HashMap::from([(":before".to_owned(), item::whole(self.version))]));
        if self.records.is_empty() {
            if self.version == 0 {
                return Ok(None);
            }
            let delete = Delete::builder()
                .table_name(table)
                .key(ADDRESS, item::text(address))
                .condition_expression(unchanged)
                .set_expression_attribute_values(before)
                .build()?;
            return Ok(Some(TransactWriteItem::builder().delete(delete).build()));
        }
        let records = self.records.iter().map(|(second, ends)| (second.to_string(), item::whole(ends.unwrap_or(0))));
        let mut stored = HashMap::from([
            (ADDRESS.to_owned(), item::text(address)),
            (OWNER.to_owned(), item::text(&self.owner)),
            (RECORDS.to_owned(), AttributeValue::M(records.collect())),
            (VERSION.to_owned(), item::whole(self.version + 1)),
        ]);
        if let Some(ends) = self.expires_at() {
            stored.insert(EXPIRES_AT.to_owned(), item::whole(ends));
        }
        let put = Put::builder()
            .table_name(table)
            .set_item(Some(stored))
            .condition_expression(unchanged)
            .set_expression_attribute_values(before)
            .build()?;
        Ok(Some(TransactWriteItem::builder().put(put).build()))
    }
}

/// The address of an item, as a marker's key.
pub(super) fn of_item(item: &Item) -> Option<String> {
    item.get(item::EMAIL).and_then(|email| email.as_s().ok()).map(|email| normalised(email))
}

/// The address of a user, as a marker's key.
pub(super) fn of(email: Option<&Email>) -> Option<String> {
    email.map(|email| normalised(email.as_str()))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::user::id::UserId;
    use crate::user::timestamp::Timestamp;

    const NOW: OffsetDateTime = datetime!(2026-11-22 10:00 UTC);

    fn key(id: &str, second: i64) -> UserKey {
        UserKey { id: UserId::parse(id).unwrap(), timestamp: Timestamp::parse(second).unwrap() }
    }

    fn ends(after: i64) -> Option<ExpiresAt> {
        ExpiresAt::parse(NOW.unix_timestamp() + after, NOW).ok()
    }

    fn stored(marker: &Marker) -> Option<Item> {
        let write = marker.write("Emails", "a@b.cd").unwrap()?;
        write.put.map(|put| put.item)
    }

    #[test]
    fn an_address_is_one_user_s_however_many_of_its_records_hold_it() {
        let one = Marker::default().with(&key("ada", 1), None, NOW).unwrap();
        let two = one.clone().with(&key("ada", 2), ends(10), NOW).unwrap();
        assert_eq!(two.clone().with(&key("eve", 1), None, NOW), Err(Taken));
        let left = two.clone().without(&key("ada", 1), NOW);
        assert_eq!(left.clone().with(&key("eve", 1), None, NOW), Err(Taken), "one record is enough");
        assert!(
            left.without(&key("ada", 2), NOW).with(&key("eve", 1), None, NOW).is_ok(),
            "without records it is free"
        );
        assert_eq!(two.clone().without(&key("eve", 1), NOW), two, "another user's record frees nothing");
    }

    #[test]
    fn records_that_ended_hold_nothing() {
        let marker = Marker::default().with(&key("ada", 1), ends(10), NOW).unwrap();
        let at = |seconds| NOW + time::Duration::seconds(seconds);
        assert_eq!(marker.clone().with(&key("eve", 1), None, at(9)), Err(Taken));
        let taken_over = marker.with(&key("eve", 1), None, at(10)).unwrap();
        assert_eq!((taken_over.owner.as_str(), taken_over.records.len()), ("eve", 1));
    }

    #[test]
    fn a_marker_ends_with_the_last_of_its_records_if_every_one_ends() {
        let mut marker = Marker::default();
        for (second, after, expected) in [(1, 20, Some(20)), (2, 10, Some(20)), (3, 30, Some(30))] {
            marker = marker.with(&key("ada", second), ends(after), NOW).unwrap();
            assert_eq!(marker.expires_at(), expected.map(|after| NOW.unix_timestamp() + after));
        }
        assert_eq!(marker.with(&key("ada", 4), None, NOW).unwrap().expires_at(), None);
    }

    #[test]
    fn a_stored_marker_is_read_back_one_version_on() {
        let marker =
            Marker::default().with(&key("ada", 1), ends(5), NOW).unwrap().with(&key("ada", 2), None, NOW).unwrap();
        let item = stored(&marker).unwrap();
        assert_eq!(Marker::read(Some(&item)).unwrap(), Marker { version: 1, ..marker });
        assert_eq!(Marker::read(None).unwrap(), Marker::default());
        assert!(Marker::read(Some(&HashMap::new())).is_err());
        assert!(Marker::default().write("Emails", "a@b.cd").unwrap().is_none(), "nothing was and nothing is");
    }
}
