//! The maintenance function's Lambda entry point.

use lambda_runtime::Error;
use millrace_maintenance::config::{self, MaintenanceConfig};
use millrace_maintenance::lambda_client::LambdaClient;
use millrace_maintenance::{AwsClients, TaskError};
use millrace_shared::clock::Clock;
use millrace_shared::iam_token::TokenSigner;
use millrace_shared::invocation::Invocation;
use millrace_shared::runtime::{run_lambda, start_with};
use millrace_sinks::config::load_document_at_start;
use serde_json::value::RawValue;

/// The reason is in [`millrace_shared::runtime`].
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let process = start_with(config::FUNCTION, load_document_at_start, MaintenanceConfig::parse).await?;
    let sdk = &process.sdk;
    let clients = AwsClients {
        source: match process.config.source_region() {
            Some(region) => process.dynamodb_in(region),
            None => process.dynamodb(),
        },
        replicas: process.config.sinks().replica_clients(sdk).await,
        signer: Some(TokenSigner::new(sdk, Clock::system())),
        s3: process.s3(),
        lambda: LambdaClient::new(sdk),
    };
    let maintenance = millrace_maintenance::connect(&process.config, clients);
    let handle = async |event: &RawValue, invocation: &Invocation| maintenance.handle(event, invocation).await;
    run_lambda(process.telemetry, handle, |error: &TaskError| error.kind().as_str()).await
}
