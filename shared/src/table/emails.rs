//! Email reservations: the user that has an email, and the records with it, so that no other user can take it.
//!
//! A reservation consists of items in a table of its own, whose partition key is the email in lower case:
//!
//! - an owner item (`#owner`) with the user, a nonce, and the latest expiry of the user's records that have the email;
//! - one item for each record that has the email, with the record's expiry.
//!
//! Every transaction that adds, changes or removes the item of a record also writes the owner item with a new nonce, or
//! deletes it, on the condition that the nonce is the one that was read, or that no owner item existed. A nonce never
//! repeats. A counter would repeat, because it starts again after the item was deleted, and a delayed transaction could
//! then mistake a later reservation for the one that it read. An expired record reserves nothing, although TTL removes
//! its item later.
//!
//! This module is pure; `reservations` does the I/O.

use std::collections::HashMap;

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{AttributeValue, Delete, Put, TransactWriteItem};
use time::OffsetDateTime;

use super::TableError;
use crate::item::{self, AttributeMap};
use crate::user::expiry::ExpiresAt;
use crate::user::{UserKey, UserProfile};

/// The partition key.
pub(super) const EMAIL: &str = "email";
/// The sort key.
pub(super) const RECORD: &str = "record";
/// The sort key of an owner item. It sorts before those of all records, because `#` is lower than every character that
/// a user identifier may begin with.
pub(super) const OWNER: &str = "#owner";
const USER_ID: &str = "user_id";
const NONCE: &str = "nonce";
const EXPIRES_AT: &str = "expires_at";

/// Returns the form in which an email is reserved: lower case, because mail providers do not distinguish case, although
/// the email index does.
fn normalised(email: &str) -> String {
    email.to_ascii_lowercase()
}

/// Returns the sort key of a record's item.
pub(super) fn record_of(key: &UserKey) -> String {
    format!("{}/{}", key.id, key.timestamp.seconds())
}

/// Returns the key of an item of a reservation.
pub(super) fn key_of(email: &str, record: &str) -> AttributeMap {
    HashMap::from([(EMAIL.to_owned(), item::text(email)), (RECORD.to_owned(), item::text(record))])
}

/// The epoch second from which on a record, or the last of several, no longer reserves an email.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct ReservationExpiry(i64);

impl ReservationExpiry {
    const FOREVER: Self = Self(i64::MAX);

    fn read(item: &AttributeMap) -> Option<Self> {
        match item.get(EXPIRES_AT) {
            None => Some(Self::FOREVER),
            Some(seconds) => seconds.as_n().ok()?.parse().ok().map(Self),
        }
    }

    fn write(self, item: &mut AttributeMap) {
        if self != Self::FOREVER {
            item.insert(EXPIRES_AT.to_owned(), item::integer(self.0));
        }
    }

    pub(super) fn is_past(self, now: OffsetDateTime) -> bool {
        self.0 <= now.unix_timestamp()
    }
}

impl From<Option<ExpiresAt>> for ReservationExpiry {
    fn from(ends: Option<ExpiresAt>) -> Self {
        ends.map_or(Self::FOREVER, |ends| Self(ends.seconds()))
    }
}

/// An email that a record has, and the expiry of the record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct RecordEmail {
    /// The email in lower case.
    pub(super) email: String,
    pub(super) until: ReservationExpiry,
}

impl RecordEmail {
    pub(super) fn from_item(item: &AttributeMap, now: OffsetDateTime) -> Option<Self> {
        let email = normalised(item.get(item::EMAIL)?.as_s().ok()?);
        Some(Self { email, until: item::expires_at(item, now).into() })
    }

    pub(super) fn from_profile(profile: &UserProfile) -> Option<Self> {
        let email = normalised(profile.email.as_ref()?.as_str());
        Some(Self { email, until: profile.expires_at.into() })
    }
}

/// The owner item of an email, as it was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct EmailOwner {
    user_id: String,
    nonce: String,
    /// The latest expiry of the user's records that have the email.
    pub(super) until: ReservationExpiry,
}

impl EmailOwner {
    pub(super) fn parse(item: &AttributeMap) -> Result<Self, TableError> {
        let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).cloned();
        let read =
            || Some(Self { user_id: text(USER_ID)?, nonce: text(NONCE)?, until: ReservationExpiry::read(item)? });
        read().ok_or_else(|| TableError::refused("cannot read the owner of an email reservation"))
    }

    pub(super) fn is(&self, key: &UserKey) -> bool {
        self.user_id == key.id.as_str()
    }
}

/// Returns the expiry in the reservation item of a record.
pub(super) fn reservation_expiry(item: &AttributeMap) -> Result<ReservationExpiry, TableError> {
    ReservationExpiry::read(item).ok_or_else(|| TableError::refused("cannot read the expiry of an email reservation"))
}

/// A change to a reservation, as part of a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReservationWrite<'w> {
    pub(super) table: &'w str,
    pub(super) email: &'w str,
    pub(super) key: &'w UserKey,
    /// The owner item that was read, if there was one.
    pub(super) owner: Option<&'w EmailOwner>,
    /// The new nonce of the owner item.
    pub(super) nonce: &'w str,
}

impl ReservationWrite<'_> {
    /// Returns the writes that reserve the email for the record until `until`. `last` is the latest expiry of the
    /// user's records that have the email.
    pub(super) fn take(
        &self,
        until: ReservationExpiry,
        last: ReservationExpiry,
    ) -> Result<[TransactWriteItem; 2], BuildError> {
        let mut record = key_of(self.email, &record_of(self.key));
        until.write(&mut record);
        let record = Put::builder().table_name(self.table).set_item(Some(record)).build()?;
        Ok([self.put_owner(last)?, TransactWriteItem::builder().put(record).build()])
    }

    /// Returns the writes that release the record's email. `last` is the latest expiry of the user's other records that
    /// have it, or `None` if there are none.
    pub(super) fn leave(&self, last: Option<ReservationExpiry>) -> Result<[TransactWriteItem; 2], BuildError> {
        let owner = match last {
            Some(last) => self.put_owner(last)?,
            None => self.delete_owner()?,
        };
        let record = key_of(self.email, &record_of(self.key));
        let record = Delete::builder().table_name(self.table).set_key(Some(record)).build()?;
        Ok([owner, TransactWriteItem::builder().delete(record).build()])
    }

    fn put_owner(&self, until: ReservationExpiry) -> Result<TransactWriteItem, BuildError> {
        let mut owner = key_of(self.email, OWNER);
        owner.insert(USER_ID.to_owned(), item::text(self.key.id.as_str()));
        owner.insert(NONCE.to_owned(), item::text(self.nonce));
        until.write(&mut owner);
        let (condition, values) = self.as_read();
        let put = Put::builder()
            .table_name(self.table)
            .set_item(Some(owner))
            .condition_expression(condition)
            .set_expression_attribute_values(values)
            .build()?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    fn delete_owner(&self) -> Result<TransactWriteItem, BuildError> {
        let (condition, values) = self.as_read();
        let delete = Delete::builder()
            .table_name(self.table)
            .set_key(Some(key_of(self.email, OWNER)))
            .condition_expression(condition)
            .set_expression_attribute_values(values)
            .build()?;
        Ok(TransactWriteItem::builder().delete(delete).build())
    }

    /// Returns the condition that the reservation has not changed since it was read.
    fn as_read(&self) -> (&'static str, Option<HashMap<String, AttributeValue>>) {
        match self.owner {
            None => ("attribute_not_exists(email)", None),
            Some(owner) => ("nonce = :nonce", Some(HashMap::from([(":nonce".to_owned(), item::text(&owner.nonce))]))),
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::user::Timestamp;
    use crate::user::id::UserId;

    const NOW: OffsetDateTime = datetime!(2026-11-22 10:00 UTC);

    fn key(id: &str, second: i64) -> UserKey {
        UserKey { id: UserId::parse(id).unwrap(), timestamp: Timestamp::parse(second).unwrap() }
    }

    fn ends(after: i64) -> ReservationExpiry {
        ExpiresAt::parse(NOW.unix_timestamp() + after, NOW).ok().into()
    }

    fn write<'w>(key: &'w UserKey, owner: Option<&'w EmailOwner>) -> ReservationWrite<'w> {
        ReservationWrite { table: "Emails", email: "a@b.cd", key, owner, nonce: "next" }
    }

    #[test]
    fn an_owner_is_read_back_as_it_was_put() {
        for until in [ends(5), None.into()] {
            let [owner, record] = write(&key("ada", 7), None).take(until, until).unwrap();
            let (owner, record) = (owner.put.unwrap(), record.put.unwrap());
            let read = EmailOwner::parse(&owner.item).unwrap();
            assert_eq!(read, EmailOwner { user_id: "ada".to_owned(), nonce: "next".to_owned(), until });
            assert!(read.is(&key("ada", 1)) && !read.is(&key("eve", 7)));
            assert_eq!(reservation_expiry(&record.item).unwrap(), until);
            assert_eq!(record.item[RECORD], item::text("ada/7"));
        }
        assert!(EmailOwner::parse(&HashMap::new()).is_err());
    }

    #[test]
    fn every_write_is_over_the_nonce_that_was_read() {
        let read = EmailOwner { user_id: "ada".to_owned(), nonce: "read".to_owned(), until: ends(5) };
        let (key, nonce) = (key("ada", 7), HashMap::from([(":nonce".to_owned(), item::text("read"))]));
        for [owner, _] in [
            write(&key, Some(&read)).take(ends(1), ends(5)).unwrap(),
            write(&key, Some(&read)).leave(Some(ends(5))).unwrap(),
        ] {
            let put = owner.put.unwrap();
            assert_eq!(put.condition_expression.as_deref(), Some("nonce = :nonce"));
            assert_eq!(put.expression_attribute_values, Some(nonce.clone()));
            assert_eq!(put.item[NONCE], item::text("next"));
        }
        let [owner, record] = write(&key, Some(&read)).leave(None).unwrap();
        let delete = owner.delete.unwrap();
        assert_eq!((delete.key, delete.expression_attribute_values), (key_of("a@b.cd", OWNER), Some(nonce)));
        assert_eq!(record.delete.unwrap().key, key_of("a@b.cd", "ada/7"));
        let [owner, _] = write(&key, None).take(ends(1), ends(1)).unwrap();
        assert_eq!(owner.put.unwrap().condition_expression.as_deref(), Some("attribute_not_exists(email)"));
    }

    #[test]
    fn reservation_without_expiry_never_ends_and_expiry_is_exclusive() {
        assert!(ReservationExpiry::from(None) > ends(1_000));
        assert!(ends(0).is_past(NOW) && !ends(1).is_past(NOW) && !ReservationExpiry::from(None).is_past(NOW));
    }

    #[test]
    fn an_owner_sorts_before_every_record() {
        for id in ["+", "-", ".a", "0", "A", "|"] {
            assert!(*OWNER < *record_of(&key(id, 0)), "{id}");
        }
    }
}
