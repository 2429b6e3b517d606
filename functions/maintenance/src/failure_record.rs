//! Parser for the objects of the failure bucket: quarantined records, and batches that Lambda sent to the on-failure
//! destination. [`read`]
//!
//! A quarantine object (`quarantine/<function>/<sink>/<table>/…`) contains one record and the reason. An object written
//! by Lambda (`aws/lambda/<mapping>/<shard>/…`) contains an envelope around the event. AWS has been observed to write
//! the event under `payload` both as a JSON object and as a string of JSON text, so both are accepted
//! (<https://docs.aws.amazon.com/lambda/latest/dg/services-dynamodb-errors.html>).

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// Prefix of the records that a function quarantined.
pub const QUARANTINE: &str = "quarantine/";
/// Prefix of the batches that Lambda sent to the on-failure destination.
pub const ON_FAILURE_PREFIX: &str = "aws/lambda/";
/// Upper limit of a failure object's size: a batch has at most 6 MB, and up to twice that as a JSON string.
pub const MAX_OBJECT_BYTES: u64 = 16 * 1024 * 1024;
/// The only format version of quarantine objects that is supported.
const FORMAT: u32 = 1;

/// The function in which a record failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailedFunction {
    /// The replicator.
    Replicator,
    /// The archiver.
    Archiver,
}

impl FailedFunction {
    /// Returns the name that quarantine keys and reports use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replicator => "replicator",
            Self::Archiver => "archiver",
        }
    }
}

/// The names of the deployed functions; an envelope identifies its function by ARN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionNames {
    /// The replicator's name.
    pub replicator: String,
    /// The archiver's name, if the deployment has one.
    pub archiver: Option<String>,
}

impl FunctionNames {
    /// Returns the function that an ARN names, with or without a qualifier (an alias or a version).
    fn function_of_arn(&self, arn: &str) -> Option<FailedFunction> {
        let name = arn.split_once(":function:")?.1.split(':').next()?;
        if name == self.replicator {
            Some(FailedFunction::Replicator)
        } else {
            (Some(name) == self.archiver.as_deref()).then_some(FailedFunction::Archiver)
        }
    }
}

/// Stream records that failed together.
#[derive(Debug)]
pub struct FailureRecord {
    /// The function in which they failed.
    pub function: FailedFunction,
    /// The sink that cannot store the record; `None` if the batch failed as a whole, if the record could not be read,
    /// or if it failed in the archiver.
    pub sink: Option<String>,
    /// The reason for the failure.
    pub reason: String,
    /// An event that contains the records, as Lambda would deliver them again.
    pub event: Box<RawValue>,
}

/// An object that is not a failure record.
#[derive(Debug, thiserror::Error)]
pub enum FailureParseError {
    /// The key has neither of the two formats.
    #[error("unrecognized key: expected {QUARANTINE}<function>/<sink>/<table>/<record>.json or {ON_FAILURE_PREFIX}…")]
    Key,
    /// The body does not have the format that the key indicates.
    #[error("the object is not {0}: {1}")]
    Body(&'static str, #[source] serde_json::Error),
    /// The format version is not supported.
    #[error("unsupported format {0}: expected {FORMAT}")]
    Format(u32),
    /// The function named in the object is not part of this deployment.
    #[error("unknown function {0}: expected the replicator or the archiver of this deployment")]
    Function(String),
}

/// Parses an object of the failure bucket.
///
/// # Errors
/// [`FailureParseError`] if the object is not a failure record.
pub fn read(key: &str, body: &[u8], functions: &FunctionNames) -> Result<FailureRecord, FailureParseError> {
    if let Some(rest) = key.strip_prefix(QUARANTINE) {
        let mut parts = rest.split('/');
        let (Some(function), Some(sink), Some(_), Some(_)) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(FailureParseError::Key);
        };
        let function = match function {
            "replicator" => FailedFunction::Replicator,
            "archiver" => FailedFunction::Archiver,
            other => return Err(FailureParseError::Function(other.to_owned())),
        };
        quarantined(function, sink, body)
    } else if key.starts_with(ON_FAILURE_PREFIX) {
        parse_on_failure_record(body, functions)
    } else {
        Err(FailureParseError::Key)
    }
}

fn quarantined(function: FailedFunction, sink: &str, body: &[u8]) -> Result<FailureRecord, FailureParseError> {
    #[derive(Deserialize)]
    struct Body<'a> {
        format: u32,
        reason: String,
        #[serde(borrow)]
        record: &'a RawValue,
    }
    const WANTED: &str = "a quarantined record ({\"format\":…,\"reason\":…,\"record\":…})";
    let wrong = |error| FailureParseError::Body(WANTED, error);
    let Body { format, reason, record } = serde_json::from_slice(body).map_err(wrong)?;
    if format != FORMAT {
        return Err(FailureParseError::Format(format));
    }
    let event = RawValue::from_string(format!(r#"{{"Records":[{}]}}"#, record.get())).map_err(wrong)?;
    // The replicator uses the sink name `read` for a record that it could not read, and that therefore is in none of
    // the sinks.
    let sink = (function == FailedFunction::Replicator && sink != "read").then(|| sink.to_owned());
    Ok(FailureRecord { function, sink, reason, event })
}

fn parse_on_failure_record(body: &[u8], functions: &FunctionNames) -> Result<FailureRecord, FailureParseError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Envelope<'a> {
        #[serde(borrow)]
        request_context: Context<'a>,
        #[serde(borrow)]
        payload: &'a RawValue,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Context<'a> {
        #[serde(borrow)]
        function_arn: Cow<'a, str>,
        #[serde(borrow)]
        condition: Cow<'a, str>,
    }
    const WANTED: &str = "Lambda's envelope of a batch ({\"requestContext\":{\"functionArn\":…,…},…,\"payload\":…})";
    let wrong = |error| FailureParseError::Body(WANTED, error);
    let Envelope { request_context, payload } = serde_json::from_slice(body).map_err(wrong)?;
    let unknown = || FailureParseError::Function(request_context.function_arn.clone().into_owned());
    let function = functions.function_of_arn(&request_context.function_arn).ok_or_else(unknown)?;
    let event = if payload.get().starts_with('"') {
        let text: String = serde_json::from_str(payload.get()).map_err(wrong)?;
        RawValue::from_string(text).map_err(wrong)?
    } else {
        payload.to_owned()
    };
    Ok(FailureRecord { function, sink: None, reason: request_context.condition.into_owned(), event })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(key: &str, body: &str) -> Result<FailureRecord, String> {
        let functions =
            FunctionNames { replicator: "stack-Replicator-1".into(), archiver: Some("stack-Archiver-2".into()) };
        read(key, body.as_bytes(), &functions).map_err(|error| error.to_string())
    }

    #[test]
    fn a_quarantined_record_is_an_event_of_one() {
        let body = r#"{"format":1,"reason":"too large","record":{"eventID":"1"}}"#;
        let failure = parsed("quarantine/replicator/dynamodb/Users/2026-1.json", body).unwrap();
        assert_eq!((failure.function, failure.sink.as_deref()), (FailedFunction::Replicator, Some("dynamodb")));
        assert_eq!(failure.event.get(), r#"{"Records":[{"eventID":"1"}]}"#);
        let failure = parsed("quarantine/replicator/read/unknown/0f.json", body).unwrap();
        assert_eq!(failure.sink, None, "read is no sink");
        assert_eq!(parsed("quarantine/archiver/s3/Users/1.json", body).unwrap().function, FailedFunction::Archiver);
    }

    #[test]
    fn an_envelope_is_read_with_its_payload_as_an_object_and_as_a_text() {
        let envelope = |function: &str, payload: &str| {
            let context = format!(r#"{{"requestId":"1","functionArn":"{function}","condition":"RecordAgeExceeded"}}"#);
            format!(r#"{{"requestContext":{context},"version":"1.0","payload":{payload}}}"#)
        };
        let arn = "arn:aws:lambda:eu-west-1:123456789012:function:stack-Replicator-1:live";
        for payload in [r#"{"Records":[{"a":"\""}]}"#, r#""{\"Records\":[{\"a\":\"\\\"\"}]}""#] {
            let failure = parsed("aws/lambda/m/shard/2026/11/24/x", &envelope(arn, payload)).unwrap();
            assert_eq!(failure.event.get(), r#"{"Records":[{"a":"\""}]}"#);
            assert_eq!((failure.function, failure.reason.as_str()), (FailedFunction::Replicator, "RecordAgeExceeded"));
        }
        let other = envelope("arn:aws:lambda:eu-west-1:1:function:somebody", "{}");
        assert!(parsed("aws/lambda/m/s/x", &other).unwrap_err().contains("somebody"));
    }

    #[test]
    fn unrecognized_failure_object_is_an_error_with_a_reason() {
        for (key, body, message) in [
            ("redriven/x", "{}", "unrecognized key: expected quarantine/<function>/"),
            ("quarantine/replicator/x.json", "{}", "unrecognized key: expected quarantine/<function>/"),
            ("quarantine/search/pg/Users/1.json", "{}", "search"),
            ("quarantine/replicator/dynamodb/Users/1.json", "hello", "not a quarantined record"),
            ("quarantine/replicator/dynamodb/Users/1.json", r#"{"format":2,"reason":"","record":1}"#, "format 2"),
            ("aws/lambda/m/s/1", "{}", "not Lambda's envelope"),
            ("aws/lambda/m/s/1", r#"{"requestContext":{}}"#, "functionArn"),
        ] {
            let error = parsed(key, body).unwrap_err();
            assert!(error.contains(message), "{key} {body}: {error}");
        }
    }
}
