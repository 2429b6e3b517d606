//! Quarantine for poison records, which can never be applied: each is stored in the failure bucket, complete and with
//! the reason.
//!
//! A poison record would block its shard, and all changes behind it, until the stream trims it; if it were dropped, it
//! would be lost. It is therefore stored as an object of its own, and the batch continues. The object's name consists of
//! the record's position and a digest of the record: a redelivery overwrites its own object, and another record with
//! the same sequence number (of another shard, or one that contradicts this one) has its own, in whichever batch it
//! comes. If the put fails, the caller reports the record as one to redeliver.
//!
//! Reading the records back is out of scope. That is the job of the redrive task, which passes each record to the
//! function and the sink that its key names.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::hash::{sha256, to_hex};
use crate::s3::{S3Bucket, S3Error, S3Operation};
use crate::stream::StreamRecord;

/// The format version of the object's body; a reader rejects unknown versions.
const FORMAT: u32 = 1;
/// Replaces the table in the object key of a record whose ARN cannot be parsed.
const UNKNOWN_TABLE: &str = "unknown";

/// Replaces the sink in the object key of a record if the archive already contains another record of the same item and
/// sequence number. Archiving this record as well would overwrite that one.
pub const CONTRADICTING: &str = "contradicting";

/// A record that the failure bucket did not accept.
#[derive(Debug, thiserror::Error)]
#[error("failure bucket {0}")]
pub struct QuarantineError(#[from] S3Error);

#[derive(Serialize)]
struct QuarantineBody<'a> {
    format: u32,
    reason: &'a str,
    record: &'a RawValue,
}

/// The quarantine of a function, within the failure bucket.
#[derive(Debug, Clone)]
pub struct Quarantine {
    bucket: S3Bucket,
    function: &'static str,
}

impl Quarantine {
    /// Creates the quarantine of `function` in `bucket`.
    #[must_use]
    pub fn new(client: aws_sdk_s3::Client, bucket: String, function: &'static str) -> Self {
        Self { bucket: S3Bucket::new(client, bucket), function }
    }

    /// Stores a record in the quarantine; the record is durable when this returns.
    ///
    /// `sink` is the replica that cannot store the record.
    ///
    /// # Errors
    /// [`QuarantineError`] if S3 did not confirm the object; the caller then has to report the record as failed.
    pub async fn put(&self, sink: &str, record: &StreamRecord<'_>, reason: &str) -> Result<(), QuarantineError> {
        let key = object_key(self.function, sink, record);
        let body = QuarantineBody { format: FORMAT, reason, record: record.raw.to_raw() };
        let body = serde_json::to_vec(&body)
            .map_err(|error| self.bucket.failure(S3Operation::Put, &key, error.to_string()))?;
        self.bucket.put(&key, "application/json", body).await?;
        // The reason is not logged: it may quote the record.
        tracing::warn!(quarantine.key = key, "record quarantined");
        Ok(())
    }
}

/// Returns `quarantine/<function>/<sink>/<table>/<label>-<number>-<digest>.json`, or the digest alone if the record has
/// no position. The digest is that of the whole record and not of its key, because two records of the same item may
/// contradict each other.
fn object_key(function: &str, sink: &str, record: &StreamRecord<'_>) -> String {
    let table = record.source.as_ref().map_or(UNKNOWN_TABLE, |source| source.table());
    let name = match (&record.source, record.number) {
        (Some(source), Some(number)) => format!("{}-{number}-{}", source.label(), digest(record.raw.get())),
        _ => digest(record.raw.get()),
    };
    format!("quarantine/{function}/{sink}/{table}/{name}.json")
}

/// Returns the first 32 hexadecimal digits of the SHA-256 digest of the record's text.
fn digest(record: &str) -> String {
    to_hex(&sha256(record)[..16])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream;

    fn key_of(record: &str) -> String {
        let payload = RawValue::from_string(format!(r#"{{"Records":[{record}]}}"#)).unwrap();
        let batch = stream::read(&payload).unwrap();
        object_key("replicator", "dynamodb", &batch.records[0])
    }

    #[test]
    fn record_is_named_by_its_position_and_digest() {
        let record = r#"{"eventSourceARN":"arn:aws:dynamodb:r:1:table/Users/stream/2015-06-27T00:48:05.899",
            "dynamodb":{"SequenceNumber":"000111"}}"#;
        let key = key_of(record);
        let position = "quarantine/replicator/dynamodb/Users/2015-06-27T00:48:05.899-111-";
        let digest = key.strip_prefix(position).and_then(|rest| rest.strip_suffix(".json")).unwrap();
        assert!(digest.len() == 32 && digest.bytes().all(|digit| digit.is_ascii_hexdigit()), "{key}");
        assert_eq!(key_of(record), key, "a redelivery overwrites itself");
    }

    #[test]
    fn records_with_one_sequence_number_have_different_keys() {
        let record = |name: &str| {
            format!(
                r#"{{"eventName":"{name}","eventSourceARN":"arn:aws:dynamodb:r:1:table/Users/stream/2015-06-27T00:48:05.899",
                "dynamodb":{{"SequenceNumber":"111"}}}}"#
            )
        };
        let (one, other) = (record("INSERT"), record("MODIFY"));
        assert_ne!(key_of(&one), key_of(&other));
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
