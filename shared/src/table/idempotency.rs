//! Idempotent creates: a request with an idempotency key creates its record at most once, however often it is sent.
//!
//! The state of each key is stored in a table of its own. An attempt first claims the key. One transaction then creates
//! the record and marks the key as completed. An interrupted attempt therefore leaves either a claim, which expires
//! automatically, or both writes: a record never exists without its key being completed. An attempt that has lost its
//! claim can no longer write, because the claim is a condition of the transaction.
//!
//! The item is an idempotency record in the format of Powertools for AWS Lambda, with `owner_token` in addition:
//!
//! | attribute | type | content |
//! | --- | --- | --- |
//! | `id` | S | digest of the caller and its idempotency key |
//! | `status` | S | `INPROGRESS` or `COMPLETED` |
//! | `in_progress_expiration` | N | when the claim expires, in epoch milliseconds; absent once completed |
//! | `expiration` | N | when the record expires, in epoch seconds; the table's TTL attribute |
//! | `validation` | S | digest of the request |
//! | `data` | S | JSON of the `outcome`: `already_exists`, or `created` with `user_id`, `timestamp`, `created_at` |
//! | `owner_token` | S | identifies the attempt that has the claim |
//!
//! The only user data that it contains is the key of the created record.

use std::collections::HashMap;

use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update,
};
use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::error::{ConditionalWriteError, TableError, refusal};
use super::reservations::unbuilt;
use super::write_plan::{WritePlan, WritePlanError};
use super::{MAX_CONFLICT_RETRIES, UserTable, WriteError};
use crate::item::{self, AttributeMap};
use crate::user::Timestamp;
use crate::user::id::UserId;
use crate::user::{User, UserKey};

/// The time for which the outcome of a request is repeated.
pub const IDEMPOTENCY_TTL_SECONDS: i64 = 24 * 60 * 60;
/// The time after which the claim of an interrupted attempt expires: longer than any request takes.
pub const IN_PROGRESS_EXPIRY_SECONDS: i64 = 30;

const ID: &str = "id";
const STATUS: &str = "status";
const IN_PROGRESS_EXPIRATION: &str = "in_progress_expiration";
const EXPIRATION: &str = "expiration";
const VALIDATION: &str = "validation";
const DATA: &str = "data";
const OWNER_TOKEN: &str = "owner_token";

/// The status of a record whose attempt has claimed the key and not completed.
const IN_PROGRESS: &str = "INPROGRESS";
/// The status of a record whose attempt has created the user's record or found another one.
const COMPLETED: &str = "COMPLETED";

/// The condition that the attempt still has its claim.
const HOLDS_CLAIM: &str = "owner_token = :owner AND #status = :in_progress";
/// The update that completes the record.
const COMPLETE: &str = "SET #status = :completed, #data = :data REMOVE in_progress_expiration";

/// An attempt at an idempotent create.
#[derive(Clone, Debug)]
pub struct IdempotencyRecord {
    /// The digest of the caller and its idempotency key.
    pub id: String,
    /// The digest of the request.
    pub fingerprint: String,
    /// The unique token of this attempt.
    pub owner: String,
}

/// The outcome of this attempt or of an earlier one with the same key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum IdempotencyOutcome {
    /// This attempt created the record.
    Created,
    /// An earlier attempt created a record.
    Replayed {
        /// The key of the record.
        key: UserKey,
        /// The time at which the record was created.
        created_at: OffsetDateTime,
    },
    /// A record with the same key existed already.
    Exists,
    /// Another attempt is in progress, for at most this number of seconds.
    InProgress(i64),
    /// The idempotency key was used before with a different request.
    PayloadMismatch,
}

/// The outcome of a completed attempt as JSON in the attribute `data`.
#[derive(Deserialize, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
enum StoredOutcome {
    Created { user_id: String, timestamp: i64, created_at: String },
    AlreadyExists,
}

impl StoredOutcome {
    fn from_created(key: &UserKey, created_at: OffsetDateTime) -> Result<Self, TableError> {
        let created_at = created_at.format(&Rfc3339).map_err(TableError::refused)?;
        Ok(Self::Created { user_id: key.id.as_str().to_owned(), timestamp: key.timestamp.seconds(), created_at })
    }

    fn encode(&self) -> Result<AttributeValue, TableError> {
        serde_json::to_string(self).map(item::text).map_err(TableError::refused)
    }

    /// Returns the outcome for an attempt, which may be the one that stored it.
    fn decode(data: &str, is_own: bool) -> Option<IdempotencyOutcome> {
        match serde_json::from_str(data).ok()? {
            Self::Created { .. } if is_own => Some(IdempotencyOutcome::Created),
            Self::Created { user_id, timestamp, created_at } => {
                let key = UserKey { id: UserId::parse(user_id).ok()?, timestamp: Timestamp::parse(timestamp).ok()? };
                let created_at = OffsetDateTime::parse(&created_at, &Rfc3339).ok()?;
                Some(IdempotencyOutcome::Replayed { key, created_at })
            }
            Self::AlreadyExists => Some(IdempotencyOutcome::Exists),
        }
    }
}

impl UserTable {
    /// Creates a record if this attempt is the first with its key; otherwise returns the outcome of the first.
    ///
    /// # Errors
    /// A call failed. Either nothing was written, or the next attempt with the key returns the outcome.
    pub async fn create_idempotent(
        &self,
        attempts: &str,
        attempt: &IdempotencyRecord,
        user: &User,
        now: OffsetDateTime,
    ) -> Result<IdempotencyOutcome, WriteError> {
        let record = self.creation(user, now)?;
        let completion = completion(attempts, attempt, StoredOutcome::from_created(&user.key, now)?.encode()?)?;
        if let Some(earlier) = self.acquire_lock(attempts, attempt, now).await? {
            return Ok(earlier);
        }
        let mut failed = WriteError::Contended;
        for _ in 0..MAX_CONFLICT_RETRIES {
            let reservations = match self.reservations_of_new(user, now).await {
                Ok(reservations) => reservations,
                Err(error) => {
                    failed = error;
                    break;
                }
            };
            let plan = WritePlan::new(record.clone()).with([completion.clone()]).with(reservations);
            match self.execute(plan).await {
                Ok(_) => return Ok(IdempotencyOutcome::Created),
                Err(WritePlanError::RecordCondition(_)) => {
                    self.complete_as_existing(attempts, attempt).await?;
                    return Ok(IdempotencyOutcome::Exists);
                }
                // The claim is lost, or the email's reservation was changed concurrently.
                Err(WritePlanError::Conflict(_)) => match self.found(attempts, attempt, now).await? {
                    None => {}
                    Some(found) => return Ok(found),
                },
                Err(WritePlanError::Fault(fault)) => {
                    failed = fault.into();
                    break;
                }
            }
        }
        // The transaction may have been executed despite the error. Releasing the claim either ensures that it never
        // will be, or returns the outcome.
        match self.release_lock(attempts, attempt, now).await {
            Ok(Some(created)) => Ok(created),
            Ok(None) | Err(_) => Err(failed),
        }
    }

    /// Claims the key. Returns the outcome of an earlier attempt if there was one.
    async fn acquire_lock(
        &self,
        attempts: &str,
        attempt: &IdempotencyRecord,
        now: OffsetDateTime,
    ) -> Result<Option<IdempotencyOutcome>, TableError> {
        let seconds = now.unix_timestamp();
        let item = HashMap::from([
            (ID.to_owned(), item::text(&attempt.id)),
            (STATUS.to_owned(), item::text(IN_PROGRESS)),
            (
                IN_PROGRESS_EXPIRATION.to_owned(),
                item::integer(milliseconds(now + Duration::seconds(IN_PROGRESS_EXPIRY_SECONDS))),
            ),
            (EXPIRATION.to_owned(), item::integer(seconds + IDEMPOTENCY_TTL_SECONDS)),
            (VALIDATION.to_owned(), item::text(&attempt.fingerprint)),
            (OWNER_TOKEN.to_owned(), item::text(&attempt.owner)),
        ]);
        let claimed = self
            .client
            .put_item()
            .table_name(attempts)
            .set_item(Some(item))
            .condition_expression(
                "attribute_not_exists(id) OR expiration <= :now OR \
                 (validation = :validation AND #status = :in_progress AND in_progress_expiration <= :now_in_millis)",
            )
            .expression_attribute_names("#status", STATUS)
            .expression_attribute_values(":now", item::integer(seconds))
            .expression_attribute_values(":now_in_millis", item::integer(milliseconds(now)))
            .expression_attribute_values(":in_progress", item::text(IN_PROGRESS))
            .expression_attribute_values(":validation", item::text(&attempt.fingerprint))
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
            ConditionalWriteError::Condition(Some(earlier)) => read(&earlier, attempt, now),
            // The item was deleted after the check and before it could be returned. The next attempt finds the key
            // free.
            ConditionalWriteError::Condition(None) => Ok(Some(IdempotencyOutcome::InProgress(1))),
            ConditionalWriteError::Fault(fault) => Err(fault),
        }
    }

    /// Completes the key with the outcome that a record existed already.
    async fn complete_as_existing(&self, attempts: &str, attempt: &IdempotencyRecord) -> Result<(), TableError> {
        let call = self
            .client
            .update_item()
            .table_name(attempts)
            .key(ID, item::text(&attempt.id))
            .update_expression(COMPLETE)
            .condition_expression("owner_token = :owner")
            .expression_attribute_names("#status", STATUS)
            .expression_attribute_names("#data", DATA)
            .expression_attribute_values(":owner", item::text(&attempt.owner))
            .expression_attribute_values(":completed", item::text(COMPLETED))
            .expression_attribute_values(":data", StoredOutcome::AlreadyExists.encode()?)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        match call.send().await {
            Ok(output) => {
                self.meter.add(output.consumed_capacity());
                Ok(())
            }
            // Another attempt has claimed the key and will come to the same outcome.
            Err(error)
                if error.as_service_error().is_some_and(UpdateItemError::is_conditional_check_failed_exception) =>
            {
                Ok(())
            }
            Err(error) => Err(TableError::from_sdk(error)),
        }
    }

    /// Returns the outcome that is stored for the key, or `None` if this attempt still has the claim.
    async fn found(
        &self,
        attempts: &str,
        attempt: &IdempotencyRecord,
        now: OffsetDateTime,
    ) -> Result<Option<IdempotencyOutcome>, WriteError> {
        let call = self.client.get_item().table_name(attempts).key(ID, item::text(&attempt.id)).consistent_read(true);
        let output =
            call.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await.map_err(TableError::from_sdk)?;
        self.meter.add(output.consumed_capacity());
        match output.item {
            Some(item) => Ok(read(&item, attempt, now)?),
            None => Ok(Some(IdempotencyOutcome::InProgress(1))),
        }
    }

    /// Releases the claim. Returns the outcome if the key was completed by this attempt.
    async fn release_lock(
        &self,
        attempts: &str,
        attempt: &IdempotencyRecord,
        now: OffsetDateTime,
    ) -> Result<Option<IdempotencyOutcome>, TableError> {
        let call = self
            .client
            .delete_item()
            .table_name(attempts)
            .key(ID, item::text(&attempt.id))
            .condition_expression(HOLDS_CLAIM)
            .expression_attribute_names("#status", STATUS)
            .expression_attribute_values(":owner", item::text(&attempt.owner))
            .expression_attribute_values(":in_progress", item::text(IN_PROGRESS))
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
            ConditionalWriteError::Condition(Some(there))
                if there.get(OWNER_TOKEN) == Some(&item::text(&attempt.owner)) =>
            {
                read(&there, attempt, now)
            }
            ConditionalWriteError::Condition(_) => Ok(None),
            ConditionalWriteError::Fault(fault) => Err(fault),
        }
    }
}

/// Returns the update that completes the key, as part of the transaction that creates the record.
fn completion(
    attempts: &str,
    attempt: &IdempotencyRecord,
    outcome: AttributeValue,
) -> Result<TransactWriteItem, TableError> {
    let update = Update::builder()
        .table_name(attempts)
        .key(ID, item::text(&attempt.id))
        .update_expression(COMPLETE)
        .condition_expression(HOLDS_CLAIM)
        .expression_attribute_names("#status", STATUS)
        .expression_attribute_names("#data", DATA)
        .expression_attribute_values(":owner", item::text(&attempt.owner))
        .expression_attribute_values(":in_progress", item::text(IN_PROGRESS))
        .expression_attribute_values(":completed", item::text(COMPLETED))
        .expression_attribute_values(":data", outcome);
    Ok(TransactWriteItem::builder().update(update.build().map_err(unbuilt)?).build())
}

/// Returns the outcome in a key's item, or `None` if it is this attempt's own claim.
fn read(
    item: &AttributeMap,
    attempt: &IdempotencyRecord,
    now: OffsetDateTime,
) -> Result<Option<IdempotencyOutcome>, TableError> {
    let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).map(String::as_str);
    if text(VALIDATION) != Some(attempt.fingerprint.as_str()) {
        return Ok(Some(IdempotencyOutcome::PayloadMismatch));
    }
    let is_own = text(OWNER_TOKEN) == Some(attempt.owner.as_str());
    match text(STATUS) {
        Some(IN_PROGRESS) if is_own => Ok(None),
        Some(IN_PROGRESS) => {
            let number = item.get(IN_PROGRESS_EXPIRATION).and_then(|value| value.as_n().ok());
            let expiration = number.and_then(|number| number.parse::<i128>().ok());
            let expiration = expiration.ok_or_else(|| corrupt(item, IN_PROGRESS_EXPIRATION, "epoch milliseconds"))?;
            // Rounded up, so that the claim has expired when the caller retries.
            let seconds = (expiration - milliseconds(now) + 999).div_euclid(1_000);
            Ok(Some(IdempotencyOutcome::InProgress(
                i64::try_from(seconds).unwrap_or(IN_PROGRESS_EXPIRY_SECONDS).clamp(1, IN_PROGRESS_EXPIRY_SECONDS),
            )))
        }
        Some(COMPLETED) => text(DATA)
            .and_then(|data| StoredOutcome::decode(data, is_own))
            .map(Some)
            .ok_or_else(|| corrupt(item, DATA, "JSON with the outcome created or already_exists")),
        _ => Err(corrupt(item, STATUS, "INPROGRESS or COMPLETED")),
    }
}

/// Returns the error for an attribute with a value that no attempt writes.
fn corrupt(item: &AttributeMap, attribute: &str, expected: &str) -> TableError {
    let found = match item.get(attribute) {
        None => "missing".to_owned(),
        // The text contains the user's identifier, which must not be logged.
        Some(AttributeValue::S(text)) if attribute == DATA => format!("text of {} bytes", text.len()),
        Some(value) => format!("{value:?}"),
    };
    TableError::refused(format!("the idempotency record is corrupt: {attribute} is {found}: expected {expected}"))
}

fn milliseconds(time: OffsetDateTime) -> i128 {
    time.unix_timestamp_nanos().div_euclid(1_000_000)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-22 10:00:00.123456789 UTC);

    fn attempt() -> IdempotencyRecord {
        IdempotencyRecord { id: "id".to_owned(), fingerprint: "request".to_owned(), owner: "me".to_owned() }
    }

    fn record(attributes: &[(&str, AttributeValue)]) -> AttributeMap {
        let own = |(name, value): &(&str, AttributeValue)| ((*name).to_owned(), value.clone());
        [(VALIDATION.to_owned(), item::text("request"))].into_iter().chain(attributes.iter().map(own)).collect()
    }

    fn completed(data: impl Into<String>) -> Result<Option<IdempotencyOutcome>, TableError> {
        read(&record(&[(STATUS, item::text(COMPLETED)), (DATA, item::text(data))]), &attempt(), NOW)
    }

    #[test]
    fn stored_outcomes_are_read_as_they_were_written() {
        let key = UserKey { id: UserId::parse("ada").unwrap(), timestamp: Timestamp::parse(7).unwrap() };
        let data = StoredOutcome::from_created(&key, NOW).unwrap().encode().unwrap();
        let written =
            r#"{"outcome":"created","user_id":"ada","timestamp":7,"created_at":"2026-11-22T10:00:00.123456789Z"}"#;
        assert_eq!(data, item::text(written));
        assert_eq!(completed(written).unwrap(), Some(IdempotencyOutcome::Replayed { key, created_at: NOW }));
        let own = [(STATUS, item::text(COMPLETED)), (DATA, item::text(written)), (OWNER_TOKEN, item::text("me"))];
        assert_eq!(read(&record(&own), &attempt(), NOW).unwrap(), Some(IdempotencyOutcome::Created));
        let data = StoredOutcome::AlreadyExists.encode().unwrap();
        assert_eq!(data, item::text(r#"{"outcome":"already_exists"}"#));
        assert_eq!(completed(data.as_s().unwrap()).unwrap(), Some(IdempotencyOutcome::Exists));
    }

    #[test]
    fn in_progress_record_returns_the_seconds_until_its_claim_ends() {
        let of = |owner: &str, milliseconds: i128| {
            let attributes = [
                (STATUS, item::text(IN_PROGRESS)),
                (OWNER_TOKEN, item::text(owner)),
                (IN_PROGRESS_EXPIRATION, item::integer(super::milliseconds(NOW) + milliseconds)),
            ];
            read(&record(&attributes), &attempt(), NOW).unwrap()
        };
        assert_eq!(of("me", 5_000), None);
        for (left, seconds) in [(30_000, 30), (29_001, 30), (29_000, 29), (1, 1), (0, 1), (-9_000, 1)] {
            assert_eq!(of("other", left), Some(IdempotencyOutcome::InProgress(seconds)), "{left}");
        }
    }

    #[test]
    fn record_of_another_request_is_not_an_outcome() {
        let item = AttributeMap::from([(VALIDATION.to_owned(), item::text("another"))]);
        assert_eq!(read(&item, &attempt(), NOW).unwrap(), Some(IdempotencyOutcome::PayloadMismatch));
    }

    #[test]
    fn corrupt_record_is_an_error_that_names_the_attribute() {
        let error = |item: &AttributeMap| match read(item, &attempt(), NOW) {
            Err(TableError::Refused(cause)) => cause.to_string(),
            other => panic!("{other:?}"),
        };
        let status = |status: &str| record(&[(STATUS, item::text(status))]);
        assert!(error(&record(&[])).contains("status is missing: expected INPROGRESS or COMPLETED"));
        assert!(error(&status("EXPIRED")).contains("status is S(\"EXPIRED\"): expected INPROGRESS or COMPLETED"));
        assert!(error(&status(IN_PROGRESS)).contains("in_progress_expiration is missing: expected epoch"));
        assert!(error(&status(COMPLETED)).contains("data is missing: expected JSON with the outcome"));
        for data in ["", "{}", r#"{"outcome":"deleted"}"#, r#"{"outcome":"created","user_id":"ada","timestamp":7}"#] {
            let item = record(&[(STATUS, item::text(COMPLETED)), (DATA, item::text(data))]);
            assert!(error(&item).contains(&format!("data is text of {} bytes: expected JSON", data.len())), "{data}");
        }
    }
}
