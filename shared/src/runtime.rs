//! The process of a function on Lambda: its start, and its invocations one after the other.
//!
//! A `main` starts the process ([`start`]), creates the function's clients and handler, and passes the handler to
//! [`run_lambda`], [`run_stream_lambda`] or [`run_requests`].
//!
//! Each `main` also sets mimalloc as the global allocator, which only a program can do. Compared with glibc's
//! allocator, it saves a fifth of the archiver's CPU time per record and takes some megabytes more memory
//! (docs/benchmarks.md).

use std::cell::Cell;
use std::time::Duration;

use aws_config::SdkConfig;
use bytes::Bytes;
use lambda_runtime::layers::TracingLayer;
use lambda_runtime::tower::util::MapRequestLayer;
use lambda_runtime::{Context, Diagnostic, Error, LambdaEvent, LambdaInvocation, Runtime, service_fn};
use serde::Serialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::aws;
use crate::clock::Clock;
use crate::environment::{Environment, EnvironmentError};
use crate::invocation::{Invocation, RequestBudget};
use crate::telemetry::{self, Telemetry};

/// The error that ends the process of a function.
pub type ServeError = Error;

/// The metadata of an invocation.
#[derive(Debug, Clone)]
pub struct InvocationContext {
    /// Lambda's request ID.
    pub request_id: String,
    /// The X-Ray trace header, if the invocation has one.
    pub trace: Option<String>,
    /// The time at which Lambda ends the invocation.
    pub deadline: OffsetDateTime,
}

/// A started process: the function's configuration, and what its clients need.
pub struct FunctionProcess<C> {
    /// The configuration of the function.
    pub config: C,
    /// The metrics of the process, for [`run_lambda`].
    pub telemetry: Telemetry,
    /// The configuration of AWS clients.
    pub sdk: SdkConfig,
    environment: Environment,
}

/// Starts the process of `function`: initializes logs and metrics, parses the configuration, and then loads the
/// configuration of the AWS SDK.
///
/// # Errors
/// [`EnvironmentError`], which is also logged, if `parse` rejects the configuration;
/// [`telemetry::TelemetryError`] if the process was started before.
pub async fn start<C>(
    function: &'static str,
    parse: impl FnOnce(&Environment) -> Result<C, EnvironmentError>,
) -> Result<FunctionProcess<C>, Error> {
    start_with(function, async |environment| Ok(environment), parse).await
}

/// Like [`start`], but `load` may first replace the values of variables, such as the location of a value by the value.
///
/// # Errors
/// As [`start`]; also if `load` fails, with its error.
pub async fn start_with<C>(
    function: &'static str,
    load: impl AsyncFnOnce(Environment) -> Result<Environment, EnvironmentError>,
    parse: impl FnOnce(&Environment) -> Result<C, EnvironmentError>,
) -> Result<FunctionProcess<C>, Error> {
    let environment = Environment::from_env();
    let telemetry = telemetry::init(function, &environment)?;
    let loaded = load(environment).await;
    let parsed = loaded.and_then(|environment| Ok((parse(&environment)?, environment)));
    let (config, environment) = parsed.inspect_err(|error| tracing::error!(%error, "cannot start"))?;
    Ok(FunctionProcess { config, telemetry, sdk: aws::load().await, environment })
}

impl<C> FunctionProcess<C> {
    /// Creates a DynamoDB client.
    #[must_use]
    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        aws::dynamodb(&self.sdk)
    }

    /// Creates a DynamoDB client for another Region.
    #[must_use]
    pub fn dynamodb_in(&self, region: String) -> aws_sdk_dynamodb::Client {
        aws::dynamodb_in(&self.sdk, region)
    }

    /// Creates an S3 client.
    #[must_use]
    pub fn s3(&self) -> aws_sdk_s3::Client {
        aws::s3(&self.sdk, &self.environment)
    }
}

/// Handles the function's invocations, one at a time, until Lambda ends the process. Metrics are flushed after each
/// invocation. An invocation that fails reports the name that `name` returns for its error as `errorType`.
///
/// # Errors
/// The Runtime API cannot be reached.
pub async fn run_lambda<R: Serialize, E: std::error::Error>(
    telemetry: Telemetry,
    handle: impl AsyncFn(&RawValue, &Invocation) -> Result<R, E>,
    name: impl Fn(&E) -> &'static str,
) -> Result<(), Error> {
    let (clock, handle, name) = (&Clock::system(), &handle, &name);
    lambda_runtime::run(service_fn(move |event: LambdaEvent<Box<RawValue>>| async move {
        let handled = handle(&event.payload, &invocation(clock, Instant::now(), &event.context)).await;
        telemetry.flush(&event.context.request_id);
        handled.map_err(|error| diagnostic(name(&error), &error))
    }))
    .await
}

/// Like [`run_lambda`], for a function that reads the bytes of its payload itself.
///
/// # Errors
/// The Runtime API cannot be reached.
pub async fn run_stream_lambda<R: Serialize, E: std::error::Error>(
    telemetry: Telemetry,
    handle: impl AsyncFn(&[u8], &Invocation) -> Result<R, E>,
    name: impl Fn(&E) -> &'static str,
) -> Result<(), Error> {
    let clock = Clock::system();
    run_payloads(telemetry, async |payload, context| {
        let handled = handle(&payload, &invocation(&clock, Instant::now(), &context)).await;
        handled.map_err(|error| diagnostic(name(&error), &error))
    })
    .await
}

/// Like [`run_stream_lambda`], for a function that handles one request in each invocation: with the metadata that its
/// log entry and its time limit need.
///
/// # Errors
/// The Runtime API cannot be reached.
pub async fn run_requests<R: Serialize>(
    telemetry: Telemetry,
    handle: impl AsyncFn(&[u8], InvocationContext) -> Result<R, Diagnostic>,
) -> Result<(), Error> {
    run_payloads(telemetry, async |payload, context| {
        let deadline = OffsetDateTime::from(context.deadline());
        let Context { request_id, xray_trace_id: trace, .. } = context;
        handle(&payload, InvocationContext { request_id, trace, deadline }).await
    })
    .await
}

/// Handles invocations, whose payloads are passed on as they arrived. `lambda_runtime` would parse a payload, to check
/// that it is JSON, and copy it, before the function parses it; a batch of a stream has up to six megabytes.
async fn run_payloads<R: Serialize>(
    telemetry: Telemetry,
    handle: impl AsyncFn(Bytes, Context) -> Result<R, Diagnostic>,
) -> Result<(), Error> {
    // Invocations run one at a time, so this is the payload of the current one.
    let payload = Cell::new(Bytes::new());
    let (payload, handle) = (&payload, &handle);
    let handler = service_fn(move |LambdaEvent { context, .. }: LambdaEvent<()>| async move {
        let request_id = context.request_id.clone();
        let handled = handle(payload.take(), context).await;
        telemetry.flush(&request_id);
        handled
    });
    let take_payload = MapRequestLayer::new(move |mut invocation: LambdaInvocation| {
        payload.set(std::mem::replace(&mut invocation.body, Bytes::from_static(b"null")));
        invocation
    });
    Runtime::new(handler).layer(TracingLayer::new()).layer(take_payload).run().await
}

/// Returns the failure of an invocation with the error type `name`, which Lambda shows as `errorType`. By default it
/// would be the name of a Rust type.
#[must_use]
pub fn diagnostic(name: &str, error: &dyn std::error::Error) -> Diagnostic {
    Diagnostic { error_type: name.to_owned(), error_message: error.to_string() }
}

/// Creates an invocation from Lambda's context, whose deadline is a wall-clock time.
fn invocation(clock: &Clock, started: Instant, context: &lambda_runtime::Context) -> Invocation {
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
