//! The API's access to the Users table: a concrete type over the SDK's client, with one network call in the common
//! case.
//!
//! - An expired record counts as absent, in conditions and in reads, although TTL removes it hours later.
//! - Every write has a condition. If the condition fails, the error contains the existing item, so that "absent",
//!   "exists" and "changed concurrently" are distinguished without a second call.
//! - A write to an existing record names the attributes that it changes, so attributes of other programs are preserved.
//! - A record leaves room for the attributes that replication adds to a replica item, within DynamoDB's limit of 400 KB
//!   ([`MAX_ATTRIBUTES_BYTES`]).
//! - Reads are strongly consistent, except those through the email index, which supports only eventual consistency.
//!
//! The SDK retries calls whose response was lost. If the first attempt of a conditional write was applied, the retry
//! finds the result of that attempt and its condition fails. A caller that must know whether the write was applied
//! reads the record.

mod batch;
mod emails;
mod error;
mod expression;
mod idempotency;
mod listing;
mod meter;
mod nonce;
mod reservations;
mod restore;
mod unique;

use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, ReturnConsumedCapacity, ReturnValue, ReturnValuesOnConditionCheckFailure,
};
use time::OffsetDateTime;

use crate::item::size::MAX_ATTRIBUTES_BYTES;
use crate::item::{self, AttributeMap};
use crate::raw_item::value_bytes;
use crate::user::precondition::{EntityTags, Precondition};
use crate::user::{FieldPatch, User, UserKey, UserPatch, UserProfile, format_rfc3339_millis};
pub use batch::{MAX_KEYS, UserBatch};
pub use error::TableError;
use error::{ConditionalWriteError, refusal};
use expression::{ExpressionBuilder, UpdateExpression};
pub use idempotency::{IDEMPOTENCY_TTL_SECONDS, IN_PROGRESS_EXPIRY_SECONDS, IdempotencyOutcome, IdempotencyRecord};
pub use listing::{ListOrder, ListQuery, ListSegment, PageKey, UserPage};
pub use meter::CapacityMeter;
pub use nonce::NonceSource;
use reservations::ReservationTable;
pub use restore::{RestorePutError, RestoreTable};

/// The maximum number of attempts at a write whose record or email reservation is changed concurrently.
const MAX_CONFLICT_RETRIES: usize = 8;

/// A write that failed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The record does not exist or has expired.
    #[error("the record does not exist")]
    NotFound,
    /// A live record exists already.
    #[error("the record exists already")]
    Exists,
    /// Another user has the email.
    #[error("another user has the email")]
    EmailTaken,
    /// The record does not satisfy the precondition.
    #[error("the record's version does not satisfy the precondition")]
    PreconditionFailed,
    /// Other writes changed the record during every attempt.
    #[error("other writes changed the record during all {MAX_CONFLICT_RETRIES} attempts")]
    Contended,
    /// The call to the table failed.
    #[error(transparent)]
    Fault(#[from] TableError),
}

/// The result of a replacement.
#[derive(Clone, Debug, PartialEq)]
pub struct PutOutcome {
    /// The record after the write.
    pub user: User,
    /// Whether the write created the record.
    pub created: bool,
}

/// Encodes a record as an item, with room for the attributes that replication adds to a replica item.
fn encode(user: &User) -> Result<AttributeMap, TableError> {
    let item = item::encode(user).map_err(TableError::refused)?;
    item.get(item::ATTRIBUTES).map_or(Ok(()), check_size)?;
    Ok(item)
}

/// Fails if `attributes` is too large. Nothing else is checked, so a write of other members never reaches this limit:
/// each of them has a limit of its own.
fn check_size(attributes: &AttributeValue) -> Result<(), TableError> {
    let bytes = value_bytes(attributes);
    if bytes > MAX_ATTRIBUTES_BYTES { Err(TableError::AttributesTooLarge(bytes)) } else { Ok(()) }
}

/// The Users table and its email index.
#[derive(Clone, Debug)]
pub struct UserTable {
    client: Client,
    name: Arc<str>,
    email_index: Arc<str>,
    /// The table of email reservations, if emails are unique.
    emails: Option<ReservationTable>,
    meter: CapacityMeter,
}

impl UserTable {
    /// Creates a table with this name and client.
    #[must_use]
    pub fn new(client: Client, name: String, email_index: String) -> Self {
        Self {
            client,
            name: name.into(),
            email_index: email_index.into(),
            emails: None,
            meter: CapacityMeter::default(),
        }
    }

    /// Returns the table with unique emails: `emails` names the reservation table, and `nonces` supplies its nonces.
    #[must_use]
    pub fn with_unique_emails(self, emails: Option<&str>, nonces: NonceSource) -> Self {
        Self { emails: emails.map(|name| ReservationTable::new(name, nonces)), ..self }
    }

    /// Returns the table with this meter, which counts the capacity of its calls.
    #[must_use]
    pub fn with_capacity_meter(&self, meter: CapacityMeter) -> Self {
        Self { meter, ..self.clone() }
    }

    /// Reads one record with strong consistency.
    ///
    /// # Errors
    /// The call failed, or the stored item is not a valid user record.
    pub async fn read(&self, key: &UserKey, now: OffsetDateTime) -> Result<Option<User>, TableError> {
        match self.item(key).await?.filter(|item| item::is_live(item, now)) {
            Some(item) => Ok(Some(item::decode(item, now)?)),
            None => Ok(None),
        }
    }

    async fn item(&self, key: &UserKey) -> Result<Option<AttributeMap>, TableError> {
        let call = self.client.get_item().table_name(&*self.name).set_key(Some(item::key(key))).consistent_read(true);
        let call = call.return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = call.send().await.map_err(TableError::of)?;
        self.meter.add(output.consumed_capacity());
        Ok(output.item)
    }

    /// Creates a record. It replaces an expired one.
    ///
    /// # Errors
    /// [`WriteError::Exists`] if a live record exists, or the call failed.
    pub async fn create(&self, user: &User, now: OffsetDateTime) -> Result<(), WriteError> {
        if let (Some(emails), Some(_)) = (&self.emails, &user.profile.email) {
            return self.create_unique(emails, user, now).await;
        }
        match self.put_if_absent(user, now).await {
            Ok(()) => Ok(()),
            Err(ConditionalWriteError::Condition(_)) => Err(WriteError::Exists),
            Err(ConditionalWriteError::Fault(fault)) => Err(fault.into()),
        }
    }

    async fn put_if_absent(&self, user: &User, now: OffsetDateTime) -> Result<(), ConditionalWriteError> {
        let mut expression = ExpressionBuilder::default();
        let condition = expression.absent(now);
        let (names, values) = expression.into_parts();
        self.client
            .put_item()
            .table_name(&*self.name)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .set_item(Some(encode(user)?))
            .condition_expression(condition)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await
            .map(|output| self.meter.add(output.consumed_capacity()))
            .map_err(|error| {
                refusal(error, |error| match error {
                    PutItemError::ConditionalCheckFailedException(failed) => Some(failed),
                    _ => None,
                })
            })
    }

    /// Replaces a record, or creates it if none exists. A replaced record keeps its creation time.
    ///
    /// # Errors
    /// [`WriteError::PreconditionFailed`], [`WriteError::Contended`], or the call failed.
    pub async fn replace(
        &self,
        key: UserKey,
        profile: UserProfile,
        precondition: &Precondition,
        now: OffsetDateTime,
    ) -> Result<PutOutcome, WriteError> {
        if let Some(emails) = &self.emails {
            return self.replace_unique(emails, &key, &profile, precondition, now).await;
        }
        let must_exist = precondition.if_match.is_some();
        let must_be_absent = precondition.if_none_match == Some(EntityTags::Any);
        if must_exist && must_be_absent {
            return Err(WriteError::PreconditionFailed);
        }
        let mut user = User::created(key, profile, now);
        for _ in 0..MAX_CONFLICT_RETRIES {
            if !must_be_absent {
                match self.overwrite(&user, precondition, now).await {
                    Ok(Some(old)) => {
                        if old.contains_key(item::VERSION) {
                            user.version = item::version(&old).map_err(TableError::from)?.saturating_add(1);
                        }
                        user.created_at = item::created_at(&old).map_err(TableError::from)?.or(user.created_at);
                        return Ok(PutOutcome { user, created: false });
                    }
                    Ok(None) => return Ok(PutOutcome { user, created: true }),
                    Err(ConditionalWriteError::Condition(Some(old))) if item::is_live(&old, now) => {
                        return Err(WriteError::PreconditionFailed);
                    }
                    Err(ConditionalWriteError::Condition(_)) if must_exist => {
                        return Err(WriteError::PreconditionFailed);
                    }
                    Err(ConditionalWriteError::Condition(_)) => {}
                    Err(ConditionalWriteError::Fault(fault)) => return Err(fault.into()),
                }
            }
            // The record does not exist or has expired. An expired item is replaced completely, so that none of its
            // attributes remain.
            match self.put_if_absent(&user, now).await {
                Ok(()) => return Ok(PutOutcome { user, created: true }),
                Err(ConditionalWriteError::Condition(_)) if must_be_absent => {
                    return Err(WriteError::PreconditionFailed);
                }
                Err(ConditionalWriteError::Condition(_)) => {}
                Err(ConditionalWriteError::Fault(fault)) => return Err(fault.into()),
            }
        }
        Err(WriteError::Contended)
    }

    /// Writes over a live record, or creates one unless the precondition requires that it exists. Returns the previous
    /// item.
    async fn overwrite(
        &self,
        user: &User,
        precondition: &Precondition,
        now: OffsetDateTime,
    ) -> Result<Option<AttributeMap>, ConditionalWriteError> {
        let mut expression = ExpressionBuilder::default();
        let condition = if precondition.if_match.is_some() {
            expression.present(precondition, now)
        } else {
            expression.absent_or_present(precondition, now)
        };
        let mut assignments = UpdateExpression::default();
        let mut fields = encode(user)?;
        for attribute in [item::NAME, item::EMAIL, item::STATUS, item::ATTRIBUTES, item::EXPIRES_AT] {
            match fields.remove(attribute) {
                Some(value) => assignments.set(&mut expression, attribute, value),
                None => assignments.remove(&mut expression, attribute),
            }
        }
        assignments.keep_or_set(&mut expression, item::CREATED_AT, item::text(format_rfc3339_millis(now)));
        assignments.touch(&mut expression, now);
        let old = self.update(&user.key, assignments, condition, expression, ReturnValue::AllOld).await?;
        // An item that contains only its key is not a record. Some engines return one for an item that was just
        // created.
        Ok(old.filter(|old| old.len() > item::key(&user.key).len()))
    }

    /// Applies a merge patch to a live record in one call. A patch of members of `attributes` reads the record first.
    ///
    /// # Errors
    /// [`WriteError::NotFound`], [`WriteError::PreconditionFailed`], [`WriteError::Contended`], or the call failed.
    pub async fn patch(
        &self,
        key: &UserKey,
        edits: &UserPatch,
        precondition: &Precondition,
        now: OffsetDateTime,
    ) -> Result<User, WriteError> {
        let moves = edits.email != FieldPatch::Keep || edits.expires_at != FieldPatch::Keep;
        if let Some(emails) = self.emails.as_ref().filter(|_| moves) {
            return self.patch_unique(emails, key, edits, precondition, now).await;
        }
        let refused = |old: Option<AttributeMap>| match old {
            Some(old) if item::is_live(&old, now) => WriteError::PreconditionFailed,
            _ => WriteError::NotFound,
        };
        let FieldPatch::Set(patch) = &edits.attributes else {
            return match self.edit(key, edits, None, precondition, now).await {
                Ok(user) => Ok(user),
                Err(ConditionalWriteError::Condition(old)) => Err(refused(old)),
                Err(ConditionalWriteError::Fault(fault)) => Err(fault.into()),
            };
        };
        let mut current = self.item(key).await?;
        for _ in 0..MAX_CONFLICT_RETRIES {
            let Some(mut item) = current.filter(|item| item::is_live(item, now)) else {
                return Err(WriteError::NotFound);
            };
            let version = item::version(&item).map_err(TableError::from)?;
            if !precondition.is_satisfied_by(Some(version)) {
                return Err(WriteError::PreconditionFailed);
            }
            let merged = item::attributes::merge(item.remove(item::ATTRIBUTES), patch);
            check_size(&merged)?;
            match self.edit(key, edits, Some(merged), &Precondition::exactly(version), now).await {
                Ok(user) => return Ok(user),
                Err(ConditionalWriteError::Condition(newer)) => current = newer,
                Err(ConditionalWriteError::Fault(fault)) => return Err(fault.into()),
            }
        }
        Err(WriteError::Contended)
    }

    async fn edit(
        &self,
        key: &UserKey,
        edits: &UserPatch,
        merged: Option<AttributeValue>,
        precondition: &Precondition,
        now: OffsetDateTime,
    ) -> Result<User, ConditionalWriteError> {
        let mut expression = ExpressionBuilder::default();
        let condition = expression.present(precondition, now);
        let mut assignments = UpdateExpression::default();
        if let Some(name) = &edits.name {
            assignments.set(&mut expression, item::NAME, item::text(name.as_str()));
        }
        assignments.edit(&mut expression, item::EMAIL, &edits.email, |email| item::text(email.as_str()));
        assignments.edit(&mut expression, item::STATUS, &edits.status, |status| item::text(status.as_str()));
        assignments.edit(&mut expression, item::EXPIRES_AT, &edits.expires_at, |at| item::whole(at.seconds()));
        match (merged, &edits.attributes) {
            (Some(merged), _) => assignments.set(&mut expression, item::ATTRIBUTES, merged),
            (None, FieldPatch::Remove) => assignments.remove(&mut expression, item::ATTRIBUTES),
            (None, _) => {}
        }
        assignments.touch(&mut expression, now);
        let item = self.update(key, assignments, condition, expression, ReturnValue::AllNew).await?;
        Ok(item::decode(item.unwrap_or_default(), now).map_err(TableError::from)?)
    }

    async fn update(
        &self,
        key: &UserKey,
        assignments: UpdateExpression,
        condition: String,
        expression: ExpressionBuilder,
        answer: ReturnValue,
    ) -> Result<Option<AttributeMap>, ConditionalWriteError> {
        let (names, values) = expression.into_parts();
        self.client
            .update_item()
            .table_name(&*self.name)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .set_key(Some(item::key(key)))
            .update_expression(assignments.into_text())
            .condition_expression(condition)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values)
            .return_values(answer)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await
            .map(|output| {
                self.meter.add(output.consumed_capacity());
                output.attributes
            })
            .map_err(|error| {
                refusal(error, |error| match error {
                    UpdateItemError::ConditionalCheckFailedException(failed) => Some(failed),
                    _ => None,
                })
            })
    }

    /// Deletes a live record. Returns the version that it had, or 0 if it had none.
    ///
    /// # Errors
    /// [`WriteError::NotFound`], [`WriteError::PreconditionFailed`], or the call failed.
    pub async fn delete(
        &self,
        key: &UserKey,
        precondition: &Precondition,
        now: OffsetDateTime,
    ) -> Result<u64, WriteError> {
        if let Some(emails) = &self.emails {
            return self.delete_unique(emails, key, precondition, now).await;
        }
        let mut expression = ExpressionBuilder::default();
        let condition = expression.present(precondition, now);
        let (names, values) = expression.into_parts();
        let call = self
            .client
            .delete_item()
            .table_name(&*self.name)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .set_key(Some(item::key(key)))
            .condition_expression(condition)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values)
            .return_values(ReturnValue::AllOld)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let error = match call.send().await {
            Ok(output) => {
                self.meter.add(output.consumed_capacity());
                // A malformed version counts as 0: it is not that of a record of this service, and no cache contains
                // such an item.
                return Ok(output.attributes.as_ref().map_or(0, |old| item::version(old).unwrap_or(0)));
            }
            Err(error) => error,
        };
        let refused = refusal(error, |error| match error {
            DeleteItemError::ConditionalCheckFailedException(failed) => Some(failed),
            _ => None,
        });
        Err(match refused {
            ConditionalWriteError::Condition(Some(old)) if item::is_live(&old, now) => WriteError::PreconditionFailed,
            ConditionalWriteError::Condition(_) => WriteError::NotFound,
            ConditionalWriteError::Fault(fault) => fault.into(),
        })
    }
}
