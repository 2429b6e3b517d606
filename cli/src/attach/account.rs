//! Reader of a table's account: [`AccountConnection`]. All calls only read.
//!
//! `DescribeTable` is required. Every other call that is refused or fails becomes a call that was not checked.

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{PointInTimeRecoveryStatus, TimeToLiveStatus};
use millrace_local::table_description::{TableArn, TableDescription, TimeToLive};
use millrace_shared::aws;
use millrace_shared::clock::Clock;
use millrace_shared::error_chain::error_chain;

use super::credentials;
use super::key_request::describe_key;
use super::observation::{
    CheckResult, KeyObservation, ReplicaObservation, SkipReason, SkippedCall, StreamReader, TableObservation,
};

/// Codes of errors that say that the caller lacks a permission.
const DENIED: [&str; 3] = ["AccessDeniedException", "AccessDenied", "UnauthorizedOperation"];

const LIST_MAPPINGS: &str = "lambda:ListEventSourceMappings";

/// How the account is reached, as the AWS CLI's options of the same names.
#[derive(Debug, Clone)]
pub(super) struct AccountOptions {
    pub(super) region: Option<String>,
    pub(super) profile: Option<String>,
    pub(super) endpoint_url: Option<String>,
}

/// Clients of an account in one Region.
pub(super) struct AccountConnection {
    sdk: SdkConfig,
    region: String,
    credentials: Credentials,
    endpoint_url: Option<String>,
}

impl AccountConnection {
    /// Loads Region and credentials.
    ///
    /// # Errors
    /// A line that names what to set.
    pub(super) async fn open(options: AccountOptions) -> Result<Self, String> {
        let AccountOptions { region, profile, endpoint_url } = options;
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .retry_config(aws::retries())
            .timeout_config(aws::timeouts());
        if let Some(profile) = &profile {
            // A named profile takes precedence over credentials in the environment, as in the AWS CLI.
            let provider = ProfileFileCredentialsProvider::builder().profile_name(profile).build();
            loader = loader.profile_name(profile).credentials_provider(provider);
        }
        if let Some(region) = region {
            loader = loader.region(Region::new(region));
        }
        if let Some(url) = &endpoint_url {
            loader = loader.endpoint_url(url);
        }
        let sdk = loader.load().await;
        let Some(region) = sdk.region().map(ToString::to_string) else {
            return Err("no Region is configured: set --region or AWS_REGION, or name the table by its ARN".to_owned());
        };
        let credentials = credentials::find(&sdk, profile.as_deref()).await?;
        let sdk = sdk.into_builder().credentials_provider(SharedCredentialsProvider::new(credentials.clone())).build();
        Ok(Self { sdk, region, credentials, endpoint_url })
    }

    /// Reads a table, by name or ARN, and the existing replica.
    ///
    /// # Errors
    /// A line about `DescribeTable`, if it fails or its response is not usable.
    pub(super) async fn observe(&self, table: &str, replica: Option<&TableArn>) -> Result<TableObservation, String> {
        let dynamodb = aws_sdk_dynamodb::Client::new(&self.sdk);
        let mut description = match described(&dynamodb, table).await {
            Ok(description) => description?,
            Err(error) => return Err(self.not_described(table, &error)),
        };
        let skipped_ttl = match self.time_to_live(&dynamodb, table).await {
            CheckResult::Known(ttl) => {
                description.time_to_live = ttl;
                None
            }
            CheckResult::NotChecked(call) => Some(call),
        };
        let lambda = aws_sdk_lambda::Client::new(&self.sdk);
        let stream = description.stream.as_ref().map(|stream| stream.arn.as_str());
        let readers = match stream {
            Some(stream) => readers(&lambda, "ListEventSourceMappings", stream).await,
            None => CheckResult::Known(Vec::new()),
        };
        let key_arn = description.encryption.as_ref().and_then(|encryption| encryption.key_arn.clone());
        let key = match key_arn {
            Some(key_arn) => Some(self.key(&key_arn).await),
            None => None,
        };
        let replica = match replica {
            Some(arn) => Some(self.replica(arn, &description).await),
            None => None,
        };
        let recovery = self.recovery(&dynamodb, table).await;
        Ok(TableObservation { skipped_ttl, recovery, readers, key, replica, table: description })
    }

    fn not_described(&self, table: &str, error: &CallError) -> String {
        let region = &self.region;
        let fix = match error.code.as_deref() {
            Some("ResourceNotFoundException") => {
                "set --region or --profile to those of the table, or name it by its ARN".to_owned()
            }
            Some(code) if DENIED.contains(&code) => "allow dynamodb:DescribeTable, or use --from".to_owned(),
            Some("UnrecognizedClientException" | "InvalidClientTokenId" | "ExpiredTokenException") => {
                "log in again, or set --profile".to_owned()
            }
            _ => match &self.endpoint_url {
                Some(url) => format!("is {url} an endpoint of DynamoDB? Set --endpoint-url"),
                None => "use --from with the output of aws dynamodb describe-table".to_owned(),
            },
        };
        format!("DescribeTable of {table} in {region}: {}: {fix}", error.description)
    }

    async fn time_to_live(&self, client: &aws_sdk_dynamodb::Client, table: &str) -> CheckResult<TimeToLive> {
        let response = client.describe_time_to_live().table_name(table).send().await;
        let ttl = response.map_err(|error| CallError::new(&error)).map(|output| {
            let ttl = output.time_to_live_description();
            let status = ttl.and_then(|ttl| ttl.time_to_live_status()).map(TimeToLiveStatus::as_str);
            let attribute = ttl.and_then(|ttl| ttl.attribute_name());
            match (status, attribute) {
                (Some("ENABLED" | "ENABLING"), Some(attribute)) => {
                    TimeToLive::Enabled { attribute: attribute.to_owned() }
                }
                _ => TimeToLive::Disabled,
            }
        });
        checked("DescribeTimeToLive", "dynamodb:DescribeTimeToLive", ttl)
    }

    async fn recovery(&self, client: &aws_sdk_dynamodb::Client, table: &str) -> CheckResult<bool> {
        let response = client.describe_continuous_backups().table_name(table).send().await;
        let is_on = response.map_err(|error| CallError::new(&error)).map(|output| {
            let backups = output.continuous_backups_description();
            let recovery = backups.and_then(|backups| backups.point_in_time_recovery_description());
            recovery.and_then(|recovery| recovery.point_in_time_recovery_status())
                == Some(&PointInTimeRecoveryStatus::Enabled)
        });
        checked("DescribeContinuousBackups", "dynamodb:DescribeContinuousBackups", is_on)
    }

    async fn key(&self, key_arn: &str) -> CheckResult<KeyObservation> {
        let endpoint_url = self.endpoint_url.as_deref();
        let key = describe_key(key_arn, endpoint_url, &self.credentials, &Clock::system()).await;
        let key = key.map_err(|error| CallError { code: error.code, description: error.description });
        checked("DescribeKey", "kms:DescribeKey", key)
    }

    async fn replica(&self, arn: &TableArn, source: &TableDescription) -> ReplicaObservation {
        let sdk = self.sdk.to_builder().region(Region::new(arn.region.clone())).build();
        let table = described(&aws_sdk_dynamodb::Client::new(&sdk), &arn.to_string()).await;
        let table = table.and_then(|table| table.map_err(|description| CallError { code: None, description }));
        let table = checked("DescribeTable of the replica", "dynamodb:DescribeTable", table);
        let stream = table.known().and_then(|table| table.stream.as_ref());
        let feeding_functions = match stream {
            Some(stream) => feeding_functions(&aws_sdk_lambda::Client::new(&sdk), &stream.arn, source).await,
            None => CheckResult::Known(Vec::new()),
        };
        ReplicaObservation { arn: arn.clone(), table, feeding_functions }
    }
}

/// An error of a call.
struct CallError {
    code: Option<String>,
    description: String,
}

impl CallError {
    fn new<E>(error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        Self { code: error.code().map(str::to_owned), description: error_chain(error) }
    }
}

fn checked<T>(call: &'static str, action: &'static str, result: Result<T, CallError>) -> CheckResult<T> {
    match result {
        Ok(value) => CheckResult::Known(value),
        Err(CallError { code, description }) => {
            let is_denied = code.is_some_and(|code| DENIED.contains(&&*code));
            let reason = if is_denied { SkipReason::Denied } else { SkipReason::Failed(description) };
            CheckResult::NotChecked(SkippedCall { call, action, reason })
        }
    }
}

/// Describes a table: the outer error is that of the call, the inner one that of its response.
async fn described(
    client: &aws_sdk_dynamodb::Client,
    table: &str,
) -> Result<Result<TableDescription, String>, CallError> {
    let response = client.describe_table().table_name(table).send().await.map_err(|error| CallError::new(&error))?;
    let Some(description) = response.table() else {
        return Ok(Err(format!("DescribeTable of {table}: the response describes no table: use --from")));
    };
    let description = TableDescription::from_sdk(description);
    Ok(description
        .map_err(|error| format!("DescribeTable of {table}: {error}: use --from with a corrected description")))
}

async fn readers(
    client: &aws_sdk_lambda::Client,
    call: &'static str,
    stream_arn: &str,
) -> CheckResult<Vec<StreamReader>> {
    let mut pages = client.list_event_source_mappings().event_source_arn(stream_arn).into_paginator().send();
    let mut readers = Vec::new();
    while let Some(page) = pages.next().await {
        let page = match page {
            Ok(page) => page,
            Err(error) => return checked(call, LIST_MAPPINGS, Err(CallError::new(&error))),
        };
        readers.extend(page.event_source_mappings().iter().map(|mapping| {
            let function = mapping.function_arn().unwrap_or("a function without an ARN");
            let function = function.split_once(":function:").map_or(function, |(_, name)| name);
            let state = mapping.state().unwrap_or("in an unknown state");
            StreamReader { function: function.to_owned(), state: state.to_owned() }
        }));
    }
    CheckResult::Known(readers)
}

/// Returns the functions that read the replica's stream and whose environment names the source table: they would write
/// the replica's changes back to the source.
async fn feeding_functions(
    client: &aws_sdk_lambda::Client,
    stream_arn: &str,
    source: &TableDescription,
) -> CheckResult<Vec<String>> {
    let readers = match readers(client, "ListEventSourceMappings of the replica's stream", stream_arn).await {
        CheckResult::Known(readers) => readers,
        CheckResult::NotChecked(call) => return CheckResult::NotChecked(call),
    };
    let mut feeding = Vec::new();
    for reader in readers {
        let response = client.get_function_configuration().function_name(&reader.function).send().await;
        let configuration = match response {
            Ok(configuration) => configuration,
            Err(error) => {
                let call = "GetFunctionConfiguration of a function that reads the replica's stream";
                return checked(call, "lambda:GetFunctionConfiguration", Err(CallError::new(&error)));
            }
        };
        let variables = configuration.environment().and_then(|environment| environment.variables());
        if variables.is_some_and(|variables| names_table(variables, &source.arn)) {
            feeding.push(reader.function);
        }
    }
    CheckResult::Known(feeding)
}

/// Returns whether the variables of a replicator name this table as a replica.
fn names_table(variables: &std::collections::HashMap<String, String>, table: &TableArn) -> bool {
    let arn = table.to_string();
    let is_replica = |value: &String| *value == table.table || *value == arn;
    let document = variables.get("REPLICATION").and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
    let replicas = document.as_ref().and_then(|document| document["replicas"].as_array());
    let in_document = replicas.is_some_and(|replicas| {
        replicas.iter().any(|replica| replica["table"].as_str().is_some_and(|name| is_replica(&name.to_owned())))
    });
    variables.get("REPLICA_TABLE").is_some_and(is_replica) || in_document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replicator_names_its_replicas_in_a_variable_or_in_a_document() {
        let table = TableArn::parse("arn:aws:dynamodb:eu-west-1:123456789012:table/Orders").unwrap();
        let document = |table: &str| format!(r#"{{"version":1,"replicas":[{{"name":"a","table":"{table}"}}]}}"#);
        for (name, value, expected) in [
            ("REPLICA_TABLE", "Orders".to_owned(), true),
            ("REPLICA_TABLE", table.to_string(), true),
            ("REPLICA_TABLE", "Orders2".to_owned(), false),
            ("REPLICATION", document("Orders"), true),
            ("REPLICATION", document("Other"), false),
            ("REPLICATION", "s3://bucket/key".to_owned(), false),
            ("SOURCE_TABLE", "Orders".to_owned(), false),
        ] {
            let variables = [(name.to_owned(), value)].into();
            assert_eq!(names_table(&variables, &table), expected, "{variables:?}");
        }
    }

    #[test]
    fn a_refused_call_is_not_checked_and_is_told_from_one_that_failed() {
        let error = |code: &str| Err::<(), _>(CallError { code: Some(code.to_owned()), description: "x".to_owned() });
        for (code, reason) in
            [("AccessDeniedException", SkipReason::Denied), ("ThrottlingException", SkipReason::Failed("x".to_owned()))]
        {
            let result = checked("DescribeKey", "kms:DescribeKey", error(code));
            assert_eq!(result.skipped().unwrap().reason, reason);
        }
    }
}
