//! DynamoDB Streams API with AWS's formats, over the engine's own stream.
//!
//! In the engine a stream's label is an epoch, the name of a shard is shorter than clients accept, the description of a
//! stream lacks the key schema, and any label is accepted for a table's current stream. Here a label is a timestamp in
//! AWS's format, the name of a shard is derived from the stream's label and table, and the ARN or iterator of a stream
//! that no longer exists is rejected.

use dynoxide::actions::get_records::GetRecordsRequest;
use dynoxide::actions::get_shard_iterator::GetShardIteratorRequest;
use dynoxide::actions::list_streams::ListStreamsRequest;
use dynoxide::{Database, DynoxideError, TableMetadata, streams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::format_description;

/// The prefix of a streams operation in the `x-amz-target` header.
pub(super) const PREFIX: &str = "DynamoDBStreams_20120810.";

/// The separator between a stream's ARN and the engine's iterator in an iterator of this API.
const OF_STREAM: &str = "|1|";

/// The smallest sequence number that a record can have.
const FIRST: &str = "100000000000000000001";

/// The current stream of a table.
struct TableStream {
    table: TableMetadata,
    label: String,
    arn: String,
}

impl TableStream {
    fn from_metadata(table: TableMetadata) -> Option<Self> {
        let label = table.stream_label.as_deref().filter(|_| table.stream_enabled).and_then(iso)?;
        let arn = streams::stream_arn(&table.table_name, &label);
        Some(Self { table, label, arn })
    }

    /// Returns the stream with this ARN if it is the current stream of its table.
    fn named(database: &Database, arn: &str) -> Result<Self, DynoxideError> {
        let table = arn.split_once(":table/").and_then(|(_, rest)| rest.split('/').next());
        let table = table.map(|table| database.get_table_metadata(table)).transpose()?.flatten();
        table.and_then(Self::from_metadata).filter(|stream| stream.arn == arn).ok_or_else(|| {
            DynoxideError::ResourceNotFoundException(format!("Requested resource not found: Stream: {arn} not found"))
        })
    }

    /// Returns the name of the stream's one shard, which is as long as AWS's and unique to the stream.
    fn shard(&self) -> String {
        let digits: String = self.label.chars().filter(char::is_ascii_digit).collect();
        // FNV-1a; any hash that distributes table names is sufficient.
        let hash = self
            .table
            .table_name
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        format!("shardId-{digits:0>20}-{hash:08x}")
    }
}

/// Runs an operation on streams.
pub(super) fn respond(database: &Database, operation: &str, body: &[u8]) -> Result<Value, DynoxideError> {
    match operation {
        "ListStreams" => list(database, body),
        "DescribeStream" => describe(database, body),
        "GetShardIterator" => iterate(database, body),
        "GetRecords" => read(database, body),
        other => Err(DynoxideError::ValidationException(format!("unknown operation {other} of DynamoDB Streams"))),
    }
}

fn list(database: &Database, body: &[u8]) -> Result<Value, DynoxideError> {
    let mut request: ListStreamsRequest = parse(body)?;
    if let Some(arn) = &request.exclusive_start_stream_arn {
        let stream = TableStream::named(database, arn)?;
        let label = stream.table.stream_label.unwrap_or_default();
        request.exclusive_start_stream_arn = Some(streams::stream_arn(&stream.table.table_name, &label));
    }
    let mut response = value(&database.list_streams(request)?)?;
    relabel(&mut response);
    Ok(response)
}

fn describe(database: &Database, body: &[u8]) -> Result<Value, DynoxideError> {
    let request: dynoxide::actions::describe_stream::DescribeStreamRequest = parse(body)?;
    let (stream, start) =
        (TableStream::named(database, &request.stream_arn)?, request.exclusive_start_shard_id.clone());
    let mut response = value(&database.describe_stream(request)?)?;
    let description = &mut response["StreamDescription"];
    description["StreamLabel"] = json!(stream.label);
    description["KeySchema"] = serde_json::from_str(&stream.table.key_schema).map_err(|error| internal(&error))?;
    let shard = stream.shard();
    if start.as_ref() == Some(&shard) {
        description["Shards"] = json!([]);
    } else if let Some(described) = description["Shards"].get_mut(0) {
        described["ShardId"] = json!(shard);
        // The shard is open, and its range of sequence numbers starts before its first record.
        let first = described["SequenceNumberRange"]["StartingSequenceNumber"].take();
        let first = if first.is_null() { json!(FIRST) } else { first };
        described["SequenceNumberRange"] = json!({"StartingSequenceNumber": first});
    }
    Ok(response)
}

fn iterate(database: &Database, body: &[u8]) -> Result<Value, DynoxideError> {
    let mut request: GetShardIteratorRequest = parse(body)?;
    let stream = TableStream::named(database, &request.stream_arn)?;
    if request.shard_id != stream.shard() {
        let reason =
            format!("Requested resource not found: Shard: {} in Stream: {} not found", request.shard_id, stream.arn);
        return Err(DynoxideError::ResourceNotFoundException(reason));
    }
    request.shard_id = streams::shard_id(&stream.table.table_name);
    let mut response = value(&database.get_shard_iterator(request)?)?;
    wrap(&mut response["ShardIterator"], &stream.arn);
    Ok(response)
}

fn read(database: &Database, body: &[u8]) -> Result<Value, DynoxideError> {
    let mut request: GetRecordsRequest = parse(body)?;
    let wrong = || DynoxideError::ValidationException("Invalid ShardIterator".to_owned());
    let (arn, iterator) = request.shard_iterator.split_once(OF_STREAM).ok_or_else(wrong)?;
    let stream = TableStream::named(database, arn)?;
    request.shard_iterator = iterator.into();
    let mut response = value(&database.get_records(request)?)?;
    wrap(&mut response["NextShardIterator"], &stream.arn);
    for record in response["Records"].as_array_mut().into_iter().flatten() {
        // The engine uses the member names of Lambda's events; those of DynamoDB Streams are capitalized.
        if let Some(identity) = record.get_mut("userIdentity") {
            *identity = json!({"Type": identity["type"].take(), "PrincipalId": identity["principalId"].take()});
        }
    }
    Ok(response)
}

fn wrap(iterator: &mut Value, arn: &str) {
    if let Some(inner) = iterator.as_str() {
        *iterator = json!(format!("{arn}{OF_STREAM}{inner}"));
    }
}

/// Rewrites stream labels, alone and within ARNs, to AWS's format in any part of a response about tables or streams.
pub(super) fn relabel(response: &mut Value) {
    match response {
        Value::Object(members) => {
            for (name, member) in members {
                match (name.as_str(), member.as_str()) {
                    ("LatestStreamLabel" | "StreamLabel", Some(label)) => {
                        if let Some(label) = iso(label) {
                            *member = json!(label);
                        }
                    }
                    ("LatestStreamArn" | "StreamArn" | "LastEvaluatedStreamArn", Some(arn)) => {
                        if let Some((of_table, label)) = arn.rsplit_once('/')
                            && let Some(label) = iso(label)
                        {
                            *member = json!(format!("{of_table}/{label}"));
                        }
                    }
                    _ => relabel(member),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(relabel),
        _ => {}
    }
}

/// Converts the engine's label, `<seconds>.<nanoseconds>`, to AWS's format.
fn iso(label: &str) -> Option<String> {
    let (seconds, nanos) = label.split_once('.')?;
    let time = OffsetDateTime::from_unix_timestamp(seconds.parse().ok()?).ok()?.replace_nanosecond(nanos.parse().ok()?);
    let form = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]");
    time.ok()?.format(form).ok()
}

fn parse<R: DeserializeOwned>(body: &[u8]) -> Result<R, DynoxideError> {
    serde_json::from_slice(body)
        .map_err(|error| DynoxideError::ValidationException(format!("malformed request: {error}")))
}

fn value(response: &impl serde::Serialize) -> Result<Value, DynoxideError> {
    serde_json::to_value(response).map_err(|error| internal(&error))
}

fn internal(error: &serde_json::Error) -> DynoxideError {
    DynoxideError::InternalServerError(error.to_string())
}

#[cfg(test)]
mod tests {
    use millrace_shared::revision::StreamLabel;

    use super::*;

    #[test]
    fn a_label_is_a_time_in_the_form_of_aws() {
        assert_eq!(iso("1700000000.123456789").as_deref(), Some("2023-11-14T22:13:20.123"));
        assert_eq!(iso("1700000000.000000000").as_deref(), Some("2023-11-14T22:13:20.000"));
        assert_eq!(StreamLabel::parse("2023-11-14T22:13:20.123"), StreamLabel::parse("1700000000.123456789"));
        for label in ["", "2023-11-14T22:13:20.123", "1.", "x.1", "1.9999999999"] {
            assert_eq!(iso(label), None, "{label}");
        }
    }

    #[test]
    fn labels_are_rewritten_wherever_they_stand_and_nothing_else_is() {
        let mut response = json!({"Table": {
            "LatestStreamLabel": "1700000000.123456789",
            "LatestStreamArn": "arn:aws:dynamodb:r:0:table/T/stream/1700000000.123456789",
            "TableArn": "arn:aws:dynamodb:r:0:table/T",
            "TableName": "1700000000.123456789",
            "Items": [{"StreamLabel": "1700000000.000000001"}],
        }});
        relabel(&mut response);
        let expected = json!({"Table": {
            "LatestStreamLabel": "2023-11-14T22:13:20.123",
            "LatestStreamArn": "arn:aws:dynamodb:r:0:table/T/stream/2023-11-14T22:13:20.123",
            "TableArn": "arn:aws:dynamodb:r:0:table/T",
            "TableName": "1700000000.123456789",
            "Items": [{"StreamLabel": "2023-11-14T22:13:20.000"}],
        }});
        assert_eq!(response, expected);
    }
}
