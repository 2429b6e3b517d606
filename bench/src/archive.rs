//! Archive benchmarks: compaction of a day, and a restore compared with plain conditional puts. The `millrace` stack runs
//! in a separate process, so that the measured CPU time and peak memory are those of the task alone.

mod requests;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use futures::{StreamExt as _, stream};
use millrace_archive::store::ArchiveStore;
use millrace_archive::{ArchiveHour, ArchiveRow, Compression};
use millrace_maintenance::config::MaintenanceConfig;
use millrace_maintenance::progress::TaskProgress;
use millrace_maintenance::{AwsClients, MaintenanceHandler};
use millrace_shared::change::CanonicalKey;
use millrace_shared::clock::Clock;
use millrace_shared::environment::Environment;
use millrace_shared::invocation::Invocation;
use millrace_shared::raw_item::RawItem;
use millrace_shared::revision::Revision;
use serde_json::json;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::Instant;

use self::requests::RequestCounter;

/// The same allocator as in the functions (docs/benchmarks.md), since their tasks are measured in this process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type BenchError = Box<dyn std::error::Error>;

/// The size of a batch of the archiver, about 4 MB of content.
const ROWS_AN_OBJECT: usize = 3_000;
/// The number of objects that a compaction reads concurrently.
const OBJECTS: usize = 32;
/// 2026-11-22 14:00:00 UTC.
const TIME: i64 = 1_795_356_000;
const RESTORED: usize = 8_000;
const IN_FLIGHT: usize = 32;
/// The unit of CPU time in Linux.
const TICKS_A_SECOND: f64 = 100.0;

struct ArchiveBench {
    maintenance: MaintenanceHandler,
    store: ArchiveStore,
    dynamodb: aws_sdk_dynamodb::Client,
    /// The S3 requests of the tasks, without those that fill the bucket.
    requests: RequestCounter,
    _local: Child,
    /// Held open, so that the process can still write to its standard output.
    _said: Lines<BufReader<ChildStdout>>,
    _data: tempfile::TempDir,
}

impl ArchiveBench {
    async fn start(binaries: &Path) -> Result<Self, BenchError> {
        let data = tempfile::tempdir()?;
        let mut command = Command::new(binaries.join("millrace"));
        command.args(["--port", "0", "--dynamodb-port", "0", "--s3-port", "0", "--ttl-interval", "86400"]);
        command.arg("--data").arg(data.path()).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut local = command.spawn()?;
        let mut lines = BufReader::new(local.stdout.take().ok_or("millrace has no output")?).lines();
        let mut urls = std::collections::HashMap::new();
        while let Some(line) = lines.next_line().await? {
            if let [name, url] = line.split_whitespace().collect::<Vec<_>>()[..]
                && url.starts_with("http://127.0.0.1:")
            {
                urls.insert(name.to_owned(), url.to_owned());
            }
            if line.contains("Ctrl-C stops") {
                break;
            }
        }
        let url = |name: &str| urls.get(name).cloned().ok_or_else(|| format!("millrace printed no URL of {name}"));
        let dynamodb = millrace_local::clients::dynamodb(&url("DynamoDB")?);
        let s3 = millrace_local::clients::s3(&url("S3")?);
        let requests = RequestCounter::default();
        let clients = AwsClients {
            source: dynamodb.clone(),
            replicas: dynamodb.clone().into(),
            signer: None,
            s3: requests.counted(&s3),
            lambda: millrace_local::clients::lambda(&url("API")?),
        };
        let environment: Environment = [
            ("SOURCE_TABLE", "Users"),
            ("SOURCE_SCHEMA", "users"),
            ("REPLICA_TABLE", "UsersReplica"),
            ("FAILURE_BUCKET", "users-failures"),
            ("ARCHIVE_BUCKET", "users-archive"),
            ("REPLICATOR_FUNCTION", "replicator"),
            ("ARCHIVER_FUNCTION", "archiver"),
        ]
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
        let config = MaintenanceConfig::parse(&environment).map_err(|problems| problems.to_string())?;
        let maintenance = millrace_maintenance::connect(&config, clients);
        let store = ArchiveStore::new(s3, "users-archive".to_owned());
        Ok(Self { maintenance, store, dynamodb, requests, _local: local, _said: lines, _data: data })
    }

    /// Archives `objects` objects; returns the size of their content.
    async fn fill(&self, objects: usize, rows_an_object: usize) -> Result<usize, BenchError> {
        let mut content = 0;
        for object in 0..objects {
            let mut parts = Vec::with_capacity(rows_an_object);
            for row in 0..rows_an_object {
                // Interleaved, since users do not expire in the order of their keys.
                let index = row * objects + object;
                let key = CanonicalKey::parse(&format!(
                    r#"{{"user_id":{{"S":"user-{index:08}"}},"timestamp":{{"N":"1"}}}}"#
                ))?;
                let revision = Revision::parse(&format!("2026-11-01T08:00:00.000#{}", 44_215_845_000_000 + index))?;
                parts.push((key, revision, RawValue::from_string(item(index))?));
            }
            content += parts.iter().map(|(_, _, item)| item.get().len() + 150).sum::<usize>();
            let removed_at = OffsetDateTime::from_unix_timestamp(TIME)?;
            let rows = parts.iter().map(|(key, revision, item)| ArchiveRow {
                key,
                revision: *revision,
                removed_at,
                event_id: None,
                item: item.get(),
            });
            let object = millrace_archive::write(
                "Users",
                ArchiveHour::from_datetime(removed_at),
                rows.collect(),
                Compression::Zstd,
            )?;
            let metadata = object.description.encode()?;
            self.store.put(&object.key.to_string(), object.bytes, object.description.sha256, metadata).await?;
        }
        Ok(content)
    }

    async fn task(&self, order: serde_json::Value) -> Result<TaskProgress, BenchError> {
        let payload = RawValue::from_string(order.to_string())?;
        let (now, hour) = (Clock::system().now(), Duration::from_hours(1));
        let invocation = Invocation::new(now, Instant::now(), hour, "bench".to_owned());
        let response = Box::pin(self.maintenance.handle(&payload, &invocation)).await?;
        if response.done { Ok(response.progress) } else { Err("the task did not come to its end".into()) }
    }
}

/// Compacts a day of `times` as many objects as are merged at a time.
pub(crate) async fn compaction(binaries: &Path, times: usize) -> Result<(), BenchError> {
    let bench = ArchiveBench::start(binaries).await?;
    let content = bench.fill(OBJECTS * times, ROWS_AN_OBJECT).await?;
    let held_before = reset_peak_rss()?;
    let (before, started) = (cpu_seconds()?, Instant::now());
    let progress = bench.task(json!({"task": "compact", "to": "2999-01-01T00:00:00Z"})).await?;
    let (cpu, wall) = (cpu_seconds()? - before, started.elapsed().as_secs_f64());
    // Includes rows that a later round merges again.
    let merged =
        megabytes(content) * count(progress.get("compact.rows")) / count((OBJECTS * times * ROWS_AN_OBJECT) as u64);
    println!("compaction of {:.0} MB in {} objects: {progress}", megabytes(content), OBJECTS * times);
    println!("  S3 requests: {}", bench.requests);
    println!(
        "  {:.0} MB merged in {cpu:.1} s of CPU time ({:.0} MB/s), {wall:.1} s ({:.0} MB/s)",
        merged,
        merged / cpu,
        merged / wall
    );
    println!("  peak memory of the process {:.0} MB; before the task {held_before:.0} MB", status_megabytes("VmHWM:")?);
    Ok(())
}

/// Exports a compacted day as Parquet.
pub(crate) async fn columns(binaries: &Path) -> Result<(), BenchError> {
    let bench = ArchiveBench::start(binaries).await?;
    let content = bench.fill(OBJECTS, ROWS_AN_OBJECT).await?;
    bench.task(json!({"task": "compact", "to": "2999-01-01T00:00:00Z"})).await?;
    let requests_before = bench.requests.to_string();
    let held_before = reset_peak_rss()?;
    let (before, started) = (cpu_seconds()?, Instant::now());
    let progress = bench.task(json!({"task": "export-parquet", "to": "2999-01-01T00:00:00Z"})).await?;
    let (cpu, wall) = (cpu_seconds()? - before, started.elapsed().as_secs_f64());
    println!("export-parquet of {:.0} MB of rows: {progress}", megabytes(content));
    println!("  {cpu:.1} s of CPU time ({:.0} MB/s), {wall:.1} s", megabytes(content) / cpu);
    println!("  S3 requests: before {requests_before}; after {}", bench.requests);
    for stored in bench.store.list("parquet/").await?.into_iter().chain(bench.store.list("compacted/").await?) {
        println!("  {} bytes {}", stored.size_bytes, stored.key);
    }
    println!("  peak memory of the process {:.0} MB; before the task {held_before:.0} MB", status_megabytes("VmHWM:")?);
    Ok(())
}

/// Restores items, and puts the same number with plain conditional puts.
pub(crate) async fn restore(binaries: &Path) -> Result<(), BenchError> {
    let bench = ArchiveBench::start(binaries).await?;
    bench.fill(1, RESTORED).await?;
    let started = Instant::now();
    let order = json!({"task": "restore", "from": "2026-01-01T00:00:00Z", "never_expires": true, "dry_run": false});
    let restored = bench.task(order).await?.get("restore.restored");
    let restore = count(restored) / started.elapsed().as_secs_f64();
    let started = Instant::now();
    let puts = (0..RESTORED).map(|index| {
        let dynamodb = bench.dynamodb.clone();
        async move {
            let mut item = RawItem::parse(&item(index))?.into_attributes();
            item.insert("user_id".to_owned(), AttributeValue::S(format!("plain-{index:08}")));
            let put = dynamodb.put_item().table_name("Users").set_item(Some(item));
            put.condition_expression("attribute_not_exists(user_id)").send().await?;
            Ok::<(), BenchError>(())
        }
    });
    let mut puts = stream::iter(puts).buffer_unordered(IN_FLIGHT);
    while let Some(put) = puts.next().await {
        put?;
    }
    let plain = count(RESTORED as u64) / started.elapsed().as_secs_f64();
    println!(
        "restore of {restored} items: {restore:.0} a second; plain conditional puts: {plain:.0} a second; {:.2}x",
        plain / restore
    );
    println!("  S3 requests: {}", bench.requests);
    Ok(())
}

/// Returns an item of about 1.2 KB, half of it pseudo-random.
fn item(index: usize) -> String {
    let mut noise = index as u64;
    let more: serde_json::Map<_, _> = (0..12)
        .map(|label| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (format!("label-{label}"), json!({"S": format!("a value {noise:016x}{:016x}", noise.rotate_left(17))}))
        })
        .collect();
    json!({
        "user_id": {"S": format!("user-{index:08}")}, "timestamp": {"N": "1"}, "name": {"S": format!("User {index}")},
        "email": {"S": format!("user-{index:08}@example.com")}, "status": {"S": "active"}, "attributes": {"M": more},
        "version": {"N": format!("{TIME}000000")}, "created_at": {"S": "2026-11-22T08:00:00Z"},
    })
    .to_string()
}

/// Returns the CPU time of this process so far, user and system.
pub(crate) fn cpu_seconds() -> Result<f64, BenchError> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name in parentheses may contain spaces; user and system time are the 12th and 13th fields after it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = fields.get(11).ok_or("no utime")?.parse::<f64>()? + fields.get(12).ok_or("no stime")?.parse::<f64>()?;
    Ok(ticks / TICKS_A_SECOND)
}

/// Resets the peak memory, so that it excludes filling the bucket; returns the current memory, which the allocator
/// keeps for the task.
fn reset_peak_rss() -> Result<f64, BenchError> {
    std::fs::write("/proc/self/clear_refs", "5")?;
    status_megabytes("VmRSS:")
}

fn status_megabytes(name: &str) -> Result<f64, BenchError> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("no {name} in status"))?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? * 1024.0 / 1e6)
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few millions")]
fn count(number: u64) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "a size of a few gigabytes")]
fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}
