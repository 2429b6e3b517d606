//! Email reservations as they are read and written beside a record: in one transaction with it. [`EmailReservations`]

use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{ReturnConsumedCapacity, TransactWriteItem};
use time::OffsetDateTime;

use super::emails::{self, EmailOwner, HeldEmail, HeldUntil, ReservationWrite};
use super::idempotency::{TransactionCancelled, cancelled};
use super::nonce::NonceSource;
use super::{CapacityMeter, TableError, WriteError};
use crate::item::{self, AttributeMap};
use crate::user::UserKey;

/// What a first query asks for: an owner, the record in question, and one that holds the email as long.
const FIRST: i32 = 8;
/// What each further one asks for.
const FURTHER: i32 = 1_000;

#[expect(clippy::needless_pass_by_value, reason = "a function for map_err")]
pub(super) fn unbuilt(error: BuildError) -> TableError {
    TableError::refused(error.to_string())
}

/// The table of reservations, and what their nonces are drawn from.
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

/// The reservations, and with what they are reached.
pub(super) struct EmailReservations<'t> {
    pub(super) client: &'t Client,
    pub(super) meter: &'t CapacityMeter,
    pub(super) table: &'t ReservationTable,
}

/// A reservation as far as it was read.
struct EmailReservation {
    owner: Option<EmailOwner>,
    /// Until when other live records hold the email; none if none does.
    others: Option<HeldUntil>,
}

impl EmailReservations<'_> {
    /// The writes for a record whose email changes from one to another, or stays while the record's expiry may change.
    pub(super) async fn moved(
        &self,
        key: &UserKey,
        before: Option<HeldEmail>,
        after: Option<HeldEmail>,
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

    /// Whether another user has the email.
    pub(super) async fn is_taken(&self, key: &UserKey, email: &str, now: OffsetDateTime) -> Result<bool, TableError> {
        match self.owner(email).await? {
            Some(owner) if !owner.is(key) => self.is_another_s(key, email, now).await,
            _ => Ok(false),
        }
    }

    /// Whether another user has the email by a live record. Owner and records are of one read: since the owner was read
    /// before, this user may have taken the email over itself.
    async fn is_another_s(&self, key: &UserKey, email: &str, now: OffsetDateTime) -> Result<bool, TableError> {
        let EmailReservation { owner, others } = self.read(email, None, now).await?;
        Ok(others.is_some() && owner.is_some_and(|owner| !owner.is(key)))
    }

    async fn take(
        &self,
        key: &UserKey,
        held: &HeldEmail,
        before: Option<HeldUntil>,
        nonce: &str,
        now: OffsetDateTime,
    ) -> Result<[TransactWriteItem; 2], WriteError> {
        let HeldEmail { email, until } = held;
        let owner = self.owner(email).await?;
        let last = match owner.as_ref().filter(|owner| owner.is(key)) {
            // The record was the last to end, and ends earlier from now on: which is the last now?
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
        // A record from before emails were unique has no reservation.
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
            call.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await.map_err(TableError::of)?;
        self.meter.add(output.consumed_capacity());
        output.item.as_ref().map(EmailOwner::parse).transpose()
    }

    /// Reads a reservation, but for this record, up to a record that holds the email as long as the owner does.
    ///
    /// The owner is read first. What changes after that changes the nonce, too, so that a transaction which rests on what
    /// was read before is refused.
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
            let output = call.send().await.map_err(TableError::of)?;
            self.meter.add(output.consumed_capacity());
            for item in output.items() {
                let record = item.get(emails::RECORD);
                if record == Some(&item::text(emails::OWNER)) {
                    found.owner = Some(EmailOwner::parse(item)?);
                } else if record != but.as_ref() {
                    let until = emails::held_until(item)?;
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

    /// The SDK gives each transaction a token of its own: one that landed, unheard, is not refused by its own result.
    pub(super) async fn transact(&self, writes: Vec<TransactWriteItem>) -> Result<(), TransactionCancelled> {
        let call = self.client.transact_write_items().set_transact_items(Some(writes));
        match call.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await {
            Ok(output) => {
                self.meter.add(output.consumed_capacity());
                Ok(())
            }
            Err(error) => Err(cancelled(error)),
        }
    }
}
