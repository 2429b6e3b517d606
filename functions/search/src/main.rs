//! The search function's Lambda entry point, behind an API Gateway HTTP API.

use millrace_search::config::{self, SearchConfig};
use millrace_shared::clock::Clock;
use millrace_shared::iam_token::TokenSigner;
use millrace_shared::runtime::{ServeError, start};

/// The reason is in [`millrace_shared::runtime`].
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), ServeError> {
    let process = start(config::FUNCTION, SearchConfig::parse).await?;
    let signer = TokenSigner::new(&process.sdk, Clock::system());
    let app = millrace_search::app(&process.config, Some(signer), Clock::system());
    millrace_http::lambda::serve(app, process.telemetry).await
}
