//! Model of a deployment, which the rules check: [`StreamDeployment`].
//!
//! It has no knowledge of the form in which the deployment is written. Names and ARNs may contain tokens for parts that
//! only a deployment assigns (`${FailureBucket}`); equal tokens are equal names.

use std::collections::BTreeMap;

use crate::access_policy::AccessPolicy;
use crate::iam_policy::RolePermissions;
use crate::setting::SettingValue;

/// Returns the name of the bucket with this ARN, whose partition may be one of several (`aws-cn`, `aws-us-gov`).
#[must_use]
pub fn bucket_name(arn: &str) -> Option<&str> {
    match arn.splitn(6, ':').collect::<Vec<_>>()[..] {
        ["arn", _, "s3", "", "", name] if !name.is_empty() => Some(name),
        _ => None,
    }
}

/// The location of a resource in the deployment's files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceLocation {
    /// The file.
    pub file: String,
    /// The line, starting at 1; 0 if it is not known.
    pub line: usize,
    /// The resource, such as `Replication.ReplicatorFunction`.
    pub resource: String,
}

/// A finding that the deployment itself declares as intended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoredRule {
    /// The rule.
    pub rule: String,
    /// The resource, or `None` for all of the template's.
    pub resource: Option<String>,
    /// Why the finding is intended.
    pub reason: String,
}

/// The form of a deployment's files, and so of a fix.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeploymentForm {
    /// A template of `CloudFormation` or SAM.
    #[default]
    CloudFormation,
    /// Terraform.
    Terraform,
    /// An account; the fix is that of a template.
    Account,
}

/// A deployment, as far as its rules concern it.
#[derive(Debug, Default)]
pub struct StreamDeployment {
    /// The form of its files.
    pub form: DeploymentForm,
    /// The event source mappings of DynamoDB streams.
    pub mappings: Vec<StreamMapping>,
    /// Event source mappings that are not evaluated themselves: they read the same streams, or those of replicas.
    pub other_mappings: Vec<StreamMapping>,
    /// The pipes of `EventBridge` that read a DynamoDB stream.
    pub pipes: Vec<StreamPipe>,
    /// Why the pipes are not known, if they are not.
    pub unknown_pipes: Option<String>,
    /// Event source mappings whose source is not resolved, with the reason.
    pub unresolved_mappings: Vec<(SourceLocation, String)>,
    /// The Lambda functions.
    pub functions: Vec<FunctionSettings>,
    /// The DynamoDB tables.
    pub tables: Vec<TableSettings>,
    /// The S3 buckets.
    pub buckets: Vec<BucketSettings>,
    /// The SQS queues and SNS topics.
    pub message_destinations: Vec<MessageDestination>,
    /// The IAM roles.
    pub roles: Vec<RolePermissions>,
    /// The KMS keys.
    pub keys: Vec<KeySettings>,
    /// The names of aliases, each with the key that it names.
    pub key_aliases: Vec<(String, SettingValue<String>)>,
    /// The metrics that alarms watch.
    pub alarms: Vec<WatchedMetric>,
    /// Why the alarms are not known, if they are not.
    pub unknown_alarms: Option<String>,
    /// The routes of HTTP APIs.
    pub routes: Vec<RouteSettings>,
    /// The network.
    pub network: NetworkSettings,
    /// The policies of buckets, queues and topics, each with the ARN or name of its resource.
    pub resource_policies: Vec<(SettingValue<String>, AccessPolicy)>,
    /// Findings that the deployment declares as intended.
    pub ignored: Vec<IgnoredRule>,
    /// Parts of the deployment that are not evaluated at all, with the reason.
    pub unread: Vec<(SourceLocation, String)>,
}

/// An event source mapping of a DynamoDB stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamMapping {
    /// Where it is defined.
    pub location: SourceLocation,
    /// Its logical ID, after which alarms name it.
    pub id: String,
    /// The name or ARN of the function.
    pub function: SettingValue<String>,
    /// The ARN of the stream.
    pub stream: SettingValue<String>,
    /// Whether the ARN of the stream is spelled out where the mapping is defined.
    pub has_literal_stream: bool,
    /// Whether it delivers records; AWS's default is true.
    pub enabled: SettingValue<bool>,
    /// The maximum number of records of a batch; AWS's default is 100.
    pub batch_size: SettingValue<i64>,
    /// The number of concurrent batches of a shard; AWS's default is 1.
    pub parallelization_factor: SettingValue<i64>,
    /// The maximum number of retries; AWS's default is -1, no limit.
    pub max_retries: SettingValue<i64>,
    /// The maximum age of a record in seconds; AWS's default is -1, no limit.
    pub max_age_s: SettingValue<i64>,
    /// Whether a failed batch is split; AWS's default is false.
    pub bisect: SettingValue<bool>,
    /// Whether the function's response may report records that failed; AWS's default is false.
    pub partial_response: SettingValue<bool>,
    /// `TRIM_HORIZON` or `LATEST`.
    pub starting_position: SettingValue<String>,
    /// The ARN of the on-failure destination.
    pub on_failure: SettingValue<String>,
    /// The filter patterns, as JSON.
    pub filters: SettingValue<Vec<String>>,
    /// Whether the metrics `EventCount` are on; AWS's default is false.
    pub event_count: SettingValue<bool>,
    /// Whether it invokes an alias that SAM publishes (`AutoPublishAlias`).
    pub invokes_published_alias: bool,
    /// The observations of an account.
    pub observed: ObservedDelivery,
}

/// A pipe of `EventBridge` that reads a DynamoDB stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPipe {
    /// The ARN of the stream.
    pub stream: String,
    /// Whether it is to run; AWS's default is true.
    pub running: SettingValue<bool>,
}

/// The state of a mapping in an account, and its metrics of the last 14 days; absent in files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedDelivery {
    /// The state with its reason and the last result, if they show a problem.
    pub problem: SettingValue<String>,
    /// The settings in which the invoked version differs from the function's latest.
    pub outdated_version: SettingValue<String>,
    /// The time of the mapping's creation or last update.
    pub modified: SettingValue<String>,
    /// The age of the oldest record that was delivered, in seconds.
    pub oldest_record_s: SettingValue<i64>,
    /// The age of the records that were delivered last, in seconds, if any were in the last hour.
    pub lag_s: SettingValue<i64>,
    /// The 99th percentile of the duration of an invocation on the slowest day, in milliseconds.
    pub p99_duration_ms: SettingValue<i64>,
    /// The number of objects that a function of Millrace quarantined.
    pub quarantined: SettingValue<i64>,
    /// The number of polled records, if `EventCount` is on.
    pub polled: SettingValue<i64>,
    /// The number of records that the filter discarded, if `EventCount` is on.
    pub filtered_out: SettingValue<i64>,
    /// The number of batches that could not be written to the destination.
    pub undelivered: SettingValue<i64>,
    /// The failure objects in the destination and in the quarantine.
    pub failure_objects: SettingValue<FailureObjects>,
    /// The replicas with items of other rules than those in use, each with the time from which on a repair counts.
    pub outdated_replicas: SettingValue<Vec<OutdatedReplica>>,
}

/// A replica that may contain items of other rules than those in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutdatedReplica {
    /// The name of the replica.
    pub name: String,
    /// The time from which on a repair counts (RFC 3339); `None` if other rules were recorded at the same time, or
    /// a task has written with rules that the replicator has not started with.
    pub repair_from: Option<String>,
}

/// Failure objects of a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureObjects {
    /// The number of objects; a listing ends after 1,000.
    pub count: usize,
    /// How many of them a function of Millrace quarantined.
    pub quarantined: usize,
    /// The age of the oldest, in hours.
    pub oldest_h: i64,
}

/// The purpose for which a function reads the records of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FunctionPurpose {
    /// It applies all changes to another store.
    Replicator,
    /// It stores the items that TTL removes.
    Archiver,
}

/// A Lambda function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionSettings {
    /// Where it is defined.
    pub location: SourceLocation,
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// The timeout in seconds; AWS's default is 3.
    pub timeout_s: SettingValue<i64>,
    /// The reserved concurrency.
    pub reserved_concurrency: SettingValue<i64>,
    /// The ARN of the role.
    pub role: SettingValue<String>,
    /// The environment variables.
    pub environment: BTreeMap<String, SettingValue<String>>,
    /// Why the environment variables are not known, if they are not.
    pub unknown_environment: Option<String>,
    /// `JSON` or `Text`; AWS's default is `Text`.
    pub log_format: SettingValue<String>,
    /// The level of Lambda's log filter; AWS's default is `INFO`.
    pub log_level: SettingValue<String>,
    /// The subnets, if the function is in a VPC.
    pub subnets: SettingValue<Vec<String>>,
    /// The security groups, if the function is in a VPC.
    pub security_groups: SettingValue<Vec<String>>,
    /// Whether its code names `batchItemFailures`.
    pub reports_failures: SettingValue<bool>,
    /// Its purpose, if it is declared or known.
    pub purpose: Option<FunctionPurpose>,
    /// Whether it is one of Millrace's own, which its environment variables show.
    pub is_own: bool,
    /// The names of the DynamoDB tables that it replicates to; unresolved for one that cannot be compared.
    pub replicas: Vec<SettingValue<String>>,
}

/// A DynamoDB table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSettings {
    /// Where it is defined.
    pub location: SourceLocation,
    /// Its name.
    pub name: String,
    /// The key as `name:TYPE` or `name:TYPE,name:TYPE`.
    pub key_schema: SettingValue<String>,
    /// The stream view type; absent without a stream.
    pub stream_view: SettingValue<String>,
    /// The TTL attribute; absent if TTL is off.
    pub ttl_attribute: SettingValue<String>,
    /// Whether point-in-time recovery is on; AWS's default is false.
    pub recovery: SettingValue<bool>,
    /// Whether deletion protection is on; AWS's default is false.
    pub deletion_protection: SettingValue<bool>,
    /// Whether the table stays when the deployment no longer contains it.
    pub retained: SettingValue<bool>,
    /// The KMS key of the customer, if there is one.
    pub key: SettingValue<String>,
    /// Whether it is a global table.
    pub is_global: bool,
    /// The ARN of the latest stream, in an account.
    pub latest_stream: SettingValue<String>,
    /// The number of open shards of the stream, in an account.
    pub open_shards: SettingValue<i64>,
    /// A sample of the TTL values, in an account.
    pub ttl_sample: SettingValue<TtlSample>,
}

/// A sample of the TTL values of a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TtlSample {
    /// The number of items with the attribute.
    pub values: usize,
    /// The number of values that are not numbers.
    pub not_numbers: usize,
    /// The number of values that are too large for seconds.
    pub milliseconds: usize,
}

/// A lifecycle rule of a bucket that is enabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifecycleRule {
    /// The prefix of the objects; empty for all objects.
    pub prefix: SettingValue<String>,
    /// Whether it also selects by tag or size, so that it does not concern all objects of the prefix.
    pub is_narrowed: bool,
    /// Whether it expires current objects.
    pub expires_objects: SettingValue<bool>,
}

/// An S3 bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketSettings {
    /// Where it is defined.
    pub location: SourceLocation,
    /// Its name.
    pub name: String,
    /// Whether versioning is on; AWS's default is false.
    pub versioned: SettingValue<bool>,
    /// The lifecycle rules.
    pub lifecycle: SettingValue<Vec<LifecycleRule>>,
    /// The KMS key of the customer, if there is one.
    pub key: SettingValue<String>,
}

/// An SQS queue or an SNS topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageDestination {
    /// The ARN.
    pub arn: String,
    /// The KMS key of the customer, if there is one.
    pub key: SettingValue<String>,
}

/// A KMS key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySettings {
    /// Where it is defined.
    pub location: SourceLocation,
    /// Its ARN.
    pub arn: String,
    /// Whether it can be used; AWS's default is true.
    pub enabled: SettingValue<bool>,
    /// The state, in an account, such as `PendingDeletion`.
    pub state: SettingValue<String>,
    /// The key's policy.
    pub policy: AccessPolicy,
}

/// A metric that an alarm watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedMetric {
    /// The metric's name.
    pub name: String,
    /// The values of its dimensions; empty if the alarm watches a sum over all.
    pub dimensions: Vec<SettingValue<String>>,
}

/// A route of an HTTP API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSettings {
    /// Where it is defined.
    pub location: SourceLocation,
    /// The method and path.
    pub route: String,
    /// Whether it has an authorizer.
    pub authorized: SettingValue<bool>,
}

/// The network of functions in a VPC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkSettings {
    /// The subnets that the deployment creates.
    pub subnets: Vec<String>,
    /// The VPC endpoints.
    pub endpoints: Vec<VpcEndpointSettings>,
    /// Whether there is a NAT gateway, or another route that is not examined.
    pub has_nat: bool,
    /// The security groups by ID.
    pub groups: BTreeMap<String, SecurityGroupSettings>,
    /// Why the security groups are not known, if they are not.
    pub unknown_groups: Option<String>,
    /// The routes of each subnet, in an account.
    pub routed_subnets: BTreeMap<String, SettingValue<SubnetRoutes>>,
}

/// The routes of a subnet to AWS's services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubnetRoutes {
    /// Whether a route leaves the VPC, to any service.
    pub is_open: bool,
    /// The VPC endpoints.
    pub endpoints: Vec<VpcEndpointSettings>,
}

/// An endpoint of a service in a VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VpcEndpointSettings {
    /// The service, such as `com.amazonaws.eu-west-1.dynamodb`.
    pub service: SettingValue<String>,
    /// The security groups of an interface endpoint; `None` for one of the gateway type, which has none.
    pub groups: Option<SettingValue<Vec<String>>>,
}

/// The rules of a security group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecurityGroupSettings {
    /// The outbound traffic that is allowed; `None` if all is.
    pub egress: Option<Vec<TrafficRule>>,
    /// The inbound traffic that is allowed.
    pub ingress: Vec<TrafficRule>,
    /// Why it may allow more, if it may.
    pub unknown: Option<String>,
}

/// Traffic that a security group allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrafficRule {
    /// Whether it includes TCP to port 443.
    pub allows_https: bool,
    /// The other end.
    pub peer: TrafficPeer,
}

/// The other end of allowed traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrafficPeer {
    /// A block of addresses or a list of them.
    Addresses,
    /// The members of a security group.
    Group(String),
    /// An address that no host has, as in a rule that replaces the default one.
    NoHost,
}

impl FunctionSettings {
    /// Returns the purpose, or `None` if it is another one.
    ///
    /// # Errors
    /// The reason, if the environment variables that determine the purpose are not known.
    pub fn purpose(&self) -> Result<Option<FunctionPurpose>, String> {
        match (self.purpose, &self.unknown_environment) {
            (None, Some(reason)) => Err(reason.clone()),
            (purpose, _) => Ok(purpose),
        }
    }
}

impl StreamDeployment {
    /// Returns the function with this name, ARN, or ARN of a version or alias.
    #[must_use]
    pub fn function(&self, reference: &str) -> Option<&FunctionSettings> {
        self.functions.iter().find(|function| {
            let is_qualified = |own: &str| reference.strip_prefix(own).is_some_and(|rest| rest.starts_with(':'));
            [&function.name, &function.arn].into_iter().any(|own| reference == own || is_qualified(own))
                || reference.strip_suffix(&function.name).is_some_and(|rest| rest.ends_with(":function:"))
        })
    }

    /// Returns the function of a mapping.
    ///
    /// # Errors
    /// The reason, if it is not in the deployment.
    pub fn function_of(&self, mapping: &StreamMapping) -> Result<&FunctionSettings, String> {
        let reference = mapping.function.get()?.map(String::as_str).unwrap_or_default();
        self.function(reference).ok_or_else(|| format!("the function {reference} is not part of this deployment"))
    }

    /// Returns the table with this name or ARN.
    #[must_use]
    pub fn table(&self, reference: &str) -> Option<&TableSettings> {
        let name = reference.split_once(":table/").map_or(reference, |(_, name)| name);
        let name = name.split_once('/').map_or(name, |(name, _)| name);
        self.tables.iter().find(|table| table.name == name)
    }

    /// Returns the table whose stream a mapping reads.
    ///
    /// # Errors
    /// The reason, if it is not in the deployment.
    pub fn table_of(&self, mapping: &StreamMapping) -> Result<&TableSettings, String> {
        let stream = mapping.stream.get()?.map(String::as_str).unwrap_or_default();
        self.table(stream).ok_or_else(|| format!("the table of the stream {stream} is not part of this deployment"))
    }

    /// Returns the bucket with this ARN.
    #[must_use]
    pub fn bucket(&self, arn: &str) -> Option<&BucketSettings> {
        let name = bucket_name(arn)?;
        self.buckets.iter().find(|bucket| bucket.name == name)
    }

    /// Returns the key with this ARN or ID, or with this alias by its name or ARN.
    #[must_use]
    pub fn key(&self, reference: &str) -> Option<&KeySettings> {
        let name = reference.split_once(":alias/").map_or(reference, |(_, name)| name);
        let of_alias = self
            .key_aliases
            .iter()
            .find(|(alias, _)| alias == reference || alias.strip_prefix("alias/").is_some_and(|alias| alias == name));
        let reference = of_alias.and_then(|(_, key)| key.known()).map_or(reference, String::as_str);
        let is_id = |arn: &str| arn.strip_suffix(reference).is_some_and(|before| before.ends_with('/'));
        self.keys.iter().find(|key| key.arn == reference || is_id(&key.arn))
    }

    /// Returns the role of a function.
    ///
    /// # Errors
    /// The reason, if it is not in the deployment.
    pub fn role_of(&self, function: &FunctionSettings) -> Result<&RolePermissions, String> {
        let arn = function.role.get()?.map(String::as_str).unwrap_or_default();
        let role = self.roles.iter().find(|role| role.arn == arn || role.name == arn);
        role.ok_or_else(|| format!("the role {arn} is not part of this deployment"))
    }
}
