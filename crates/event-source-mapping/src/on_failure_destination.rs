//! On-failure destination: writes a discarded batch as an object to the mapping's on-failure bucket, with the key
//! layout and format of AWS (<https://docs.aws.amazon.com/lambda/latest/dg/services-dynamodb-errors.html>), including
//! the complete records.
//!
//! Without an on-failure destination the records are lost, as on Lambda; the log identifies them.

use millrace_shared::s3::S3Bucket;
use serde::Serialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use uuid::Uuid;

use super::state::DiscardReason;

const FOLDER: &[BorrowedFormatItem<'_>] = format_description!("[year]/[month]/[day]");
const MOMENT: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour].[minute].[second]");

/// A discarded batch.
#[derive(Debug)]
pub struct DiscardedBatch<'a> {
    /// The name of the mapping.
    pub mapping: &'a str,
    /// The ARN of the function.
    pub function_arn: &'a str,
    /// The ID of the shard.
    pub shard: &'a str,
    /// The ARN of the stream.
    pub stream_arn: &'a str,
    /// The reason of the discard.
    pub reason: DiscardReason,
    /// The number of invocations with these records.
    pub invocations: u32,
    /// The sequence numbers of the first and the last record.
    pub range: [String; 2],
    /// The creation times of the first and the last record.
    pub times: [Option<OffsetDateTime>; 2],
    /// The number of records.
    pub count: usize,
    /// The event that was delivered, or would have been delivered.
    pub payload: &'a RawValue,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InvocationRecord<'a> {
    request_context: RequestContext<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_context: Option<ResponseContext>,
    version: &'static str,
    timestamp: String,
    #[serde(rename = "DDBStreamBatchInfo")]
    batch: BatchInfo<'a>,
    payload: &'a RawValue,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestContext<'a> {
    request_id: String,
    function_arn: &'a str,
    condition: &'static str,
    approximate_invoke_count: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResponseContext {
    status_code: u16,
    executed_version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BatchInfo<'a> {
    shard_id: &'a str,
    start_sequence_number: &'a str,
    end_sequence_number: &'a str,
    approximate_arrival_of_first_record: Option<String>,
    approximate_arrival_of_last_record: Option<String>,
    batch_size: usize,
    stream_arn: &'a str,
}

impl DiscardedBatch<'_> {
    /// Returns the key of the object.
    fn key(&self, now: OffsetDateTime, id: Uuid) -> Result<String, time::error::Format> {
        let (folder, moment) = (now.format(FOLDER)?, now.format(MOMENT)?);
        Ok(format!("aws/lambda/{}/{}/{folder}/{moment}-{id}", self.mapping, self.shard))
    }

    /// Returns the body of the object.
    fn body(&self, now: OffsetDateTime, id: Uuid) -> Result<Vec<u8>, serde_json::Error> {
        let written = |time: OffsetDateTime| time.format(&Rfc3339).ok();
        let condition = match self.reason {
            DiscardReason::RetryAttemptsExhausted => "RetryAttemptsExhausted",
            DiscardReason::RecordAgeExceeded => "RecordAgeExceeded",
        };
        serde_json::to_vec(&InvocationRecord {
            request_context: RequestContext {
                request_id: id.to_string(),
                function_arn: self.function_arn,
                condition,
                approximate_invoke_count: self.invocations,
            },
            response_context: (self.invocations > 0)
                .then_some(ResponseContext { status_code: 200, executed_version: "$LATEST" }),
            version: "1.0",
            timestamp: written(now).unwrap_or_default(),
            batch: BatchInfo {
                shard_id: self.shard,
                start_sequence_number: &self.range[0],
                end_sequence_number: &self.range[1],
                approximate_arrival_of_first_record: self.times[0].and_then(written),
                approximate_arrival_of_last_record: self.times[1].and_then(written),
                batch_size: self.count,
                stream_arn: self.stream_arn,
            },
            payload: self.payload,
        })
    }

    /// Writes the object and returns its key.
    ///
    /// # Errors
    /// The error of the write, as text for the log.
    pub async fn put(&self, to: &S3Bucket, now: OffsetDateTime, id: Uuid) -> Result<String, String> {
        let key = self.key(now, id).map_err(|error| error.to_string())?;
        let body = self.body(now, id).map_err(|error| error.to_string())?;
        to.put(&key, "application/json", body).await.map_err(|error| error.to_string())?;
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use time::macros::datetime;

    use super::*;

    #[test]
    fn the_object_has_aws_s_key_and_shape() {
        let payload = RawValue::from_string(r#"{"Records":[{"eventID":"1"}]}"#.to_owned()).unwrap();
        let given_up = DiscardedBatch {
            mapping: "Changes",
            function_arn: "arn:aws:lambda:us-east-1:000000000000:function:replicator",
            shard: "shardId-1",
            stream_arn: "arn:stream",
            reason: DiscardReason::RetryAttemptsExhausted,
            invocations: 4,
            range: ["100".to_owned(), "200".to_owned()],
            times: [Some(datetime!(2026-01-02 03:04:05 UTC)), None],
            count: 1,
            payload: &payload,
        };
        let (now, id) = (datetime!(2026-01-02 03:05:06.789 UTC), Uuid::nil());
        assert_eq!(
            given_up.key(now, id).unwrap(),
            "aws/lambda/Changes/shardId-1/2026/01/02/2026-01-02T03.05.06-00000000-0000-0000-0000-000000000000"
        );
        let body: Value = serde_json::from_slice(&given_up.body(now, id).unwrap()).unwrap();
        let expected = json!({
            "requestContext": {
                "requestId": "00000000-0000-0000-0000-000000000000",
                "functionArn": "arn:aws:lambda:us-east-1:000000000000:function:replicator",
                "condition": "RetryAttemptsExhausted",
                "approximateInvokeCount": 4,
            },
            "responseContext": {"statusCode": 200, "executedVersion": "$LATEST"},
            "version": "1.0",
            "timestamp": "2026-01-02T03:05:06.789Z",
            "DDBStreamBatchInfo": {
                "shardId": "shardId-1",
                "startSequenceNumber": "100",
                "endSequenceNumber": "200",
                "approximateArrivalOfFirstRecord": "2026-01-02T03:04:05Z",
                "approximateArrivalOfLastRecord": null,
                "batchSize": 1,
                "streamArn": "arn:stream",
            },
            "payload": {"Records": [{"eventID": "1"}]},
        });
        assert_eq!(body, expected);
    }
}
