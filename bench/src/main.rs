//! What the functions cost: the release binaries, driven through the Lambda Runtime API on loopback, against an
//! endpoint that accepts everything. Reports CPU time a record, peak memory, and the time to the first answer.
//!
//! Usage: `scripts/bench`, which builds the binaries first; `scripts/bench api` builds and measures that one alone. Linux
//! only: it reads `/proc`. With `maintenance` only what maintenance costs is measured, for which no binary is needed.

mod endpoint;
mod events;
mod maintenance;
mod process;
mod report;
mod runtime_api;

use std::path::PathBuf;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::args().any(|argument| argument == "maintenance") {
        return Box::pin(maintenance::measure()).await;
    }
    let binaries: PathBuf = std::env::current_exe()?.parent().ok_or("the bench has no folder")?.to_owned();
    let asked = std::env::args().nth(1);
    let mut names = vec!["replicator", "archiver", "api"];
    names.retain(|name| asked.as_deref().is_none_or(|asked| asked == *name));
    if let Some(name) = names.iter().find(|name| !binaries.join(name).exists()) {
        return Err(format!("{} is missing: build it with scripts/bench", binaries.join(name).display()).into());
    }
    let endpoint = endpoint::serve().await?;
    report::streams(&binaries, &endpoint, &names).await?;
    if names.contains(&"api") {
        report::requests(&binaries, &endpoint).await?;
    }
    if asked.is_none() { Box::pin(maintenance::measure()).await } else { Ok(()) }
}
