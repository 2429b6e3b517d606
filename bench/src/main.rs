//! What the functions cost: the release binaries, driven through the Lambda Runtime API on loopback, against an
//! endpoint that accepts everything. Reports CPU time a record, peak memory, and the time to the first answer.
//! Usage: `scripts/bench`, which builds the binaries first; `scripts/bench api` builds and measures that one alone. Linux
//! only: it reads `/proc`. With `maintenance` only what maintenance costs is measured, for which no binary is needed.
//! `compaction N`, `columns` and `restore` are about the archive's tasks, each in a process of its own: `scripts/bench-archive`.

mod archive;
mod endpoint;
mod events;
mod maintenance;
mod process;
mod report;
mod runtime_api;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let binaries = std::env::current_exe()?.parent().ok_or("the bench has no folder")?.to_owned();
    let mut arguments = std::env::args().skip(1);
    let asked = arguments.next();
    match (asked.as_deref(), arguments.next()) {
        (Some("compaction"), Some(times)) => return archive::compaction(&binaries, times.parse()?).await,
        (Some("columns"), None) => return archive::columns(&binaries).await,
        (Some("restore"), None) => return archive::restore(&binaries).await,
        (Some("maintenance"), None) => return Box::pin(maintenance::measure()).await,
        (None | Some("replicator" | "archiver" | "api"), None) => {}
        _ => return Err("it takes nothing, a function, maintenance, restore, columns, or compaction N".into()),
    }
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
