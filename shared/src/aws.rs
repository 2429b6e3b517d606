//! The clients of the AWS SDK, which are created once per process and then passed as arguments.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::environment::Environment;
use crate::invocation::{Invocation, RequestBudget};

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

/// Returns the failure of an invocation with the error type `name`, which Lambda shows as `errorType`. By default it
/// would be the name of a Rust type.
#[must_use]
pub fn diagnostic(name: &str, error: &dyn std::error::Error) -> lambda_runtime::Diagnostic {
    lambda_runtime::Diagnostic { error_type: name.to_owned(), error_message: error.to_string() }
}

/// Creates a DynamoDB client.
#[must_use]
pub fn dynamodb(config: &SdkConfig) -> aws_sdk_dynamodb::Client {
    aws_sdk_dynamodb::Client::new(config)
}

/// Creates an S3 client. If the endpoint is overridden, it uses path-style URLs, which local S3 servers require.
#[must_use]
pub fn s3(config: &SdkConfig, environment: &Environment) -> aws_sdk_s3::Client {
    let overridden = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"].iter().any(|name| environment.get(name).is_some());
    let config = aws_sdk_s3::config::Builder::from(config).force_path_style(overridden).build();
    aws_sdk_s3::Client::from_conf(config)
}

/// Creates an invocation from Lambda's context, whose deadline is a wall-clock time.
#[must_use]
pub fn invocation(clock: &Clock, started: Instant, context: &lambda_runtime::Context) -> Invocation {
    let now = clock.now();
    Invocation::new(now, started, remaining(context.deadline().into(), now), context.request_id.clone())
}

/// Returns the time budget of a request until its deadline. Without a deadline it is the time that API Gateway waits.
#[must_use]
pub fn request_budget(started: Instant, deadline: OffsetDateTime, now: OffsetDateTime) -> RequestBudget {
    let remaining = remaining(deadline, now);
    RequestBudget::new(started, if deadline == OffsetDateTime::UNIX_EPOCH { RequestBudget::DEFAULT } else { remaining })
}

/// Returns the time until a deadline. `cargo lambda watch` sends the remaining time instead of a deadline, which reads
/// as a time in 1970.
fn remaining(deadline: OffsetDateTime, now: OffsetDateTime) -> Duration {
    let from = if deadline.year() == 1970 { OffsetDateTime::UNIX_EPOCH } else { now };
    (deadline - from).try_into().unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_deadline_is_a_moment_on_lambda_and_a_length_in_cargo_lambda() {
        let now = datetime!(2026-11-22 12:00 UTC);
        assert_eq!(remaining(datetime!(2026-11-22 12:01 UTC), now), Duration::from_mins(1));
        assert_eq!(remaining(datetime!(1970-01-01 00:10 UTC), now), Duration::from_mins(10));
        assert_eq!(remaining(datetime!(2026-11-22 11:59 UTC), now), Duration::ZERO);
    }
}
