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
use millrace_shared::raw_item::RawItem;
use millrace_sinks::document::{DocumentLocation, REPLICATION, ReplicationDocument, SinkSettings, TableAddress};
use millrace_sinks::document_object::read_document;

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

/// Clients of an account in one Region.
pub(crate) struct AccountConnection {
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
    pub(crate) async fn open(options: AccountOptions) -> Result<Self, String> {
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
        // A running millrace has a Region of its own, in which nothing can be deployed.
        let table = description.in_region(&self.region);
        Ok(TableObservation { skipped_ttl, recovery, readers, key, replica, table })
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
            Some("ResourceNotFoundException") if self.endpoint_url.is_some() => {
                "set --region or --profile to those of the table, name it by its ARN, or correct --endpoint-url"
                    .to_owned()
            }
            Some("ResourceNotFoundException") => {
                "set --region or --profile to those of the table, or name it by its ARN".to_owned()
            }
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
                    "{url} is not an endpoint of DynamoDB: set --endpoint-url to one, such as http://127.0.0.1:8000 of a \
                     running millrace up"
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
        let table = table.and_then(|table| table.map_err(|description| CallError { code: None, description }));
        let table = checked("DescribeTable of the replica", "dynamodb:DescribeTable", table);
        let stream = table.known().and_then(|table| table.stream.as_ref());
        let feeding_functions = match stream {
            Some(stream) => self.feeding_functions(&sdk, &stream.arn, arn, &source.arn).await,
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

/// The call that reads the configuration of a function that reads the replica's stream.
const GET_CONFIGURATION: &str = "GetFunctionConfiguration of a function that reads the replica's stream";
/// The call that reads the replication document of such a function.
const GET_DOCUMENT: &str = "GetObject of the replication document of a function that reads the replica's stream";

impl AccountConnection {
    /// Returns the functions that read the replica's stream and replicate to the source: they would write the replica's
    /// changes back to it. One that is found is returned even if another cannot be checked.
    async fn feeding_functions(
        &self,
        sdk: &SdkConfig,
        stream_arn: &str,
        replica: &TableArn,
        source: &TableArn,
    ) -> CheckResult<Vec<String>> {
        let lambda = aws_sdk_lambda::Client::new(sdk);
        let readers = match readers(&lambda, "ListEventSourceMappings of the replica's stream", stream_arn).await {
            CheckResult::Known(readers) => readers,
            CheckResult::NotChecked(call) => return CheckResult::NotChecked(call),
        };
        let (mut feeding, mut skipped) = (Vec::new(), None);
        for reader in readers {
            match self.feeds(sdk, &lambda, &reader.function, replica, source).await {
                CheckResult::Known(true) => feeding.push(reader.function),
                CheckResult::Known(false) => {}
                CheckResult::NotChecked(call) => skipped = Some(call),
            }
        }
        match skipped {
            Some(call) if feeding.is_empty() => CheckResult::NotChecked(call),
            _ => CheckResult::Known(feeding),
        }
    }

    /// Returns whether a function that reads the replica's stream replicates to the source.
    async fn feeds(
        &self,
        sdk: &SdkConfig,
        lambda: &aws_sdk_lambda::Client,
        function: &str,
        replica: &TableArn,
        source: &TableArn,
    ) -> CheckResult<bool> {
        let configuration = match lambda.get_function_configuration().function_name(function).send().await {
            Ok(configuration) => configuration,
            Err(error) => {
                return checked(GET_CONFIGURATION, "lambda:GetFunctionConfiguration", Err(CallError::new(&error)));
            }
        };
        let place = FunctionPlace::new(configuration.function_arn(), replica);
        let variables = configuration.environment().and_then(|environment| environment.variables());
        let Some(variables) = variables else { return CheckResult::Known(false) };
        let failed = |description: String| {
            let reason = SkipReason::Failed(description);
            CheckResult::NotChecked(SkippedCall { call: GET_DOCUMENT, action: "s3:GetObject", reason })
        };
        let Some(text) = variables.get(REPLICATION) else {
            return CheckResult::Known(place.names_as_replica(variables, source));
        };
        let text = match DocumentLocation::parse(text) {
            Ok(None) => text.clone(),
            Ok(Some(location)) => {
                let config = aws_sdk_s3::config::Builder::from(sdk).force_path_style(self.endpoint_url.is_some());
                let s3 = aws_sdk_s3::Client::from_conf(config.build());
                match read_document(&s3, &location).await {
                    Ok(text) => text,
                    // The text names the bucket, the key and the permission.
                    Err(error) => return failed(error_chain(&error)),
                }
            }
            Err(problem) => return failed(format!("{REPLICATION} of {function} {problem}")),
        };
        match ReplicationDocument::parse(&text) {
            Ok(document) => CheckResult::Known(place.has_replica(&document, source)),
            Err(problems) => failed(format!("{REPLICATION} of {function}: {problems}")),
        }
    }
}

/// The Region and the account of a function, in which it finds a table that it names without an ARN.
struct FunctionPlace {
    region: String,
    account: String,
}

impl FunctionPlace {
    /// Returns the place of an ARN, otherwise that of the table whose stream the function reads.
    fn new(function_arn: Option<&str>, replica: &TableArn) -> Self {
        let mut parts = function_arn.unwrap_or_default().split(':').skip(3);
        match (parts.next(), parts.next()) {
            (Some(region), Some(account)) => Self { region: region.to_owned(), account: account.to_owned() },
            _ => Self { region: replica.region.clone(), account: replica.account.clone() },
        }
    }

    /// Returns whether a table of the function's configuration is this one. A name and an ARN can be the same table; a
    /// name is looked up in the Region, and in the account of the role, that are set next to it.
    fn is_table(&self, named: &TableAddress, region: Option<&str>, role: Option<&str>, table: &TableArn) -> bool {
        let role_account = role.and_then(|role| role.split(':').nth(4));
        named.name() == table.table
            && named.partition().is_none_or(|partition| partition == table.partition)
            && named.region().or(region).unwrap_or(&self.region) == table.region
            && named.account().or(role_account).unwrap_or(&self.account) == table.account
    }

    /// Returns whether the variables of a replicator without a document name this table as the replica.
    fn names_as_replica(&self, variables: &std::collections::HashMap<String, String>, table: &TableArn) -> bool {
        let text = |name| variables.get(name).map(String::as_str).filter(|text: &&str| !text.is_empty());
        let named = text("REPLICA_TABLE").and_then(|named| TableAddress::parse(named).ok());
        named.is_some_and(|named| self.is_table(&named, text("REPLICA_REGION"), text("REPLICA_ROLE_ARN"), table))
    }

    /// Returns whether a document has this table as a replica.
    fn has_replica(&self, document: &ReplicationDocument, table: &TableArn) -> bool {
        document.replicas().iter().any(|replica| match &replica.sink {
            SinkSettings::DynamoDb(settings) => {
                let role = settings.role_arn.as_ref().map(millrace_sinks::document::RoleArn::as_str);
                self.is_table(&settings.table, settings.region.as_deref(), role, table)
            }
            SinkSettings::Archive { .. } | SinkSettings::Postgres(_) => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replica_of_a_function_is_found_by_name_and_by_arn() {
        let table = TableArn::parse("arn:aws:dynamodb:eu-west-1:123456789012:table/Orders").unwrap();
        let arn = table.to_string();
        let own = "arn:aws:lambda:eu-west-1:123456789012:function:back";
        let role = "arn:aws:iam::999988887777:role/replica";
        for (function, name, region, role, expected) in [
            (own, "Orders", None, None, true),
            (own, &*arn, None, None, true),
            (own, "Orders", Some("eu-west-1"), None, true),
            (own, "Orders2", None, None, false),
            // The same name elsewhere is another table.
            (own, "Orders", Some("us-east-1"), None, false),
            (own, "Orders", None, Some(role), false),
            (own, "arn:aws:dynamodb:us-east-1:123456789012:table/Orders", None, None, false),
            (own, "arn:aws:dynamodb:eu-west-1:999988887777:table/Orders", None, None, false),
            ("arn:aws:lambda:us-east-1:123456789012:function:back", "Orders", None, None, false),
            ("arn:aws:lambda:us-east-1:123456789012:function:back", "Orders", Some("eu-west-1"), None, true),
            ("arn:aws:lambda:eu-west-1:999988887777:function:back", "Orders", None, None, false),
            ("arn:aws:lambda:eu-west-1:999988887777:function:back", &*arn, None, Some(role), true),
        ] {
            let place = FunctionPlace::new(Some(function), &table);
            let set = [("REPLICA_TABLE", Some(name)), ("REPLICA_REGION", region), ("REPLICA_ROLE_ARN", role)];
            let variables =
                set.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.to_owned()))).collect();
            assert_eq!(place.names_as_replica(&variables, &table), expected, "{function} {variables:?}");
            let mut replica = serde_json::json!({"name": "back", "sink": "dynamodb", "table": name});
            for (member, text) in [("region", region), ("role_arn", role)] {
                if let Some(text) = text {
                    replica[member] = text.into();
                }
            }
            let document = serde_json::json!({"version": 1, "replicas": [replica]}).to_string();
            let document = ReplicationDocument::parse(&document).unwrap();
            assert_eq!(place.has_replica(&document, &table), expected, "{function} {variables:?}");
        }
        let variables = [("SOURCE_TABLE".to_owned(), "Orders".to_owned())].into();
        assert!(!FunctionPlace::new(None, &table).names_as_replica(&variables, &table));
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
