//! The calls that read an account: [`AccountCall`], and the policy that allows them: [`policy`].
//!
//! A call is data: this crate makes none. Every operation only reads; [`OPERATIONS`] is the complete list.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

/// A service of AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountService {
    /// API Gateway, version 2.
    ApiGateway,
    /// `CloudFormation`.
    CloudFormation,
    /// `CloudWatch`.
    CloudWatch,
    /// DynamoDB.
    DynamoDb,
    /// DynamoDB Streams.
    DynamoDbStreams,
    /// EC2.
    Ec2,
    /// IAM.
    Iam,
    /// KMS.
    Kms,
    /// Lambda.
    Lambda,
    /// `EventBridge` Pipes.
    Pipes,
    /// S3.
    S3,
    /// SNS.
    Sns,
    /// SQS.
    Sqs,
    /// Step Functions.
    StepFunctions,
}

/// The members by which an operation's response continues on further pages, as JSON pointers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageMembers {
    /// The list, which is continued.
    pub list: &'static str,
    /// The marker of the next page.
    pub next: &'static str,
    /// The parameter that passes the marker.
    pub parameter: &'static str,
}

/// An operation that reads.
#[derive(Debug, PartialEq, Eq)]
pub struct AccountOperation {
    /// The service.
    pub service: AccountService,
    /// The name in the service's API.
    pub name: &'static str,
    /// The IAM action that allows it.
    pub action: &'static str,
    /// The resources for which it must be allowed, as a pattern of ARNs.
    pub resource: &'static str,
    /// The members of its pages, if it has several.
    pub pages: Option<PageMembers>,
    /// Codes of errors that say that the setting does not exist.
    pub absent: &'static [&'static str],
}

const fn operation(
    service: AccountService,
    name: &'static str,
    action: &'static str,
    resource: &'static str,
) -> AccountOperation {
    AccountOperation { service, name, action, resource, pages: None, absent: &[] }
}

const TABLES: &str = "arn:aws:dynamodb:*:*:table/*";
const BUCKETS: &str = "arn:aws:s3:::*";
const FUNCTIONS: &str = "arn:aws:lambda:*:*:function:*";
const KEYS: &str = "arn:aws:kms:*:*:key/*";
const QUEUES: &str = "arn:aws:sqs:*:*:*";
const TOPICS: &str = "arn:aws:sns:*:*:*";

/// Lists the resources of a stack.
pub static LIST_STACK_RESOURCES: AccountOperation = AccountOperation {
    pages: Some(PageMembers { list: "/StackResourceSummaries", next: "/NextToken", parameter: "NextToken" }),
    ..operation(
        AccountService::CloudFormation,
        "ListStackResources",
        "cloudformation:ListStackResources",
        "arn:aws:cloudformation:*:*:stack/*",
    )
};
/// Returns the template of a stack, in which findings are declared as intended.
pub static GET_TEMPLATE: AccountOperation = operation(
    AccountService::CloudFormation,
    "GetTemplate",
    "cloudformation:GetTemplate",
    "arn:aws:cloudformation:*:*:stack/*",
);
/// Lists the event source mappings of the account in the Region.
pub static LIST_MAPPINGS: AccountOperation = AccountOperation {
    pages: Some(PageMembers { list: "/EventSourceMappings", next: "/NextMarker", parameter: "Marker" }),
    ..operation(AccountService::Lambda, "ListEventSourceMappings", "lambda:ListEventSourceMappings", "*")
};
/// Returns the configuration of a function.
pub static GET_FUNCTION: AccountOperation = AccountOperation {
    absent: &["ResourceNotFoundException"],
    ..operation(AccountService::Lambda, "GetFunctionConfiguration", "lambda:GetFunctionConfiguration", FUNCTIONS)
};
/// Returns the reserved concurrency of a function.
pub static GET_CONCURRENCY: AccountOperation =
    operation(AccountService::Lambda, "GetFunctionConcurrency", "lambda:GetFunctionConcurrency", FUNCTIONS);
/// Describes a table.
pub static DESCRIBE_TABLE: AccountOperation = AccountOperation {
    absent: &["ResourceNotFoundException"],
    ..operation(AccountService::DynamoDb, "DescribeTable", "dynamodb:DescribeTable", TABLES)
};
/// Describes the TTL of a table.
pub static DESCRIBE_TTL: AccountOperation =
    operation(AccountService::DynamoDb, "DescribeTimeToLive", "dynamodb:DescribeTimeToLive", TABLES);
/// Describes the point-in-time recovery of a table.
pub static DESCRIBE_BACKUPS: AccountOperation =
    operation(AccountService::DynamoDb, "DescribeContinuousBackups", "dynamodb:DescribeContinuousBackups", TABLES);
/// Reads the TTL attribute, and no other, of up to 100 items.
pub static SCAN: AccountOperation = operation(AccountService::DynamoDb, "Scan", "dynamodb:Scan", TABLES);
/// Lists the shards of a stream.
pub static DESCRIBE_STREAM: AccountOperation = AccountOperation {
    pages: Some(PageMembers {
        list: "/StreamDescription/Shards",
        next: "/StreamDescription/LastEvaluatedShardId",
        parameter: "ExclusiveStartShardId",
    }),
    absent: &["ResourceNotFoundException"],
    ..operation(
        AccountService::DynamoDbStreams,
        "DescribeStream",
        "dynamodb:DescribeStream",
        "arn:aws:dynamodb:*:*:table/*/stream/*",
    )
};
/// Returns whether a bucket is versioned.
pub static GET_VERSIONING: AccountOperation =
    operation(AccountService::S3, "GetBucketVersioning", "s3:GetBucketVersioning", BUCKETS);
/// Returns the lifecycle rules of a bucket.
pub static GET_LIFECYCLE: AccountOperation = AccountOperation {
    absent: &["NoSuchLifecycleConfiguration"],
    ..operation(AccountService::S3, "GetBucketLifecycleConfiguration", "s3:GetLifecycleConfiguration", BUCKETS)
};
/// Returns the default encryption of a bucket.
pub static GET_ENCRYPTION: AccountOperation = AccountOperation {
    absent: &["ServerSideEncryptionConfigurationNotFoundError"],
    ..operation(AccountService::S3, "GetBucketEncryption", "s3:GetEncryptionConfiguration", BUCKETS)
};
/// Returns the policy of a bucket.
pub static GET_BUCKET_POLICY: AccountOperation = AccountOperation {
    absent: &["NoSuchBucketPolicy"],
    ..operation(AccountService::S3, "GetBucketPolicy", "s3:GetBucketPolicy", BUCKETS)
};
/// Lists up to 1,000 objects of a bucket.
pub static LIST_OBJECTS: AccountOperation = operation(AccountService::S3, "ListObjectsV2", "s3:ListBucket", BUCKETS);
/// Returns the policy and the key of a queue.
pub static GET_QUEUE: AccountOperation =
    operation(AccountService::Sqs, "GetQueueAttributes", "sqs:GetQueueAttributes", QUEUES);
/// Returns the policy and the key of a topic.
pub static GET_TOPIC: AccountOperation =
    operation(AccountService::Sns, "GetTopicAttributes", "sns:GetTopicAttributes", TOPICS);
/// Evaluates the policies of a role for an action.
pub static SIMULATE: AccountOperation =
    operation(AccountService::Iam, "SimulatePrincipalPolicy", "iam:SimulatePrincipalPolicy", "arn:aws:iam::*:role/*");
/// Describes a key.
pub static DESCRIBE_KEY: AccountOperation = operation(AccountService::Kms, "DescribeKey", "kms:DescribeKey", KEYS);
/// Returns the policy of a key.
pub static GET_KEY_POLICY: AccountOperation = operation(AccountService::Kms, "GetKeyPolicy", "kms:GetKeyPolicy", KEYS);
/// Describes the alarms of the account in the Region.
pub static DESCRIBE_ALARMS: AccountOperation = AccountOperation {
    pages: Some(PageMembers { list: "/MetricAlarms", next: "/NextToken", parameter: "NextToken" }),
    ..operation(AccountService::CloudWatch, "DescribeAlarms", "cloudwatch:DescribeAlarms", "*")
};
/// Returns the values of a metric: daily ones of the last 14 days, or with `Hours` those of 5 minutes each.
pub static GET_STATISTICS: AccountOperation =
    operation(AccountService::CloudWatch, "GetMetricStatistics", "cloudwatch:GetMetricStatistics", "*");
/// Describes the endpoints of a VPC.
pub static DESCRIBE_ENDPOINTS: AccountOperation =
    operation(AccountService::Ec2, "DescribeVpcEndpoints", "ec2:DescribeVpcEndpoints", "*");
/// Describes the route tables of a VPC.
pub static DESCRIBE_ROUTES: AccountOperation =
    operation(AccountService::Ec2, "DescribeRouteTables", "ec2:DescribeRouteTables", "*");
/// Describes the security groups of a VPC.
pub static DESCRIBE_GROUPS: AccountOperation =
    operation(AccountService::Ec2, "DescribeSecurityGroups", "ec2:DescribeSecurityGroups", "*");
/// Lists the pipes whose source has a prefix.
pub static LIST_PIPES: AccountOperation = AccountOperation {
    pages: Some(PageMembers { list: "/Pipes", next: "/NextToken", parameter: "NextToken" }),
    ..operation(AccountService::Pipes, "ListPipes", "pipes:ListPipes", "*")
};
/// Lists the routes of an HTTP API.
pub static GET_ROUTES: AccountOperation = AccountOperation {
    pages: Some(PageMembers { list: "/items", next: "/nextToken", parameter: "nextToken" }),
    ..operation(AccountService::ApiGateway, "GetRoutes", "apigateway:GET", "arn:aws:apigateway:*::/apis/*/routes")
};

/// All operations.
pub static OPERATIONS: [&AccountOperation; 27] = [
    &LIST_STACK_RESOURCES,
    &GET_TEMPLATE,
    &LIST_MAPPINGS,
    &GET_FUNCTION,
    &GET_CONCURRENCY,
    &DESCRIBE_TABLE,
    &DESCRIBE_TTL,
    &DESCRIBE_BACKUPS,
    &SCAN,
    &DESCRIBE_STREAM,
    &GET_VERSIONING,
    &GET_LIFECYCLE,
    &GET_ENCRYPTION,
    &GET_BUCKET_POLICY,
    &LIST_OBJECTS,
    &GET_QUEUE,
    &GET_TOPIC,
    &SIMULATE,
    &DESCRIBE_KEY,
    &GET_KEY_POLICY,
    &DESCRIBE_ALARMS,
    &GET_STATISTICS,
    &DESCRIBE_ENDPOINTS,
    &DESCRIBE_ROUTES,
    &DESCRIBE_GROUPS,
    &LIST_PIPES,
    &GET_ROUTES,
];

/// A call of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountCall {
    /// The operation.
    pub operation: &'static AccountOperation,
    /// The parameters by name.
    pub parameters: BTreeMap<&'static str, String>,
}

impl AccountCall {
    /// Returns a call with these parameters.
    #[must_use]
    pub fn new(operation: &'static AccountOperation, parameters: &[(&'static str, &str)]) -> Self {
        Self { operation, parameters: parameters.iter().map(|(name, value)| (*name, (*value).to_owned())).collect() }
    }

    /// Returns a parameter; empty if the call does not have it.
    #[must_use]
    pub fn parameter(&self, name: &str) -> &str {
        self.parameters.get(name).map_or("", String::as_str)
    }
}

/// The call as a recording names it: `DescribeTable TableName=Users`.
impl fmt::Display for AccountCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.operation.name)?;
        self.parameters.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}

/// The response to a call.
#[derive(Debug, Clone, PartialEq)]
pub enum CallResponse {
    /// The response; an array that XML wraps in `member` or `item` is an array.
    Response(Value),
    /// The call was refused or failed.
    Refused(CallRefusal),
}

/// A call without a response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallRefusal {
    /// The code of the service's error, if the service answered.
    pub code: Option<String>,
    /// The description.
    pub description: String,
}

/// Codes of errors that say that the caller lacks a permission.
const DENIED: [&str; 6] = [
    "AccessDenied",
    "AccessDeniedException",
    "AuthorizationError",
    "AuthorizationErrorException",
    "Client.UnauthorizedOperation",
    "UnauthorizedOperation",
];

impl CallRefusal {
    /// Returns whether the caller may not make the call.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.code.as_deref().is_some_and(|code| DENIED.contains(&code))
    }

    /// Returns the reason why a rule is not checked, which names the call and, if it was denied, the permission.
    #[must_use]
    pub fn reason(&self, operation: &AccountOperation) -> String {
        if self.is_denied() {
            format!("{} was denied: allow {}", operation.name, operation.action)
        } else {
            format!("{} failed: {}", operation.name, self.description)
        }
    }
}

/// Returns the IAM policy that allows every call of [`OPERATIONS`], as JSON.
#[must_use]
pub fn policy() -> String {
    let mut by_resource: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for operation in OPERATIONS {
        by_resource.entry(operation.resource).or_default().push(operation.action);
    }
    let statement = |(resource, mut actions): (&str, Vec<&'static str>)| {
        actions.sort_unstable();
        json!({"Effect": "Allow", "Action": actions, "Resource": resource})
    };
    let statements: Vec<Value> = by_resource.into_iter().map(statement).collect();
    format!("{:#}", json!({"Version": "2012-10-17", "Statement": statements}))
}
