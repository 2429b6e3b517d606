//! Official SDK clients for the engines on this machine.
//!
//! The credentials are static and have no meaning: the engines require a signature of the right form and never verify
//! it. They are constants instead of environment variables so that a profile of a real account on this machine is
//! neither needed nor used by mistake.

use aws_config::SdkConfig;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use millrace_maintenance::lambda_client::LambdaClient;

/// The region that the clients sign for; the DynamoDB engine writes `dynoxide` into its ARNs regardless of the region.
pub const REGION: &str = "us-east-1";
/// The name of the stack: the value of `AWS::StackName`, and of the dimension `stack` of every metric.
pub const STACK_NAME: &str = "local";
/// The access key ID in the printed examples. The engines accept any other.
pub const ACCESS_KEY_ID: &str = "local";
/// The secret access key in the printed examples. The engines accept any other.
pub const SECRET_ACCESS_KEY: &str = "local";

fn credentials() -> Credentials {
    Credentials::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY, None, None, "local")
}

/// Returns a DynamoDB client for the engine at `endpoint`.
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

/// Returns a DynamoDB Streams client for the engine at `endpoint`.
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

/// Returns an S3 client for the engine at `endpoint`. It uses path-style requests, since a bucket has no host name of
/// its own here.
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

/// Returns a Lambda client for the part of the Lambda API that is served at the API's `endpoint`: see
/// [`crate::lambda`].
#[must_use]
pub fn lambda(endpoint: &str) -> LambdaClient {
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static(REGION))
        .credentials_provider(SharedCredentialsProvider::new(credentials()))
        .endpoint_url(endpoint)
        .build();
    LambdaClient::new(&config)
}
