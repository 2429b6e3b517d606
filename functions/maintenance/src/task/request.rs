//! Parsing of a task request, field by field: [`task`].

use std::fmt::Display;
use std::ops::RangeInclusive;

use millrace_archive::{ArchiveDay, ArchiveHour};
use millrace_shared::change::CanonicalKey;
use millrace_shared::item::restored::RestoredExpiry;
use serde::Deserialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::audit::AuditRequest;
use super::compact::CompactRequest;
use super::export::ExportRequest;
use super::export_parquet::ParquetRequest;
use super::restore::RestoreRequest;
use super::summary::{SegmentResult, SummaryRequest};
use super::{InvalidRequest, RedriveRequest, RepairMode, TASK_NAMES, TaskSpec, VerifyRequest};
use crate::failure_record::{ON_FAILURE_PREFIX, QUARANTINE};
use crate::row_versions::VersionFilter;

/// Default time between the two checks of a difference: a replica usually lags by far less.
const LAG_SECONDS: u32 = 5;
/// Maximum time between the two checks, which are made within one invocation.
const MAX_LAG_SECONDS: u32 = 300;
/// Default content size of a compacted object: not more than a query engine reads at once, and large enough for a small
/// number of objects.
const TARGET_BYTES: u64 = 128 * 1024 * 1024;
const MIN_TARGET_BYTES: u64 = 1_024;
/// Maximum target size. An object is spooled to a file before it is uploaded. A Parquet file may have twice the bytes
/// of its items, and the function has 512 MB of `/tmp`.
const TARGET_BYTES_MOST: u64 = 192 * 1024 * 1024;

/// The fields that a restore accepts in addition to the common ones.
const RESTORE_FIELDS: [&str; 9] =
    ["key", "user_id", "from", "to", "versions", "expires_in_seconds", "never_expires", "overwrite", "dry_run"];

/// The same maximum as for the expiry of a user in the API: 50 years of 365.25 days.
const EXTEND_SECONDS_MOST: u32 = 50 * 31_557_600;

/// A task request before validation: all fields of all tasks.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a JSON object such as {\"task\":\"verify\"}")]
pub(super) struct RawTaskRequest {
    task: String,
    pub(super) run_id: Option<String>,
    pub(super) segment: Option<u32>,
    pub(super) segments: Option<u32>,
    pub(super) cursor: Option<Box<RawValue>>,
    dry_run: Option<bool>,
    recheck_after_seconds: Option<u32>,
    max_read_capacity_units: Option<u32>,
    prefix: Option<String>,
    from: Option<String>,
    to: Option<String>,
    error_contains: Option<String>,
    segment_results: Option<Vec<SegmentResult>>,
    of_task: Option<String>,
    granularity: Option<String>,
    target_file_size_bytes: Option<u64>,
    key: Option<Box<RawValue>>,
    keys: Option<Vec<Box<RawValue>>>,
    user_id: Option<String>,
    versions: Option<String>,
    expires_in_seconds: Option<u32>,
    never_expires: Option<bool>,
    overwrite: Option<bool>,
    as_of: Option<String>,
    table: Option<String>,
}

pub(super) fn task(request: &RawTaskRequest, now: OffsetDateTime) -> Result<TaskSpec, InvalidRequest> {
    let capacity_units = || in_range("max_read_capacity_units", request.max_read_capacity_units, 1..=1_000_000);
    let lag =
        in_range("recheck_after_seconds", request.recheck_after_seconds, 0..=MAX_LAG_SECONDS)?.unwrap_or(LAG_SECONDS);
    let lag = std::time::Duration::from_secs(lag.into());
    match request.task.as_str() {
        "backfill" => {
            reject_unknown_fields(request, "backfill", &["max_read_capacity_units"])?;
            Ok(TaskSpec::Backfill { capacity_units: capacity_units()? })
        }
        "verify" => {
            reject_unknown_fields(request, "verify", &["recheck_after_seconds", "max_read_capacity_units"])?;
            Ok(TaskSpec::Verify(VerifyRequest { lag, capacity_units: capacity_units()?, repair_mode: RepairMode::No }))
        }
        "repair" => {
            reject_unknown_fields(request, "repair", &["recheck_after_seconds", "max_read_capacity_units", "dry_run"])?;
            let repair_mode = if request.dry_run.unwrap_or(true) { RepairMode::DryRun } else { RepairMode::Yes };
            Ok(TaskSpec::Verify(VerifyRequest { lag, capacity_units: capacity_units()?, repair_mode }))
        }
        "redrive" => {
            reject_unknown_fields(request, "redrive", &["dry_run", "prefix", "from", "to", "error_contains"])?;
            Ok(TaskSpec::Redrive(redrive(request)?))
        }
        "compact" => {
            reject_unknown_fields(request, "compact", &["from", "to", "granularity", "target_file_size_bytes"])?;
            Ok(TaskSpec::Compact(compact(request, now)?))
        }
        "export-parquet" => {
            reject_unknown_fields(request, "export-parquet", &["from", "to", "target_file_size_bytes"])?;
            let CompactRequest { from, to, target_bytes, .. } = compact(request, now)?;
            Ok(TaskSpec::Columns(ParquetRequest { from, to, target_bytes }))
        }
        "restore" => {
            reject_unknown_fields(request, "restore", &RESTORE_FIELDS)?;
            Ok(TaskSpec::Restore(restore(request)?))
        }
        "export-import-table" => {
            reject_unknown_fields(request, "export-import-table", &["as_of", "table", "target_file_size_bytes"])?;
            let (at, target_bytes) = (time("as_of", request.as_of.as_deref())?, target_bytes(request)?);
            Ok(TaskSpec::Export(ExportRequest { at, table: request.table.clone(), target_bytes }))
        }
        "audit" => {
            reject_unknown_fields(request, "audit", &["from", "to", "keys"])?;
            let keys = request.keys.as_ref().map(|keys| keys.iter().map(|json| key("keys", json)).collect());
            let (from, to) = (time("from", request.from.as_deref())?, time("to", request.to.as_deref())?);
            Ok(TaskSpec::Audit(AuditRequest { from, to, keys: keys.transpose()? }))
        }
        "migrate" => {
            reject_unknown_fields(request, "migrate", &[])?;
            Ok(TaskSpec::Migrate)
        }
        "summary" => {
            reject_unknown_fields(request, "summary", &["segment_results", "of_task"])?;
            Ok(TaskSpec::Summary(summary(request)?))
        }
        other => Err(InvalidRequest::Unknown(other.to_owned())),
    }
}

fn summary(request: &RawTaskRequest) -> Result<SummaryRequest, InvalidRequest> {
    match (&request.segment_results, request.of_task.as_deref()) {
        (Some(results), None) => match results.iter().position(|result| !result.done) {
            None => Ok(SummaryRequest::Results(results.clone())),
            Some(index) => Err(InvalidRequest::Value {
                field: "segment_results",
                found: format!("a list in which entry {index} belongs to a segment that is not done"),
                wanted: "the last response of each segment".to_owned(),
            }),
        },
        (None, Some(name)) => {
            let summed = TASK_NAMES.into_iter().filter(|task| *task != "summary");
            let wanted = || format!("one of {}", summed.clone().collect::<Vec<_>>().join(", "));
            let task = summed.clone().find(|task| *task == name);
            let unknown = || InvalidRequest::Value { field: "of_task", found: format!("{name:?}"), wanted: wanted() };
            Ok(SummaryRequest::SegmentsOf(task.ok_or_else(unknown)?))
        }
        _ => Err(InvalidRequest::MissingField(
            "summary",
            "either of_task, which names the task to summarize, or segment_results",
        )),
    }
}

fn redrive(request: &RawTaskRequest) -> Result<RedriveRequest, InvalidRequest> {
    let prefixes = match &request.prefix {
        None => vec![ON_FAILURE_PREFIX.to_owned(), QUARANTINE.to_owned()],
        Some(prefix) if prefix.starts_with(QUARANTINE) || prefix.starts_with(ON_FAILURE_PREFIX) => vec![prefix.clone()],
        Some(other) => {
            let wanted = format!("a prefix that begins with {QUARANTINE} or {ON_FAILURE_PREFIX}");
            return Err(InvalidRequest::Value { field: "prefix", found: format!("{other:?}"), wanted });
        }
    };
    Ok(RedriveRequest {
        dry_run: request.dry_run.unwrap_or(true),
        prefixes,
        from: time("from", request.from.as_deref())?,
        to: time("to", request.to.as_deref())?,
        reason: request.error_contains.clone(),
    })
}

fn compact(request: &RawTaskRequest, now: OffsetDateTime) -> Result<CompactRequest, InvalidRequest> {
    let hourly = match request.granularity.as_deref() {
        None | Some("day") => false,
        Some("hour") => true,
        Some(other) => {
            let wanted = "\"day\" or \"hour\"".to_owned();
            return Err(InvalidRequest::Value { field: "granularity", found: format!("{other:?}"), wanted });
        }
    };
    // A period that is not over yet still grows, and would be merged again and again.
    let over = if hourly { ArchiveHour::of(now).start() } else { ArchiveDay::of(now).start() };
    Ok(CompactRequest {
        from: time("from", request.from.as_deref())?,
        to: time("to", request.to.as_deref())?.unwrap_or(over),
        hourly,
        target_bytes: target_bytes(request)?,
    })
}

fn target_bytes(request: &RawTaskRequest) -> Result<u64, InvalidRequest> {
    let target = request.target_file_size_bytes.unwrap_or(TARGET_BYTES);
    if (MIN_TARGET_BYTES..=TARGET_BYTES_MOST).contains(&target) {
        return Ok(target);
    }
    let wanted = format!(
        "a number from {MIN_TARGET_BYTES} to {TARGET_BYTES_MOST}, so that each file fits into the 512 MB of /tmp"
    );
    Err(InvalidRequest::Value { field: "target_file_size_bytes", found: target.to_string(), wanted })
}

fn restore(request: &RawTaskRequest) -> Result<RestoreRequest, InvalidRequest> {
    let extend = in_range("expires_in_seconds", request.expires_in_seconds, 1..=EXTEND_SECONDS_MOST)?;
    let expiry = match (extend, request.never_expires) {
        (Some(seconds), None | Some(false)) => RestoredExpiry::After(seconds.into()),
        (None, Some(true)) => RestoredExpiry::Never,
        _ => {
            let needs = "either expires_in_seconds, after which the items expire again, or \"never_expires\": true";
            return Err(InvalidRequest::MissingField("restore", needs));
        }
    };
    let (from, to) = (time("from", request.from.as_deref())?, time("to", request.to.as_deref())?);
    if request.key.is_none() && request.user_id.is_none() && from.is_none() && to.is_none() {
        return Err(InvalidRequest::MissingField("restore", "key, user_id, from or to (the items to restore)"));
    }
    let rows = match request.versions.as_deref() {
        None | Some("latest") => VersionFilter::Latest,
        Some("all") => VersionFilter::All,
        Some(other) => {
            let wanted = "\"latest\" or \"all\"".to_owned();
            return Err(InvalidRequest::Value { field: "versions", found: format!("{other:?}"), wanted });
        }
    };
    let key = request.key.as_deref().map(|json| key("key", json)).transpose()?;
    let (user, overwrite) = (request.user_id.clone(), request.overwrite.unwrap_or_default());
    Ok(RestoreRequest { dry_run: request.dry_run.unwrap_or(true), key, user, from, to, rows, expiry, overwrite })
}

fn key(field: &'static str, json: &RawValue) -> Result<CanonicalKey, InvalidRequest> {
    CanonicalKey::parse(json.get()).map_err(|error| InvalidRequest::Value {
        field,
        found: format!("not a valid key ({error})"),
        wanted: "DynamoDB JSON such as {\"user_id\":{\"S\":\"ada\"},\"timestamp\":{\"N\":\"1\"}}".to_owned(),
    })
}

fn time(field: &'static str, text: Option<&str>) -> Result<Option<OffsetDateTime>, InvalidRequest> {
    let parsed = |text: &str| {
        let wanted = "an RFC 3339 time such as 2026-11-24T08:00:00Z".to_owned();
        OffsetDateTime::parse(text, &Rfc3339).map_err(|_| InvalidRequest::Value {
            field,
            found: format!("{text:?}"),
            wanted,
        })
    };
    text.map(parsed).transpose()
}

/// Rejects the fields of other tasks: if one were ignored, the task would do something else than requested.
fn reject_unknown_fields(
    request: &RawTaskRequest,
    task: &'static str,
    known: &'static [&'static str],
) -> Result<(), InvalidRequest> {
    let given = [
        ("dry_run", request.dry_run.is_some()),
        ("recheck_after_seconds", request.recheck_after_seconds.is_some()),
        ("max_read_capacity_units", request.max_read_capacity_units.is_some()),
        ("prefix", request.prefix.is_some()),
        ("from", request.from.is_some()),
        ("to", request.to.is_some()),
        ("error_contains", request.error_contains.is_some()),
        ("segment_results", request.segment_results.is_some()),
        ("of_task", request.of_task.is_some()),
        ("granularity", request.granularity.is_some()),
        ("target_file_size_bytes", request.target_file_size_bytes.is_some()),
        ("key", request.key.is_some()),
        ("keys", request.keys.is_some()),
        ("user_id", request.user_id.is_some()),
        ("versions", request.versions.is_some()),
        ("expires_in_seconds", request.expires_in_seconds.is_some()),
        ("never_expires", request.never_expires.is_some()),
        ("overwrite", request.overwrite.is_some()),
        ("as_of", request.as_of.is_some()),
        ("table", request.table.is_some()),
    ];
    let stray = given.into_iter().find(|(field, is_given)| *is_given && !known.contains(field));
    stray.map_or(Ok(()), |(field, _)| Err(InvalidRequest::Field { task, field, known }))
}

pub(super) fn in_range<N: PartialOrd + Display>(
    field: &'static str,
    number: Option<N>,
    range: RangeInclusive<N>,
) -> Result<Option<N>, InvalidRequest> {
    match number {
        Some(number) if !range.contains(&number) => {
            let wanted = format!("a number from {} to {}", range.start(), range.end());
            Err(InvalidRequest::Value { field, found: number.to_string(), wanted })
        }
        number => Ok(number),
    }
}
