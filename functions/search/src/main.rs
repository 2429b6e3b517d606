//! The search function's Lambda entry point, behind an API Gateway HTTP API.

use lambda_http::Error;
use millrace_search::config::{self, SearchConfig};
use millrace_shared::clock::Clock;
use millrace_shared::environment::Environment;
use millrace_shared::iam_token::TokenSigner;
use millrace_shared::{aws, telemetry};

/// The same allocator as in the API.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let environment = Environment::from_env();
    let telemetry = telemetry::init(config::FUNCTION, &environment)?;
    let config = SearchConfig::parse(&environment).inspect_err(|error| tracing::error!(%error, "cannot start"))?;
    let signer = TokenSigner::new(&aws::load().await, Clock::system());
    let app = millrace_search::app(&config, Some(signer), Clock::system());
    millrace_http::lambda::serve(app, telemetry).await
}
