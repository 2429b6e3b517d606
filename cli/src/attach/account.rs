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
use millrace_maintenance::lambda_client::LambdaClient;
use millrace_maintenance::replication_loop::{FeedUnknownError, FeedingFunction, feeding_functions};
use millrace_shared::aws;
use millrace_shared::clock::Clock;
use millrace_shared::error_chain::error_chain;
use millrace_shared::raw_item::RawItem;
use millrace_sinks::document::TableAddress;

use super::credentials::{self, CredentialsError};
use super::key_request::describe_key;
use super::observation::{
    CheckResult, KeyObservation, ReplicaObservation, SkipReason, SkippedCall, StreamReader, TableObservation,
};

/// Codes of errors that say that the caller lacks a permission.
const DENIED: [&str; 3] = ["AccessDeniedException", "AccessDenied", "UnauthorizedOperation"];

/// The code of the error that says that a table does not exist.
const NOT_FOUND: &str = "ResourceNotFoundException";

const LIST_MAPPINGS: &str = "lambda:ListEventSourceMappings";

/// How the account is reached, as the AWS CLI's options of the same names.
#[derive(Debug, Clone)]
pub(crate) struct AccountOptions {
    pub(crate) region: Option<String>,
    pub(crate) profile: Option<String>,
    pub(crate) endpoint_url: Option<String>,
}

/// Items of a table, each in DynamoDB JSON, and the names of its key attributes.
pub(crate) struct TableSample {
    pub(crate) key: Vec<String>,
    pub(crate) items: Vec<String>,
}

/// A connection that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("no Region is configured: set --region or AWS_REGION")]
    Region,
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// Clients of an account in one Region.
pub(crate) struct AccountConnection {
    pub(crate) sdk: SdkConfig,
    pub(crate) region: String,
    pub(crate) credentials: Credentials,
    /// The URL that all requests are sent to, of the options or of the AWS configuration.
    pub(crate) endpoint_url: Option<String>,
}

impl AccountConnection {
    /// Loads Region and credentials.
    ///
    /// # Errors
    /// [`ConnectionError`], a line that names what to set.
    pub(crate) async fn open(options: AccountOptions) -> Result<Self, ConnectionError> {
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
            return Err(ConnectionError::Region);
        };
        let credentials = credentials::find(&sdk, profile.as_deref()).await?;
        let sdk = sdk.into_builder().credentials_provider(SharedCredentialsProvider::new(credentials.clone())).build();
        let endpoint_url = sdk.endpoint_url().map(str::to_owned);
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
        let lambda = LambdaClient::new(&self.sdk);
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
        // A running millrace has a Region of its own, in which nothing can be deployed.
        let table = description.in_region(&self.region);
        Ok(TableObservation { table, skipped_ttl, recovery, readers, key, replica })
    }

    /// Reads at most this number of items of a table, by name or ARN.
    ///
    /// # Errors
    /// A line about `DescribeTable` or `Scan`, if the call fails or its response is not usable.
    pub(crate) async fn sample(&self, table: &str, most: usize) -> Result<TableSample, String> {
        let dynamodb = aws_sdk_dynamodb::Client::new(&self.sdk);
        let description = match described(&dynamodb, table).await {
            Ok(description) => description?,
            Err(error) => return Err(self.not_described(table, &error)),
        };
        let key = [Some(description.partition_key), description.sort_key].into_iter().flatten();
        let key = key.map(|attribute| attribute.name).collect();
        let limit = i32::try_from(most).unwrap_or(i32::MAX);
        let mut scanned = dynamodb.scan().table_name(table).limit(limit).into_paginator().items().send();
        let mut items = Vec::new();
        while items.len() < most {
            match scanned.next().await {
                Some(Ok(item)) => items.push(RawItem::new(item).encode()),
                Some(Err(error)) => return Err(not_scanned(table, &CallError::new(&error))),
                None => break,
            }
        }
        Ok(TableSample { key, items })
    }

    fn not_described(&self, table: &str, error: &CallError) -> String {
        let region = &self.region;
        let fix = match error.code.as_deref() {
            Some(NOT_FOUND) if self.endpoint_url.is_some() => {
                "set --region or --profile to those of the table, name it by its ARN, or correct --endpoint-url"
                    .to_owned()
            }
            Some(NOT_FOUND) => "set --region or --profile to those of the table, or name it by its ARN".to_owned(),
            Some(code) if DENIED.contains(&code) => {
                "allow dynamodb:DescribeTable on the table to these credentials, or use --from with the output of aws \
                 dynamodb describe-table"
                    .to_owned()
            }
            Some("UnrecognizedClientException" | "InvalidClientTokenId" | "ExpiredTokenException") => {
                "log in again, or set --profile".to_owned()
            }
            _ => match &self.endpoint_url {
                Some(url) => format!(
                    "{url} is not an endpoint of DynamoDB: set --endpoint-url to one, such as http://127.0.0.1:8000 of \
                     a running millrace up"
                ),
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
        let table = match table {
            Ok(table) => table.map(Some).map_err(|description| CallError { code: None, description }),
            Err(error) if error.code.as_deref() == Some(NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        };
        let table = checked("DescribeTable of the replica", "dynamodb:DescribeTable", table);
        let stream = table.known().and_then(Option::as_ref).and_then(|table| table.stream.as_ref());
        let feeding_functions = match stream {
            Some(stream) => self.feeding_functions(&sdk, &stream.arn, &source.arn).await,
            None => CheckResult::Known(Vec::new()),
        };
        ReplicaObservation { arn: arn.clone(), table, feeding_functions }
    }

    async fn feeding_functions(
        &self,
        sdk: &SdkConfig,
        stream_arn: &str,
        source: &TableArn,
    ) -> CheckResult<Vec<FeedingFunction>> {
        let lambda = LambdaClient::new(sdk);
        let config = aws_sdk_s3::config::Builder::from(sdk).force_path_style(self.endpoint_url.is_some());
        let s3 = aws_sdk_s3::Client::from_conf(config.build());
        let Ok(source) = TableAddress::parse(&source.to_string()) else { return CheckResult::Known(Vec::new()) };
        match Box::pin(feeding_functions(&lambda, &s3, stream_arn, &source)).await {
            Ok(functions) => CheckResult::Known(functions),
            Err(FeedUnknownError { call, action, code, reason }) => {
                checked(call, action, Err(CallError { code, description: reason }))
            }
        }
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
        let code = error.code().filter(|code| !code.is_empty());
        let description = match (error, code, error.message()) {
            (SdkError::ServiceError(_), Some(code), Some(message)) => format!("{code}: {message}"),
            // Not a response of AWS: the SDK's error is about its JSON.
            (SdkError::ServiceError(context), None, _) => {
                format!("HTTP {} without an error code of AWS", context.raw().status())
            }
            (SdkError::ResponseError(context), ..) => {
                format!("HTTP {} with a body that AWS does not send", context.raw().status())
            }
            (SdkError::DispatchFailure(failure), ..) if failure.is_io() => {
                let text = error_chain(error);
                let reason = text.rsplit(": ").next().unwrap_or(&text);
                format!("cannot connect ({reason})")
            }
            _ => error_chain(error),
        };
        Self { code: code.map(str::to_owned), description }
    }
}

fn not_scanned(table: &str, error: &CallError) -> String {
    let fix = match error.code.as_deref() {
        Some(code) if DENIED.contains(&code) => "allow dynamodb:Scan, or use --items",
        _ => "try again, or use --items with the output of aws dynamodb scan",
    };
    format!("Scan of {table}: {}: {fix}", error.description)
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

async fn readers(client: &LambdaClient, call: &'static str, stream_arn: &str) -> CheckResult<Vec<StreamReader>> {
    let mut pages = client.mappings_of_stream(stream_arn);
    let mut readers = Vec::new();
    while let Some(page) = pages.next().await {
        let page = match page {
            Ok(page) => page,
            Err(error) => return checked(call, LIST_MAPPINGS, Err(CallError::new(&error))),
        };
        readers.extend(page.iter().map(|mapping| {
            let function = mapping.function_arn.as_deref().unwrap_or("a function without an ARN");
            let function = function.split_once(":function:").map_or(function, |(_, name)| name);
            let state = mapping.state.as_deref().unwrap_or("in an unknown state");
            StreamReader { function: function.to_owned(), state: state.to_owned() }
        }));
    }
    CheckResult::Known(readers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denied_call_and_failed_call_are_skipped_with_distinct_reasons() {
        let error = |code: &str| Err::<(), _>(CallError { code: Some(code.to_owned()), description: "x".to_owned() });
        for (code, reason) in
            [("AccessDeniedException", SkipReason::Denied), ("ThrottlingException", SkipReason::Failed("x".to_owned()))]
        {
            let result = checked("DescribeKey", "kms:DescribeKey", error(code));
            assert_eq!(result.skipped().unwrap().reason, reason);
        }
    }
}
