//! The API's Lambda entry point, behind an API Gateway HTTP API.

use std::time::Duration;

use millrace_api::config::{self, ApiConfig};
use millrace_shared::clock::Clock;
use millrace_shared::iam_token::TokenSigner;
use millrace_shared::runtime::{ServeError, start};
use tokio::time::timeout;

/// The time limit for preparing the first call to the table at start; Lambda limits the whole start to 10 seconds.
const WARM_TIMEOUT: Duration = Duration::from_secs(1);

/// The reason is in [`millrace_shared::runtime`].
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), ServeError> {
    let process = start(config::FUNCTION, ApiConfig::parse).await?;
    let cache = process.config.cache(Some(TokenSigner::new(&process.sdk, Clock::system())));
    if let Some(cache) = &cache {
        cache.connect().await;
    }
    let table = millrace_api::users_table(&process.config, process.dynamodb(), &Clock::system());
    // If this is not done in time, the first request does the rest.
    let _ = timeout(WARM_TIMEOUT, table.warm()).await;
    let app = millrace_api::app_over(&process.config, table, cache, Clock::system());
    millrace_http::lambda::serve(app, process.telemetry).await
}
