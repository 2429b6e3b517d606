//! Errors of the table, classified by the caller's next step: retry, send less, or call an operator.

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::error::ConditionalCheckFailedException;

use crate::item::size::MAX_ATTRIBUTES_BYTES;
use crate::item::{AttributeMap, ItemParseError};

type ErrorCause = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A call to the table that failed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The request rate exceeds the table's current capacity. Retry.
    #[error("the table is throttled")]
    Throttled(#[source] ErrorCause),
    /// The service did not respond or reported an internal error. Retry.
    #[error("the table is unavailable")]
    Unavailable(#[source] ErrorCause),
    /// The item would exceed DynamoDB's limit of 400 KB. Send less.
    #[error("the item would exceed 400 KB")]
    TooLarge(#[source] ErrorCause),
    /// `attributes` would leave no room for the rest of the record and the attributes that replication adds. Send less.
    #[error("`attributes` takes {0} bytes: at most {MAX_ATTRIBUTES_BYTES} are allowed")]
    AttributesTooLarge(usize),
    /// The item stored under the key is not a valid user record; another program wrote it.
    #[error("the stored item is not a valid user record")]
    Unreadable(#[from] ItemParseError),
    /// The table rejects the request itself (access, schema, name). Call an operator.
    #[error("the table rejected the request")]
    Refused(#[source] ErrorCause),
}

impl TableError {
    /// Classifies an error of the SDK.
    pub(super) fn from_sdk<E>(error: SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let kind = match &error {
            SdkError::ConstructionFailure(_) => Self::Refused,
            SdkError::ServiceError(failed) => {
                let status = failed.raw().status().as_u16();
                kind_of(failed.err().code().unwrap_or_default(), failed.err().message().unwrap_or_default(), status)
            }
            // Timeouts, lost connections, truncated responses, and kinds that a later SDK adds.
            _ => Self::Unavailable,
        };
        kind(Box::new(error))
    }

    /// Classifies the cancellation of a transaction by its reason, which must not be a failed condition.
    pub(super) fn from_cancellation(code: &str, message: &str, error: impl Into<ErrorCause>) -> Self {
        let kind = match code {
            "ThrottlingError" | "ProvisionedThroughputExceeded" => Self::Throttled,
            "ValidationError" if message.starts_with("Item size") => Self::TooLarge,
            "ValidationError" | "ItemCollectionSizeLimitExceeded" => Self::Refused,
            // A conflict with another transaction, and reasons that a later service adds.
            _ => Self::Unavailable,
        };
        kind(error.into())
    }

    pub(super) fn refused(error: impl Into<ErrorCause>) -> Self {
        Self::Refused(error.into())
    }
}

fn kind_of(code: &str, message: &str, status: u16) -> fn(ErrorCause) -> TableError {
    match code {
        "ProvisionedThroughputExceededException" | "ThrottlingException" | "RequestLimitExceeded" => {
            TableError::Throttled
        }
        "TransactionConflictException"
        | "TransactionInProgressException"
        | "ReplicatedWriteConflictException"
        | "RequestTimeout"
        | "RequestTimeoutException" => TableError::Unavailable,
        // DynamoDB has no error code for this, only the message: "Item size [to update] has exceeded the maximum
        // allowed size".
        "ValidationException" if message.starts_with("Item size") => TableError::TooLarge,
        _ if status >= 500 => TableError::Unavailable,
        _ => TableError::Refused,
    }
}

/// A conditional write that failed.
pub(super) enum ConditionalWriteError {
    /// The condition failed for this item, or because no item exists.
    Condition(Option<AttributeMap>),
    Fault(TableError),
}

impl<T: Into<TableError>> From<T> for ConditionalWriteError {
    fn from(fault: T) -> Self {
        Self::Fault(fault.into())
    }
}

pub(super) fn refusal<E>(
    error: SdkError<E, HttpResponse>,
    failed: impl FnOnce(&E) -> Option<&ConditionalCheckFailedException>,
) -> ConditionalWriteError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match error.as_service_error().and_then(failed) {
        Some(failed) => ConditionalWriteError::Condition(failed.item().cloned()),
        None => ConditionalWriteError::Fault(TableError::from_sdk(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(code: &str, message: &str, status: u16) -> &'static str {
        match kind_of(code, message, status)("cause".into()) {
            TableError::Throttled(_) => "throttled",
            TableError::Unavailable(_) => "unavailable",
            TableError::TooLarge(_) | TableError::AttributesTooLarge(_) => "too large",
            TableError::Unreadable(_) => "unreadable",
            TableError::Refused(_) => "refused",
        }
    }

    #[test]
    fn a_kind_is_what_the_caller_does_next() {
        for (code, message, status, expected) in [
            ("ProvisionedThroughputExceededException", "", 400, "throttled"),
            ("ThrottlingException", "", 400, "throttled"),
            ("RequestLimitExceeded", "", 400, "throttled"),
            ("InternalServerError", "", 500, "unavailable"),
            ("", "", 503, "unavailable"),
            ("TransactionConflictException", "", 400, "unavailable"),
            ("RequestTimeoutException", "", 408, "unavailable"),
            ("ValidationException", "Item size has exceeded the maximum allowed size", 400, "too large"),
            ("ValidationException", "Item size to update has exceeded the maximum allowed size", 400, "too large"),
            ("ValidationException", "something else", 400, "refused"),
            ("AccessDeniedException", "", 400, "refused"),
            ("ResourceNotFoundException", "", 400, "refused"),
        ] {
            assert_eq!(kind(code, message, status), expected, "{code} {status}");
        }
    }

    #[test]
    fn a_fault_keeps_its_cause() {
        let fault = TableError::refused("the cause");
        assert_eq!(std::error::Error::source(&fault).unwrap().to_string(), "the cause");
    }
}
