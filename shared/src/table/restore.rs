//! Restores of archived items: the only writes to the table that come neither from the API nor from a replica.
//!
//! If emails are unique, an item with an email is written in one transaction with the email's reservation, as the API
//! does. If another user has taken the email in the meantime, the write fails with [`RestorePutError::EmailTaken`].

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, Put};
use millrace_dynamodb_client::TableClient;
use time::OffsetDateTime;

use super::emails::RecordEmail;
use super::error::TableError;
use super::reservations::{EmailReservations, ReservationTable, unbuilt};
use super::wire::AttributesOutput;
use super::write_plan::{ExistingItem, RecordWrite, WritePlan, WritePlanError};
use super::{CapacityMeter, MAX_CONFLICT_RETRIES, NonceSource, WriteError, record_client};
use crate::item::restored::{RestoreRules, SourceSchema};
use crate::item::{self, AttributeMap};
use crate::raw_item::{MAX_ITEM_BYTES, RawItem};
use crate::user::id::UserId;
use crate::user::{Timestamp, UserKey};

/// An item that was not restored.
#[derive(Debug)]
pub enum RestorePutError {
    /// The condition failed because of this existing item; `None` if it was deleted before it could be read.
    Conflict(Option<RawItem>),
    /// Another user has the item's email.
    EmailTaken,
    /// The item has an email, but its key is not a valid user key, so the email cannot be reserved.
    InvalidUserKey,
    /// Other writes changed the email's reservation during every attempt.
    TooManyConflicts,
    /// The existing item has more attributes than a condition can compare.
    TooManyAttributes(usize),
    /// The call to the table failed.
    Fault(TableError),
}

impl From<TableError> for RestorePutError {
    fn from(fault: TableError) -> Self {
        Self::Fault(fault)
    }
}

/// The table to which items are restored.
#[derive(Debug, Clone)]
pub struct RestoreTable {
    client: Client,
    /// The client of the calls that concern one record.
    records: TableClient,
    name: String,
    rules: RestoreRules,
    emails: Option<ReservationTable>,
    meter: CapacityMeter,
}

impl RestoreTable {
    /// Creates the users table with this name and client.
    #[must_use]
    pub fn new(client: Client, name: String) -> Self {
        Self {
            records: record_client(&client, &name),
            client,
            name,
            rules: RestoreRules::users(),
            emails: None,
            meter: CapacityMeter::default(),
        }
    }

    /// Returns the table with unique emails: `emails` names the reservation table, and `nonces` supplies its nonces.
    #[must_use]
    pub fn with_unique_emails(self, emails: Option<&str>, nonces: NonceSource) -> Self {
        Self { emails: emails.map(|name| ReservationTable::new(name, nonces)), ..self }
    }

    /// Returns the table with these rules, which are those of its own attributes.
    #[must_use]
    pub fn with_rules(&self, rules: RestoreRules) -> Self {
        Self { rules, ..self.clone() }
    }

    /// Returns the rules of the table.
    #[must_use]
    pub fn rules(&self) -> &RestoreRules {
        &self.rules
    }

    /// Writes an item if no item exists under its key, not even an expired one. With `over`, replaces the existing item
    /// if it is still the item `over`: a user if it has the same version, any other item if all attributes of `over` are
    /// unchanged. A condition cannot detect an attribute that was added to such an item since.
    ///
    /// # Errors
    /// [`RestorePutError`]; a conflict contains the existing item.
    pub async fn put(
        &self,
        item: AttributeMap,
        over: Option<&RawItem>,
        now: OffsetDateTime,
    ) -> Result<(), RestorePutError> {
        if let Some(emails) = &self.emails {
            let before = over.and_then(|over| RecordEmail::from_item(&over.clone().into_attributes(), now));
            let after = RecordEmail::from_item(&item, now);
            if before.is_some() || after.is_some() {
                return self.put_reserved(emails, &item, over, (before, after), now).await;
            }
        }
        match self.plan(item, over)?.execute::<AttributesOutput>(&self.records, &self.client, &self.meter).await {
            Ok(_) => Ok(()),
            Err(WritePlanError::RecordCondition(ExistingItem::Present(existing))) => {
                Err(RestorePutError::Conflict(Some(RawItem::new(existing))))
            }
            Err(WritePlanError::RecordCondition(_)) => Err(RestorePutError::Conflict(None)),
            Err(WritePlanError::Conflict(fault) | WritePlanError::Fault(fault)) => Err(fault.into()),
        }
    }

    /// Returns whether another user has the item's email at `now`.
    ///
    /// # Errors
    /// The call to the reservation table failed.
    pub async fn is_taken(&self, item: &AttributeMap, now: OffsetDateTime) -> Result<bool, TableError> {
        match (&self.emails, RecordEmail::from_item(item, now), user_key(item)) {
            (Some(emails), Some(held), Some(key)) => self.reservations(emails).is_taken(&key, &held.email, now).await,
            _ => Ok(false),
        }
    }

    /// Returns the result that [`RestoreTable::put`] would have if the item `there` existed under the key. Writes
    /// nothing.
    ///
    /// # Errors
    /// The errors of [`RestoreTable::put`].
    pub async fn predict(
        &self,
        item: &AttributeMap,
        over: Option<&RawItem>,
        there: Option<&RawItem>,
        now: OffsetDateTime,
    ) -> Result<(), RestorePutError> {
        let held = over.and_then(|over| self.reserved_email(&over.clone().into_attributes(), now));
        if held.or_else(|| self.reserved_email(item, now)).is_some() {
            user_key(item).ok_or(RestorePutError::InvalidUserKey)?;
            if self.is_taken(item, now).await? {
                return Err(RestorePutError::EmailTaken);
            }
        }
        // DynamoDB rejects an item that is too large before it evaluates the condition.
        let size = RawItem::new(item.clone()).size_bytes();
        if size > MAX_ITEM_BYTES {
            return Err(TableError::TooLarge(format!("the item has {size} bytes").into()).into());
        }
        condition(&self.rules, over)?;
        let may_go = match (over, there) {
            (None, None) => true,
            (Some(over), Some(there)) => match self.rules.schema {
                SourceSchema::Users => over.get(item::VERSION) == there.get(item::VERSION),
                SourceSchema::Any => over.diff_attribute_names(there).is_empty(),
            },
            _ => false,
        };
        if may_go { Ok(()) } else { Err(RestorePutError::Conflict(there.cloned())) }
    }

    /// Returns the email that the item would reserve, or `None` if it has none or emails need not be unique.
    #[must_use]
    pub fn reserved_email(&self, item: &AttributeMap, now: OffsetDateTime) -> Option<String> {
        self.emails.as_ref().and_then(|_| RecordEmail::from_item(item, now)).map(|held| held.email)
    }

    fn reservations<'t>(&'t self, emails: &'t ReservationTable) -> EmailReservations<'t> {
        EmailReservations { client: &self.client, meter: &self.meter, table: emails }
    }

    /// Returns the write of an item, without that of its email's reservation.
    fn plan(&self, item: AttributeMap, over: Option<&RawItem>) -> Result<WritePlan, RestorePutError> {
        let (condition, names, values) = condition(&self.rules, over)?;
        let put = Put::builder()
            .table_name(&self.name)
            .set_item(Some(item))
            .condition_expression(condition)
            .set_expression_attribute_names(Some(names))
            .set_expression_attribute_values(values);
        Ok(WritePlan::new(RecordWrite::Put(put.build().map_err(unbuilt).map_err(RestorePutError::Fault)?)))
    }

    async fn put_reserved(
        &self,
        emails: &ReservationTable,
        item: &AttributeMap,
        over: Option<&RawItem>,
        (before, after): (Option<RecordEmail>, Option<RecordEmail>),
        now: OffsetDateTime,
    ) -> Result<(), RestorePutError> {
        let key = user_key(item).ok_or(RestorePutError::InvalidUserKey)?;
        let reservations = self.reservations(emails);
        for _ in 0..MAX_CONFLICT_RETRIES {
            let plan = self.plan(item.clone(), over)?;
            let plan = match reservations.reservation_writes(&key, before.clone(), after.clone(), now).await {
                Ok(reserved) => plan.with(reserved),
                Err(WriteError::Fault(fault)) => return Err(fault.into()),
                Err(_) => return Err(RestorePutError::EmailTaken),
            };
            match plan.execute::<AttributesOutput>(&self.records, &self.client, &self.meter).await {
                Ok(_) => return Ok(()),
                Err(WritePlanError::RecordCondition(existing)) => {
                    let existing = match existing {
                        ExistingItem::Present(item) => Some(RawItem::new(item)),
                        ExistingItem::Absent => None,
                        ExistingItem::NotReturned => self.current_item(&key).await?,
                    };
                    return Err(RestorePutError::Conflict(existing));
                }
                Err(WritePlanError::Conflict(_)) => {}
                Err(WritePlanError::Fault(fault)) => return Err(fault.into()),
            }
        }
        Err(RestorePutError::TooManyConflicts)
    }

    async fn current_item(&self, key: &UserKey) -> Result<Option<RawItem>, TableError> {
        let call = self.client.get_item().table_name(&self.name).set_key(Some(item::key(key))).consistent_read(true);
        Ok(call.send().await.map_err(TableError::from_sdk)?.item.map(RawItem::new))
    }
}

/// The largest number of attributes that a condition compares: DynamoDB allows 300 operators in an expression, of which
/// each attribute needs two.
const MAX_COMPARED_ATTRIBUTES: usize = 150;

type PutCondition = (String, HashMap<String, String>, Option<HashMap<String, AttributeValue>>);

fn condition(rules: &RestoreRules, over: Option<&RawItem>) -> Result<PutCondition, RestorePutError> {
    let key = ("#key".to_owned(), rules.partition_key.clone());
    let version = ("#version".to_owned(), item::VERSION.to_owned());
    Ok(match (over, rules.schema) {
        (None, _) => ("attribute_not_exists(#key)".to_owned(), HashMap::from([key]), None),
        (Some(there), SourceSchema::Users) => match there.get(item::VERSION) {
            None => {
                let condition = "attribute_exists(#key) AND attribute_not_exists(#version)".to_owned();
                (condition, HashMap::from([key, version]), None)
            }
            Some(number) => {
                let values = HashMap::from([(":version".to_owned(), number.clone())]);
                ("#version = :version".to_owned(), HashMap::from([version]), Some(values))
            }
        },
        (Some(there), SourceSchema::Any) => {
            let attributes = there.clone().into_attributes();
            if attributes.len() > MAX_COMPARED_ATTRIBUTES {
                return Err(RestorePutError::TooManyAttributes(attributes.len()));
            }
            let (mut compared, mut names, mut values) = (Vec::new(), HashMap::new(), HashMap::new());
            for (index, (name, value)) in attributes.into_iter().enumerate() {
                compared.push(format!("#a{index} = :a{index}"));
                names.insert(format!("#a{index}"), name);
                values.insert(format!(":a{index}"), value);
            }
            (compared.join(" AND "), names, Some(values))
        }
    })
}

fn number(item: &AttributeMap, name: &str) -> Option<i64> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

fn user_key(item: &AttributeMap) -> Option<UserKey> {
    let id = UserId::parse(item.get(item::USER_ID)?.as_s().ok()?.clone()).ok()?;
    Some(UserKey { id, timestamp: Timestamp::parse(number(item, item::TIMESTAMP)?).ok()? })
}
