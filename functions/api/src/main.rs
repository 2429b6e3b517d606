//! The API's Lambda entry point, behind an API Gateway HTTP API.

use lambda_http::Error;
use millrace_api::config::{self, ApiConfig};
use millrace_shared::clock::Clock;
use millrace_shared::iam_token::TokenSigner;
use millrace_shared::runtime::start;

/// The reason is in [`millrace_shared::runtime`].
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let process = start(config::FUNCTION, ApiConfig::parse).await?;
    let cache = process.config.cache(Some(TokenSigner::new(&process.sdk, Clock::system())));
    if let Some(cache) = &cache {
        cache.connect().await;
    }
    let app = millrace_api::app(&process.config, process.dynamodb(), cache, Clock::system());
    millrace_http::lambda::serve(app, process.telemetry).await
}
