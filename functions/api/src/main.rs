//! The API's Lambda entry point, behind an API Gateway HTTP API.

use lambda_http::Error;
use millrace_api::config::{self, ApiConfig};
use millrace_shared::clock::Clock;
use millrace_shared::environment::Environment;
use millrace_shared::iam_token::TokenSigner;
use millrace_shared::{aws, telemetry};

/// mimalloc uses a fifth less CPU time per record in the archiver than glibc's allocator, and some megabytes more
/// memory (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let environment = Environment::from_env();
    let telemetry = telemetry::init(config::FUNCTION, &environment)?;
    let config = ApiConfig::parse(&environment).inspect_err(|error| tracing::error!(%error, "cannot start"))?;
    let sdk = aws::load().await;
    let cache = config.cache(Some(TokenSigner::new(&sdk, Clock::system())));
    if let Some(cache) = &cache {
        cache.connect().await;
    }
    let app = millrace_api::app(&config, aws::dynamodb(&sdk), cache, Clock::system());
    millrace_http::lambda::serve(app, telemetry).await
}
