//! Official SDK clients of the engines on this machine.
//!
//! The credentials are static and mean nothing: the engines ask for a signature's form and never check it. They
//! stand here, and not in the environment, so that a profile of a real account on this machine can neither be
//! needed nor be used by mistake.

use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};

/// The region under which the clients sign; the DynamoDB engine writes `dynoxide` into its ARNs whatever is asked.
pub const REGION: &str = "us-east-1";
/// The name of the stack: what `AWS::StackName` is here, and the dimension `stack` of every metric.
pub const STACK_NAME: &str = "local";
/// The access key id that the printed examples show. Any other does as well.
pub const ACCESS_KEY_ID: &str = "local";
/// The secret key that the printed examples show. Any other does as well.
pub const SECRET_ACCESS_KEY: &str = "local";

fn credentials() -> Credentials {
    Credentials::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY, None, None, "local")
}

/// A DynamoDB client of the engine at `endpoint`.
#[must_use]
pub fn dynamodb(endpoint: &str) -> aws_sdk_dynamodb::Client {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static(REGION))
        .credentials_provider(credentials())
        .endpoint_url(endpoint)
        .build();
    aws_sdk_dynamodb::Client::from_conf(config)
}

/// A DynamoDB Streams client of the engine at `endpoint`.
#[must_use]
pub fn streams(endpoint: &str) -> aws_sdk_dynamodbstreams::Client {
    let config = aws_sdk_dynamodbstreams::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static(REGION))
        .credentials_provider(credentials())
        .endpoint_url(endpoint)
        .build();
    aws_sdk_dynamodbstreams::Client::from_conf(config)
}

/// An S3 client of the engine at `endpoint`; path style, since a bucket has no host name of its own here.
#[must_use]
pub fn s3(endpoint: &str) -> aws_sdk_s3::Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static(REGION))
        .credentials_provider(credentials())
        .endpoint_url(endpoint)
        .force_path_style(true)
        .build();
    aws_sdk_s3::Client::from_conf(config)
}

/// A client of what this machine answers in Lambda's place, at the API's `endpoint`: see [`crate::lambda`].
#[must_use]
pub fn lambda(endpoint: &str) -> aws_sdk_lambda::Client {
    let config = aws_sdk_lambda::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static(REGION))
        .credentials_provider(credentials())
        .endpoint_url(endpoint)
        .build();
    aws_sdk_lambda::Client::from_conf(config)
}
