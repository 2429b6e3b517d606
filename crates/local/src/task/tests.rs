//! Tests of `millrace task`: the loop of invocations, the output, and complete tasks on a stack.

use std::cell::{Cell, RefCell};
use std::process::ExitCode;

use aws_sdk_dynamodb::types::AttributeValue;
use millrace_maintenance::TaskErrorKind;
use millrace_maintenance::progress::TaskProgress;
use millrace_maintenance::task::archive::export_import_table::ExportError;
use millrace_maintenance::task::archive::merge::MergeError;
use millrace_maintenance::task::registry::TaskDefinition;
use millrace_maintenance::task::replica::backfill::BackfillError;
use millrace_maintenance::task::replica::migrate::MigrateError;
use millrace_maintenance::task::replica::verify::VerifyError;
use millrace_maintenance::task::{TaskCursor, TaskResponse};
use millrace_shared::table_reader::ScanSegment;
use serde_json::json;

use super::*;
use crate::stack::{LocalStack, StackOptions};

fn progress(counts: &[(&str, usize)]) -> TaskProgress {
    let mut progress = TaskProgress::default();
    for (name, count) in counts {
        progress.count(*name, *count);
    }
    progress
}

/// Returns the function's response to a payload if each segment takes `turns` invocations.
fn task_response(payload: &RawValue, turns: u32) -> TaskResponse {
    let sent: Value = serde_json::from_str(payload.get()).unwrap();
    let number = |value: &Value| u32::try_from(value.as_u64().unwrap_or_default()).unwrap();
    let (segment, part) = (number(&sent["segment"]), number(&sent["cursor"]["part"]) + 1);
    let (task, run_id) = (sent["task"].as_str().unwrap().to_owned(), sent["run_id"].as_str().unwrap().to_owned());
    let progress = progress(&[("source.items", part as usize)]);
    let mut response = TaskResponse::done(&task, &run_id, ScanSegment { segment, total_segments: 3 });
    response.progress.clone_from(&progress);
    response.done = task == "summary" || part == turns;
    let at = RawValue::from_string("null".to_owned()).unwrap();
    let cursor = TaskCursor {
        task,
        run_id,
        segment,
        segments: 3,
        part,
        progress,
        differences: 0,
        problems: 0,
        replicas: Vec::new(),
        at,
    };
    response.cursor = (!response.done).then_some(cursor);
    response
}

fn unknown_task() -> TaskError {
    TaskDefinition::find("restroe").unwrap_err().into()
}

fn request() -> Map<String, Value> {
    serde_json::from_value(json!({"task": "verify", "run_id": "monday", "segments": 3})).unwrap()
}

#[tokio::test]
async fn every_segment_goes_on_with_its_own_cursor_and_their_counts_are_added_up() {
    let (heard, reports) = (RefCell::new(Vec::new()), Cell::new(0));
    let invoke = async |payload: Box<RawValue>, _: u32| {
        heard.borrow_mut().push(serde_json::from_str::<Value>(payload.get()).unwrap());
        tokio::task::yield_now().await;
        Ok(task_response(&payload, 2))
    };
    let sum = segments::run(&request(), 3, invoke, |_| reports.set(reports.get() + 1)).await.unwrap();
    assert_eq!(sum.task, "summary");
    assert_eq!(reports.get(), 6, "the sum is not reported");
    let heard = heard.into_inner();
    assert_eq!(heard.len(), 7);
    let of_all = json!({"task": "summary", "run_id": "monday", "of_task": "verify", "segments": 3});
    assert_eq!(heard[6], of_all, "the segments keep their counts themselves");
    for payload in &heard[..6] {
        let cursor = payload.get("cursor").map(|cursor| (cursor["segment"].clone(), cursor["part"].clone()));
        assert!(cursor.is_none() || cursor == Some((payload["segment"].clone(), json!(1))), "{payload}");
        assert_eq!((&payload["run_id"], &payload["segments"]), (&json!("monday"), &json!(3)));
    }
    assert!(heard[..3].iter().all(|payload| payload.get("cursor").is_none()), "they are gone about side by side");
}

#[tokio::test]
async fn a_fault_ends_the_task_and_nothing_is_added_up() {
    let calls = Cell::new(0);
    let invoke = async |_: Box<RawValue>, _: u32| {
        calls.set(calls.get() + 1);
        Err(unknown_task())
    };
    let fault = segments::run(&request(), 1, invoke, |_| ()).await.unwrap_err();
    assert_eq!((fault.kind(), calls.get()), (TaskErrorKind::Invalid, 1));
}

#[tokio::test]
async fn invocations_become_longer_until_the_cursor_moves() {
    let factors = RefCell::new(Vec::new());
    let invoke = async |payload: Box<RawValue>, factor: u32| {
        let mut response = task_response(&payload, 6);
        if response.task != "summary" {
            factors.borrow_mut().push(factor);
        }
        if let Some(cursor) = &mut response.cursor {
            // The fifth invocation makes progress.
            let position = if cursor.part < 5 { "\"Start\"" } else { "\"After\"" };
            cursor.at = RawValue::from_string(position.to_owned()).unwrap();
        }
        Ok(response)
    };
    segments::run(&request(), 1, invoke, |_| ()).await.unwrap();
    assert_eq!(factors.into_inner(), [1, 1, 2, 4, 8, 1]);
}

fn outcome(task: &'static str, progress: TaskProgress, problems: u64) -> TaskOutcome {
    let (run, sinks, reports) = ("monday".to_owned(), Vec::new(), Vec::new());
    TaskOutcome { task, run, progress, sinks, differences: 0, problems, reports, command: None, took: Duration::ZERO }
}

#[test]
fn exit_code_is_computed_from_the_problems_and_not_from_the_names_of_counters() {
    let code = |counts: &[(&str, usize)], problems| {
        let outcome = outcome("backfill", progress(counts), problems);
        (outcome.is_success(), format!("{:?}", outcome.code()))
    };
    let (success, failure) = (format!("{:?}", ExitCode::SUCCESS), format!("{:?}", ExitCode::FAILURE));
    assert_eq!(code(&[("dynamodb.skipped", 5), ("redrive.skipped", 2), ("dynamodb.failed", 1)], 0), (true, success));
    assert_eq!(code(&[("dynamodb.written", 5)], 1), (false, failure));
}

#[test]
fn an_error_is_a_rejection_only_if_nothing_has_started() {
    let day = millrace_archive::ArchiveDay::parse("2026-11-22").unwrap();
    let sink =
        || BackfillError::Sink { sink: "dynamodb".to_owned(), failed: 1, writes: 2, reason: "throttled".to_owned() };
    for (fault, started, rejected) in [
        (unknown_task(), false, true),
        (unknown_task(), true, false),
        (TaskError::from(VerifyError::NoTime(300)), false, true),
        (TaskError::from(MigrateError::NotConfigured), false, true),
        // The same request would fail again, but a part of the work was done.
        (TaskError::from(MergeError::NoTime(day)), false, false),
        (TaskError::from(ExportError::Objects), false, false),
        (TaskError::from(ExportError::RunIdConflict { run: "r".to_owned(), there: "k".to_owned() }), false, true),
        (TaskError::from(sink()), false, false),
    ] {
        let name = format!("{fault:?}");
        assert_eq!(RunTaskError::from_fault(fault, started).is_failure(), !rejected, "{name}, started: {started}");
    }
}

#[test]
fn task_outcome_displays_duration_counts_and_report_location() {
    let progress = progress(&[("source.items", 218), ("dynamodb.missing", 1)]);
    let mut outcome = outcome("verify", progress, 1);
    outcome.reports = vec!["s3://users-failures/reports/monday/summary.json".to_owned()];
    outcome.sinks = vec!["dynamodb".to_owned(), "postgres".to_owned()];
    (outcome.took, outcome.command) = (Duration::from_millis(1_250), Some("aws …\n".to_owned()));
    let report = outcome.to_string();
    let words: Vec<Vec<&str>> = report.lines().map(|line| line.split_whitespace().collect()).collect();
    let expected = [
        vec!["verify", "monday", "took", "1.2", "s"],
        vec!["dynamodb.missing", "1"],
        vec!["source.items", "218"],
        vec!["problems", "1"],
        vec!["sinks", "dynamodb,", "postgres"],
        vec!["report", "s3://users-failures/reports/monday/summary.json"],
        vec!["import", "it", "with:"],
        vec![],
        vec!["aws", "…"],
    ];
    assert_eq!(words, expected);
}

#[test]
fn outcome_as_json_is_one_document_of_one_line() {
    let mut outcome = outcome("verify", progress(&[("dynamodb.missing", 1)]), 3);
    (outcome.differences, outcome.took) = (1, Duration::from_millis(1_250));
    outcome.sinks = vec!["dynamodb".to_owned()];
    outcome.reports = vec!["s3://users-failures/reports/monday/summary.json".to_owned()];
    let mut expected = json!({
        "task": "verify", "run_id": "monday", "progress": {"dynamodb.missing": 1}, "sinks": ["dynamodb"],
        "differences": 1, "problems": 3, "reports": ["s3://users-failures/reports/monday/summary.json"],
        "took_seconds": 1.25,
    });
    let parsed = |outcome: &TaskOutcome| serde_json::from_str::<Value>(&outcome.to_json()).unwrap();
    assert_eq!(parsed(&outcome), expected, "without a command to continue with");
    outcome.command = Some("aws …\n".to_owned());
    expected["command"] = json!("aws …\n");
    assert_eq!(parsed(&outcome), expected);
    assert_eq!(outcome.to_json().lines().count(), 1);
}

#[tokio::test]
async fn unrunnable_task_is_rejected_with_one_line_before_start() {
    let nowhere = || TaskTarget::Running { ports: StackPorts { api: 1, dynamodb: 1, s3: 1 }, postgres: None };
    for (text, message) in [
        ("{", "; pass a JSON object such as {\"task\":\"verify\"}"),
        ("verify", "; pass a JSON object such as {\"task\":\"verify\"}"),
        ("[]", "invalid task request"),
        (r#"{"task":"restroe"}"#, "expected one of backfill, verify, repair, redrive"),
        (r#"{"task":"verify","dry_run":true}"#, "dry_run is not a field of verify"),
        (r#"{"task":"verify","segments":2,"segment":1}"#, "segment is for a single invocation"),
        (r#"{"task":"verify","cursor":null}"#, "cursor is for a single invocation"),
        (r#"{"task":"summary","of_task":"verify"}"#, "summary runs automatically after the last segment"),
        (r#"{"task":"verify"}"#, "nothing listens on port 1 of 127.0.0.1"),
    ] {
        let refusal = Box::pin(run(text, nowhere(), &Clock::system())).await.unwrap_err();
        assert!(!refusal.is_failure());
        let refusal = refusal.to_string();
        assert!(refusal.contains(message) && refusal.lines().count() == 1, "{text}: {refusal}");
    }
    let folder = StackOptions { data: Some("/nonexistent/millrace".into()), ..StackOptions::default() };
    let target = TaskTarget::Own(Box::new(folder));
    let refusal = Box::pin(run(r#"{"task":"verify"}"#, target, &Clock::system())).await.unwrap_err();
    assert!(refusal.to_string().contains("/nonexistent/millrace is not a directory"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn program_that_is_not_a_stack_is_named_by_its_port() {
    let stack = LocalStack::start(StackOptions::default()).await.unwrap();
    let port = |url: &str| url.rsplit(':').next().unwrap().parse().unwrap();
    let (dynamodb, s3) = (port(stack.dynamodb_url()), port(stack.s3_url()));
    // The ports of the API and of S3 are swapped.
    let ports = StackPorts { api: s3, dynamodb, s3: port(stack.api_url()) };
    let target = TaskTarget::Running { ports, postgres: None };
    let refusal = Box::pin(run(r#"{"task":"verify"}"#, target, &Clock::system())).await.unwrap_err();
    assert!(!refusal.is_failure());
    let refusal = refusal.to_string();
    let message = format!("port {s3} of 127.0.0.1 is not the API of a running millrace (");
    assert!(refusal.starts_with(&message) && refusal.contains("--port"), "{refusal}");
    stack.stop().await;
}

async fn ordered(stack: &LocalStack, text: &str) -> TaskOutcome {
    let port = |url: &str| url.rsplit(':').next().unwrap().parse().unwrap();
    let ports =
        StackPorts { api: port(stack.api_url()), dynamodb: port(stack.dynamodb_url()), s3: port(stack.s3_url()) };
    let target = TaskTarget::Running { ports, postgres: None };
    Box::pin(run(text, target, &Clock::system())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_is_verified_and_backfilled_on_a_running_stack() {
    let stack = LocalStack::start(StackOptions::default()).await.unwrap();
    let dynamodb = stack.dynamodb();
    let key = |number: u32| {
        let (id, timestamp) = (format!("user-{number}"), number.to_string());
        [("user_id", AttributeValue::S(id)), ("timestamp", AttributeValue::N(timestamp))]
            .map(|(name, value)| (name.to_owned(), value))
    };
    for number in 0..20 {
        dynamodb.put_item().table_name("Users").set_item(Some(key(number).into())).send().await.unwrap();
    }
    stack.wait_until_drained().await;
    let verify = r#"{"task":"verify","segments":4,"recheck_after_seconds":0}"#;
    let well = ordered(&stack, verify).await;
    assert!(well.is_success(), "{well}");
    assert_eq!((well.progress.get("source.items"), well.progress.get("dynamodb.equal")), (20, 20));
    assert_eq!(well.sinks, ["dynamodb"]);
    let summary = format!("s3://users-failures/reports/{}/summary.json", well.run);
    assert_eq!(well.reports, [summary], "what is equal is in no report");

    for number in 0..3 {
        dynamodb.delete_item().table_name("UsersReplica").set_key(Some(key(number).into())).send().await.unwrap();
    }
    let different = ordered(&stack, verify).await;
    assert!(!different.is_success() && different.progress.get("dynamodb.missing") == 3, "{different}");
    let (reports, run) = (&different.reports, &different.run);
    assert!(reports.len() > 1 && reports.iter().all(|key| key.contains(&format!("/reports/{run}/"))), "{reports:?}");

    let filled = ordered(&stack, r#"{"task":"backfill"}"#).await;
    assert!(filled.is_success() && filled.progress.get("dynamodb.written") == 3, "{filled}");
    assert!(ordered(&stack, verify).await.is_success());
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_is_opened_for_a_task_and_closed_again() {
    let folder = tempfile::tempdir().unwrap();
    let own = || {
        let data = Some(folder.path().to_owned());
        TaskTarget::Own(Box::new(StackOptions { data, ..StackOptions::default() }))
    };
    for _ in 0..2 {
        let outcome = Box::pin(run(r#"{"task":"redrive"}"#, own(), &Clock::system())).await.unwrap();
        assert!(outcome.is_success() && outcome.to_string().contains("no items processed"), "{outcome}");
    }
}
