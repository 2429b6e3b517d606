//! Write plans: the write of one record, and the writes that must succeed or fail together with it.
//!
//! A plan without other writes is executed as a single call; any other plan is executed as one transaction, which
//! consumes twice the write capacity. Each write has its own condition, and the plan knows which write is the record's:
//! a failed condition of the record is distinguished from one of the other writes.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::error::ConditionalCheckFailedException;
use aws_sdk_dynamodb::types::{
    CancellationReason, Delete, Put, ReturnConsumedCapacity, ReturnValue, TransactWriteItem, Update,
};
use millrace_dynamodb_client::TableClient;
use serde::de::DeserializeOwned;

use super::error::{ConditionalWriteError, TableError, refusal};
use super::wire::{self, WriteResponse};
use super::{CapacityMeter, WriteError};
use crate::item::AttributeMap;

/// The conditional write of one record.
#[derive(Clone, Debug)]
pub(super) enum RecordWrite {
    /// Writes a complete item.
    Put(Put),
    /// Updates an item. A single call returns these of its attributes.
    Update(Update, ReturnValue),
    /// Deletes an item. A single call returns the deleted item.
    Delete(Delete),
}

/// A record's write, and the other writes that must happen with it.
#[derive(Debug)]
pub(super) struct WritePlan {
    record: RecordWrite,
    others: Vec<TransactWriteItem>,
}

/// A plan that was not executed. None of its writes had an effect, unless the error is a fault.
#[derive(Debug)]
pub(super) enum WritePlanError {
    /// The condition of the record's write failed for this item.
    RecordCondition(ExistingItem),
    /// The condition of another write failed, or another transaction was changing the same items: the plan is outdated,
    /// and a new one may succeed.
    Conflict(TableError),
    /// The call failed. The writes may have had an effect.
    Fault(TableError),
}

/// The attributes that a record's write returns.
type PlanResult<T> = Result<Option<T>, WritePlanError>;

impl From<TableError> for WritePlanError {
    fn from(fault: TableError) -> Self {
        Self::Fault(fault)
    }
}

/// The item for which a record's condition failed.
#[derive(Debug)]
pub(super) enum ExistingItem {
    /// This item exists.
    Present(AttributeMap),
    /// No item exists.
    Absent,
    /// The item is unknown, because a transaction does not return it.
    NotReturned,
}

impl WritePlanError {
    /// Returns the existing item if a new plan may succeed.
    pub(super) fn retryable(self) -> Result<ExistingItem, WriteError> {
        match self {
            Self::RecordCondition(existing) => Ok(existing),
            Self::Conflict(_) => Ok(ExistingItem::NotReturned),
            Self::Fault(fault) => Err(fault.into()),
        }
    }
}

impl WritePlan {
    pub(super) fn new(record: RecordWrite) -> Self {
        Self { record, others: Vec::new() }
    }

    /// Adds writes that must happen with the record's.
    pub(super) fn with(mut self, others: impl IntoIterator<Item = TransactWriteItem>) -> Self {
        self.others.extend(others);
        self
    }

    /// Executes the plan in one call: `records` sends a single write, and `client` a transaction. Returns the attributes
    /// that the record's write returns, parsed as `T`; a put and a transaction return none.
    pub(super) async fn execute<T: DeserializeOwned>(
        self,
        records: &TableClient,
        client: &Client,
        meter: &CapacityMeter,
    ) -> PlanResult<T> {
        if !self.others.is_empty() {
            return self.execute_as_transaction(client, meter).await;
        }
        match &self.record {
            RecordWrite::Put(put) => Box::pin(execute_put(put, records, meter)).await,
            RecordWrite::Update(update, returned) => Box::pin(execute_update(update, returned, records, meter)).await,
            RecordWrite::Delete(delete) => Box::pin(execute_delete(delete, records, meter)).await,
        }
    }

    /// The SDK sends a client token with each transaction, so a retry after a lost response does not fail because of
    /// the first attempt's writes.
    async fn execute_as_transaction<T>(self, client: &Client, meter: &CapacityMeter) -> PlanResult<T> {
        let record = TransactWriteItem::builder();
        let record = match self.record {
            RecordWrite::Put(put) => record.put(put),
            RecordWrite::Update(update, _) => record.update(update),
            RecordWrite::Delete(delete) => record.delete(delete),
        };
        // The record's write is the first one: `cause_of_cancellation` relies on it.
        let mut writes = Vec::with_capacity(1 + self.others.len());
        writes.push(record.build());
        writes.extend(self.others);
        let call = client.transact_write_items().set_transact_items(Some(writes));
        let output =
            call.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await.map_err(transaction_error)?;
        meter.add(output.consumed_capacity());
        Ok(None)
    }
}

async fn execute_put<T: DeserializeOwned>(put: &Put, records: &TableClient, meter: &CapacityMeter) -> PlanResult<T> {
    let written: Result<WriteResponse<T>, _> = records.put_item_returning(wire::put_request(put)?).await;
    let written = written.map_err(|error| {
        call_error(error, |error| match error {
            PutItemError::ConditionalCheckFailedException(failed) => Some(failed),
            _ => None,
        })
    })?;
    meter.add_units(written.consumed_units());
    Ok(None)
}

async fn execute_update<T: DeserializeOwned>(
    update: &Update,
    returned: &ReturnValue,
    records: &TableClient,
    meter: &CapacityMeter,
) -> PlanResult<T> {
    let written: Result<WriteResponse<T>, _> = records.update_item(wire::update_request(update, returned)?).await;
    let written = written.map_err(|error| {
        call_error(error, |error| match error {
            UpdateItemError::ConditionalCheckFailedException(failed) => Some(failed),
            _ => None,
        })
    })?;
    meter.add_units(written.consumed_units());
    Ok(written.attributes)
}

async fn execute_delete<T: DeserializeOwned>(
    delete: &Delete,
    records: &TableClient,
    meter: &CapacityMeter,
) -> PlanResult<T> {
    let written: Result<WriteResponse<T>, _> = records.delete_item(wire::delete_request(delete)?).await;
    let written = written.map_err(|error| {
        call_error(error, |error| match error {
            DeleteItemError::ConditionalCheckFailedException(failed) => Some(failed),
            _ => None,
        })
    })?;
    meter.add_units(written.consumed_units());
    Ok(written.attributes)
}

/// Classifies the error of a single call.
fn call_error<E>(
    error: SdkError<E, HttpResponse>,
    failed: impl FnOnce(&E) -> Option<&ConditionalCheckFailedException>,
) -> WritePlanError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let is_conflict = error.code() == Some("TransactionConflictException");
    match refusal(error, failed) {
        ConditionalWriteError::Condition(Some(item)) => WritePlanError::RecordCondition(ExistingItem::Present(item)),
        ConditionalWriteError::Condition(None) => WritePlanError::RecordCondition(ExistingItem::Absent),
        ConditionalWriteError::Fault(fault) if is_conflict => WritePlanError::Conflict(fault),
        ConditionalWriteError::Fault(fault) => WritePlanError::Fault(fault),
    }
}

/// Classifies the error of a transaction.
fn transaction_error(error: SdkError<TransactWriteItemsError, HttpResponse>) -> WritePlanError {
    let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.as_service_error() else {
        return WritePlanError::Fault(TableError::from_sdk(error));
    };
    match cause_of_cancellation(cancelled.cancellation_reasons()) {
        CancellationCause::RecordCondition => WritePlanError::RecordCondition(ExistingItem::NotReturned),
        CancellationCause::Conflict => WritePlanError::Conflict(TableError::from_cancellation(CONFLICT, "", error)),
        CancellationCause::Other { code, message } => {
            WritePlanError::Fault(TableError::from_cancellation(&code, &message, error))
        }
    }
}

const CONFLICT: &str = "TransactionConflict";
const CONDITION_FAILED: &str = "ConditionalCheckFailed";

/// The cause of the cancellation of a plan's transaction.
#[derive(Debug, Eq, PartialEq)]
enum CancellationCause {
    RecordCondition,
    Conflict,
    Other { code: String, message: String },
}

/// Returns the cause of a cancellation. DynamoDB lists one reason for each write, in the order of the writes.
fn cause_of_cancellation(reasons: &[CancellationReason]) -> CancellationCause {
    let has = |code: &'static str| move |reason: &CancellationReason| reason.code() == Some(code);
    let (record, others) = reasons.split_at(reasons.len().min(1));
    // The other writes are checked first. If the transaction was executed before, the condition of the record fails
    // because the record exists now, but so does the condition of the completed key or of the changed reservation.
    if others.iter().any(has(CONDITION_FAILED)) || reasons.iter().any(has(CONFLICT)) {
        return CancellationCause::Conflict;
    }
    if record.iter().any(has(CONDITION_FAILED)) {
        return CancellationCause::RecordCondition;
    }
    let reason = reasons.iter().find(|reason| reason.code().is_some_and(|code| code != "None"));
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    CancellationCause::Other {
        code: text(reason.and_then(CancellationReason::code)),
        message: text(reason.and_then(CancellationReason::message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancellation_distinguishes_the_record_s_condition_from_those_of_the_other_writes() {
        let cause = |codes: &[&str]| {
            let reasons: Vec<_> = codes.iter().map(|code| CancellationReason::builder().code(*code).build()).collect();
            cause_of_cancellation(&reasons)
        };
        let other = |code: &str| CancellationCause::Other { code: code.to_owned(), message: String::new() };
        for (codes, expected) in [
            (&[CONDITION_FAILED, "None"][..], CancellationCause::RecordCondition),
            (&[CONDITION_FAILED], CancellationCause::RecordCondition),
            (&["None", CONDITION_FAILED], CancellationCause::Conflict),
            // The transaction was executed by an earlier attempt: both conditions fail.
            (&[CONDITION_FAILED, "None", CONDITION_FAILED], CancellationCause::Conflict),
            (&[CONFLICT, "None"], CancellationCause::Conflict),
            (&[CONDITION_FAILED, CONFLICT], CancellationCause::Conflict),
            (&["None", "ThrottlingError"], other("ThrottlingError")),
            (&[], other("")),
        ] {
            assert_eq!(cause(codes), expected, "{codes:?}");
        }
    }
}
