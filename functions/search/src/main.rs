//! The search function's Lambda entry point, behind an API Gateway HTTP API.

use lambda_http::Error;
use search::config::{self, SearchConfig};
use shared::clock::Clock;
use shared::environment::Environment;
use shared::iam_token::TokenSigner;
use shared::{aws, telemetry};

/// The same allocator as in the API.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let environment = Environment::from_env();
    let telemetry = telemetry::init(config::FUNCTION, &environment)?;
    let config = SearchConfig::parse(&environment).inspect_err(|error| tracing::error!(%error, "cannot start"))?;
    let signer = TokenSigner::new(&aws::load().await, Clock::system());
    let app = search::app(&config, Some(signer), Clock::system());
    front::lambda::serve(app, telemetry).await
}
