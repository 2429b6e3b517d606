//! The replicator as a Lambda function.

use lambda_runtime::{Error, LambdaEvent, service_fn};
use millrace_replicator::config::{self, ReplicatorConfig};
use millrace_shared::clock::Clock;
use millrace_shared::environment::Environment;
use millrace_shared::iam_token::TokenSigner;
use millrace_shared::{aws, telemetry};
use serde_json::value::RawValue;
use tokio::time::Instant;

/// Compared with glibc's allocator, mimalloc saves a fifth of the archiver's CPU time per record and takes some
/// megabytes more memory (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let environment = Environment::from_env();
    let telemetry = telemetry::init(config::FUNCTION, &environment)?;
    let config = ReplicatorConfig::parse(&environment).inspect_err(|error| tracing::error!(%error, "cannot start"))?;
    let sdk = aws::load().await;
    let replica = config.sinks.replica_client(&sdk).await;
    let signer = Some(TokenSigner::new(&sdk, Clock::system()));
    let (postgres, cache) = (config.sinks.postgres(signer.clone()), config.sinks.cache(signer));
    let replicator = millrace_replicator::connect(&config, replica, postgres, cache, aws::s3(&sdk, &environment));
    replicator.check().await.inspect_err(|fault| tracing::error!(error = %fault, "cannot start"))?;
    let (replicator, clock) = (&replicator, &Clock::system());
    lambda_runtime::run(service_fn(move |event: LambdaEvent<Box<RawValue>>| async move {
        let invocation = aws::invocation(clock, Instant::now(), &event.context);
        let answer = replicator.handle(&event.payload, &invocation).await;
        telemetry.flush(&invocation.request_id);
        answer.map_err(|fault| aws::diagnostic(fault.name(), &fault))
    }))
    .await
}
