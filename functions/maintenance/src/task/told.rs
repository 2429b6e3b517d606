//! An order as it comes, read field by field: [`task`].

use std::fmt::Display;
use std::ops::RangeInclusive;

use archiver::archive::{Day, Hour};
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::change::CanonicalKey;
use shared::item::restored::Expiry;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::audit::Audit;
use super::columns::Columns;
use super::compact::Compact;
use super::export::Export;
use super::restore::Restore;
use super::summary::Summary;
use super::{BadOrder, Mend, Redrive, TASK_NAMES, Task, Verify};
use crate::facts::Rows;
use crate::failure::{GIVEN_UP, QUARANTINE};
use crate::progress::Progress;

/// Between two looks at a difference: a replica is behind by far less as a rule.
const LAG_SECONDS: u32 = 5;
/// A difference is watched within one invocation.
const LAG_SECONDS_MOST: u32 = 300;
/// Content of a compacted object: what a query engine reads in one go, and few enough objects.
const TARGET_BYTES: u64 = 128 * 1024 * 1024;
const TARGET_BYTES_LEAST: u64 = 1_024;
/// An object is spooled in a file before it is put. A file of columns may have twice the bytes of its items, and the function
/// has 512 MB of `/tmp`.
const TARGET_BYTES_MOST: u64 = 192 * 1024 * 1024;

/// As far ahead as the API lets a user expire: 50 years of 365.25 days.
const EXTEND_SECONDS_MOST: u32 = 50 * 31_557_600;

/// An order as it comes: every field of any task.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Told {
    task: String,
    pub(super) run: Option<String>,
    pub(super) segment: Option<u32>,
    pub(super) segments: Option<u32>,
    pub(super) cursor: Option<Box<RawValue>>,
    dry_run: Option<bool>,
    lag_seconds: Option<u32>,
    capacity_units: Option<u32>,
    prefix: Option<String>,
    from: Option<String>,
    to: Option<String>,
    reason: Option<String>,
    parts: Option<Vec<Progress>>,
    of_task: Option<String>,
    hourly: Option<bool>,
    target_bytes: Option<u64>,
    key: Option<Box<RawValue>>,
    keys: Option<Vec<Box<RawValue>>>,
    user: Option<String>,
    rows: Option<String>,
    extend_seconds: Option<u32>,
    no_expiry: Option<bool>,
    overwrite: Option<bool>,
    at: Option<String>,
    table: Option<String>,
}

pub(super) fn task(told: &Told, now: OffsetDateTime) -> Result<Task, BadOrder> {
    let capacity_units = || within("capacity_units", told.capacity_units, 1..=1_000_000);
    let lag = within("lag_seconds", told.lag_seconds, 0..=LAG_SECONDS_MOST)?.unwrap_or(LAG_SECONDS);
    let lag = std::time::Duration::from_secs(lag.into());
    match told.task.as_str() {
        "backfill" => {
            only(told, "backfill", &["capacity_units"])?;
            Ok(Task::Backfill { capacity_units: capacity_units()? })
        }
        "verify" => {
            only(told, "verify", &["lag_seconds", "capacity_units"])?;
            Ok(Task::Verify(Verify { lag, capacity_units: capacity_units()?, mend: Mend::No }))
        }
        "repair" => {
            only(told, "repair", &["lag_seconds", "capacity_units", "dry_run"])?;
            let mend = if told.dry_run.unwrap_or(true) { Mend::DryRun } else { Mend::Yes };
            Ok(Task::Verify(Verify { lag, capacity_units: capacity_units()?, mend }))
        }
        "redrive" => {
            only(told, "redrive", &["dry_run", "prefix", "from", "to", "reason"])?;
            Ok(Task::Redrive(redrive(told)?))
        }
        "compact" => {
            only(told, "compact", &["from", "to", "hourly", "target_bytes"])?;
            Ok(Task::Compact(compact(told, now)?))
        }
        "export-parquet" => {
            only(told, "export-parquet", &["from", "to", "target_bytes"])?;
            let Compact { from, to, target_bytes, .. } = compact(told, now)?;
            Ok(Task::Columns(Columns { from, to, target_bytes }))
        }
        "restore" => {
            let fields = ["key", "user", "from", "to", "rows", "extend_seconds", "no_expiry", "overwrite", "dry_run"];
            only(told, "restore", &fields)?;
            Ok(Task::Restore(restore(told)?))
        }
        "export-import-table" => {
            only(told, "export-import-table", &["at", "table", "target_bytes"])?;
            let (at, target_bytes) = (time("at", told.at.as_deref())?, target_bytes(told)?);
            Ok(Task::Export(Export { at, table: told.table.clone(), target_bytes }))
        }
        "audit" => {
            only(told, "audit", &["from", "to", "keys"])?;
            let keys = told.keys.as_ref().map(|keys| keys.iter().map(|json| key("keys", json)).collect());
            let (from, to) = (time("from", told.from.as_deref())?, time("to", told.to.as_deref())?);
            Ok(Task::Audit(Audit { from, to, keys: keys.transpose()? }))
        }
        "migrate" => {
            only(told, "migrate", &[])?;
            Ok(Task::Migrate)
        }
        "summary" => {
            only(told, "summary", &["parts", "of_task"])?;
            Ok(Task::Summary(summary(told)?))
        }
        other => Err(BadOrder::Unknown(other.to_owned())),
    }
}

fn summary(told: &Told) -> Result<Summary, BadOrder> {
    match (&told.parts, told.of_task.as_deref()) {
        (Some(parts), None) => Ok(Summary::Parts(parts.clone())),
        (None, Some(name)) => {
            let summed = TASK_NAMES.into_iter().filter(|task| *task != "summary");
            let wanted = || format!("one of {}", summed.clone().collect::<Vec<_>>().join(", "));
            let task = summed.clone().find(|task| *task == name);
            let unknown = || BadOrder::Value { field: "of_task", found: format!("{name:?}"), wanted: wanted() };
            Ok(Summary::SegmentsOf(task.ok_or_else(unknown)?))
        }
        _ => Err(BadOrder::Needs("summary", "either of_task, the task whose segments it adds up, or parts")),
    }
}

fn redrive(told: &Told) -> Result<Redrive, BadOrder> {
    let prefixes = match &told.prefix {
        None => vec![GIVEN_UP.to_owned(), QUARANTINE.to_owned()],
        Some(prefix) if prefix.starts_with(QUARANTINE) || prefix.starts_with(GIVEN_UP) => vec![prefix.clone()],
        Some(other) => {
            let wanted = format!("a prefix that begins with {QUARANTINE} or {GIVEN_UP}");
            return Err(BadOrder::Value { field: "prefix", found: format!("{other:?}"), wanted });
        }
    };
    Ok(Redrive {
        dry_run: told.dry_run.unwrap_or(true),
        prefixes,
        from: time("from", told.from.as_deref())?,
        to: time("to", told.to.as_deref())?,
        reason: told.reason.clone(),
    })
}

fn compact(told: &Told, now: OffsetDateTime) -> Result<Compact, BadOrder> {
    let hourly = told.hourly.unwrap_or_default();
    // What is not over yet grows: it would be merged again and again.
    let over = if hourly { Hour::of(now).start() } else { Day::of(now).start() };
    Ok(Compact {
        from: time("from", told.from.as_deref())?,
        to: time("to", told.to.as_deref())?.unwrap_or(over),
        hourly,
        target_bytes: target_bytes(told)?,
    })
}

fn target_bytes(told: &Told) -> Result<u64, BadOrder> {
    let target = told.target_bytes.unwrap_or(TARGET_BYTES);
    if (TARGET_BYTES_LEAST..=TARGET_BYTES_MOST).contains(&target) {
        return Ok(target);
    }
    let wanted = format!(
        "a number from {TARGET_BYTES_LEAST} to {TARGET_BYTES_MOST}, of which a file fits into the 512 MB of /tmp"
    );
    Err(BadOrder::Value { field: "target_bytes", found: target.to_string(), wanted })
}

fn restore(told: &Told) -> Result<Restore, BadOrder> {
    let extend = within("extend_seconds", told.extend_seconds, 1..=EXTEND_SECONDS_MOST)?;
    let expiry = match (extend, told.no_expiry) {
        (Some(seconds), None | Some(false)) => Expiry::After(seconds.into()),
        (None, Some(true)) => Expiry::Never,
        _ => {
            let needs = "either extend_seconds, after which the items expire again, or \"no_expiry\":true";
            return Err(BadOrder::Needs("restore", needs));
        }
    };
    let (from, to) = (time("from", told.from.as_deref())?, time("to", told.to.as_deref())?);
    if told.key.is_none() && told.user.is_none() && from.is_none() && to.is_none() {
        return Err(BadOrder::Needs("restore", "a key, a user, from or to: which items shall come back"));
    }
    let rows = match told.rows.as_deref() {
        None | Some("latest") => Rows::Latest,
        Some("all") => Rows::All,
        Some(other) => {
            let wanted = "\"latest\" or \"all\"".to_owned();
            return Err(BadOrder::Value { field: "rows", found: format!("{other:?}"), wanted });
        }
    };
    let key = told.key.as_deref().map(|json| key("key", json)).transpose()?;
    let (user, overwrite) = (told.user.clone(), told.overwrite.unwrap_or_default());
    Ok(Restore { dry_run: told.dry_run.unwrap_or(true), key, user, from, to, rows, expiry, overwrite })
}

fn key(field: &'static str, json: &RawValue) -> Result<CanonicalKey, BadOrder> {
    CanonicalKey::parse(json.get()).map_err(|error| BadOrder::Value {
        field,
        found: format!("no key ({error})"),
        wanted: "DynamoDB JSON such as {\"user_id\":{\"S\":\"ada\"},\"timestamp\":{\"N\":\"1\"}}".to_owned(),
    })
}

fn time(field: &'static str, text: Option<&str>) -> Result<Option<OffsetDateTime>, BadOrder> {
    let parsed = |text: &str| {
        let wanted = "an RFC 3339 time such as 2026-11-24T08:00:00Z".to_owned();
        OffsetDateTime::parse(text, &Rfc3339).map_err(|_| BadOrder::Value { field, found: format!("{text:?}"), wanted })
    };
    text.map(parsed).transpose()
}

/// Refuses the fields of other tasks: to pass one over would be to do something else than was asked.
fn only(told: &Told, task: &'static str, fields: &[&str]) -> Result<(), BadOrder> {
    let given = [
        ("dry_run", told.dry_run.is_some()),
        ("lag_seconds", told.lag_seconds.is_some()),
        ("capacity_units", told.capacity_units.is_some()),
        ("prefix", told.prefix.is_some()),
        ("from", told.from.is_some()),
        ("to", told.to.is_some()),
        ("reason", told.reason.is_some()),
        ("parts", told.parts.is_some()),
        ("of_task", told.of_task.is_some()),
        ("hourly", told.hourly.is_some()),
        ("target_bytes", told.target_bytes.is_some()),
        ("key", told.key.is_some()),
        ("keys", told.keys.is_some()),
        ("user", told.user.is_some()),
        ("rows", told.rows.is_some()),
        ("extend_seconds", told.extend_seconds.is_some()),
        ("no_expiry", told.no_expiry.is_some()),
        ("overwrite", told.overwrite.is_some()),
        ("at", told.at.is_some()),
        ("table", told.table.is_some()),
    ];
    let stray = given.into_iter().find(|(field, is_given)| *is_given && !fields.contains(field));
    stray.map_or(Ok(()), |(field, _)| Err(BadOrder::Field { task, field }))
}

pub(super) fn within<N: PartialOrd + Display>(
    field: &'static str,
    number: Option<N>,
    range: RangeInclusive<N>,
) -> Result<Option<N>, BadOrder> {
    match number {
        Some(number) if !range.contains(&number) => {
            let wanted = format!("a number from {} to {}", range.start(), range.end());
            Err(BadOrder::Value { field, found: number.to_string(), wanted })
        }
        number => Ok(number),
    }
}
