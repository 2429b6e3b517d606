//! What the functions cost: driven through the Lambda Runtime API on loopback, against an endpoint that accepts everything.
//! Usage: `scripts/bench` and `scripts/bench-archive`, which build the binaries first. Linux only: they read `/proc`.

mod archive;
mod endpoint;
mod events;
mod process;
mod report;
mod runtime_api;

use std::path::PathBuf;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::from(2)
        }
    }
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let binaries: PathBuf = std::env::current_exe()?.parent().ok_or("the bench has no folder")?.to_owned();
    if archive::ordered(&binaries, std::env::args().skip(1)).await? {
        return Ok(());
    }
    for name in ["replicator", "archiver", "api"] {
        if !binaries.join(name).exists() {
            return Err(format!("{} is missing: build it with scripts/bench", binaries.join(name).display()).into());
        }
    }
    let endpoint = endpoint::serve().await?;
    report::streams(&binaries, &endpoint).await?;
    report::requests(&binaries, &endpoint).await
}
