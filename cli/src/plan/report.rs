//! The plan as text and as JSON: [`text`] and [`json`].

use std::fmt::Write as _;

use serde_json::json;

use crate::cost::{dollars, grouped};

use super::capacity_model::{CapacityLimit, CapacityPlan, FunctionPlan, TableWorkload};

/// Formats a number: with separators, and with decimals only below 100.
fn number(value: f64) -> String {
    if value >= 1e15 {
        format!("{value:.2e}")
    } else if value >= 100.0 || value.fract() == 0.0 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 10^15")]
        let whole = value.round() as u64;
        grouped(whole)
    } else if value >= 0.01 {
        format!("{value:.2}")
    } else {
        format!("{value:.1e}")
    }
}

fn bytes(value: f64) -> String {
    let units = [("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3)];
    let unit = units.into_iter().find(|(_, unit)| value >= *unit);
    unit.map_or_else(|| format!("{value:.0} bytes"), |(name, unit)| format!("{:.1} {name}", value / unit))
}

fn seconds(value: f64) -> String {
    if value < 1.0 { format!("{:.0} ms", value * 1e3) } else { format!("{value:.1} s") }
}

fn money(value: f64) -> String {
    if value >= 100.0 { format!("${}", number(value)) } else { dollars(value) }
}

fn function(plan: &FunctionPlan) -> String {
    format!(
        "{} invocations per second of {} records; concurrency {} on average, {} at most; peak memory {:.0} of 512 MB",
        number(plan.invocations_per_second),
        number(plan.batch_records),
        number(plan.concurrency),
        number(plan.most_concurrency),
        plan.peak_memory_mb
    )
}

fn limit(limit: &CapacityLimit) -> String {
    format!("{}: {} of {}", limit.name, number(limit.needed), number(limit.allowed))
}

/// Returns the plan as text.
pub(super) fn text(workload: &TableWorkload, plan: &CapacityPlan) -> String {
    let mut text = format!(
        "{} items of {} bytes, {} writes per second, {} removals by TTL per day, {} replica{}\n",
        number(workload.items),
        grouped(workload.item_bytes),
        number(workload.writes_per_second),
        number(workload.expired_per_day),
        workload.replicas,
        if workload.replicas == 1 { "" } else { "s" },
    );
    let lag = plan.lag.map_or_else(
        || "grows without limit: the replicator cannot keep up".to_owned(),
        |lag| format!("{}, at most {}", seconds(lag.typical_seconds), seconds(lag.longest_seconds)),
    );
    let mut capacity = vec![
        ("shards", number(plan.shards)),
        ("source", format!("{} write units per second", number(plan.source_write_units_per_second))),
        (
            "each replica",
            format!(
                "{} write units per second, {}",
                number(plan.replica_write_units_per_second),
                bytes(plan.replica_bytes)
            ),
        ),
        ("replicator", function(&plan.replicator)),
    ];
    if workload.expired_per_day > 0.0 {
        capacity.push(("archiver", function(&plan.archiver)));
        let archive = format!(
            "{} PUT per second, {} more each month",
            number(plan.archive.puts_per_second),
            bytes(plan.archive.bytes_per_month)
        );
        capacity.push(("archive", archive));
    }
    capacity.push(("lag", lag));
    section(&mut text, "capacity", capacity);
    let costs = plan.costs.iter().filter(|line| line.dollars > 0.0).map(|line| (line.name, money(line.dollars)));
    let total = ("total", money(plan.dollars_per_month));
    section(&mut text, "cost per month (list prices of us-east-1, docs/cost.md)", costs.chain([total]).collect());
    let once = vec![
        (
            "backfill",
            format!(
                "{} for {} write and {} read units",
                money(plan.backfill_dollars),
                number(plan.backfill_write_units),
                number(plan.backfill_read_units)
            ),
        ),
        (
            "verify",
            format!(
                "{} for {} read units, {} hours in 10 segments",
                money(plan.verify_dollars),
                number(plan.verify_read_units),
                number(plan.verify_hours)
            ),
        ),
    ];
    section(&mut text, "cost of a task", once);
    let exceeded: Vec<&CapacityLimit> = plan.limits.iter().filter(|limit| limit.used > 1.0).collect();
    if exceeded.is_empty() {
        if let Some(first) = plan.first_limit() {
            let _ = write!(text, "\nfirst limit: {} ({:.1} %)\n  {}\n", limit(first), first.used * 100.0, first.action);
        }
    } else {
        text.push_str("\nexceeded limits\n");
        for one in exceeded {
            let _ = write!(text, "  {}\n    {}\n", limit(one), one.action);
        }
    }
    text
}

fn section(text: &mut String, title: &str, rows: Vec<(&str, String)>) {
    let _ = write!(text, "\n{title}\n");
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in rows {
        let _ = writeln!(text, "  {name:width$}  {value}");
    }
}

/// Returns the plan as one JSON document.
pub(super) fn json(workload: &TableWorkload, plan: &CapacityPlan) -> String {
    let first = plan.first_limit().map(|limit| limit.name);
    let document = json!({
        "workload": workload,
        "plan": plan,
        "first_limit": first,
        "is_within_limits": plan.is_within_limits(),
    });
    format!("{document:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_the_digits_that_matter() {
        let formatted = [0.0, 0.0001, 0.5, 3.0, 12.345, 1_234.5, 4e17].map(number);
        assert_eq!(formatted, ["0", "1.0e-4", "0.50", "3", "12.35", "1,235", "4.00e17"]);
    }

    #[test]
    fn document_shows_the_plan_as_it_is_printed() {
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cost.md");
        let document = std::fs::read_to_string(document).unwrap();
        let workload = TableWorkload {
            items: 1e8,
            item_bytes: 900,
            writes_per_second: 1_000.0,
            expired_per_day: 1e6,
            replicas: 1,
        };
        let text = text(&workload, &CapacityPlan::new(&workload));
        assert!(document.contains(&format!("```text\n{text}```\n")), "docs/cost.md shows another plan than\n{text}");
    }

    #[test]
    fn exceeded_limits_replace_the_first_one() {
        let workload =
            TableWorkload { items: 1e12, item_bytes: 1_000, writes_per_second: 1e6, expired_per_day: 0.0, replicas: 1 };
        let plan = CapacityPlan::new(&workload);
        let text = text(&workload, &plan);
        assert!(text.contains("exceeded limits") && !text.contains("first limit"), "{text}");
        assert!(text.contains("write units per second of a replica: 2,000,000 of 40,000"), "{text}");
        assert!(!text.contains("archiver"), "{text}");
    }
}
