//! Writes with unique emails: the record and its email's reservation ([`super::emails`]) in one transaction.
//!
//! A write that adds, changes or removes an email first reads the current state and then writes on the condition that
//! nothing has changed since; if something has, it starts over. This costs one or two additional reads, twice the write
//! capacity, and writes to two small items for each email, however many records have it.

use aws_sdk_dynamodb::types::{Delete, Put, TransactWriteItem, Update};
use time::OffsetDateTime;

use super::emails::HeldEmail;
use super::expression::{ExpressionBuilder, UpdateExpression};
use super::idempotency::TransactionCancelled;
use super::reservations::{EmailReservations, ReservationTable, unbuilt};
use super::{MAX_CONFLICT_RETRIES, PutOutcome, TableError, UserTable, WriteError, check_size, encode};
use crate::item::{self, AttributeMap};
use crate::user::precondition::Precondition;
use crate::user::{FieldPatch, User, UserKey, UserPatch, UserProfile, first_version};

impl UserTable {
    pub(super) fn reservations<'t>(&'t self, emails: &'t ReservationTable) -> EmailReservations<'t> {
        EmailReservations { client: &self.client, meter: &self.meter, table: emails }
    }

    pub(super) async fn create_unique(
        &self,
        emails: &ReservationTable,
        user: &User,
        now: OffsetDateTime,
    ) -> Result<(), WriteError> {
        for _ in 0..MAX_CONFLICT_RETRIES {
            let mut writes = vec![self.put_new(user, now)?];
            // An expired record that is replaced no longer reserves an email, so there is nothing to release.
            let held = HeldEmail::of_profile(&user.profile);
            writes.extend(self.reservations(emails).moved(&user.key, None, held, now).await?);
            match self.reservations(emails).transact(writes).await {
                Ok(()) => return Ok(()),
                Err(TransactionCancelled::RecordConditionFailed) => return Err(WriteError::Exists),
                Err(TransactionCancelled::Conflict) => {}
                Err(TransactionCancelled::Fault(fault)) => return Err(fault.into()),
            }
        }
        Err(WriteError::Contended)
    }

    pub(super) async fn replace_unique(
        &self,
        emails: &ReservationTable,
        key: &UserKey,
        profile: &UserProfile,
        precondition: &Precondition,
        now: OffsetDateTime,
    ) -> Result<PutOutcome, WriteError> {
        for _ in 0..MAX_CONFLICT_RETRIES {
            let current = self.item(key).await?;
            let live = current.as_ref().filter(|item| item::is_live(item, now));
            let version = live.map(item::version).transpose().map_err(TableError::from)?;
            if !precondition.is_satisfied_by(version) {
                return Err(WriteError::PreconditionFailed);
            }
            let mut user = User::created(key.clone(), profile.clone(), now);
            let write = match live {
                Some(live) => {
                    user.version = next(version, now);
                    user.created_at = item::created_at(live).map_err(TableError::from)?.or(user.created_at);
                    let fields = encode(&user)?;
                    self.update_unchanged(key, live, fields, now)?
                }
                None => self.put_new(&user, now)?,
            };
            let before = live.and_then(|live| HeldEmail::of_item(live, now));
            if self.write_both(emails, key, write, (before, HeldEmail::of_profile(profile)), now).await? {
                return Ok(PutOutcome { user, created: live.is_none() });
            }
        }
        Err(WriteError::Contended)
    }

    /// Applies a patch that changes the email or the expiry of the record; other patches do not affect reservations.
    pub(super) async fn patch_unique(
        &self,
        emails: &ReservationTable,
        key: &UserKey,
        edits: &UserPatch,
        precondition: &Precondition,
        now: OffsetDateTime,
    ) -> Result<User, WriteError> {
        for _ in 0..MAX_CONFLICT_RETRIES {
            let current = self.item(key).await?;
            let live = current.filter(|item| item::is_live(item, now)).ok_or(WriteError::NotFound)?;
            let version = item::version(&live).map_err(TableError::from)?;
            if !precondition.is_satisfied_by(Some(version)) {
                return Err(WriteError::PreconditionFailed);
            }
            let fields = patched(live.clone(), edits);
            if let (FieldPatch::Set(_), Some(attributes)) = (&edits.attributes, fields.get(item::ATTRIBUTES)) {
                check_size(attributes)?;
            }
            let mut user = item::decode(fields.clone(), now).map_err(TableError::from)?;
            (user.version, user.updated_at) = (next(Some(version), now), Some(now));
            let write = self.update_unchanged(key, &live, fields, now)?;
            let held = (HeldEmail::of_item(&live, now), HeldEmail::of_profile(&user.profile));
            if self.write_both(emails, key, write, held, now).await? {
                return Ok(user);
            }
        }
        Err(WriteError::Contended)
    }

    pub(super) async fn delete_unique(
        &self,
        emails: &ReservationTable,
        key: &UserKey,
        precondition: &Precondition,
        now: OffsetDateTime,
    ) -> Result<u64, WriteError> {
        for _ in 0..MAX_CONFLICT_RETRIES {
            let current = self.item(key).await?;
            let live = current.filter(|item| item::is_live(item, now)).ok_or(WriteError::NotFound)?;
            let version = item::version(&live).map_err(TableError::from)?;
            if !precondition.is_satisfied_by(Some(version)) {
                return Err(WriteError::PreconditionFailed);
            }
            let mut expression = ExpressionBuilder::default();
            let condition = unchanged(&mut expression, &live);
            let (names, values) = expression.into_parts();
            let delete = Delete::builder()
                .table_name(&*self.name)
                .set_key(Some(item::key(key)))
                .condition_expression(condition)
                .set_expression_attribute_names(names)
                .set_expression_attribute_values(values)
                .build()
                .map_err(unbuilt)?;
            let write = TransactWriteItem::builder().delete(delete).build();
            if self.write_both(emails, key, write, (HeldEmail::of_item(&live, now), None), now).await? {
                return Ok(version);
            }
        }
        Err(WriteError::Contended)
    }

    /// Executes the transaction. Returns `false` if the record or a reservation was changed concurrently.
    async fn write_both(
        &self,
        emails: &ReservationTable,
        key: &UserKey,
        write: TransactWriteItem,
        (before, after): (Option<HeldEmail>, Option<HeldEmail>),
        now: OffsetDateTime,
    ) -> Result<bool, WriteError> {
        let mut writes = vec![write];
        writes.extend(self.reservations(emails).moved(key, before, after, now).await?);
        match self.reservations(emails).transact(writes).await {
            Ok(()) => Ok(true),
            Err(TransactionCancelled::RecordConditionFailed | TransactionCancelled::Conflict) => Ok(false),
            Err(TransactionCancelled::Fault(fault)) => Err(fault.into()),
        }
    }

    /// Returns the write of a new record, which replaces an expired one.
    pub(super) fn put_new(&self, user: &User, now: OffsetDateTime) -> Result<TransactWriteItem, TableError> {
        let mut expression = ExpressionBuilder::default();
        let condition = expression.absent(now);
        let (names, values) = expression.into_parts();
        let put = Put::builder()
            .table_name(&*self.name)
            .set_item(Some(encode(user)?))
            .condition_expression(condition)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values)
            .build()
            .map_err(unbuilt)?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    /// Returns the update of the record on the condition that it is unchanged. Attributes of other programs are
    /// preserved.
    fn update_unchanged(
        &self,
        key: &UserKey,
        read: &AttributeMap,
        mut fields: AttributeMap,
        now: OffsetDateTime,
    ) -> Result<TransactWriteItem, TableError> {
        let mut expression = ExpressionBuilder::default();
        let condition = unchanged(&mut expression, read);
        let mut assignments = UpdateExpression::default();
        for attribute in [item::NAME, item::EMAIL, item::STATUS, item::ATTRIBUTES, item::EXPIRES_AT] {
            match fields.remove(attribute) {
                Some(value) => assignments.set(&mut expression, attribute, value),
                None => assignments.remove(&mut expression, attribute),
            }
        }
        assignments.touch(&mut expression, now);
        let (names, values) = expression.into_parts();
        let update = Update::builder()
            .table_name(&*self.name)
            .set_key(Some(item::key(key)))
            .update_expression(assignments.into_text())
            .condition_expression(condition)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values)
            .build()
            .map_err(unbuilt)?;
        Ok(TransactWriteItem::builder().update(update).build())
    }
}

/// Returns the version of a write over a record with this version.
fn next(version: Option<u64>, now: OffsetDateTime) -> u64 {
    version.filter(|version| *version > 0).map_or_else(|| first_version(now), |version| version.saturating_add(1))
}

/// Returns the condition that the item is the one that was read.
fn unchanged(expression: &mut ExpressionBuilder, read: &AttributeMap) -> String {
    let version = expression.name(item::VERSION);
    match read.get(item::VERSION) {
        Some(value) => format!("{version} = {}", expression.value("read", value.clone())),
        None => {
            format!("attribute_exists({}) AND attribute_not_exists({version})", expression.name(item::USER_ID))
        }
    }
}

/// Returns the item with the patch applied.
fn patched(mut item: AttributeMap, edits: &UserPatch) -> AttributeMap {
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
        put(item::EXPIRES_AT, item::whole(ends.seconds()));
    }
    if let FieldPatch::Set(patch) = &edits.attributes {
        let merged = item::attributes::merge(item.remove(item::ATTRIBUTES), patch);
        item.insert(item::ATTRIBUTES.to_owned(), merged);
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
