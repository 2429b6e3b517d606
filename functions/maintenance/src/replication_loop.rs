//! Replication loops: functions that read the stream of a replica and replicate to the source
//! ([`feeding_functions`]).

use aws_smithy_types::error::metadata::ProvideErrorMetadata as _;
use millrace_shared::aws_service::AwsCallError;
use millrace_shared::error_chain::error_chain;
use millrace_sinks::document::{DocumentLocation, REPLICATION, ReplicationDocument, ReplicatorLocation, TableAddress};
use millrace_sinks::document_object::read_document;

use crate::lambda_client::LambdaClient;

/// A function that replicates a replica back to the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedingFunction {
    /// The function's name.
    pub name: String,
    /// The UUID of the event source mapping by which it reads the replica's stream.
    pub mapping_uuid: String,
}

/// It cannot be determined whether a function replicates a replica back to the source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {reason}")]
pub struct FeedUnknownError {
    /// The call that failed.
    pub call: &'static str,
    /// The IAM action that allows the call.
    pub action: &'static str,
    /// The code of the error that the service returned.
    pub code: Option<String>,
    /// The error.
    pub reason: String,
}

impl FeedUnknownError {
    fn from_call(call: &'static str, action: &'static str, error: &AwsCallError) -> Self {
        Self { call, action, code: error.code().map(str::to_owned), reason: error_chain(error) }
    }

    fn from_document(reason: String) -> Self {
        let call = "GetObject of the replication document of a function that reads the replica's stream";
        Self { call, action: "s3:GetObject", code: None, reason }
    }
}

/// A replica feeds the source: another replicator writes its changes back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "sink {sink}: {function} reads {stream}, the stream of the replica, and replicates to the source {source_arn}: \
     changes would be replicated in a loop: delete its event source mapping with {}, or replace the replica by another \
     table; millrace attach {source_arn} --replica-table ARN checks it and writes the files to deploy",
    delete_mapping_command(stream, mapping_uuid)
)]
pub struct ReplicationLoopError {
    /// The sink's name.
    pub sink: String,
    /// The ARN of the replica's stream.
    pub stream: String,
    /// The name of the function.
    pub function: String,
    /// The UUID of the function's event source mapping.
    pub mapping_uuid: String,
    /// The ARN of the source table.
    pub source_arn: String,
}

/// Returns the command that ends the reading of a stream by the mapping with this UUID.
#[must_use]
pub fn delete_mapping_command(stream_arn: &str, uuid: &str) -> String {
    let region = stream_arn.split(':').nth(3).unwrap_or_default();
    format!("aws lambda delete-event-source-mapping --region {region} --uuid {uuid}")
}

/// Returns the functions that read the stream of a replica and replicate to the source, which is an ARN. One that is
/// found is returned even if another cannot be checked. Mappings of other accounts are not visible.
///
/// # Errors
/// [`FeedUnknownError`] if none is found and a call fails.
pub async fn feeding_functions(
    lambda: &LambdaClient,
    s3: &aws_sdk_s3::Client,
    stream_arn: &str,
    source: &TableAddress,
) -> Result<Vec<FeedingFunction>, FeedUnknownError> {
    let mut pages = lambda.mappings_of_stream(stream_arn);
    let mut readers = Vec::new();
    while let Some(page) = pages.next().await {
        let call = "ListEventSourceMappings of the replica's stream";
        let action = "lambda:ListEventSourceMappings";
        readers.extend(page.map_err(|error| FeedUnknownError::from_call(call, action, &error))?);
    }
    let (mut feeding, mut failed) = (Vec::new(), None);
    for mapping in readers {
        let arn = mapping.function_arn.as_deref().unwrap_or_default();
        let name = arn.split_once(":function:").map_or(arn, |(_, name)| name);
        match Box::pin(replicates_to(lambda, s3, name, stream_arn, source)).await {
            Ok(true) => {
                let mapping_uuid = mapping.uuid.clone().unwrap_or_default();
                feeding.push(FeedingFunction { name: name.to_owned(), mapping_uuid });
            }
            Ok(false) => {}
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if feeding.is_empty() => Err(error),
        _ => Ok(feeding),
    }
}

/// Returns whether a function that reads this stream is a replicator with this table as a replica.
async fn replicates_to(
    lambda: &LambdaClient,
    s3: &aws_sdk_s3::Client,
    function: &str,
    stream_arn: &str,
    table: &TableAddress,
) -> Result<bool, FeedUnknownError> {
    let call = "GetFunctionConfiguration of a function that reads the replica's stream";
    let configuration = lambda.function_configuration(function).await;
    let configuration =
        configuration.map_err(|error| FeedUnknownError::from_call(call, "lambda:GetFunctionConfiguration", &error))?;
    let replicator = ReplicatorLocation::new(configuration.function_arn.as_deref(), stream_arn);
    let variables = configuration.environment.and_then(|environment| environment.variables);
    let Some(variables) = &variables else { return Ok(false) };
    let Some(text) = variables.get(REPLICATION).filter(|text| !text.is_empty()) else {
        return Ok(replicator.names_as_replica(variables, table));
    };
    let text = match DocumentLocation::parse(text) {
        Ok(None) => text.clone(),
        // The error names the bucket, the key and the permission.
        Ok(Some(location)) => {
            read_document(s3, &location).await.map_err(|error| FeedUnknownError::from_document(error_chain(&error)))?
        }
        Err(problem) => return Err(FeedUnknownError::from_document(format!("{REPLICATION} of {function} {problem}"))),
    };
    match ReplicationDocument::parse(&text) {
        Ok(document) => Ok(replicator.has_replica(&document, table)),
        Err(problems) => Err(FeedUnknownError::from_document(format!("{REPLICATION} of {function}: {problems}"))),
    }
}
