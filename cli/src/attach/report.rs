//! The report about a table, as text and as JSON: [`text`] and [`json`].

use std::fmt::Write as _;

use millrace_local::table_description::{KeyAttribute, KeyType, TableCapacity, TableDescription, TimeToLive};
use serde_json::{Value, json};

use crate::cost::{CostEstimate, dollars, grouped};

use super::files::AttachFiles;
use super::findings::{ArchiveMode, AttachPlan, FindingSeverity};
use super::observation::{CheckResult, SkipReason, SkippedCall, TableObservation};

const NOT_CHECKED: &str = "not checked";

/// Returns the report for a person.
pub(super) fn text(observation: &TableObservation, plan: &AttachPlan, files: Option<&AttachFiles>) -> String {
    let table = &observation.table;
    let mut text = format!("{}\n\n", table.arn);
    for (name, value) in rows(observation) {
        let _ = writeln!(text, "  {name:<12}  {}", printable(&value));
    }
    if let Some(cost) = CostEstimate::new(table) {
        text.push_str("\nestimated cost (list prices of us-east-1, docs/cost.md)\n");
        for (name, value) in costs(&cost, plan) {
            let _ = writeln!(text, "  {name:<12}  {value}");
        }
    }
    for (severity, heading) in [
        (FindingSeverity::Blocks, "cannot be attached yet"),
        (FindingSeverity::Warns, "warnings"),
        (FindingSeverity::Notes, "notes"),
    ] {
        let findings: Vec<_> = plan.findings.iter().filter(|finding| finding.severity == severity).collect();
        if !findings.is_empty() {
            let _ = writeln!(text, "\n{heading}");
        }
        for finding in findings {
            let _ = writeln!(text, "  {:<12}  {}", finding.subject, printable(&finding.text));
            if !finding.fix.is_empty() {
                let _ = writeln!(text, "  {:<12}  fix: {}", "", finding.fix);
            }
            for command in &finding.commands {
                let _ = writeln!(text, "  {:<12}    {command}", "");
            }
        }
    }
    let skipped = observation.skipped_calls();
    if !skipped.is_empty() {
        let _ = writeln!(text, "\n{NOT_CHECKED}");
    }
    let (offline, tried): (Vec<_>, Vec<_>) = skipped.into_iter().partition(|call| call.reason == SkipReason::Offline);
    for call in tried {
        let _ = writeln!(text, "  {}", described(call));
    }
    if !offline.is_empty() {
        let calls: Vec<&str> = offline.iter().map(|call| call.call).collect();
        let _ = writeln!(text, "  {}: --from reads no account", calls.join(", "));
    }
    match files {
        Some(files) => {
            text.push_str("\nwrote\n");
            for path in files.paths() {
                let _ = writeln!(text, "  {path}");
            }
            text.push_str("\nnext, in the root of the Millrace repository\n");
            for command in files.commands().all() {
                let _ = writeln!(text, "  {}", command.replace('\n', "\n  "));
            }
        }
        None => text.push_str("\nno files were written\n"),
    }
    text.trim_end().to_owned()
}

/// Escapes control characters: the name of an attribute can be any text, and a terminal executes some of them.
fn printable(text: &str) -> String {
    let escaped = |letter: char| if letter.is_control() { letter.escape_default().to_string() } else { letter.into() };
    text.chars().map(escaped).collect()
}

/// Returns the report as one JSON document.
pub(super) fn json(observation: &TableObservation, plan: &AttachPlan, files: Option<&AttachFiles>) -> Value {
    let table = &observation.table;
    let findings: Vec<_> = plan
        .findings
        .iter()
        .map(|finding| {
            json!({
                "severity": finding.severity.as_str(),
                "subject": finding.subject,
                "text": finding.text,
                "fix": finding.fix,
                "commands": finding.commands,
            })
        })
        .collect();
    let not_checked: Vec<_> = observation
        .skipped_calls()
        .into_iter()
        .map(|call| {
            let reason = match &call.reason {
                SkipReason::Offline => "offline",
                SkipReason::Denied => "denied",
                SkipReason::Failed(error) => error,
            };
            json!({"call": call.call, "action": call.action, "reason": reason})
        })
        .collect();
    let readers = observation.readers.known().map(|readers| {
        let reader =
            |reader: &super::observation::StreamReader| json!({"function": reader.function, "state": reader.state});
        readers.iter().map(reader).collect::<Vec<_>>()
    });
    let cost = CostEstimate::new(table).map(|cost| {
        json!({
            "backfill_read_units": cost.backfill_read_units,
            "backfill_write_units": cost.backfill_write_units,
            "backfill_dollars": cost.backfill,
            "million_changes_write_units": cost.change_write_units,
            "million_changes_dollars": cost.million_changes,
        })
    });
    let parameters = files.map(|files| {
        let pairs = files.parameters().iter().map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str())));
        pairs.collect::<serde_json::Map<_, _>>()
    });
    json!({
        "table": {
            "arn": table.arn.to_string(),
            "status": table.status,
            "partition_key": table.partition_key.to_string(),
            "sort_key": table.sort_key.as_ref().map(ToString::to_string),
            "items": table.item_count,
            "bytes": table.size_bytes,
            "stream_arn": table.stream.as_ref().map(|stream| &stream.arn),
            "stream_view_type": table.stream.as_ref().map(|stream| stream.view.as_str()),
            "ttl_attribute": table.ttl_attribute(),
            "key_arn": table.encryption.as_ref().and_then(|encryption| encryption.key_arn.as_ref()),
            "is_global": table.is_global(),
            "point_in_time_recovery": observation.recovery.known(),
            "deletion_protection": table.deletion_protection,
            "readers": readers,
        },
        "archive": plan.archive.as_str(),
        "cost": cost,
        "findings": findings,
        "not_checked": not_checked,
        "parameters": parameters,
        "files": files.map(AttachFiles::paths),
        "commands": files.map(|files| files.commands().all()),
    })
}

fn rows(observation: &TableObservation) -> Vec<(&'static str, String)> {
    let table = &observation.table;
    let key = |key: &KeyAttribute| {
        let kind = match key.kind {
            KeyType::String => "string",
            KeyType::Number => "number",
            KeyType::Binary => "binary",
        };
        format!("{} ({kind})", key.name)
    };
    let keys: Vec<String> = table.key_attributes().map(key).collect();
    let mut rows = vec![("keys", keys.join(", ")), ("items", items(table))];
    let stream = match &table.stream {
        Some(stream) => format!("{}, since {}", stream.view.as_str(), stream.label),
        None => "off".to_owned(),
    };
    rows.push(("stream", stream));
    if table.stream.is_some() {
        rows.push(("readers", readers(observation)));
    }
    let ttl = match &table.time_to_live {
        TimeToLive::Enabled { attribute } => attribute.clone(),
        TimeToLive::Disabled => "off".to_owned(),
        TimeToLive::Unknown => NOT_CHECKED.to_owned(),
    };
    rows.push(("TTL", ttl));
    rows.push(("encryption", encryption(observation)));
    let global = if table.is_global() {
        let replicas = table.replicas.iter();
        let regions = replicas.map(|replica| replica.region.as_str()).collect::<Vec<_>>().join(", ");
        format!("yes, with replicas in {regions}")
    } else {
        "no".to_owned()
    };
    rows.push(("global table", global));
    let recovery = match &observation.recovery {
        CheckResult::Known(true) => "point-in-time recovery on",
        CheckResult::Known(false) => "point-in-time recovery off",
        CheckResult::NotChecked(_) => "point-in-time recovery not checked",
    };
    let protection = match table.deletion_protection {
        Some(true) => "deletion protection on",
        Some(false) => "deletion protection off",
        None => "deletion protection unknown",
    };
    rows.push(("backups", format!("{recovery}, {protection}")));
    let capacity = match table.capacity {
        TableCapacity::OnDemand => "on demand".to_owned(),
        TableCapacity::Provisioned { read_units, write_units } => {
            format!("provisioned, {} read and {} write units", grouped(read_units), grouped(write_units))
        }
    };
    let class = if table.table_class == "STANDARD" { String::new() } else { format!(", {}", table.table_class) };
    rows.push(("capacity", format!("{capacity}{class}")));
    rows
}

fn items(table: &TableDescription) -> String {
    let (Some(items), Some(bytes)) = (table.item_count, table.size_bytes) else { return "unknown".to_owned() };
    let average = bytes.checked_div(items);
    let average = average.map_or_else(String::new, |average| format!(" ({} bytes each)", grouped(average)));
    format!("{} in {}{average}, as of the last six hours", grouped(items), size(bytes))
}

#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn size(bytes: u64) -> String {
    let units = [("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3)];
    let bytes_f64 = bytes as f64;
    units
        .into_iter()
        .find(|(_, unit)| bytes_f64 >= *unit)
        .map_or_else(|| format!("{bytes} bytes"), |(name, unit)| format!("{:.1} {name}", bytes_f64 / unit))
}

fn readers(observation: &TableObservation) -> String {
    match &observation.readers {
        CheckResult::NotChecked(_) => NOT_CHECKED.to_owned(),
        CheckResult::Known(readers) if readers.is_empty() => {
            "no function of this account (pipes and other consumers cannot be listed)".to_owned()
        }
        CheckResult::Known(readers) => {
            let reader = |reader: &super::observation::StreamReader| format!("{} ({})", reader.function, reader.state);
            readers.iter().map(reader).collect::<Vec<_>>().join(", ")
        }
    }
}

fn encryption(observation: &TableObservation) -> String {
    let Some(encryption) = &observation.table.encryption else { return "a key that AWS owns".to_owned() };
    let key = encryption.key_arn.as_deref().unwrap_or("a KMS key");
    match observation.key.as_ref().and_then(CheckResult::known) {
        Some(known) if known.is_aws_managed => format!("{key}, managed by AWS"),
        Some(known) => format!("{key}, of the customer, {}", known.state),
        None => format!("{key} ({NOT_CHECKED})"),
    }
}

fn costs(cost: &CostEstimate, plan: &AttachPlan) -> Vec<(&'static str, String)> {
    let backfill = format!(
        "{} for {} write and {} read units",
        dollars(cost.backfill),
        grouped(cost.backfill_write_units),
        grouped(cost.backfill_read_units)
    );
    let changes = format!("{} for {} write units", dollars(cost.million_changes), grouped(cost.change_write_units));
    let mut rows = vec![("backfill", backfill), ("1M changes", changes)];
    if plan.archive != ArchiveMode::Off {
        let archived =
            format!("{}, and ${:.3} per month of storage", dollars(cost.million_archived), cost.archive_month);
        rows.push(("1M archived", archived));
    }
    rows
}

fn described(call: &SkippedCall) -> String {
    match &call.reason {
        SkipReason::Offline => call.call.to_owned(),
        SkipReason::Denied => format!("{}: allow {}", call.call, call.action),
        SkipReason::Failed(error) => format!("{}: {error}", call.call),
    }
}
