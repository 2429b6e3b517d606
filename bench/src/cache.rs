//! Cache benchmark: the CPU time of a hit, and the latency of the cache compared with the table. The table is in the
//! embedded engine, in this process; the cache is the installed server.

use std::path::Path;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use axum::body::Bytes;
use futures::{StreamExt, stream};
use millrace_local::cache::CacheServer;
use millrace_local::stack::{LocalStack, StackOptions};
use millrace_shared::cache::{Cache, CacheEntry, CacheSettings};
use millrace_shared::clock::Clock;
use tokio::time::Instant;

use crate::events;
use crate::process::FunctionProcess;
use crate::report::{count, median, micros};

type BenchError = Box<dyn std::error::Error>;

const RECORD: &str = "/users/ada/1795334400";
const HITS: usize = 5_000;
const PARTS: usize = 7;
const CALLS: usize = 5_000;
/// The numbers of concurrent calls of each kind.
const LOADS: [usize; 2] = [1, 16];

/// Runs the benchmark, and prints the results.
pub(crate) async fn measure(binaries: &Path) -> Result<(), BenchError> {
    let server = CacheServer::start().await?;
    let stack =
        LocalStack::start(StackOptions { ttl_interval: Duration::from_hours(24), ..StackOptions::default() }).await?;
    put(&stack).await?;
    println!("\ncache: one record of about 0.3 KB");
    hits(binaries, stack.dynamodb_url(), &server.url()).await?;
    let url = server.url();
    let settings = CacheSettings::parse(|name| (name == "CACHE_URL").then_some(url.as_str()));
    let settings = settings.map_err(|wrong| wrong.join("; "))?.ok_or("no cache is named")?;
    calls(&stack, &Cache::new(settings, None)).await?;
    stack.stop().await;
    Ok(())
}

async fn put(stack: &LocalStack) -> Result<(), BenchError> {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let number = |number: &str| AttributeValue::N(number.to_owned());
    let put = stack.dynamodb().put_item().table_name("Users");
    let put =
        put.item("user_id", text("ada")).item("timestamp", number("1795334400")).item("name", text("Ada Lovelace"));
    let put = put.item("email", text("ada@example.com")).item("status", text("active"));
    put.item("version", number("1795334400000000")).send().await?;
    Ok(())
}

async fn hits(binaries: &Path, endpoint: &str, cache: &str) -> Result<(), BenchError> {
    let event = Bytes::from(events::request("GET", RECORD, None));
    let mut function = FunctionProcess::start_with(&binaries.join("api"), endpoint, &[("CACHE_URL", cache)]).await?;
    // The first read is a miss.
    function.invoke(event.clone()).await?;
    let (mut parts, mut took) = (Vec::new(), Vec::new());
    for _ in 0..PARTS {
        let before = function.cpu()?;
        for _ in 0..HITS / PARTS {
            let sent = Instant::now();
            let response: serde_json::Value = serde_json::from_slice(&function.invoke(event.clone()).await?)?;
            took.push(micros(sent.elapsed()));
            // A miss among the calls would make the result wrong.
            if !response["body"].as_str().is_some_and(|body| body.contains(r#""source":"cache""#)) {
                return Err(format!("no hit: {response}").into());
            }
        }
        parts.push(micros(function.cpu()?.saturating_sub(before)) / count(HITS / PARTS));
    }
    println!(
        "  a hit: {:.1} µs of CPU time, {:.0} µs (median) from the event to the response",
        median(parts),
        median(took)
    );
    Ok(())
}

async fn calls(stack: &LocalStack, cache: &Cache) -> Result<(), BenchError> {
    let (table, connection) = (stack.dynamodb(), cache.connection().await?);
    let entry = CacheEntry { version: 7, expires_at: None, json: vec![b'x'; 300] };
    connection.put("bench", &entry, Clock::system().now()).await?;
    for at_once in LOADS {
        let ask_cache = |_| {
            let connection = connection.clone();
            async move {
                let sent = Instant::now();
                connection.get("bench").await?;
                Ok::<_, BenchError>(micros(sent.elapsed()))
            }
        };
        let ask_table = |_| {
            let get = table.get_item().table_name("Users").consistent_read(true);
            let get = get.key("user_id", AttributeValue::S("ada".to_owned()));
            let get = get.key("timestamp", AttributeValue::N("1795334400".to_owned()));
            async move {
                let sent = Instant::now();
                get.send().await?;
                Ok::<_, BenchError>(micros(sent.elapsed()))
            }
        };
        let of_cache: Vec<_> = stream::iter(0..CALLS).map(ask_cache).buffer_unordered(at_once).collect().await;
        let of_table: Vec<_> = stream::iter(0..CALLS).map(ask_table).buffer_unordered(at_once).collect().await;
        let of_cache = median(of_cache.into_iter().collect::<Result<_, _>>()?);
        let of_table = median(of_table.into_iter().collect::<Result<_, _>>()?);
        let ratio = of_table / of_cache;
        println!(
            "  {at_once} at once: the cache {of_cache:.0} µs, the table {of_table:.0} µs (medians): {ratio:.1} times"
        );
    }
    Ok(())
}
