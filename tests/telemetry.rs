//! Metrics and logs as the functions write them to standard output, and the documents that describe them.

pub(crate) mod metrics;
mod scenarios;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;
use shared::telemetry::STACK_NAME;

/// The functions, by their names in metrics and logs.
pub(crate) const FUNCTIONS: [&str; 5] = ["api", "search", "replicator", "archiver", "maintenance"];
/// The stack that the functions are configured with.
const STACK: &str = "millrace-blue";

/// The standard output of a function.
pub(crate) struct Printed {
    /// Documents in the embedded metric format.
    pub(crate) metrics: Vec<Value>,
    /// The function's own log lines.
    pub(crate) logs: Vec<Value>,
}

/// The standard output of a function that plays its scenario ([`scenarios`]) in a process of its own, because the logger and
/// the metrics recorder belong to the process.
pub(crate) fn printed(function: &str) -> &'static Printed {
    static PRINTED: LazyLock<BTreeMap<&str, Printed>> =
        LazyLock::new(|| FUNCTIONS.into_iter().map(|function| (function, run(function))).collect());
    &PRINTED[function]
}

fn run(function: &str) -> Printed {
    let program = std::env::current_exe().unwrap();
    let scenario = ["telemetry::scenarios::every_function_prints_metrics_and_logs", "--exact"];
    let variables = [(scenarios::FUNCTION, function), (STACK_NAME, STACK)];
    let run = Command::new(program).args(scenario).envs(variables).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{function}: {stdout}\n{stderr}");
    // The test harness writes lines of its own in between.
    let lines = stdout.lines().filter_map(|line| line.find('{').and_then(|at| serde_json::from_str(&line[at..]).ok()));
    let (metrics, logs): (Vec<Value>, Vec<Value>) = lines.partition(|line: &Value| line["_aws"].is_object());
    // Libraries and the local stack log, too.
    let is_own = |line: &Value| {
        let target = line["target"].as_str().unwrap_or_default();
        let owner = target.split("::").next().unwrap_or_default();
        FUNCTIONS.contains(&owner) || ["front", "shared"].contains(&owner)
    };
    Printed { metrics, logs: logs.into_iter().filter(is_own).collect() }
}
