//! Metrics and logs as the functions write them to standard output, and the documents that describe them.

pub(crate) mod logging;
pub(crate) mod metrics;
mod scenarios;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::LazyLock;

use millrace_shared::telemetry::STACK_NAME;
use serde_json::Value;

/// The functions, by their names in metrics and logs.
pub(crate) const FUNCTIONS: [&str; 5] = ["api", "search", "replicator", "archiver", "maintenance"];
/// The functions that an event source mapping of a stream invokes.
const STREAM_FUNCTIONS: [&str; 2] = ["replicator", "archiver"];
/// The stack that the functions are configured with.
const STACK: &str = "millrace-blue";

/// The standard output of a function.
pub(crate) struct PrintedLines {
    /// Documents in the embedded metric format.
    pub(crate) metrics: Vec<Value>,
    /// The function's own log lines.
    pub(crate) logs: Vec<Value>,
}

/// Returns the standard output of a function that runs its scenario ([`scenarios`]) in a separate process, because the
/// logger and the metrics recorder are process-wide.
pub(crate) fn printed(function: &str) -> &'static PrintedLines {
    static PRINTED: LazyLock<BTreeMap<&str, PrintedLines>> =
        LazyLock::new(|| FUNCTIONS.into_iter().map(|function| (function, run(function))).collect());
    &PRINTED[function]
}

fn run(function: &str) -> PrintedLines {
    let program = std::env::current_exe().unwrap();
    let scenario = ["telemetry::scenarios::every_function_prints_metrics_and_logs", "--exact"];
    let variables = [(scenarios::FUNCTION, function), (STACK_NAME, STACK)];
    let run = Command::new(program).args(scenario).envs(variables).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{function}: {stdout}\n{stderr}");
    // The test harness prints lines of its own in between.
    let lines = stdout.lines().filter_map(|line| line.find('{').and_then(|at| serde_json::from_str(&line[at..]).ok()));
    let (metrics, logs): (Vec<Value>, Vec<Value>) = lines.partition(|line: &Value| line["_aws"].is_object());
    PrintedLines { metrics, logs: logs.into_iter().filter(is_own).collect() }
}

/// Returns whether a log line is from the functions' own code: libraries and the local stack log, too.
pub(crate) fn is_own(line: &Value) -> bool {
    let owner = line["target"].as_str().and_then(|target| target.split("::").next()).unwrap_or_default();
    let owner = owner.strip_prefix("millrace_").unwrap_or_default();
    FUNCTIONS.contains(&owner) || ["shared", "http", "archive", "sinks"].contains(&owner)
}

/// The rows of the first table below a heading of a Markdown document, without the table's head.
fn table(document: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, section) = document.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    let rows = section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    let rows: Vec<Vec<String>> = rows.skip(2).map(cells).collect();
    assert!(!rows.is_empty(), "the table of {heading} is empty");
    rows
}

/// The names in a cell of a table; none for a dash.
fn names(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}
