//! The clients of the AWS SDK, which are created once per process and then passed as arguments.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};

use crate::environment::Environment;

/// The maximum attempts of a call within one invocation. If all fail, the failure is reported and Lambda redelivers the
/// batch.
const ATTEMPTS: u32 = 3;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The timeout of an attempt, after which the call is retried. The condition that guards each write makes it harmless
/// to apply one twice.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);

/// Loads credentials, Region and endpoints from the process's environment, as every AWS SDK does.
pub async fn load() -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest())
        .retry_config(retries())
        .timeout_config(timeouts())
        // All bodies are small and in memory, so the timeout of the attempt is sufficient.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .load()
        .await
}

/// Returns the retry policy of calls.
#[must_use]
pub fn retries() -> RetryConfig {
    RetryConfig::standard().with_max_attempts(ATTEMPTS)
}

/// Returns the timeouts of calls. The connection of an attempt that timed out is not reused.
#[must_use]
pub fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_attempt_timeout(ATTEMPT_TIMEOUT).build()
}

/// Creates a DynamoDB client.
#[must_use]
pub fn dynamodb(config: &SdkConfig) -> aws_sdk_dynamodb::Client {
    aws_sdk_dynamodb::Client::new(config)
}

/// Creates a DynamoDB client for a Region other than the configured one.
#[must_use]
pub fn dynamodb_in(config: &SdkConfig, region: String) -> aws_sdk_dynamodb::Client {
    let config = aws_sdk_dynamodb::config::Builder::from(config).region(Region::new(region)).build();
    aws_sdk_dynamodb::Client::from_conf(config)
}

/// Creates an S3 client. If the endpoint is overridden, it uses path-style URLs, which local S3 servers require.
#[must_use]
pub fn s3(config: &SdkConfig, environment: &Environment) -> aws_sdk_s3::Client {
    let overridden = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"].iter().any(|name| environment.get(name).is_some());
    let config = aws_sdk_s3::config::Builder::from(config).force_path_style(overridden).build();
    aws_sdk_s3::Client::from_conf(config)
}
