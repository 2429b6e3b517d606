//! Search on Lambda, behind an API Gateway HTTP API.

use lambda_http::{Error, Request, RequestExt, service_fn};
use search::config::{self, Config};
use shared::clock::Clock;
use shared::environment::Environment;
use shared::token::TokenSigner;
use shared::{aws, telemetry};
use tower::ServiceExt;

/// As in the API.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let environment = Environment::of_process();
    let telemetry = telemetry::init(config::FUNCTION, &environment)?;
    let config = Config::parse(&environment).inspect_err(|problems| tracing::error!(%problems, "cannot start"))?;
    let signer = TokenSigner::new(&aws::load().await, Clock::system());
    let app = search::app(&config, Some(signer), Clock::system());
    lambda_http::run(service_fn(move |request: Request| {
        let request_id = request.lambda_context().request_id;
        let answer = app.clone().oneshot(request);
        async move {
            let answer = answer.await;
            telemetry.flush(&request_id);
            answer
        }
    }))
    .await
}
