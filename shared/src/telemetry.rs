//! Logs as JSON lines and metrics in CloudWatch's embedded metric format. Both are written to standard output, where
//! Lambda reads them.
//!
//! The subscriber of `lambda_runtime` writes no timestamp, and Lambda's JSON level filter then treats every line as
//! INFO. Therefore each line here has `level` and an RFC 3339 `timestamp` at the top level. Log fields are identifiers
//! and counts; a name, an email or an item is never logged.

mod log_lines;
mod metric_documents;

use std::io::{self, Write};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::clock::Clock;
use crate::environment::Environment;
use crate::metric::ProcessMetrics;
use log_lines::{LogLayer, LogOutput};
use metric_documents::{MetricContext, write_documents};

/// The CloudWatch namespace of all metrics.
pub const NAMESPACE: &str = "Millrace";
/// The dimensions that every metric has, before its own.
pub const DIMENSIONS: [&str; 2] = ["function", "stack"];
/// The variable that sets the log level.
pub const LOG_LEVEL: &str = "LOG_LEVEL";
/// The variable that names the stack. It distinguishes the metrics of several stacks in one account.
pub const STACK_NAME: &str = "STACK_NAME";
/// The stack name if the variable is not set.
const NO_STACK: &str = "default";

/// The prefix of the log targets of all crates of the workspace, which begin with the name of the crate.
const WORKSPACE: &str = "millrace_";

/// The metrics of a process. Flush them at the end of each invocation.
#[derive(Clone, Copy)]
pub struct Telemetry {
    process: &'static TelemetryProcess,
}

struct TelemetryProcess {
    function: &'static str,
    stack: String,
    clock: Clock,
    output: &'static LogOutput,
}

/// The logs or the metrics of the process were initialized before.
#[derive(Debug, thiserror::Error)]
#[error("the process's {part} are already initialized: {cause}")]
pub struct TelemetryError {
    part: &'static str,
    cause: String,
}

/// Initializes the logs and the metrics of the process. Call it once, before anything is logged.
///
/// A malformed `LOG_LEVEL` counts as `info` here, and a malformed `STACK_NAME` as unset: the function's configuration
/// also parses them, with [`level`] and [`stack`], and reports them together with all other problems.
///
/// # Errors
/// [`TelemetryError`] if a global logger or metrics recorder is already installed in this process.
pub fn init(function: &'static str, environment: &Environment) -> Result<Telemetry, TelemetryError> {
    let level = environment.get(LOG_LEVEL).and_then(|text| level(text).ok()).unwrap_or(LevelFilter::INFO);
    let (clock, output) = (Clock::system(), &*Box::leak(Box::<LogOutput>::default()));
    let subscriber = tracing_subscriber::registry().with(LogLayer { level, clock: clock.clone(), output });
    let taken = |part, cause: String| TelemetryError { part, cause };
    tracing::subscriber::set_global_default(subscriber).map_err(|error| taken("logs", error.to_string()))?;
    if !ProcessMetrics::start() {
        return Err(taken("metrics", "they are recorded in this process".to_owned()));
    }
    Ok(Telemetry::new(function, environment, clock, output))
}

/// Parses a log level.
///
/// # Errors
/// The text is not a log level.
pub fn level(text: &str) -> Result<LevelFilter, String> {
    match text.to_ascii_lowercase().as_str() {
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err(format!("is {text:?}: set it to error, warn, info, debug or trace")),
    }
}

/// Parses the name of a stack, which becomes the value of a dimension.
///
/// # Errors
/// The text is not a valid name.
pub fn stack(text: &str) -> Result<String, String> {
    let is_name = (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if is_name { Ok(text.to_owned()) } else { Err(format!("is {text:?}: set it to 1 to 128 of A-Za-z0-9-_.")) }
}

impl Telemetry {
    fn new(function: &'static str, environment: &Environment, clock: Clock, output: &'static LogOutput) -> Self {
        let stack =
            environment.get(STACK_NAME).and_then(|text| stack(text).ok()).unwrap_or_else(|| NO_STACK.to_owned());
        Self { process: Box::leak(Box::new(TelemetryProcess { function, stack, clock, output })) }
    }

    /// Writes the log lines that wait for the end of the invocation, and the metrics since the last flush. Call it at
    /// the end of every invocation, including failed ones.
    pub fn flush(self, request_id: &str) {
        if let Err(error) = self.write(request_id, &mut io::stdout()) {
            tracing::warn!(error = %error, "metrics not written");
        }
    }

    /// Writes all lines at once: Lambda reads standard output at each write.
    fn write(self, request_id: &str, to: &mut impl Write) -> io::Result<()> {
        let TelemetryProcess { function, stack, clock, output } = self.process;
        let millis = clock.now().unix_timestamp_nanos() / 1_000_000;
        let mut waiting = output.waiting();
        if let Some(mut metrics) = ProcessMetrics::lock() {
            let context = MetricContext { function, stack, request_id, millis };
            write_documents(&mut metrics, &context, &mut waiting);
        }
        written(&mut waiting, to)
    }
}

/// Writes and removes the lines, also if writing fails.
fn written(lines: &mut Vec<u8>, to: &mut impl Write) -> io::Result<()> {
    let result = to.write_all(lines);
    lines.clear();
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric;

    /// No other test may initialize the metrics of the process.
    #[test]
    fn every_metric_has_the_dimensions_function_and_stack() {
        let environment = Environment::from_iter([(STACK_NAME.to_owned(), "millrace-blue".to_owned())]);
        let output: &LogOutput = Box::leak(Box::default());
        let telemetry =
            Telemetry::new("replicator", &environment, Clock::fixed(time::OffsetDateTime::UNIX_EPOCH), output);
        assert!(ProcessMetrics::start());
        output.waiting().extend_from_slice(b"a line that waits\n");
        metric::QUARANTINED.increment([], 1);
        metric::APPLIED_CHANGES.increment(["dynamodb"], 2);
        metric::REPLICATION_LAG.record(["dynamodb"], 3.0);
        let mut written = Vec::new();
        telemetry.write("request-1", &mut written).unwrap();
        let lines = String::from_utf8(written).unwrap();
        let documents = lines.strip_prefix("a line that waits\n").unwrap();
        let lines: Vec<serde_json::Value> = documents.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "a document for each set of dimensions");
        for (line, own) in lines.iter().zip([&[][..], &["sink"]]) {
            let documented = &line["_aws"]["CloudWatchMetrics"][0];
            assert_eq!(documented["Namespace"], NAMESPACE);
            let dimensions = [&DIMENSIONS[..], own].concat();
            assert_eq!(documented["Dimensions"], serde_json::json!([dimensions]));
            assert_eq!((&line["function"], &line["stack"]), (&"replicator".into(), &"millrace-blue".into()));
            assert_eq!((&line["request_id"], &line["_aws"]["Timestamp"]), (&"request-1".into(), &0.into()));
        }
        assert_eq!((&lines[0]["Quarantined"], &lines[1]["AppliedChanges"]), (&1.into(), &2.into()));
        assert_eq!(lines[1]["ReplicationLag"], serde_json::json!([3.0]));
        let mut written = Vec::new();
        telemetry.write("request-2", &mut written).unwrap();
        assert_eq!(written, b"", "nothing was recorded since the last flush");
    }

    #[test]
    fn name_of_a_stack_is_a_value_of_a_dimension() {
        assert_eq!(stack("millrace-2").as_deref(), Ok("millrace-2"));
        for text in ["", "a b", "a:b", "ü", &"a".repeat(129)] {
            assert!(stack(text).unwrap_err().contains("set it to 1 to 128 of A-Za-z0-9-_."), "{text}");
        }
    }

    #[test]
    fn levels_are_read_in_any_case_and_others_are_refused_with_the_fix() {
        assert_eq!(level("WARN"), Ok(LevelFilter::WARN));
        assert_eq!(level("info"), Ok(LevelFilter::INFO));
        assert!(level("loud").unwrap_err().contains("set it to error, warn, info, debug or trace"));
    }
}
