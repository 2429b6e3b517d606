//! Benchmarks of the functions through the Lambda Runtime API on loopback: CPU time, peak memory, time to the first
//! response. `scripts/bench` builds and runs them; an argument selects one (the usage text lists them).

mod archive;
mod cache;
mod endpoint;
mod events;
mod maintenance;
mod postgres;
mod process;
mod report;
mod runtime_api;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let binaries = std::env::current_exe()?.parent().ok_or("the bench has no folder")?.to_owned();
    let selected = std::env::args().nth(1);
    match (selected.as_deref(), std::env::args().nth(2)) {
        (Some("compaction"), Some(times)) => return archive::compaction(&binaries, times.parse()?).await,
        (Some("parquet"), None) => return archive::columns(&binaries).await,
        (Some("restore"), None) => return archive::restore(&binaries).await,
        (Some("maintenance"), None) => return Box::pin(maintenance::measure()).await,
        (Some("cache"), None) => return Box::pin(cache::measure(&binaries)).await,
        (Some(it @ ("postgres" | "table" | "search")), None) => {
            return postgres::measure(it).await.map_err(|it| it as _);
        }
        (Some("transforms"), None) => return report::transforms_alone(&binaries).await,
        (None | Some("replicator" | "archiver" | "api"), None) => {}
        _ => return Err(report::USAGE.into()),
    }
    let mut names = vec!["replicator", "archiver", "api"];
    names.retain(|name| selected.as_deref().is_none_or(|selected| selected == *name));
    let endpoint = endpoint::serve().await?;
    report::streams(&binaries, &endpoint, &names).await?;
    if names.contains(&"api") {
        report::requests(&binaries, &endpoint).await?;
    }
    if selected.is_none() { Box::pin(maintenance::measure()).await } else { Ok(()) }
}
