//! Parsing of task requests: the valid ones, and the errors of the invalid ones.

use std::time::Duration;

use tokio::time::Instant;

use time::OffsetDateTime;

use super::archive::compact::CompactTask;
use super::registry::{MaintenanceTask, TASKS};
use super::replica::redrive::RedriveTask;
use super::replica::repair::RepairTask;
use super::replica::verify::{RepairMode, ReplicaComparison, VerifyTask};
use super::summary::SummaryTask;
use super::*;

/// Returns the validated parameters of a request of this task.
fn task<T: MaintenanceTask>(json: &str) -> T {
    let payload = RawValue::from_string(json.to_owned()).unwrap();
    let mut fields = RequestFields::parse(&payload).unwrap();
    assert_eq!(fields.take::<String>("task").unwrap().unwrap(), T::NAME);
    for field in request::COMMON_FIELDS {
        fields.take::<Box<RawValue>>(field).unwrap();
    }
    T::parse(fields.into_request(T::NAME).unwrap(), OffsetDateTime::UNIX_EPOCH).unwrap()
}

fn parsed(json: &str) -> Result<TaskRequest, String> {
    let payload = RawValue::from_string(json.to_owned()).unwrap();
    let minute = Duration::from_mins(1);
    let invocation = Invocation::new(OffsetDateTime::UNIX_EPOCH, Instant::now(), minute, "request-1".to_owned());
    TaskRequest::parse(&payload, &invocation).map_err(|error| error.to_string())
}

#[test]
fn a_task_alone_is_enough_and_the_careful_way_is_the_default() {
    let request = parsed(r#"{"task":"repair"}"#).unwrap();
    assert_eq!(
        (request.run_id.as_str(), request.segment, request.cursor.is_none()),
        ("request-1", ScanSegment::WHOLE, true)
    );
    assert_eq!((request.definition.name, request.extra_time()), ("repair", Duration::from_secs(5)));
    let RepairTask(repair) = task(r#"{"task":"repair"}"#);
    let repair_mode = RepairMode::DryRun;
    assert_eq!(
        repair,
        ReplicaComparison { replica: None, recheck_after: Duration::from_secs(5), capacity_units: None, repair_mode }
    );
    let redrive: RedriveTask = task(r#"{"task":"redrive"}"#);
    assert!(redrive.dry_run);
    assert_eq!(redrive.prefixes, ["aws/lambda/", "quarantine/"]);
}

#[test]
fn task_names_are_those_that_requests_are_parsed_by() {
    for name in TASKS.iter().map(|task| task.name) {
        match parsed(&format!(r#"{{"task":"{name}"}}"#)) {
            Ok(request) => assert_eq!(request.definition.name, name),
            Err(error) => assert!(error.starts_with(&format!("{name} needs ")), "{error}"),
        }
    }
    for (former, hint) in [("columns", ""), ("export", "; did you mean \"export-parquet\"?")] {
        let error = parsed(&format!(r#"{{"task":"{former}"}}"#)).unwrap_err();
        let names = format!("export-parquet, restore, export-import-table, audit, migrate, summary{hint}");
        assert!(
            error.starts_with(&format!("unknown task {former:?}: expected one of")) && error.ends_with(&names),
            "{error}"
        );
    }
}

#[test]
fn all_fields_of_a_task_are_taken() {
    let json = r#"{"task":"redrive","run_id":"monday","segment":2,"segments":4,"cursor":null,"dry_run":false,
        "prefix":"quarantine/archiver/","from":"2026-11-24T08:00:00Z","to":"2026-11-25T08:00:00+01:00","error_contains":"large"}"#;
    let request = parsed(json).unwrap();
    assert_eq!((request.run_id.as_str(), request.segment), ("monday", ScanSegment { segment: 2, total_segments: 4 }));
    let redrive: RedriveTask = task(json);
    assert!(!redrive.dry_run && redrive.from < redrive.to && redrive.reason.as_deref() == Some("large"));
    assert_eq!(redrive.prefixes, ["quarantine/archiver/"]);
    let VerifyTask(verify) = task(r#"{"task":"verify","recheck_after_seconds":0,"max_read_capacity_units":50}"#);
    let repair_mode = RepairMode::No;
    assert_eq!(
        verify,
        ReplicaComparison { replica: None, recheck_after: Duration::ZERO, capacity_units: Some(50), repair_mode }
    );
}

#[test]
fn invalid_task_request_error_names_the_allowed_values() {
    for (json, message) in [
        ("[]", "invalid task request: invalid type: sequence, expected a JSON object such as {\"task\":\"verify\"}"),
        (r#"{"task":"verify","task":"repair"}"#, "invalid task request: duplicate field `task`"),
        (r#"{"segments":2}"#, "missing field `task`"),
        (r#"{"task":"restroe"}"#, "unknown task \"restroe\": expected one of backfill, verify, repair, redrive"),
        (r#"{"task":"restroe"}"#, "audit, migrate, summary; did you mean \"restore\"?"),
        (r#"{"task":7}"#, "task is 7: invalid type: integer `7`, expected a string"),
        (
            r#"{"task":"verify","dryrun":true}"#,
            "dryrun is not a field of verify: expected one of replica, recheck_after_seconds",
        ),
        (r#"{"task":"repair","dryrun":true}"#, "segment, cursor; did you mean \"dry_run\"?"),
        (r#"{"task":"repair","segment_s":1}"#, "; did you mean \"segments\"?"),
        (r#"{"task":"repair","dry_run":"no"}"#, "dry_run is \"no\": invalid type: string \"no\", expected a boolean"),
        (r#"{"task":"verify","segments":"four"}"#, "segments is \"four\": invalid type: string \"four\", expected u32"),
        (
            r#"{"task":"verify","dry_run":true}"#,
            "dry_run is not a field of verify: expected one of replica, recheck_after_seconds, max_read_capacity_units, run_id, segments, segment, cursor",
        ),
        (r#"{"task":"backfill","recheck_after_seconds":1}"#, "recheck_after_seconds is not a field of backfill"),
        (
            r#"{"task":"repair","recheck_after_seconds":301}"#,
            "recheck_after_seconds is 301: set it to a number from 0 to 300",
        ),
        (r#"{"task":"verify","segments":0}"#, "segments is 0"),
        (r#"{"task":"verify","segment":1}"#, "segment is 1: set it to a number from 0 to 0"),
        (r#"{"task":"redrive","prefix":"archive/"}"#, "prefix is \"archive/\""),
        (r#"{"task":"redrive","from":"yesterday"}"#, "from is \"yesterday\": set it to an RFC 3339 time"),
        (r#"{"task":"verify","run_id":"a/b"}"#, "run_id is \"a/b\""),
        (r#"{"task":"backfill","max_read_capacity_units":0}"#, "max_read_capacity_units is 0"),
        (
            r#"{"task":"compact","target_file_size_bytes":201326593}"#,
            "target_file_size_bytes is 201326593: set it to a number from 1024 to",
        ),
        (
            r#"{"task":"export-parquet","target_file_size_bytes":4294967296}"#,
            "so that each file fits into the 512 MB of /tmp",
        ),
        (r#"{"task":"export-import-table","target_file_size_bytes":268435456}"#, "512 MB of /tmp"),
        (r#"{"task":"summary"}"#, "summary needs either of_task"),
        (r#"{"task":"summary","of_task":"summary"}"#, "of_task is \"summary\": set it to one of backfill"),
        (r#"{"task":"verify","of_task":"verify"}"#, "of_task is not a field of verify"),
        (r#"{"task":"verify","cursor":{"task":"verify"}}"#, "the cursor is not a cursor of verify"),
    ] {
        let error = parsed(json).unwrap_err();
        assert!(error.contains(message), "{json}: {error}");
    }
}

#[test]
fn former_fields_are_unknown_and_the_error_lists_the_known_ones() {
    for (task, former, value) in [
        ("verify", "lag_seconds", "1"),
        ("verify", "capacity_units", "1"),
        ("verify", "run", "\"monday\""),
        ("compact", "target_bytes", "1024"),
        ("compact", "hourly", "true"),
        ("restore", "extend_seconds", "1"),
        ("restore", "no_expiry", "true"),
        ("restore", "rows", "\"all\""),
        ("restore", "user", "\"ada\""),
        ("export-import-table", "at", "\"2026-11-24T08:00:00Z\""),
        ("redrive", "reason", "\"large\""),
        ("summary", "parts", "[]"),
    ] {
        let error = parsed(&format!(r#"{{"task":"{task}","{former}":{value}}}"#)).unwrap_err();
        let known = TASKS.iter().find(|known| known.name == task).unwrap().fields().join(", ");
        let begin =
            format!("{former} is not a field of {task}: expected one of {known}, run_id, segments, segment, cursor");
        assert!(error.starts_with(&begin), "{error}");
    }
}

#[test]
fn granularity_is_a_day_or_an_hour() {
    let hourly = |json: &str| task::<CompactTask>(json).hourly;
    assert!(hourly(r#"{"task":"compact","granularity":"hour"}"#));
    assert!(!hourly(r#"{"task":"compact","granularity":"day"}"#) && !hourly(r#"{"task":"compact"}"#));
    let error = parsed(r#"{"task":"compact","granularity":"minute"}"#).unwrap_err();
    assert_eq!(error, r#"granularity is "minute": set it to "day" or "hour""#);
}

#[test]
fn segment_results_are_those_of_segments_that_are_done() {
    let result = |done| {
        format!(r#"{{"task":"verify","done":{done},"progress":{{"source.items":1}},"differences":2,"problems":3}}"#)
    };
    let request = |results: &[String]| format!(r#"{{"task":"summary","segment_results":[{}]}}"#, results.join(","));
    let SummaryTask::Results(results) = task(&request(&[result(true), result(true)])) else {
        panic!("a summary of results");
    };
    assert_eq!(results.iter().map(|result| (result.differences, result.problems)).collect::<Vec<_>>(), [(2, 3); 2]);
    let error = parsed(&request(&[result(true), result(false)])).unwrap_err();
    assert!(error.starts_with("segment_results is a list in which entry 1 belongs to a segment"), "{error}");
}

#[test]
fn a_cursor_of_another_task_or_segment_is_refused_by_name() {
    let cursor = r#"{"task":"verify","run_id":"monday","segment":1,"segments":2,"part":3,"progress":{"x":1},"differences":0,"problems":0,"at":[]}"#;
    let request = parsed(&format!(r#"{{"task":"verify","segment":1,"segments":2,"cursor":{cursor}}}"#)).unwrap();
    assert_eq!(request.run_id, "monday", "a run continues under its ID");
    assert_eq!(request.cursor.unwrap().part, 3);
    for other in [r#""task":"backfill","segment":1,"segments":2"#, r#""task":"verify","segment":0,"segments":2"#] {
        let error = parsed(&format!(r#"{{{other},"cursor":{cursor}}}"#)).unwrap_err();
        assert!(error.contains("the cursor belongs to verify, segment 1 of 2 but this is"), "{error}");
    }
}
