//! The maintenance function on Lambda.

use lambda_runtime::{Diagnostic, Error, LambdaEvent, service_fn};
use millrace_maintenance::AwsClients;
use millrace_maintenance::config::{self, MaintenanceConfig};
use millrace_shared::clock::Clock;
use millrace_shared::environment::Environment;
use millrace_shared::iam_token::TokenSigner;
use millrace_shared::{aws, telemetry};
use serde_json::value::RawValue;
use tokio::time::Instant;

/// The same allocator as in the other functions (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let environment = Environment::from_env();
    let telemetry = telemetry::init(config::FUNCTION, &environment)?;
    let config = MaintenanceConfig::parse(&environment).inspect_err(|error| tracing::error!(%error, "cannot start"))?;
    let sdk = aws::load().await;
    let replica = config.sinks().replica_client(&sdk).await;
    let (source, s3) = (aws::dynamodb(&sdk), aws::s3(&sdk, &environment));
    let signer = Some(TokenSigner::new(&sdk, Clock::system()));
    let clients = AwsClients { source, replica, signer, s3, lambda: aws_sdk_lambda::Client::new(&sdk) };
    let (maintenance, clock) = (&millrace_maintenance::connect(&config, clients), &Clock::system());
    lambda_runtime::run(service_fn(|event: LambdaEvent<Box<RawValue>>| async move {
        let invocation = aws::invocation(clock, Instant::now(), &event.context);
        let answer = maintenance.handle(&event.payload, &invocation).await;
        telemetry.flush(&invocation.request_id);
        let named = |fault: millrace_maintenance::TaskError| Diagnostic {
            error_type: fault.name().to_owned(),
            error_message: fault.to_string(),
        };
        answer.map_err(named)
    }))
    .await
}
