//! Where records go that can never be applied: the failure bucket, whole and with the reason.
//!
//! A poison record would block its shard until the stream trims it, and all changes behind it; dropped, it would be
//! lost. So it is put aside under a name of its own, and the batch goes on. The name is made of the record's
//! position, so that a retry overwrites itself; of several records of one position, the further ones are named by their
//! content besides. If the put fails, the caller reports the record as one to resend.
//!
//! Absent: reading them back. That is the redrive task's business, which gives each record to the function and the
//! sink that its key names.

use std::fmt::Write as _;

use aws_sdk_s3::error::DisplayErrorContext;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumAlgorithm;
use serde::Serialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::stream::StreamRecord;

/// The layout of the object's body; a reader refuses what it does not know.
const FORMAT: u32 = 1;
/// Stands in an object's key for the table of a record whose ARN cannot be read.
const UNKNOWN_TABLE: &str = "unknown";

/// Stands in an object's key for the replica, where the archive holds another record of the same item and sequence number.
/// To archive it, too, would be to overwrite that one.
pub const CONTRADICTING: &str = "contradicting";

/// How an object is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectNaming {
    /// By the record's position.
    Position,
    /// By the record's position and its content: another record has the same position.
    Content,
}

/// The failure bucket did not take a record.
#[derive(Debug, thiserror::Error)]
#[error("the failure bucket {bucket} did not take {key}: {cause}")]
pub struct QuarantineError {
    bucket: String,
    key: String,
    cause: String,
}

#[derive(Serialize)]
struct QuarantineBody<'a> {
    format: u32,
    reason: &'a str,
    record: &'a RawValue,
}

/// A function's corner of the failure bucket.
#[derive(Debug, Clone)]
pub struct Quarantine {
    client: aws_sdk_s3::Client,
    bucket: String,
    function: &'static str,
}

impl Quarantine {
    /// The corner of `function` in `bucket`.
    #[must_use]
    pub fn new(client: aws_sdk_s3::Client, bucket: String, function: &'static str) -> Self {
        Self { client, bucket, function }
    }

    /// Puts a record aside; it is safe once this returns.
    ///
    /// `sink` is the replica that cannot hold the record.
    ///
    /// # Errors
    /// [`QuarantineError`] if S3 did not confirm the object; the record is then to be reported as failed.
    pub async fn put(
        &self,
        sink: &str,
        record: &StreamRecord<'_>,
        naming: ObjectNaming,
        reason: &str,
    ) -> Result<(), QuarantineError> {
        let key = object_key(self.function, sink, record, naming);
        let body = QuarantineBody { format: FORMAT, reason, record: record.raw };
        let failed = |cause| QuarantineError { bucket: self.bucket.clone(), key: key.clone(), cause };
        let body = serde_json::to_vec(&body).map_err(|error| failed(error.to_string()))?;
        self.client
            .put_object()
            .bucket(&self.bucket)
            .key(&key)
            .content_type("application/json")
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .body(ByteStream::from(body))
            .send()
            .await
            .map_err(|error| failed(DisplayErrorContext(error).to_string()))?;
        // Not the reason: it may quote the record.
        tracing::warn!(quarantine.key = key, "record put in quarantine");
        Ok(())
    }
}

/// `quarantine/<function>/<sink>/<table>/<label>-<number>.json`, with the record's digest after the number if it is named by
/// its content; or the digest alone if the record has no position.
fn object_key(function: &str, sink: &str, record: &StreamRecord<'_>, naming: ObjectNaming) -> String {
    let table = record.source.as_ref().map_or(UNKNOWN_TABLE, |source| source.table());
    let name = match (&record.source, record.number, naming) {
        (Some(source), Some(number), ObjectNaming::Position) => format!("{}-{number}", source.label()),
        (Some(source), Some(number), ObjectNaming::Content) => {
            format!("{}-{number}-{}", source.label(), digest(record.raw))
        }
        _ => digest(record.raw),
    };
    format!("quarantine/{function}/{sink}/{table}/{name}.json")
}

/// The first 32 hexadecimal digits of the SHA-256 over the record's text.
fn digest(record: &RawValue) -> String {
    let mut text = String::with_capacity(32);
    for byte in &Sha256::digest(record.get().as_bytes())[..16] {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream;

    fn key_of(record: &str) -> String {
        key_named(record, ObjectNaming::Position)
    }

    fn key_named(record: &str, naming: ObjectNaming) -> String {
        let payload = RawValue::from_string(format!(r#"{{"Records":[{record}]}}"#)).unwrap();
        let batch = stream::read(&payload).unwrap();
        object_key("replicator", "dynamodb", &batch.records[0], naming)
    }

    #[test]
    fn a_record_is_named_by_its_position() {
        let record = r#"{"eventSourceARN":"arn:aws:dynamodb:r:1:table/Users/stream/2015-06-27T00:48:05.899",
            "dynamodb":{"SequenceNumber":"000111"}}"#;
        assert_eq!(key_of(record), "quarantine/replicator/dynamodb/Users/2015-06-27T00:48:05.899-111.json");
    }

    #[test]
    fn of_one_position_records_are_told_apart_by_their_content() {
        let record = |name: &str| {
            format!(
                r#"{{"eventName":"{name}","eventSourceARN":"arn:aws:dynamodb:r:1:table/Users/stream/2015-06-27T00:48:05.899",
                "dynamodb":{{"SequenceNumber":"111"}}}}"#
            )
        };
        let (one, other) = (record("INSERT"), record("MODIFY"));
        let by_content = |record: &str| key_named(record, ObjectNaming::Content);
        assert!(by_content(&one).starts_with("quarantine/replicator/dynamodb/Users/2015-06-27T00:48:05.899-111-"));
        assert_ne!(by_content(&one), by_content(&other));
        assert_eq!(by_content(&one), by_content(&one), "a retry overwrites itself");
    }

    #[test]
    fn a_record_without_a_position_is_named_by_its_digest() {
        let (one, other) = (key_of(r#"{"a":1}"#), key_of(r#"{"a":2}"#));
        assert!(one.starts_with("quarantine/replicator/dynamodb/unknown/"));
        assert_eq!(one.len(), "quarantine/replicator/dynamodb/unknown/".len() + 32 + ".json".len());
        assert_ne!(one, other);
        assert_eq!(one, key_of(r#"{"a":1}"#), "a retry overwrites itself");
    }
}
