//! The API's access to the Users table: a concrete type with one network call in the common case.
//!
//! - Calls that concern one record are sent by [`millrace_dynamodb_client`], all other calls by the SDK's client.
//! - An expired record counts as absent, in conditions and in reads, although TTL removes it hours later.
//! - Every write is a `WritePlan`: a conditional write of the record and, if emails are unique, the writes of its
//!   email's reservation. If the condition of a single call fails, the error contains the existing item, so that
//!   "absent", "exists" and "changed concurrently" are distinguished without a second call.
//! - A write is decided by its condition, without a read, unless its content depends on the record: a patch of members
//!   of `attributes` and, if emails are unique, a write that may change a reservation read the record first, and write
//!   on the condition that it still has the same version. If it has not, they start over.
//! - A write to an existing record names the attributes that it changes, so attributes of other programs are preserved.
//! - A record leaves room for the attributes that replication adds to a replica item, within DynamoDB's limit of 400 KB
//!   ([`MAX_ATTRIBUTES_BYTES`]).
//! - Reads are strongly consistent, except those through the email index, which supports only eventual consistency.
//!
//! Both clients retry calls whose response was lost. If the first attempt of a conditional write was applied, the retry
//! finds the result of that attempt and its condition fails. A caller that must know whether the write was applied
//! reads the record.

mod batch;
mod emails;
mod error;
mod expression;
mod idempotency;
mod listing;
mod reservations;
mod restore;
mod wire;
mod write_plan;

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, ConsumedCapacity, Delete, Put, ReturnValue, TransactWriteItem, Update};
use millrace_dynamodb_client::TableClient;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;

use crate::item::size::MAX_ATTRIBUTES_BYTES;
use crate::item::stored::StoredUser;
use crate::item::{self, AttributeMap};
use crate::raw_item::value_bytes;
use crate::user::precondition::{EntityTags, Precondition};
use crate::user::{FieldPatch, User, UserKey, UserPatch, UserProfile, first_version, format_rfc3339_millis};
pub use batch::{MAX_KEYS, UserBatch};
use emails::RecordEmail;
pub use error::TableError;
use expression::{ExpressionBuilder, UpdateExpression};
pub use idempotency::{IDEMPOTENCY_TTL_SECONDS, IN_PROGRESS_EXPIRY_SECONDS, IdempotencyOutcome, IdempotencyRecord};
pub use listing::{ListOrder, ListQuery, ListSegment, PageKey, UserPage};
pub use reservations::NonceSource;
use reservations::{EmailReservations, ReservationTable, unbuilt};
pub use restore::{RestorePutError, RestoreTable};
use wire::{AttributesOutput, GetResponse, ReplacedItem};
use write_plan::{ExistingItem, RecordWrite, WritePlan, WritePlanError};

/// The maximum number of attempts at a write whose record or email reservation is changed concurrently.
const MAX_CONFLICT_RETRIES: usize = 8;

/// The maximum number of connections for calls that concern one record. A function handles one request at a time and
/// opens one; a server opens more while requests wait.
const MAX_CONNECTIONS: usize = 128;

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

/// Adds up the capacity units that DynamoDB reports in its responses. Clones share one sum. A failed condition also
/// consumes units, but its response does not report them.
#[derive(Clone, Debug, Default)]
pub struct CapacityMeter(Arc<Mutex<f64>>);

impl CapacityMeter {
    fn add<'a>(&self, consumed: impl IntoIterator<Item = &'a ConsumedCapacity>) {
        self.add_units(consumed.into_iter().filter_map(ConsumedCapacity::capacity_units).sum());
    }

    fn add_units(&self, units: f64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += units;
    }

    /// Returns the units consumed so far.
    #[must_use]
    pub fn consumed_units(&self) -> f64 {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the client of the calls that concern one record of this table. Its configuration is that of `client`.
fn record_client(client: &Client, table: &str) -> TableClient {
    TableClient::new(client.clone(), table, MAX_CONNECTIONS)
}

/// Encodes a record as an item, with room for the attributes that replication adds to a replica item.
fn encode(user: &User) -> Result<AttributeMap, TableError> {
    let item = item::encode(user);
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
    /// The client of the calls that concern one record.
    records: TableClient,
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
            records: record_client(&client, &name),
            client,
            name: name.into(),
            email_index: email_index.into(),
            emails: None,
            meter: CapacityMeter::default(),
        }
    }

    /// Resolves credentials and the endpoint, and opens a connection, so that the first call does not wait for them.
    /// Errors are those of the first call.
    pub async fn warm(&self) {
        self.records.warm().await;
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
        match self.get::<StoredUser>(key).await?.filter(|stored| stored.is_live(now)) {
            Some(stored) => Ok(Some(stored.decode(now)?)),
            None => Ok(None),
        }
    }

    async fn item(&self, key: &UserKey) -> Result<Option<AttributeMap>, TableError> {
        Ok(self.get(key).await?.map(|AttributesOutput(item)| item))
    }

    /// Reads the item under a key, as a `T`.
    async fn get<T: DeserializeOwned>(&self, key: &UserKey) -> Result<Option<T>, TableError> {
        let body = wire::get_request(&self.name, &item::key(key))?;
        let response: GetResponse<T> = Box::pin(self.records.get_item(body)).await.map_err(TableError::from_sdk)?;
        self.meter.add_units(response.consumed_units());
        Ok(response.item)
    }

    /// Creates a record. It replaces an expired one.
    ///
    /// # Errors
    /// [`WriteError::Exists`] if a live record exists, [`WriteError::EmailTaken`], [`WriteError::Contended`], or the
    /// call failed.
    pub async fn create(&self, user: &User, now: OffsetDateTime) -> Result<(), WriteError> {
        for _ in 0..MAX_CONFLICT_RETRIES {
            let plan = WritePlan::new(self.creation(user, now)?).with(self.reservations_of_new(user, now).await?);
            match self.execute(plan).await {
                Ok(_) => return Ok(()),
                Err(WritePlanError::RecordCondition(_)) => return Err(WriteError::Exists),
                Err(WritePlanError::Conflict(_)) => {}
                Err(WritePlanError::Fault(fault)) => return Err(fault.into()),
            }
        }
        Err(WriteError::Contended)
    }

    /// Replaces a record, or creates it if none exists. A replaced record keeps its creation time.
    ///
    /// # Errors
    /// [`WriteError::PreconditionFailed`], [`WriteError::EmailTaken`], [`WriteError::Contended`], or the call failed.
    pub async fn replace(
        &self,
        key: UserKey,
        profile: UserProfile,
        precondition: &Precondition,
        now: OffsetDateTime,
    ) -> Result<PutOutcome, WriteError> {
        let user = User::created(key, profile, now);
        match &self.emails {
            None => self.replace_without_read(user, precondition, now).await,
            Some(_) => self.replace_after_read(&user, precondition, now).await,
        }
    }

    async fn replace_without_read(
        &self,
        mut user: User,
        precondition: &Precondition,
        now: OffsetDateTime,
    ) -> Result<PutOutcome, WriteError> {
        let must_exist = precondition.if_match.is_some();
        let must_be_absent = precondition.if_none_match == Some(EntityTags::Any);
        if must_exist && must_be_absent {
            return Err(WriteError::PreconditionFailed);
        }
        for _ in 0..MAX_CONFLICT_RETRIES {
            if !must_be_absent {
                let plan = WritePlan::new(self.replacement(&user, precondition, now)?);
                match plan.execute(&self.records, &self.client, &self.meter).await {
                    Ok(replaced) => {
                        // An item that contains only its key is not a record. Some engines return one for an item that
                        // was just created.
                        let is_record = |replaced: &ReplacedItem| replaced.attributes > item::key(&user.key).len();
                        let Some(ReplacedItem { kept: old, .. }) = replaced.filter(is_record) else {
                            return Ok(PutOutcome { user, created: true });
                        };
                        if old.contains_key(item::VERSION) {
                            user.version = item::version(&old).map_err(TableError::from)?.saturating_add(1);
                        }
                        user.created_at = item::created_at(&old).map_err(TableError::from)?.or(user.created_at);
                        return Ok(PutOutcome { user, created: false });
                    }
                    Err(WritePlanError::RecordCondition(ExistingItem::Present(old))) if item::is_live(&old, now) => {
                        return Err(WriteError::PreconditionFailed);
                    }
                    Err(WritePlanError::RecordCondition(_)) if must_exist => {
                        return Err(WriteError::PreconditionFailed);
                    }
                    Err(WritePlanError::RecordCondition(_)) => {}
                    Err(WritePlanError::Conflict(_)) => continue,
                    Err(WritePlanError::Fault(fault)) => return Err(fault.into()),
                }
            }
            // The record does not exist or has expired. An expired item is replaced completely, so that none of its
            // attributes remain.
            match self.execute(WritePlan::new(self.creation(&user, now)?)).await {
                Ok(_) => return Ok(PutOutcome { user, created: true }),
                Err(WritePlanError::RecordCondition(_)) if must_be_absent => {
                    return Err(WriteError::PreconditionFailed);
                }
                Err(WritePlanError::RecordCondition(_) | WritePlanError::Conflict(_)) => {}
                Err(WritePlanError::Fault(fault)) => return Err(fault.into()),
            }
        }
        Err(WriteError::Contended)
    }

    async fn replace_after_read(
        &self,
        new: &User,
        precondition: &Precondition,
        now: OffsetDateTime,
    ) -> Result<PutOutcome, WriteError> {
        let mut existing = ExistingItem::NotReturned;
        for _ in 0..MAX_CONFLICT_RETRIES {
            let live = self.read_unless_returned(&new.key, existing).await?.filter(|item| item::is_live(item, now));
            let version = live.as_ref().map(item::version).transpose().map_err(TableError::from)?;
            if !precondition.is_satisfied_by(version) {
                return Err(WriteError::PreconditionFailed);
            }
            let mut user = new.clone();
            let write = match (&live, version) {
                (Some(live), Some(version)) => {
                    user.version = next_version(version, now);
                    user.created_at = item::created_at(live).map_err(TableError::from)?.or(user.created_at);
                    self.replacement(&user, &Precondition::exactly(version), now)?
                }
                _ => self.creation(&user, now)?,
            };
            let before = live.as_ref().and_then(|live| RecordEmail::from_item(live, now));
            let after = RecordEmail::from_profile(&user.profile);
            let plan = WritePlan::new(write).with(self.reservations(&user.key, before, after, now).await?);
            match self.execute(plan).await {
                Ok(_) => return Ok(PutOutcome { user, created: live.is_none() }),
                Err(error) => existing = error.retryable()?,
            }
        }
        Err(WriteError::Contended)
    }

    /// Applies a merge patch to a live record in one call. A patch of members of `attributes` reads the record first,
    /// and so does a patch that affects the email's reservation.
    ///
    /// # Errors
    /// [`WriteError::NotFound`], [`WriteError::PreconditionFailed`], [`WriteError::EmailTaken`],
    /// [`WriteError::Contended`], or the call failed.
    pub async fn patch(
        &self,
        key: &UserKey,
        edits: &UserPatch,
        precondition: &Precondition,
        now: OffsetDateTime,
    ) -> Result<User, WriteError> {
        let is_reserved =
            self.emails.is_some() && (edits.email != FieldPatch::Keep || edits.expires_at != FieldPatch::Keep);
        if !is_reserved && !matches!(edits.attributes, FieldPatch::Set(_)) {
            let plan = WritePlan::new(self.edit(key, edits, None, precondition, now)?);
            return match self.execute(plan).await {
                Ok(item) => decode(item, now),
                Err(error) => Err(refused(error, now)),
            };
        }
        let mut existing = ExistingItem::NotReturned;
        for _ in 0..MAX_CONFLICT_RETRIES {
            let current = self.read_unless_returned(key, existing).await?;
            let mut live = current.filter(|item| item::is_live(item, now)).ok_or(WriteError::NotFound)?;
            let version = item::version(&live).map_err(TableError::from)?;
            if !precondition.is_satisfied_by(Some(version)) {
                return Err(WriteError::PreconditionFailed);
            }
            let merged = match &edits.attributes {
                FieldPatch::Set(patch) => Some(item::attributes::merge(live.remove(item::ATTRIBUTES), patch)),
                _ => None,
            };
            merged.as_ref().map_or(Ok(()), check_size)?;
            // A transaction does not return the item, so the result is computed before the write.
            let (patched, reservations) = if is_reserved {
                let before = RecordEmail::from_item(&live, now);
                let mut user = decode(Some(patched(live, edits, merged.clone())), now)?;
                (user.version, user.updated_at) = (next_version(version, now), Some(now));
                let after = RecordEmail::from_profile(&user.profile);
                (Some(user), self.reservations(key, before, after, now).await?)
            } else {
                (None, Vec::new())
            };
            let edit = self.edit(key, edits, merged, &Precondition::exactly(version), now)?;
            match self.execute(WritePlan::new(edit).with(reservations)).await {
                Ok(item) => return patched.map_or_else(|| decode(item, now), Ok),
                Err(error) => existing = error.retryable()?,
            }
        }
        Err(WriteError::Contended)
    }

    /// Deletes a live record. Returns the version that it had, or 0 if it had none.
    ///
    /// # Errors
    /// [`WriteError::NotFound`], [`WriteError::PreconditionFailed`], [`WriteError::Contended`], or the call failed.
    pub async fn delete(
        &self,
        key: &UserKey,
        precondition: &Precondition,
        now: OffsetDateTime,
    ) -> Result<u64, WriteError> {
        if self.emails.is_none() {
            return match self.execute(WritePlan::new(self.deletion(key, precondition, now)?)).await {
                // A malformed version counts as 0: it is not that of a record of this service, and no cache contains
                // such an item.
                Ok(old) => Ok(old.as_ref().map_or(0, |old| item::version(old).unwrap_or(0))),
                Err(error) => Err(refused(error, now)),
            };
        }
        let mut existing = ExistingItem::NotReturned;
        for _ in 0..MAX_CONFLICT_RETRIES {
            let current = self.read_unless_returned(key, existing).await?;
            let live = current.filter(|item| item::is_live(item, now)).ok_or(WriteError::NotFound)?;
            let version = item::version(&live).map_err(TableError::from)?;
            if !precondition.is_satisfied_by(Some(version)) {
                return Err(WriteError::PreconditionFailed);
            }
            let deletion = self.deletion(key, &Precondition::exactly(version), now)?;
            let reservations = self.reservations(key, RecordEmail::from_item(&live, now), None, now).await?;
            match self.execute(WritePlan::new(deletion).with(reservations)).await {
                Ok(_) => return Ok(version),
                Err(error) => existing = error.retryable()?,
            }
        }
        Err(WriteError::Contended)
    }

    async fn execute(&self, plan: WritePlan) -> Result<Option<AttributeMap>, WritePlanError> {
        let returned = plan.execute(&self.records, &self.client, &self.meter).await?;
        Ok(returned.map(|AttributesOutput(item)| item))
    }

    /// Returns the item that a failed write returned, or reads it.
    async fn read_unless_returned(
        &self,
        key: &UserKey,
        existing: ExistingItem,
    ) -> Result<Option<AttributeMap>, TableError> {
        match existing {
            ExistingItem::Present(item) => Ok(Some(item)),
            ExistingItem::Absent => Ok(None),
            ExistingItem::NotReturned => self.item(key).await,
        }
    }

    /// Returns the writes to the reservations of a record's email before and after a write; none if emails need not be
    /// unique or the record has no email.
    async fn reservations(
        &self,
        key: &UserKey,
        before: Option<RecordEmail>,
        after: Option<RecordEmail>,
        now: OffsetDateTime,
    ) -> Result<Vec<TransactWriteItem>, WriteError> {
        let Some(table) = self.emails.as_ref().filter(|_| before.is_some() || after.is_some()) else {
            return Ok(Vec::new());
        };
        EmailReservations { client: &self.client, meter: &self.meter, table }
            .reservation_writes(key, before, after, now)
            .await
    }

    /// Returns the writes to the reservation of a new record's email. An expired record that it replaces no longer
    /// reserves an email, so there is nothing to release.
    async fn reservations_of_new(
        &self,
        user: &User,
        now: OffsetDateTime,
    ) -> Result<Vec<TransactWriteItem>, WriteError> {
        self.reservations(&user.key, None, RecordEmail::from_profile(&user.profile), now).await
    }

    /// Returns the write of a new record, which replaces an expired one.
    fn creation(&self, user: &User, now: OffsetDateTime) -> Result<RecordWrite, TableError> {
        let mut expression = ExpressionBuilder::default();
        let condition = expression.absent(now);
        let (names, values) = expression.into_parts();
        let put = Put::builder()
            .table_name(&*self.name)
            .set_item(Some(encode(user)?))
            .condition_expression(condition)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values);
        Ok(RecordWrite::Put(put.build().map_err(unbuilt)?))
    }

    /// Returns the write over a live record, which also creates one unless the precondition requires that it exists.
    /// Attributes of other programs are preserved. It returns the previous item.
    fn replacement(
        &self,
        user: &User,
        precondition: &Precondition,
        now: OffsetDateTime,
    ) -> Result<RecordWrite, TableError> {
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
        assignments.set_updated_at(&mut expression, now);
        self.update(&user.key, assignments, condition, expression, ReturnValue::AllOld)
    }

    /// Returns the update of a live record by a patch, whose members of `attributes` are `merged` already. It returns
    /// the new item.
    fn edit(
        &self,
        key: &UserKey,
        edits: &UserPatch,
        merged: Option<AttributeValue>,
        precondition: &Precondition,
        now: OffsetDateTime,
    ) -> Result<RecordWrite, TableError> {
        let mut expression = ExpressionBuilder::default();
        let condition = expression.present(precondition, now);
        let mut assignments = UpdateExpression::default();
        if let Some(name) = &edits.name {
            assignments.set(&mut expression, item::NAME, item::text(name.as_str()));
        }
        assignments.edit(&mut expression, item::EMAIL, &edits.email, |email| item::text(email.as_str()));
        assignments.edit(&mut expression, item::STATUS, &edits.status, |status| item::text(status.as_str()));
        assignments.edit(&mut expression, item::EXPIRES_AT, &edits.expires_at, |at| item::integer(at.seconds()));
        match (merged, &edits.attributes) {
            (Some(merged), _) => assignments.set(&mut expression, item::ATTRIBUTES, merged),
            (None, FieldPatch::Remove) => assignments.remove(&mut expression, item::ATTRIBUTES),
            (None, _) => {}
        }
        assignments.set_updated_at(&mut expression, now);
        self.update(key, assignments, condition, expression, ReturnValue::AllNew)
    }

    fn update(
        &self,
        key: &UserKey,
        assignments: UpdateExpression,
        condition: String,
        expression: ExpressionBuilder,
        returned: ReturnValue,
    ) -> Result<RecordWrite, TableError> {
        let (names, values) = expression.into_parts();
        let update = Update::builder()
            .table_name(&*self.name)
            .set_key(Some(item::key(key)))
            .update_expression(assignments.into_text())
            .condition_expression(condition)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values);
        Ok(RecordWrite::Update(update.build().map_err(unbuilt)?, returned))
    }

    /// Returns the deletion of a live record. It returns the deleted item.
    fn deletion(
        &self,
        key: &UserKey,
        precondition: &Precondition,
        now: OffsetDateTime,
    ) -> Result<RecordWrite, TableError> {
        let mut expression = ExpressionBuilder::default();
        let condition = expression.present(precondition, now);
        let (names, values) = expression.into_parts();
        let delete = Delete::builder()
            .table_name(&*self.name)
            .set_key(Some(item::key(key)))
            .condition_expression(condition)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values);
        Ok(RecordWrite::Delete(delete.build().map_err(unbuilt)?))
    }
}

/// Returns the error of a write to a live record that is decided by its condition.
fn refused(error: WritePlanError, now: OffsetDateTime) -> WriteError {
    match error {
        WritePlanError::RecordCondition(ExistingItem::Present(old)) if item::is_live(&old, now) => {
            WriteError::PreconditionFailed
        }
        WritePlanError::RecordCondition(_) => WriteError::NotFound,
        WritePlanError::Conflict(fault) | WritePlanError::Fault(fault) => fault.into(),
    }
}

fn decode(item: Option<AttributeMap>, now: OffsetDateTime) -> Result<User, WriteError> {
    Ok(item::decode(item.unwrap_or_default(), now).map_err(TableError::from)?)
}

/// Returns the version of a write over a record with this version, which is 0 if the record has none.
fn next_version(version: u64, now: OffsetDateTime) -> u64 {
    if version == 0 { first_version(now) } else { version.saturating_add(1) }
}

/// Returns the item with the patch applied, whose members of `attributes` are `merged` already.
fn patched(mut item: AttributeMap, edits: &UserPatch, merged: Option<AttributeValue>) -> AttributeMap {
    let mut put = |attribute: &str, value| drop(item.insert(attribute.to_owned(), value));
    if let Some(name) = &edits.name {
        put(item::NAME, item::text(name.as_str()));
    }
    if let FieldPatch::Set(email) = &edits.email {
        put(item::EMAIL, item::text(email.as_str()));
    }
    if let FieldPatch::Set(status) = &edits.status {
        put(item::STATUS, item::text(status.as_str()));
    }
    if let FieldPatch::Set(ends) = &edits.expires_at {
        put(item::EXPIRES_AT, item::integer(ends.seconds()));
    }
    if let Some(merged) = merged {
        put(item::ATTRIBUTES, merged);
    }
    let removed = [
        (item::EMAIL, edits.email == FieldPatch::Remove),
        (item::STATUS, edits.status == FieldPatch::Remove),
        (item::EXPIRES_AT, edits.expires_at == FieldPatch::Remove),
        (item::ATTRIBUTES, edits.attributes == FieldPatch::Remove),
    ];
    for (attribute, _) in removed.into_iter().filter(|(_, removed)| *removed) {
        item.remove(attribute);
    }
    item
}
