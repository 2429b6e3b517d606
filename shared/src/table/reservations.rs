//! Reads of email reservations, and the writes to them that become part of a record's write plan:
//! [`EmailReservations`].

use std::fmt;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{ReturnConsumedCapacity, TransactWriteItem};
use time::OffsetDateTime;

use super::emails::{self, EmailOwner, RecordEmail, ReservationExpiry, ReservationWrite};
use super::{CapacityMeter, TableError, WriteError};
use crate::clock::{self, Clock};
use crate::item::{self, AttributeMap};
use crate::user::UserKey;

/// The limit of the first query: enough for the owner item, the record in question, and a record that has the email as
/// long.
const FIRST: i32 = 8;
/// The limit of each further query.
const FURTHER: i32 = 1_000;

#[expect(clippy::needless_pass_by_value, reason = "passed to map_err")]
pub(super) fn unbuilt(error: BuildError) -> TableError {
    TableError::refused(error.to_string())
}

/// A source of strings that never repeat. Clones share it.
#[derive(Clone)]
pub struct NonceSource(Arc<dyn Fn() -> String + Send + Sync>);

impl NonceSource {
    /// Creates a source of UUIDs (version 7) that takes the time from this clock.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(move || clock::new_uuid(clock.now()).to_string()))
    }

    pub(super) fn draw(&self) -> String {
        (self.0)()
    }
}

impl fmt::Debug for NonceSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceSource")
    }
}

/// The reservation table and the source of its nonces.
#[derive(Clone, Debug)]
pub(super) struct ReservationTable {
    name: Arc<str>,
    nonces: NonceSource,
}

impl ReservationTable {
    pub(super) fn new(name: &str, nonces: NonceSource) -> Self {
        Self { name: name.into(), nonces }
    }
}

/// The reservation table with the client and the meter for its calls.
pub(super) struct EmailReservations<'t> {
    pub(super) client: &'t Client,
    pub(super) meter: &'t CapacityMeter,
    pub(super) table: &'t ReservationTable,
}

/// The part of a reservation that was read.
struct EmailReservation {
    owner: Option<EmailOwner>,
    /// The latest expiry of the other live records that have the email; `None` if there are none.
    others: Option<ReservationExpiry>,
}

impl EmailReservations<'_> {
    /// Returns the writes for a record whose email changes, or whose email stays while its expiry may change.
    pub(super) async fn reservation_writes(
        &self,
        key: &UserKey,
        before: Option<RecordEmail>,
        after: Option<RecordEmail>,
        now: OffsetDateTime,
    ) -> Result<Vec<TransactWriteItem>, WriteError> {
        let nonce = self.table.nonces.draw();
        let stays = matches!((&before, &after), (Some(before), Some(after)) if before.email == after.email);
        let mut writes = Vec::new();
        if let Some(before) = before.as_ref().filter(|_| !stays) {
            writes.extend(self.leave(key, &before.email, &nonce, now).await?);
        }
        if let Some(after) = after {
            let before = before.filter(|_| stays).map(|before| before.until);
            writes.extend(self.take(key, &after, before, &nonce, now).await?);
        }
        Ok(writes)
    }

    /// Returns whether another user has the email.
    pub(super) async fn is_taken(&self, key: &UserKey, email: &str, now: OffsetDateTime) -> Result<bool, TableError> {
        match self.owner(email).await? {
            Some(owner) if !owner.is(key) => self.is_another_s(key, email, now).await,
            _ => Ok(false),
        }
    }

    /// Returns whether another user has the email through a live record. The owner item is read again, in the same
    /// query as the records, because this user may have taken the email since the owner was read first.
    async fn is_another_s(&self, key: &UserKey, email: &str, now: OffsetDateTime) -> Result<bool, TableError> {
        let EmailReservation { owner, others } = self.read(email, None, now).await?;
        Ok(others.is_some() && owner.is_some_and(|owner| !owner.is(key)))
    }

    async fn take(
        &self,
        key: &UserKey,
        held: &RecordEmail,
        before: Option<ReservationExpiry>,
        nonce: &str,
        now: OffsetDateTime,
    ) -> Result<[TransactWriteItem; 2], WriteError> {
        let RecordEmail { email, until } = held;
        let owner = self.owner(email).await?;
        let last = match owner.as_ref().filter(|owner| owner.is(key)) {
            // The record was the last to expire and now expires earlier, so the latest expiry must be determined again.
            Some(own) if before.is_some_and(|before| before >= own.until) && *until < own.until => {
                let others = self.read(email, Some(key), now).await?.others;
                others.map_or(*until, |others| others.max(*until))
            }
            Some(own) => own.until.max(*until),
            None => {
                let is_taken = owner.is_some() && self.is_another_s(key, email, now).await?;
                if is_taken {
                    return Err(WriteError::EmailTaken);
                }
                *until
            }
        };
        let write = ReservationWrite { table: &self.table.name, email, key, owner: owner.as_ref(), nonce };
        Ok(write.take(*until, last).map_err(unbuilt)?)
    }

    async fn leave(
        &self,
        key: &UserKey,
        email: &str,
        nonce: &str,
        now: OffsetDateTime,
    ) -> Result<Vec<TransactWriteItem>, TableError> {
        let EmailReservation { owner, others } = self.read(email, Some(key), now).await?;
        // A record that was written before emails were unique has no reservation.
        let Some(owner) = owner.filter(|owner| owner.is(key)) else {
            return Ok(Vec::new());
        };
        let write = ReservationWrite { table: &self.table.name, email, key, owner: Some(&owner), nonce };
        Ok(write.leave(others).map_err(unbuilt)?.into())
    }

    async fn owner(&self, email: &str) -> Result<Option<EmailOwner>, TableError> {
        let key = emails::key_of(email, emails::OWNER);
        let call = self.client.get_item().table_name(&*self.table.name).set_key(Some(key)).consistent_read(true);
        let output =
            call.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await.map_err(TableError::from_sdk)?;
        self.meter.add(output.consumed_capacity());
        output.item.as_ref().map(EmailOwner::parse).transpose()
    }

    /// Reads a reservation without the item of the record `but`. Stops after a record that has the email as long as the
    /// owner item states, because no later item can change the result.
    ///
    /// The owner item sorts first and is read first. A change to the reservation after that also changes the nonce, so
    /// the condition of a transaction that is based on an outdated read fails.
    async fn read(
        &self,
        email: &str,
        but: Option<&UserKey>,
        now: OffsetDateTime,
    ) -> Result<EmailReservation, TableError> {
        let but = but.map(|key| item::text(emails::record_of(key)));
        let mut found = EmailReservation { owner: None, others: None };
        let (mut start, mut limit): (Option<AttributeMap>, _) = (None, FIRST);
        loop {
            let call = self
                .client
                .query()
                .table_name(&*self.table.name)
                .consistent_read(true)
                .key_condition_expression("email = :email")
                .expression_attribute_values(":email", item::text(email))
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .set_exclusive_start_key(start)
                .limit(limit);
            let output = call.send().await.map_err(TableError::from_sdk)?;
            self.meter.add(output.consumed_capacity());
            for item in output.items() {
                let record = item.get(emails::RECORD);
                if record == Some(&item::text(emails::OWNER)) {
                    found.owner = Some(EmailOwner::parse(item)?);
                } else if record != but.as_ref() {
                    let until = emails::reservation_expiry(item)?;
                    if !until.is_past(now) {
                        found.others = found.others.max(Some(until));
                    }
                }
            }
            start = output.last_evaluated_key;
            let is_known = matches!(&found, EmailReservation { owner: Some(owner), others: Some(others) } if *others >= owner.until);
            if start.is_none() || is_known {
                return Ok(found);
            }
            limit = FURTHER;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn nonces_of_one_moment_differ() {
        let nonces = NonceSource::new(Clock::fixed(OffsetDateTime::UNIX_EPOCH));
        let drawn: HashSet<String> = (0..1_000).map(|_| nonces.clone().draw()).collect();
        assert_eq!(drawn.len(), 1_000);
    }
}
