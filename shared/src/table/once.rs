//! A create that happens at most once, however often it is asked for: by an idempotency key.
//!
//! What was asked with a key stands in a table of its own. An attempt first claims the key; then one transaction writes
//! the record and, in the same breath, that the key has been answered. Whatever is cut short leaves either nothing but a
//! claim, which ends by itself, or the whole: there is no moment at which a record is there and its key does not say so.
//! An attempt that lost its claim cannot write any more, since the transaction asks for the claim.
//!
//! What is kept is what it takes to give the same answer again, without a word of the user: which request it was (a
//! digest), which key and moment the record got, and what came of it.

use std::collections::HashMap;

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, CancellationReason, ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure, TransactWriteItem,
    Update,
};
use time::OffsetDateTime;

use super::emails::HeldEmail;
use super::fault::{Fault, Refusal, refusal};
use super::{ATTEMPTS, UserTable, WriteError};
use crate::item::{self, Item};
use crate::user::id::UserId;
use crate::user::timestamp::Timestamp;
use crate::user::{User, UserKey};

/// How long an answer is given again.
pub const KEPT_SECONDS: i64 = 24 * 60 * 60;
/// How long an attempt that was cut short holds its key: longer than any request takes.
pub const CLAIM_SECONDS: i64 = 30;

const ID: &str = "id";
const FINGERPRINT: &str = "fingerprint";
const OWNER: &str = "owner";
const LOCKED_UNTIL: &str = "locked_until";
const EXPIRES_AT: &str = "expires_at";
const OUTCOME: &str = "outcome";
const USER_ID: &str = "user_id";
const TIMESTAMP: &str = "timestamp";
const MOMENT: &str = "moment";

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The key, within the caller's own: a digest.
    pub id: String,
    /// The request: a digest.
    pub fingerprint: String,
    /// Tells this attempt from every other.
    pub owner: String,
}

/// What came of it, now or before.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Once {
    /// This record was created at this moment.
    Created(UserKey, OffsetDateTime),
    /// Another record was there already.
    Exists,
    /// Another attempt is under way, for this many seconds at most.
    InProgress(i64),
    /// The key came before with another request.
    OtherRequest,
}

/// Which of a transaction's writes refused.
pub(super) enum Cancelled {
    /// The first one: the record's.
    First,
    /// Another one, or another transaction was at the same items.
    Other,
    Fault(Fault),
}

impl UserTable {
    /// Writes a new record if this attempt is the first of its key, and otherwise tells what came of the first.
    ///
    /// # Errors
    /// A table failed. Nothing was written then, or the next attempt finds out that it was.
    pub async fn create_once(
        &self,
        attempts: &str,
        attempt: &Attempt,
        user: &User,
        now: OffsetDateTime,
    ) -> Result<Once, WriteError> {
        let put = self.put_new(user, now)?;
        if let Some(earlier) = self.claim(attempts, attempt, user, now).await? {
            return Ok(earlier);
        }
        let mut failed = WriteError::Contended;
        for _ in 0..ATTEMPTS {
            let reservations = match self.reservations_of_new(user, now).await {
                Ok(reservations) => reservations,
                Err(error) => {
                    failed = error;
                    break;
                }
            };
            match self.create_and_answer(attempts, attempt, put.clone(), reservations).await {
                Ok(()) => return Ok(Once::Created(user.key.clone(), now)),
                Err(Cancelled::First) => {
                    self.answer_exists(attempts, attempt).await?;
                    return Ok(Once::Exists);
                }
                // The claim is lost, or the email's reservation has changed meanwhile.
                Err(Cancelled::Other) => match self.found(attempts, attempt, now).await? {
                    None => {}
                    Some(found) => return Ok(found),
                },
                Err(Cancelled::Fault(fault)) => {
                    failed = fault.into();
                    break;
                }
            }
        }
        // It may have landed all the same. To give the claim back is to make sure that it has not, or to learn that it has.
        match self.give_back(attempts, attempt, now).await {
            Ok(Some(created)) => Ok(created),
            Ok(None) | Err(_) => Err(failed),
        }
    }

    async fn reservations_of_new(
        &self,
        user: &User,
        now: OffsetDateTime,
    ) -> Result<Vec<TransactWriteItem>, WriteError> {
        match (&self.emails, HeldEmail::of_profile(&user.profile)) {
            (Some(emails), held @ Some(_)) => self.reservations(emails).moved(&user.key, None, held, now).await,
            _ => Ok(Vec::new()),
        }
    }

    /// Claims the key; answers what an earlier attempt came to, if there was one.
    async fn claim(
        &self,
        attempts: &str,
        attempt: &Attempt,
        user: &User,
        now: OffsetDateTime,
    ) -> Result<Option<Once>, Fault> {
        let seconds = now.unix_timestamp();
        let item = HashMap::from([
            (ID.to_owned(), item::text(&attempt.id)),
            (FINGERPRINT.to_owned(), item::text(&attempt.fingerprint)),
            (OWNER.to_owned(), item::text(&attempt.owner)),
            (LOCKED_UNTIL.to_owned(), item::whole(seconds + CLAIM_SECONDS)),
            (EXPIRES_AT.to_owned(), item::whole(seconds + KEPT_SECONDS)),
            (USER_ID.to_owned(), item::text(user.key.id.as_str())),
            (TIMESTAMP.to_owned(), item::whole(user.key.timestamp.seconds())),
            (MOMENT.to_owned(), item::whole(now.unix_timestamp_nanos())),
        ]);
        let claimed = self
            .client
            .put_item()
            .table_name(attempts)
            .set_item(Some(item))
            .condition_expression(
                "attribute_not_exists(id) OR expires_at <= :now OR \
                 (fingerprint = :fingerprint AND attribute_not_exists(outcome) AND locked_until <= :now)",
            )
            .expression_attribute_values(":now", item::whole(seconds))
            .expression_attribute_values(":fingerprint", item::text(&attempt.fingerprint))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await;
        let error = match claimed {
            Ok(output) => {
                self.meter.add(output.consumed_capacity());
                return Ok(None);
            }
            Err(error) => error,
        };
        let refused = refusal(error, |error| match error {
            PutItemError::ConditionalCheckFailedException(failed) => Some(failed),
            _ => None,
        });
        match refused {
            Refusal::Condition(Some(earlier)) => read(&earlier, attempt, seconds),
            // It was deleted between the check and the answer: the next attempt finds the key free.
            Refusal::Condition(None) => Ok(Some(Once::InProgress(1))),
            Refusal::Fault(fault) => Err(fault),
        }
    }

    /// The one transaction.
    async fn create_and_answer(
        &self,
        attempts: &str,
        attempt: &Attempt,
        put: TransactWriteItem,
        reservations: Vec<TransactWriteItem>,
    ) -> Result<(), Cancelled> {
        let answered = Update::builder()
            .table_name(attempts)
            .key(ID, item::text(&attempt.id))
            .update_expression("SET outcome = :created REMOVE locked_until")
            .condition_expression("#owner = :owner AND attribute_not_exists(outcome)")
            .expression_attribute_names("#owner", OWNER)
            .expression_attribute_values(":owner", item::text(&attempt.owner))
            .expression_attribute_values(":created", item::text("created"))
            .build()
            .map_err(|error| Cancelled::Fault(Fault::refused(error)))?;
        let mut writes = vec![put, TransactWriteItem::builder().update(answered).build()];
        writes.extend(reservations);
        // The SDK gives each transaction a token of its own: one that landed, unheard, is not carried out twice.
        let written = self
            .client
            .transact_write_items()
            .set_transact_items(Some(writes))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await;
        match written {
            Ok(output) => {
                self.meter.add(output.consumed_capacity());
                Ok(())
            }
            Err(error) => Err(cancelled(error)),
        }
    }

    async fn answer_exists(&self, attempts: &str, attempt: &Attempt) -> Result<(), Fault> {
        let call = self
            .client
            .update_item()
            .table_name(attempts)
            .key(ID, item::text(&attempt.id))
            .update_expression("SET outcome = :exists REMOVE locked_until")
            .condition_expression("#owner = :owner")
            .expression_attribute_names("#owner", OWNER)
            .expression_attribute_values(":owner", item::text(&attempt.owner))
            .expression_attribute_values(":exists", item::text("exists"))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        match call.send().await {
            Ok(output) => {
                self.meter.add(output.consumed_capacity());
                Ok(())
            }
            // Another attempt has the key by now, and will come to the same.
            Err(error)
                if error.as_service_error().is_some_and(UpdateItemError::is_conditional_check_failed_exception) =>
            {
                Ok(())
            }
            Err(error) => Err(Fault::of(error)),
        }
    }

    /// What the key says now; nothing if it is still this attempt's own.
    async fn found(&self, attempts: &str, attempt: &Attempt, now: OffsetDateTime) -> Result<Option<Once>, WriteError> {
        let call = self.client.get_item().table_name(attempts).key(ID, item::text(&attempt.id)).consistent_read(true);
        let output = call.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await.map_err(Fault::of)?;
        self.meter.add(output.consumed_capacity());
        match output.item {
            Some(item) => Ok(read(&item, attempt, now.unix_timestamp())?),
            None => Ok(Some(Once::InProgress(1))),
        }
    }

    /// Gives the claim back, unless it was answered meanwhile.
    async fn give_back(&self, attempts: &str, attempt: &Attempt, now: OffsetDateTime) -> Result<Option<Once>, Fault> {
        let call = self
            .client
            .delete_item()
            .table_name(attempts)
            .key(ID, item::text(&attempt.id))
            .condition_expression("#owner = :owner AND attribute_not_exists(outcome)")
            .expression_attribute_names("#owner", OWNER)
            .expression_attribute_values(":owner", item::text(&attempt.owner))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let error = match call.send().await {
            Ok(output) => {
                self.meter.add(output.consumed_capacity());
                return Ok(None);
            }
            Err(error) => error,
        };
        let refused = refusal(error, |error| match error {
            DeleteItemError::ConditionalCheckFailedException(failed) => Some(failed),
            _ => None,
        });
        match refused {
            Refusal::Condition(Some(there)) if there.get(OWNER) == Some(&item::text(&attempt.owner)) => {
                read(&there, attempt, now.unix_timestamp())
            }
            Refusal::Condition(_) => Ok(None),
            Refusal::Fault(fault) => Err(fault),
        }
    }
}

/// What a key's item says; nothing if it is this attempt's own claim, still open.
fn read(item: &Item, attempt: &Attempt, seconds: i64) -> Result<Option<Once>, Fault> {
    let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).map(String::as_str);
    let number = |name: &str| item.get(name).and_then(|value: &AttributeValue| value.as_n().ok());
    if text(FINGERPRINT) != Some(attempt.fingerprint.as_str()) {
        return Ok(Some(Once::OtherRequest));
    }
    match text(OUTCOME) {
        None if text(OWNER) == Some(attempt.owner.as_str()) => Ok(None),
        None => {
            let until = number(LOCKED_UNTIL).and_then(|until| until.parse().ok()).unwrap_or(seconds);
            Ok(Some(Once::InProgress((until - seconds).clamp(1, CLAIM_SECONDS))))
        }
        Some("exists") => Ok(Some(Once::Exists)),
        Some(_) => {
            let id = text(USER_ID).and_then(|id| UserId::parse(id).ok());
            let timestamp = number(TIMESTAMP).and_then(|seconds| Timestamp::parse(seconds.parse().ok()?).ok());
            let moment = number(MOMENT).and_then(|nanos| nanos.parse().ok());
            let moment = moment.and_then(|nanos| OffsetDateTime::from_unix_timestamp_nanos(nanos).ok());
            match (id, timestamp, moment) {
                (Some(id), Some(timestamp), Some(moment)) => Ok(Some(Once::Created(UserKey { id, timestamp }, moment))),
                _ => Err(Fault::refused("what an idempotency key was answered with cannot be read")),
            }
        }
    }
}

/// Why a transaction did not happen.
pub(super) fn cancelled(
    error: SdkError<TransactWriteItemsError, aws_sdk_dynamodb::config::http::HttpResponse>,
) -> Cancelled {
    let Some(TransactWriteItemsError::TransactionCanceledException(why)) = error.as_service_error() else {
        return Cancelled::Fault(Fault::of(error));
    };
    let reasons = why.cancellation_reasons();
    let has = |reason: &CancellationReason, code: &str| reason.code() == Some(code);
    let refuses = |reason: &CancellationReason| has(reason, "ConditionalCheckFailed");
    // The others first: a transaction that landed before finds its own record, and its own word that it has.
    if reasons.iter().skip(1).any(refuses) || reasons.iter().any(|reason| has(reason, "TransactionConflict")) {
        return Cancelled::Other;
    }
    if reasons.first().is_some_and(refuses) {
        return Cancelled::First;
    }
    let reason = reasons.iter().find(|reason| reason.code().is_some_and(|code| code != "None"));
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let (code, message) = reason.map(|reason| (text(reason.code()), text(reason.message()))).unwrap_or_default();
    Cancelled::Fault(Fault::of_reason(&code, &message, error))
}
