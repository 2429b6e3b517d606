//! Maintenance benchmark: compares a backfill with plain conditional puts, and a verification with plain parallel
//! scans, in one run. The engines are embedded in this process, so only the ratios are meaningful, not the rates, and
//! the CPU time is that of the engines, too. It depends less than the duration on other programs.
//! Source and replica are on separate engines, like tables in two Regions, because an engine processes one request at a
//! time.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use futures::future::try_join;
use futures::{StreamExt, TryStreamExt, stream};
use millrace_local::clients;
use millrace_local::dynamodb::DynamoDbEngine;
use millrace_local::stack::{LocalStack, StackOptions};
use millrace_maintenance::MaintenanceHandler;
use millrace_shared::clock::Clock;
use millrace_shared::invocation::Invocation;
use millrace_sinks::dynamodb::DynamoDbSink;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::archive::cpu_seconds;
use crate::report::median;

type BenchError = Box<dyn std::error::Error>;

const ITEMS: usize = 40_000;
const IN_FLIGHT: usize = 128;
const SEGMENTS: u32 = 4;
/// The number of rounds. The median is reported, and each measurement is followed by the one that it is compared with.
const ROUNDS: usize = 5;

/// Runs the benchmark, and prints the results.
pub(crate) async fn measure() -> Result<(), BenchError> {
    let stack =
        LocalStack::start(StackOptions { ttl_interval: Duration::from_hours(24), ..StackOptions::default() }).await?;
    let elsewhere = DynamoDbEngine::start(TcpListener::bind(("127.0.0.1", 0)).await?, None).await?;
    let (here, there) = (stack.dynamodb(), clients::dynamodb(elsewhere.endpoint()));
    let maintenance = |replica: &str| {
        let sink = DynamoDbSink::new(there.clone(), replica, IN_FLIGHT, time::Duration::days(8));
        let mut maintenance = stack.maintenance().ok_or("the template has no maintenance function")?;
        maintenance.replicas = vec![Box::new(sink)];
        Ok::<MaintenanceHandler, BenchError>(maintenance)
    };
    put_all(&here, "Users", false).await?;
    stack.wait_until_drained().await;
    println!("\nmaintenance: {ITEMS} items of about 1 KB, on embedded engines");

    let (mut ratios, mut cpu_ratios, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (plain, filled) = (format!("Plain{round}"), format!("Filled{round}"));
        create(&there, &plain).await?;
        create(&there, &filled).await?;
        let before = cpu_seconds()?;
        let puts = timed(put_all(&there, &plain, true)).await?;
        let between = cpu_seconds()?;
        let backfill = timed(run(&maintenance(&filled)?, json!({"task": "backfill"}))).await?;
        cpu_ratios.push((cpu_seconds()? - between) / (between - before));
        ratios.push(backfill / puts);
        rates.push(items() / puts);
    }
    println!("  plain conditional puts: {:.0} items a second", median(rates));
    println!("  backfill, in time, to plain conditional puts of the same items: {:.2}", median(ratios));
    println!("  the same in CPU time, with the engines: {:.2}", median(cpu_ratios));

    let (mut one, mut both, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let source = timed(scan_all(&here, "Users")).await?;
        let side_by_side =
            timed(async { try_join(scan_all(&here, "Users"), scan_all(&there, "Filled0")).await.map(drop) });
        let side_by_side = side_by_side.await?;
        let verify = timed(verify(&maintenance("Filled0")?)).await?;
        one.push(source / verify);
        both.push(side_by_side / verify);
        rates.push(items() / source);
    }
    println!("  a plain parallel scan of the source, in {SEGMENTS} segments: {:.0} items a second", median(rates));
    println!("  verify, in speed, to a plain parallel scan of the source alone: {:.2}", median(one));
    println!("  verify, in speed, to plain parallel scans of both tables side by side: {:.2}", median(both));
    elsewhere.stop().await;
    stack.stop().await;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a count of some thousands")]
fn items() -> f64 {
    ITEMS as f64
}

async fn timed<T>(work: impl Future<Output = Result<T, BenchError>>) -> Result<f64, BenchError> {
    let started = Instant::now();
    work.await?;
    Ok(started.elapsed().as_secs_f64())
}

fn item(n: usize) -> HashMap<String, AttributeValue> {
    let text = |text: String| AttributeValue::S(text);
    let mut item = HashMap::from([
        ("user_id".to_owned(), text(format!("user-{n:08}"))),
        ("timestamp".to_owned(), AttributeValue::N("1795334400".to_owned())),
        ("name".to_owned(), text(format!("User {n}"))),
        ("email".to_owned(), text(format!("user-{n:08}@example.com"))),
        ("version".to_owned(), AttributeValue::N("1795334400000000".to_owned())),
    ]);
    item.extend((0..20).map(|label| (format!("label-{label}"), text(format!("a value of some length {n:08}")))));
    item
}

async fn put_all(client: &Client, table: &str, conditional: bool) -> Result<(), BenchError> {
    let put = |n| async move {
        let put = client.put_item().table_name(table).set_item(Some(item(n)));
        let put = if conditional { put.condition_expression("attribute_not_exists(user_id)") } else { put };
        put.send().await.map(drop).map_err(BenchError::from)
    };
    stream::iter(0..ITEMS).map(put).buffer_unordered(IN_FLIGHT).try_collect().await
}

async fn scan_all(client: &Client, table: &str) -> Result<(), BenchError> {
    let segment = |segment| async move {
        let scan = client.scan().table_name(table).consistent_read(true).segment(segment);
        let scan = scan.total_segments(i32::try_from(SEGMENTS)?).into_paginator().items().send();
        let items = scan.collect::<Result<Vec<_>, _>>().await?;
        Ok::<usize, BenchError>(items.len())
    };
    let counts: Vec<usize> =
        stream::iter(0..i32::try_from(SEGMENTS)?).map(segment).buffer_unordered(IN_FLIGHT).try_collect().await?;
    if counts.iter().sum::<usize>() == ITEMS { Ok(()) } else { Err(format!("{table} gave {counts:?}").into()) }
}

async fn verify(maintenance: &MaintenanceHandler) -> Result<(), BenchError> {
    let segment = |segment| run(maintenance, json!({"task": "verify", "segment": segment, "segments": SEGMENTS}));
    stream::iter(0..SEGMENTS).map(segment).buffer_unordered(IN_FLIGHT).try_collect().await
}

/// Runs a task; fails if it found a difference or skipped an item, which would make the result wrong.
async fn run(maintenance: &MaintenanceHandler, order: serde_json::Value) -> Result<(), BenchError> {
    let payload = RawValue::from_string(order.to_string())?;
    let (now, started) = (Clock::system().now(), Instant::now());
    let invocation = Invocation::new(now, started, Duration::from_mins(15), "bench".to_owned());
    let response = Box::pin(maintenance.handle(&payload, &invocation)).await?;
    let (seen, done) =
        (response.progress.get("source.items"), response.progress.sum(".equal") + response.progress.sum(".written"));
    if response.done && seen > 0 && seen == done { Ok(()) } else { Err(format!("{}", response.progress).into()) }
}

async fn create(client: &Client, table: &str) -> Result<(), BenchError> {
    let mut create = client.create_table().table_name(table).billing_mode(BillingMode::PayPerRequest);
    for (name, kind, role) in
        [("user_id", ScalarAttributeType::S, KeyType::Hash), ("timestamp", ScalarAttributeType::N, KeyType::Range)]
    {
        create = create
            .attribute_definitions(AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build()?)
            .key_schema(KeySchemaElement::builder().attribute_name(name).key_type(role).build()?);
    }
    create.send().await?;
    Ok(())
}
