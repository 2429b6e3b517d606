//! The AWS SDK's clients, built once a process and then handed over.

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

/// Attempts at one call, within one invocation. What still fails is reported, and Lambda resends it.
const ATTEMPTS: u32 = 3;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A call that takes longer is tried again; the guard makes a write that lands twice harmless.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);

/// Loads credentials, Region and endpoints as every AWS SDK does, from the process's environment.
pub async fn load() -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest())
        .retry_config(retries())
        .timeout_config(timeouts())
        // Every body here is small and in memory: the attempt's timeout bounds it.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .load()
        .await
}

/// How often a call is tried.
#[must_use]
pub fn retries() -> RetryConfig {
    RetryConfig::standard().with_max_attempts(ATTEMPTS)
}

/// How long a call is waited for. The connection of an attempt that took too long is not used again.
#[must_use]
pub fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_attempt_timeout(ATTEMPT_TIMEOUT).build()
}

/// The failure of an invocation under a name of our own. Lambda shows it as `errorType`; by default it would be the name of a
/// Rust type.
#[must_use]
pub fn diagnostic(name: &str, error: &dyn std::error::Error) -> lambda_runtime::Diagnostic {
    lambda_runtime::Diagnostic { error_type: name.to_owned(), error_message: error.to_string() }
}

/// A DynamoDB client.
#[must_use]
pub fn dynamodb(config: &SdkConfig) -> aws_sdk_dynamodb::Client {
    aws_sdk_dynamodb::Client::new(config)
}

/// An S3 client; with an endpoint override it puts the bucket into the path, as every local S3 wants it.
#[must_use]
pub fn s3(config: &SdkConfig, environment: &Environment) -> aws_sdk_s3::Client {
    let overridden = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"].iter().any(|name| environment.get(name).is_some());
    let config = aws_sdk_s3::config::Builder::from(config).force_path_style(overridden).build();
    aws_sdk_s3::Client::from_conf(config)
}

/// An invocation as Lambda describes it: its deadline is a wall-clock time.
#[must_use]
pub fn invocation(clock: &Clock, started: Instant, context: &lambda_runtime::Context) -> Invocation {
    let now = clock.now();
    Invocation::new(now, started, remaining(context.deadline().into(), now), context.request_id.clone())
}

/// The time that a request has, by a deadline; without one, what API Gateway waits.
#[must_use]
pub fn request_budget(started: Instant, deadline: OffsetDateTime, now: OffsetDateTime) -> RequestBudget {
    let remaining = remaining(deadline, now);
    RequestBudget::new(started, if deadline == OffsetDateTime::UNIX_EPOCH { RequestBudget::DEFAULT } else { remaining })
}

/// The time until a deadline. `cargo lambda watch` sends the time itself in its place, which reads as a moment of 1970.
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
