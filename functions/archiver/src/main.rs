//! The archiver's Lambda entry point.

use lambda_runtime::Error;
use millrace_archiver::ArchiverError;
use millrace_archiver::config::{self, ArchiverConfig};
use millrace_shared::invocation::Invocation;
use millrace_shared::runtime::{run_stream_lambda, start};

/// The reason is in [`millrace_shared::runtime`].
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let process = start(config::FUNCTION, ArchiverConfig::parse).await?;
    let archiver = millrace_archiver::connect(&process.config, process.s3());
    let handle = async |payload: &[u8], invocation: &Invocation| archiver.handle_payload(payload, invocation).await;
    run_stream_lambda(process.telemetry, handle, ArchiverError::name).await
}
