//! The meaning, for a record, of the service's response to a conditional write.
//!
//! | response | outcome |
//! | --- | --- |
//! | the condition failed, the stored item has this revision | duplicate |
//! | the condition failed, the stored item has a later revision | stale |
//! | no such table, access denied, a malformed expression | error of the sink as a whole |
//! | the key does not match the schema | error of the table or of the record, decided by reading the schema again |
//! | any other rejection of the values (size, index key, nesting, …) | permanent |
//! | throttled, timed out, 5xx, connection lost, anything else | transient |
//!
//! The `DynamoDB` developer guide ("Error handling") documents these messages only in part; the ones matched here are
//! those that the service returns.

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_dynamodb::types::error::ConditionalCheckFailedException;
use millrace_shared::error_chain::error_chain;
use millrace_shared::revision::Revision;
use millrace_shared::table_reader::is_table_level_error;

/// The result of one write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WriteOutcome {
    Applied,
    Duplicate,
    Stale,
    /// Another delivery may succeed.
    Transient(String),
    /// No delivery can succeed.
    Permanent(String),
    /// No write of this batch can succeed, but another delivery may.
    Fault(String),
    /// The service reports that the item's key does not match the table's.
    KeyRefused(String),
}

/// Returns the outcome of a write of revision `ours` for which the SDK returned an error. The attribute `revision_name`
/// contains the revision of a stored item.
pub(super) fn from_error<R: std::fmt::Debug + Send + Sync + 'static>(
    error: &SdkError<PutItemError, R>,
    ours: Revision,
    revision_name: &str,
) -> WriteOutcome {
    let Some(refusal) = error.as_service_error() else {
        return WriteOutcome::Transient(error_chain(error));
    };
    if let PutItemError::ConditionalCheckFailedException(refusal) = refusal {
        return from_condition_failure(refusal, ours, revision_name);
    }
    let (code, message) = (refusal.code().unwrap_or("unknown error"), refusal.message().unwrap_or_default());
    let reason = format!("{code}: {message}");
    match code {
        "ValidationException" => from_validation(message, reason),
        "SerializationException" | "ItemCollectionSizeLimitExceededException" | "RequestEntityTooLarge" => {
            WriteOutcome::Permanent(reason)
        }
        code if is_table_level_error(code) => WriteOutcome::Fault(reason),
        _ => WriteOutcome::Transient(reason),
    }
}

fn from_validation(message: &str, reason: String) -> WriteOutcome {
    let says = |sentence: &str| message.contains(sentence);
    if says("key element does not match the schema") || says("Missing the key") || says("Type mismatch for key") {
        WriteOutcome::KeyRefused(reason)
    } else if message.starts_with("Invalid ConditionExpression") || message.starts_with("ExpressionAttribute") {
        WriteOutcome::Fault(reason)
    } else {
        WriteOutcome::Permanent(reason)
    }
}

/// Classifies a rejection by the guard: the stored item shows that this is a redelivery, or late, or that the replica
/// contains an item with an invalid revision.
fn from_condition_failure(refusal: &ConditionalCheckFailedException, ours: Revision, name: &str) -> WriteOutcome {
    let there = match refusal.item().and_then(|item| item.get(name)) {
        Some(AttributeValue::B(bytes)) => Revision::decode(bytes.as_ref()).map_err(|error| error.to_string()),
        Some(_) => Err("not a binary value".to_owned()),
        None => return WriteOutcome::Transient("condition failed without returning the item".to_owned()),
    };
    match there {
        Ok(there) if there == ours => WriteOutcome::Duplicate,
        Ok(there) if there > ours => WriteOutcome::Stale,
        Ok(there) => WriteOutcome::Transient(format!("condition failed: {ours} over older {there}")),
        Err(why) => WriteOutcome::Permanent(format!("the replica's item has a {name} that is not a revision ({why})")),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::error::ErrorMetadata;
    use aws_sdk_dynamodb::primitives::Blob;
    use millrace_shared::replica_item::REVISION;
    use millrace_shared::revision::{SequenceNumber, StreamLabel};

    use super::*;

    fn revision(number: &str) -> Revision {
        let label = StreamLabel::parse("2015-06-27T00:48:05.899").unwrap();
        Revision::new(label, SequenceNumber::parse(number).unwrap())
    }

    fn verdict(error: PutItemError) -> WriteOutcome {
        from_error(&SdkError::service_error(error, ()), revision("5"), REVISION)
    }

    fn outcome_of(code: &str, message: &str) -> WriteOutcome {
        verdict(PutItemError::generic(ErrorMetadata::builder().code(code).message(message).build()))
    }

    fn refused_over(there: Option<AttributeValue>) -> WriteOutcome {
        let refusal = ConditionalCheckFailedException::builder();
        let refusal = match there {
            Some(value) => refusal.item("_rev", value),
            None => refusal,
        };
        verdict(PutItemError::ConditionalCheckFailedException(refusal.build()))
    }

    #[test]
    fn failed_condition_is_classified_by_the_stored_revision() {
        let there = |number| refused_over(Some(AttributeValue::B(Blob::new(revision(number).encode().as_ref()))));
        assert_eq!(there("5"), WriteOutcome::Duplicate);
        assert_eq!(there("6"), WriteOutcome::Stale);
        let reconciled = AttributeValue::B(Blob::new(revision("5").next_reconciled().encode().as_ref()));
        assert_eq!(refused_over(Some(reconciled)), WriteOutcome::Stale);
        assert!(matches!(there("4"), WriteOutcome::Transient(_)));
        assert!(matches!(refused_over(None), WriteOutcome::Transient(_)));
        let foreign = AttributeValue::S("7".into());
        assert!(matches!(refused_over(Some(foreign)), WriteOutcome::Permanent(reason) if reason.contains("_rev")));
    }

    #[test]
    fn only_the_item_s_own_faults_are_permanent() {
        for message in [
            "Item size has exceeded the maximum allowed size",
            "One or more parameter values were invalid: Type mismatch for Index Key email Expected: S Actual: N",
            "Nesting Levels have exceeded supported limits",
        ] {
            assert!(matches!(outcome_of("ValidationException", message), WriteOutcome::Permanent(_)), "{message}");
        }
        assert!(matches!(outcome_of("SerializationException", ""), WriteOutcome::Permanent(_)));
    }

    #[test]
    fn a_fault_of_the_table_is_never_the_record_s() {
        for code in ["AccessDeniedException", "ResourceNotFoundException", "UnrecognizedClientException"] {
            assert!(matches!(outcome_of(code, ""), WriteOutcome::Fault(_)), "{code}");
        }
        let expression = "Invalid ConditionExpression: Syntax error; token: \"OR\"";
        assert!(matches!(outcome_of("ValidationException", expression), WriteOutcome::Fault(_)));
        for message in [
            "The provided key element does not match the schema",
            "One or more parameter values were invalid: Missing the key user_id in the item",
            "One or more parameter values were invalid: Type mismatch for key user_id expected: S actual: N",
        ] {
            assert!(matches!(outcome_of("ValidationException", message), WriteOutcome::KeyRefused(_)), "{message}");
        }
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_not_quoted() {
        // The response to a rejected write contains an item.
        let cut = std::io::Error::other("unexpected end");
        let unread = SdkError::<PutItemError, &str>::response_error(cut, r#"{"Item":{"email":{"S":"ada@example"#);
        let WriteOutcome::Transient(reason) = from_error(&unread, revision("5"), REVISION) else {
            panic!("another delivery may succeed")
        };
        assert!(reason.contains("unexpected end") && !reason.contains("ada"), "{reason}");
    }

    #[test]
    fn throttling_and_unknown_errors_are_transient() {
        for code in [
            "ProvisionedThroughputExceededException",
            "ThrottlingException",
            "RequestLimitExceeded",
            "InternalServerError",
            "ServiceUnavailable",
            "TransactionConflictException",
            "SomethingNew",
        ] {
            assert!(matches!(outcome_of(code, ""), WriteOutcome::Transient(_)), "{code}");
        }
        let lost = SdkError::<PutItemError, ()>::timeout_error("no response");
        assert!(matches!(from_error(&lost, revision("5"), REVISION), WriteOutcome::Transient(_)));
    }
}
