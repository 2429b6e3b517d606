//! The replicator's Lambda entry point.

use lambda_runtime::Error;
use millrace_replicator::ReplicatorError;
use millrace_replicator::config::{self, ReplicatorConfig};
use millrace_shared::clock::Clock;
use millrace_shared::iam_token::TokenSigner;
use millrace_shared::invocation::Invocation;
use millrace_shared::runtime::{run_stream_lambda, start_with};
use millrace_sinks::config::load_document_at_start;

/// The reason is in [`millrace_shared::runtime`].
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let process = start_with(config::FUNCTION, load_document_at_start, ReplicatorConfig::parse).await?;
    let (config, sdk) = (&process.config, &process.sdk);
    let replicas = config.sinks.replica_clients(sdk).await;
    let signer = Some(TokenSigner::new(sdk, Clock::system()));
    let (postgres, cache) = (config.sinks.postgres(signer.as_ref()), config.sinks.cache(signer));
    let replicator = millrace_replicator::connect(config, replicas, postgres, cache, process.s3());
    replicator.check().await.inspect_err(|error| tracing::error!(%error, "cannot start"))?;
    let handle = async |payload: &[u8], invocation: &Invocation| replicator.handle_payload(payload, invocation).await;
    run_stream_lambda(process.telemetry, handle, ReplicatorError::name).await
}
