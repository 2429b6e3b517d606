//! Logs as JSON lines and metrics in CloudWatch's embedded metric format. Both are written to standard output, where
//! Lambda reads them.
//!
//! The subscriber of `lambda_runtime` writes no timestamp, and Lambda's JSON level filter then treats every line as
//! INFO. Therefore each line here has `level` and an RFC 3339 `timestamp` at the top level. Log fields are identifiers
//! and counts; a name, an email or an item is never logged.

use std::io::{self, Write as _};

use metrics_cloudwatch_embedded::Collector;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::environment::Environment;
use crate::metric;

/// The CloudWatch namespace of all metrics.
pub const NAMESPACE: &str = "Millrace";
/// The dimensions that every metric has, before its own.
pub const DIMENSIONS: [&str; 2] = ["function", "stack"];
/// The variable that sets the log level.
pub const LOG_LEVEL: &str = "LOG_LEVEL";
/// The variable that names the stack. It distinguishes the metrics of several stacks in one account.
pub const STACK_NAME: &str = "STACK_NAME";
/// The initial size of the buffer of metrics, in which those of a request fit.
const DOCUMENT_BYTES: usize = 1_024;
/// The stack name if the variable is not set.
const NO_STACK: &str = "default";

/// The metrics of a process. Flush them at the end of each invocation.
#[derive(Clone, Copy)]
pub struct Telemetry {
    collector: &'static Collector,
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
    let lines = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_max_level(level)
        .finish();
    let subscriber = lines.with(targets(level));
    let taken = |part| move |cause: String| TelemetryError { part, cause };
    tracing::subscriber::set_global_default(subscriber).map_err(|error| taken("logs")(error.to_string()))?;
    let stack = environment.get(STACK_NAME).and_then(|text| stack(text).ok());
    collect(function, stack).map_err(taken("metrics"))
}

/// Initializes the metrics of the process.
fn collect(function: &'static str, stack: Option<String>) -> Result<Telemetry, String> {
    let [of_function, of_stack] = DIMENSIONS;
    let collector = metrics_cloudwatch_embedded::Builder::new()
        .cloudwatch_namespace(NAMESPACE)
        .with_dimension(of_function, function)
        .with_dimension(of_stack, stack.unwrap_or_else(|| NO_STACK.to_owned()))
        .init()
        .map_err(|error| error.to_string())?;
    metric::describe();
    Ok(Telemetry { collector })
}

/// The prefix of the log targets of all crates of the workspace, which begin with the name of the crate.
const WORKSPACE: &str = "millrace_";

/// Returns the log level of each crate. Below `info` the SDKs log requests and responses with complete items. Therefore
/// only the workspace's own crates log below `info`, whatever the level of the function.
fn targets(level: LevelFilter) -> Targets {
    Targets::new().with_default(level.min(LevelFilter::INFO)).with_target(WORKSPACE, level)
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
    /// Writes the metrics since the last flush. Call it at the end of every invocation, including failed ones.
    pub fn flush(self, request_id: &str) {
        // The collector writes each token separately, and standard output takes a lock for each.
        let mut documents = Vec::with_capacity(DOCUMENT_BYTES);
        let written = self.write(request_id, &mut documents).and_then(|()| io::stdout().write_all(&documents));
        if let Err(error) = written {
            tracing::warn!(error = %error, "metrics not written");
        }
    }

    fn write(self, request_id: &str, to: impl io::Write) -> io::Result<()> {
        self.collector.set_property("request_id", request_id).flush(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_level_lets_another_crate_log_what_it_sends() {
        use tracing::Level;
        let trace = targets(LevelFilter::TRACE);
        assert!(
            trace.would_enable("millrace_api::users", &Level::TRACE)
                && trace.would_enable("millrace_shared::table", &Level::TRACE)
        );
        for target in ["aws_smithy_runtime::client::orchestrator", "hyper_util::client", "lambda_runtime"] {
            assert!(trace.would_enable(target, &Level::INFO) && !trace.would_enable(target, &Level::DEBUG), "{target}");
        }
        assert!(!targets(LevelFilter::WARN).would_enable("lambda_runtime", &Level::INFO));
    }

    /// No other test may initialize the metrics of the process.
    #[test]
    fn every_metric_has_the_dimensions_function_and_stack() {
        let telemetry = collect("replicator", stack("millrace-blue").ok()).unwrap();
        metric::QUARANTINED.increment([], 1);
        metric::APPLIED_CHANGES.increment(["dynamodb"], 2);
        metric::REPLICATION_LAG.record(["dynamodb"], 3.0);
        let mut written = Vec::new();
        telemetry.write("request-1", &mut written).unwrap();
        let lines = String::from_utf8(written).unwrap();
        let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "a document for each set of dimensions");
        for (line, own) in lines.iter().zip([&[][..], &["sink"]]) {
            let documented = &line["_aws"]["CloudWatchMetrics"][0];
            assert_eq!(documented["Namespace"], NAMESPACE);
            let dimensions = [&DIMENSIONS[..], own].concat();
            assert_eq!(documented["Dimensions"], serde_json::json!([dimensions]));
            assert_eq!((&line["function"], &line["stack"]), (&"replicator".into(), &"millrace-blue".into()));
            assert_eq!(line["request_id"], "request-1");
        }
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
