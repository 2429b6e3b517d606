//! Measures the functions, and prints the results.

use std::path::Path;
use std::time::Duration;

use axum::body::Bytes;
use serde_json::json;

use crate::{endpoint, events, process::FunctionProcess};

type BenchError = Box<dyn std::error::Error>;

/// The arguments of the program.
pub(crate) const USAGE: &str = "usage: bench FUNCTION|transforms|cache|maintenance|postgres|table|search|\
                                restore|parquet|compaction N";

/// Batch sizes, in records of about 1.4 KB of event JSON.
const SIZES: [usize; 3] = [100, 1_000, 3_500];
/// The approximate number of records that each size is measured with, after one batch as a warm-up.
const RECORDS: usize = 70_000;
/// The number of parts of a measurement. The median is reported, since other load on the machine disturbs some of the
/// parts, but not most.
const PARTS: usize = 7;
/// The number of cold starts, which are short; the median is reported.
const STARTS: usize = 15;
const REQUESTS: usize = 5_000;
/// The batch size of measurements that compare processes.
const PAIRED_SIZE: usize = 1_000;

/// Measures the two functions that read the stream.
pub(crate) async fn streams(binaries: &Path, endpoint: &str, names: &[&str]) -> Result<(), BenchError> {
    if let Some(name) = names.iter().find(|name| !binaries.join(name).exists()) {
        return Err(format!("{} is missing: build it with scripts/bench", binaries.join(name).display()).into());
    }
    for (name, payload) in
        [("replicator", events::changes as fn(usize) -> String), ("archiver", events::expiries as fn(usize) -> String)]
    {
        if !names.contains(&name) {
            continue;
        }
        let binary = binaries.join(name);
        println!("\n{name}: {} bytes a record", payload(1_000).len() / 1_000);
        println!("  records a batch   CPU µs a record   peak MB   PUTs a batch   bytes put a record");
        let mut each = Vec::new();
        for size in SIZES {
            let before = endpoint::puts();
            let (cpu, peak) = batches(&binary, endpoint, payload(size).into(), size).await?;
            let (puts, bytes) = endpoint::puts();
            let batches = count(PARTS * rounds(size) + 1);
            let (puts, bytes) = (number(puts - before.0) / batches, number(bytes - before.1) / batches / count(size));
            println!("  {size:>15}   {cpu:>15.1}   {peak:>7.1}   {puts:>12.2}   {bytes:>18.0}");
            each.push(cpu);
        }
        let growth = each.last().zip(each.first()).map_or(0.0, |(last, first)| last / first);
        println!("  growth of CPU a record from {} to {}: {growth:.2}x", SIZES[0], SIZES[2]);
        starts(&binary, endpoint, payload(1).into()).await?;
        if name == "replicator" {
            replicas(&binary, endpoint).await?;
            transforms(&binary, endpoint).await?;
        }
    }
    Ok(())
}

/// Measures the replicator with one and with two DynamoDB replicas.
async fn replicas(binary: &Path, endpoint: &str) -> Result<(), BenchError> {
    let document = |replicas: usize| {
        let replica = |n| json!({"name": format!("copy-{n}"), "sink": "dynamodb", "table": format!("UsersCopy{n}")});
        json!({"version": 1, "replicas": (1..=replicas).map(replica).collect::<Vec<_>>()}).to_string()
    };
    let payload = Bytes::from(events::changes(PAIRED_SIZE));
    let each = paired(binary, endpoint, &payload, &[document(1), document(2)]).await?;
    println!("\nreplicator, {PAIRED_SIZE} records a batch");
    println!("  replicas   CPU µs a record   peak MB");
    for (replicas, PairedRun { parts, peak }) in each.iter().enumerate() {
        println!("  {:>8}   {:>15.1}   {peak:>7.1}", replicas + 1, median(parts.clone()));
    }
    let [one, two] = [0, 1].map(|run: usize| median(each[run].parts.clone()));
    println!(
        "  the second replica costs {:.1} µs a record, {:.2}x the first with the parsing",
        two - one,
        (two - one) / one
    );
    Ok(())
}

/// Measures only [`transforms`].
pub(crate) async fn transforms_alone(binaries: &Path) -> Result<(), BenchError> {
    transforms(&binaries.join("replicator"), &endpoint::serve().await?).await
}

/// Measures the replicator with a replica that stores 6 of 13 attributes, one of them hashed, of the items that match a
/// pattern, and with one that stores the same items as they are.
async fn transforms(binary: &Path, endpoint: &str) -> Result<(), BenchError> {
    let secret = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:pii";
    let plain = json!({"name": "copy", "sink": "dynamodb", "table": "UsersCopy"});
    let mut masked = plain.clone();
    masked["where"] = json!([{"status": {"S": [{"anything-but": ["draft"]}]}}]);
    masked["attributes"] = json!({
        "include": ["user_id", "timestamp", "name", "email", "status", "created_at"], "hash": {"email": "pii"},
    });
    let documents = [plain, masked]
        .map(|replica| json!({"version": 1, "replicas": [replica], "hash_keys": {"pii": secret}}).to_string());
    let payload = Bytes::from(events::orders(PAIRED_SIZE));
    let each = paired(binary, endpoint, &payload, &documents).await?;
    println!("\nreplicator, {PAIRED_SIZE} records a batch, {} bytes a record", payload.len() / PAIRED_SIZE);
    println!("  a replica of                      CPU µs a record   peak MB");
    for (label, PairedRun { parts, peak }) in ["13 attributes", "6 of 13, a hash and a pattern"].iter().zip(&each) {
        println!("  {label:<31}   {:>15.1}   {peak:>7.1}", median(parts.clone()));
    }
    let ratios: Vec<f64> = each[1].parts.iter().zip(&each[0].parts).map(|(masked, plain)| masked / plain).collect();
    let (least, most) =
        ratios.iter().fold((f64::MAX, 0.0_f64), |(least, most), ratio| (least.min(*ratio), most.max(*ratio)));
    println!("  with rules, relative to without: {:.2}x ({least:.2} to {most:.2})", median(ratios));
    Ok(())
}

/// The measurement of one of several processes: its CPU time per record in each part, and its peak memory in MB.
struct PairedRun {
    parts: Vec<f64>,
    peak: f64,
}

/// Measures a process of the replicator for each document, part by part in alternation, so that other load on the
/// machine affects all of them in the same way.
async fn paired(
    binary: &Path,
    endpoint: &str,
    payload: &Bytes,
    documents: &[String],
) -> Result<Vec<PairedRun>, BenchError> {
    let mut functions = Vec::new();
    for document in documents {
        let variables = [("REPLICA_TABLE", ""), ("REPLICATION", document.as_str())];
        let mut function = FunctionProcess::start_with(binary, endpoint, &variables).await?;
        acknowledged(&function.invoke(payload.clone()).await?)?;
        functions.push((function, Vec::new()));
    }
    let rounds = rounds(PAIRED_SIZE);
    for part in 0..PARTS {
        let mut order: Vec<_> = functions.iter_mut().collect();
        if part % 2 == 1 {
            order.reverse();
        }
        for (function, parts) in order {
            let before = function.cpu()?;
            for _ in 0..rounds {
                acknowledged(&function.invoke(payload.clone()).await?)?;
            }
            parts.push(micros(function.cpu()?.saturating_sub(before)) / count(rounds * PAIRED_SIZE));
        }
    }
    let run = |(function, parts): (FunctionProcess, Vec<f64>)| {
        Ok(PairedRun { parts, peak: megabytes(function.peak_bytes()?) })
    };
    functions.into_iter().map(run).collect()
}

/// Measures the API with requests that each make one call to the table. The CPU time is that of the function's process,
/// including the runtime; `GET /health` makes no call to the table and shows the runtime's share. The median latency is
/// measured from sending the event to receiving the response, and includes the Runtime API and the endpoint of this
/// process.
pub(crate) async fn requests(binaries: &Path, endpoint: &str) -> Result<(), BenchError> {
    let binary = binaries.join("api");
    let user = json!({
        "user_id": "ada", "name": "Ada Lovelace", "email": "ada@example.com", "status": "active",
        "attributes": {"plan": "team", "seats": 12},
    });
    let profile = json!({"name": "Ada Lovelace", "attributes": {"plan": "team", "seats": 12}});
    let record = "/users/ada/1795334400";
    println!("\napi");
    println!("  request                          CPU µs   p50 µs   peak MB");
    for (label, event, status) in [
        ("GET /health", events::request("GET", "/health", None), 200),
        ("GET /users/{id}/{timestamp}", events::request("GET", record, None), 200),
        ("POST /users", events::request("POST", "/users", Some(&user)), 201),
        ("PUT /users/{id}/{timestamp}", events::request("PUT", record, Some(&profile)), 201),
        ("DELETE /users/{id}/{timestamp}", events::request("DELETE", record, None), 204),
    ] {
        let event = Bytes::from(event);
        let mut function = FunctionProcess::start(&binary, endpoint).await?;
        let response: serde_json::Value = serde_json::from_slice(&function.invoke(event.clone()).await?)?;
        if response["statusCode"] != status {
            return Err(format!("{label} answered {response}, not {status}").into());
        }
        let (mut parts, mut took) = (Vec::new(), Vec::new());
        for _ in 0..PARTS {
            let before = function.cpu()?;
            for _ in 0..REQUESTS / PARTS {
                let sent = tokio::time::Instant::now();
                function.invoke(event.clone()).await?;
                took.push(micros(sent.elapsed()));
            }
            parts.push(micros(function.cpu()?.saturating_sub(before)) / count(REQUESTS / PARTS));
        }
        let (cpu, p50, peak) = (median(parts), median(took), megabytes(function.peak_bytes()?));
        println!("  {label:<30}   {cpu:>6.1}   {p50:>6.0}   {peak:>7.1}");
    }
    starts(&binary, endpoint, events::request("GET", "/users/ada/1795334400", None).into()).await
}

async fn batches(binary: &Path, endpoint: &str, payload: Bytes, size: usize) -> Result<(f64, f64), BenchError> {
    let mut function = FunctionProcess::start(binary, endpoint).await?;
    acknowledged(&function.invoke(payload.clone()).await?)?;
    let rounds = rounds(size);
    let mut parts = Vec::new();
    for _ in 0..PARTS {
        let before = function.cpu()?;
        for _ in 0..rounds {
            acknowledged(&function.invoke(payload.clone()).await?)?;
        }
        parts.push(micros(function.cpu()?.saturating_sub(before)) / count(rounds * size));
    }
    Ok((median(parts), megabytes(function.peak_bytes()?)))
}

/// Returns the number of batches per part.
fn rounds(size: usize) -> usize {
    (RECORDS / PARTS).div_ceil(size)
}

/// Fails if the function did not process the complete batch, which would make the result wrong.
fn acknowledged(response: &Bytes) -> Result<(), BenchError> {
    let response: serde_json::Value = serde_json::from_slice(response)?;
    match response["batchItemFailures"].as_array() {
        Some(failures) if failures.is_empty() => Ok(()),
        _ => Err(format!("the batch was answered with {response}").into()),
    }
}

async fn starts(binary: &Path, endpoint: &str, event: Bytes) -> Result<(), BenchError> {
    let mut took = Vec::new();
    for _ in 0..STARTS {
        let mut function = FunctionProcess::start(binary, endpoint).await?;
        function.invoke(event.clone()).await?;
        took.push(function.age());
    }
    took.sort();
    let millis = |time: &Duration| time.as_secs_f64() * 1e3;
    let (median, worst) = (&took[STARTS / 2], &took[STARTS - 1]);
    println!(
        "  start of the process to the first response: {:.1} ms (median of {STARTS}; worst {:.1})",
        millis(median),
        millis(worst)
    );
    Ok(())
}

pub(crate) fn median(mut parts: Vec<f64>) -> f64 {
    parts.sort_by(f64::total_cmp);
    parts.get(parts.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[expect(clippy::cast_precision_loss, reason = "counts and sizes of a few millions")]
pub(crate) fn count(number: usize) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "counts and sizes of a few millions")]
fn number(number: u64) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "a size of a few megabytes")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
