//! The archiver's Lambda entry point.

use lambda_runtime::{Error, LambdaEvent, service_fn};
use millrace_archiver::config::{self, ArchiverConfig};
use millrace_shared::clock::Clock;
use millrace_shared::environment::Environment;
use millrace_shared::{aws, telemetry};
use serde_json::value::RawValue;
use tokio::time::Instant;

/// mimalloc uses a fifth less CPU time per record in the archiver than glibc's allocator, and some megabytes more
/// memory (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let environment = Environment::from_env();
    let telemetry = telemetry::init(config::FUNCTION, &environment)?;
    let config = ArchiverConfig::parse(&environment).inspect_err(|error| tracing::error!(%error, "cannot start"))?;
    let s3 = aws::s3(&aws::load().await, &environment);
    let (archiver, clock) = (&millrace_archiver::connect(&config, s3), &Clock::system());
    lambda_runtime::run(service_fn(|event: LambdaEvent<Box<RawValue>>| async move {
        let invocation = aws::invocation(clock, Instant::now(), &event.context);
        let answer = archiver.handle(&event.payload, &invocation).await;
        telemetry.flush(&invocation.request_id);
        answer.map_err(|fault| aws::diagnostic(fault.name(), &fault))
    }))
    .await
}
