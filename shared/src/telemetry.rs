//! Logs as JSON lines and metrics in CloudWatch's embedded format, both on standard output, where Lambda reads them.
//!
//! `lambda_runtime`'s own subscriber prints no time and Lambda's JSON level filter then takes every line for INFO:
//! here `level` and an RFC 3339 `timestamp` stand at the top. Log fields are identifiers and counts; no name, no
//! email, no item is ever logged.

use std::io;

use metrics_cloudwatch_embedded::Collector;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::environment::Environment;
use crate::metric;

/// The CloudWatch namespace of all metrics.
pub const NAMESPACE: &str = "Millrace";
/// The variable that sets how much is logged.
pub const LOG_LEVEL: &str = "LOG_LEVEL";

/// A process's metrics, to be flushed at each invocation's end.
#[derive(Clone, Copy)]
pub struct Telemetry {
    collector: &'static Collector,
}

/// The logs or the metrics of the process were started before.
#[derive(Debug, thiserror::Error)]
#[error("the process's {part} are taken already: {cause}")]
pub struct Taken {
    part: &'static str,
    cause: String,
}

/// Starts the process's logs and metrics; call once, before anything is logged.
///
/// A malformed `LOG_LEVEL` counts as `info` here: the function's configuration reads it too, with [`level`], and
/// reports it together with whatever else is wrong.
///
/// # Errors
/// [`Taken`] if something else logs or counts in this process.
pub fn init(function: &'static str, environment: &Environment) -> Result<Telemetry, Taken> {
    let level = environment.get(LOG_LEVEL).and_then(|text| level(text).ok()).unwrap_or(LevelFilter::INFO);
    let lines = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_max_level(level)
        .finish();
    let subscriber = lines.with(targets(function, level));
    let taken = |part| move |cause: String| Taken { part, cause };
    tracing::subscriber::set_global_default(subscriber).map_err(|error| taken("logs")(error.to_string()))?;
    let collector = metrics_cloudwatch_embedded::Builder::new()
        .cloudwatch_namespace(NAMESPACE)
        .with_dimension("function", function)
        .init()
        .map_err(|error| taken("metrics")(error.to_string()))?;
    metric::describe();
    Ok(Telemetry { collector })
}

/// Who may log how much. Below `info` the SDKs log requests and answers, items and all: at whatever level a function is
/// run, only the workspace's own crates go below.
fn targets(function: &'static str, level: LevelFilter) -> Targets {
    Targets::new().with_default(level.min(LevelFilter::INFO)).with_targets([(function, level), ("shared", level)])
}

/// Reads a log level.
///
/// # Errors
/// If the text is none.
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

impl Telemetry {
    /// Writes what was counted since the last flush; call at the end of an invocation, whatever came of it.
    pub fn flush(self, request_id: &str) {
        let written = self.collector.set_property("requestId", request_id).flush(io::stdout());
        if let Err(error) = written {
            tracing::warn!(error = %error, "metrics not written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_level_lets_another_crate_log_what_it_sends() {
        use tracing::Level;
        let trace = targets("api", LevelFilter::TRACE);
        assert!(trace.would_enable("api::users", &Level::TRACE) && trace.would_enable("shared::table", &Level::TRACE));
        for target in ["aws_smithy_runtime::client::orchestrator", "hyper_util::client", "lambda_runtime"] {
            assert!(trace.would_enable(target, &Level::INFO) && !trace.would_enable(target, &Level::DEBUG), "{target}");
        }
        assert!(!targets("api", LevelFilter::WARN).would_enable("lambda_runtime", &Level::INFO));
    }

    #[test]
    fn levels_are_read_in_any_case_and_others_are_refused_with_the_fix() {
        assert_eq!(level("WARN"), Ok(LevelFilter::WARN));
        assert_eq!(level("info"), Ok(LevelFilter::INFO));
        assert!(level("loud").unwrap_err().contains("set it to error, warn, info, debug or trace"));
    }
}
