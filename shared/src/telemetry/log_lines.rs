//! Log events as JSON lines: [`LogLayer`], a layer of the subscriber of a function.
//!
//! An event is formatted once, into a buffer that its thread uses again. Of all spans only that of the invocation is
//! recorded, as the member `span` of each line within it.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use time::OffsetDateTime;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id};
use tracing::subscriber::{Interest, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::{WORKSPACE, written};
use crate::clock::Clock;

/// The name of the span that the Lambda runtime library creates for an invocation.
const INVOCATION_SPAN: &str = "Lambda runtime invoke";
/// The initial size of a line, in which that of a request fits.
const LINE_BYTES: usize = 512;

thread_local! {
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The lines that are not written yet, and the current invocation.
#[derive(Debug, Default)]
pub(super) struct LogOutput {
    waiting: Mutex<Vec<u8>>,
    /// The member `span` with the comma before it.
    span: Mutex<Vec<u8>>,
    is_in_span: AtomicBool,
}

impl LogOutput {
    /// Returns the lines that wait for the end of the invocation. The caller writes and removes them.
    pub(super) fn waiting(&self) -> MutexGuard<'_, Vec<u8>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn span(&self) -> MutexGuard<'_, Vec<u8>> {
        self.span.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Formats the events of a function's process.
pub(super) struct LogLayer {
    /// The level of the workspace's own crates.
    pub(super) level: LevelFilter,
    pub(super) clock: Clock,
    pub(super) output: &'static LogOutput,
}

impl LogLayer {
    /// Returns the log level of a crate. Below `info` the SDKs log requests and responses with complete items.
    /// Therefore only the workspace's own crates log below `info`, whatever the level of the function.
    fn level_of(&self, target: &str) -> LevelFilter {
        if target.starts_with(WORKSPACE) { self.level } else { self.level.min(LevelFilter::INFO) }
    }

    fn records(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= self.level_of(metadata.target())
            && (metadata.is_event() || metadata.name() == INVOCATION_SPAN)
    }
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        self.records(metadata)
    }

    fn register_callsite(&self, metadata: &'static tracing::Metadata<'static>) -> Interest {
        if self.records(metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        let mut span = self.output.span();
        span.clear();
        span.extend_from_slice(br#","span":{"#);
        attributes.record(&mut FieldWriter { line: &mut span, is_first: true });
        span.extend_from_slice(br#","name":"Lambda runtime invoke"}"#);
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        // A value that logs while it is formatted gets an empty buffer.
        let mut line = LINE.take();
        line.clear();
        line.reserve(LINE_BYTES);
        line.extend_from_slice(br#"{"timestamp":""#);
        write_timestamp(self.clock.now(), &mut line);
        line.extend_from_slice(br#"","level":""#);
        line.extend_from_slice(metadata.level().as_str().as_bytes());
        line.push(b'"');
        event.record(&mut FieldWriter { line: &mut line, is_first: false });
        line.extend_from_slice(br#","target":""#);
        line.extend_from_slice(metadata.target().as_bytes());
        line.push(b'"');
        if self.output.is_in_span.load(Ordering::Relaxed) {
            line.extend_from_slice(&self.output.span());
        }
        line.extend_from_slice(b"}\n");
        let mut waiting = self.output.waiting();
        waiting.extend_from_slice(&line);
        // The workspace logs at this level only the summary of an invocation, which its metrics follow: both are
        // written at once.
        let waits = *metadata.level() == tracing::Level::INFO && metadata.target().starts_with(WORKSPACE);
        if !waits {
            // There is no place to report that standard output is closed.
            let _ = written(&mut waiting, &mut io::stdout());
        }
        drop(waiting);
        LINE.set(line);
    }

    fn on_enter(&self, _: &Id, _: Context<'_, S>) {
        self.output.is_in_span.store(true, Ordering::Relaxed);
    }

    fn on_exit(&self, _: &Id, _: Context<'_, S>) {
        self.output.is_in_span.store(false, Ordering::Relaxed);
    }
}

/// Appends a time in UTC in the format of RFC 3339, with microseconds.
fn write_timestamp(time: OffsetDateTime, line: &mut Vec<u8>) {
    let time = time.to_offset(time::UtcOffset::UTC);
    let mut digits = |value: u32, width: u32, after: u8| {
        line.extend((0..width).rev().map(|exponent| b"0123456789"[(value / 10_u32.pow(exponent) % 10) as usize]));
        line.push(after);
    };
    digits(time.year().unsigned_abs(), 4, b'-');
    digits(u8::from(time.month()).into(), 2, b'-');
    digits(time.day().into(), 2, b'T');
    digits(time.hour().into(), 2, b':');
    digits(time.minute().into(), 2, b':');
    digits(time.second().into(), 2, b'.');
    digits(time.microsecond(), 6, b'Z');
}

/// Appends the fields of an event or a span as members of an object.
struct FieldWriter<'a> {
    line: &'a mut Vec<u8>,
    is_first: bool,
}

impl FieldWriter<'_> {
    /// Appends the name of a field, which is an identifier with dots.
    fn name(&mut self, field: &Field) {
        self.line.extend_from_slice(if self.is_first { b"\"" } else { b",\"" });
        self.is_first = false;
        self.line.extend_from_slice(field.name().as_bytes());
        self.line.extend_from_slice(b"\":");
    }

    fn value<T: serde::Serialize + ?Sized>(&mut self, field: &Field, value: &T) {
        self.name(field);
        // A vector accepts all bytes, and texts, numbers and booleans can be serialized.
        let _ = serde_json::to_writer(&mut *self.line, value);
    }
}

impl Visit for FieldWriter<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.value(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.value(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.value(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.value(field, &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.value(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.name(field);
        self.line.push(b'"');
        // The writer accepts all text; what a value formats before it fails is kept.
        let _ = write!(EscapedText(self.line), "{value:?}");
        self.line.push(b'"');
    }
}

/// Appends text as the content of a JSON string.
struct EscapedText<'a>(&'a mut Vec<u8>);

impl fmt::Write for EscapedText<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let needs_escape = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
        if text.bytes().any(needs_escape) {
            let quoted = serde_json::to_vec(text).map_err(|_| fmt::Error)?;
            self.0.extend_from_slice(&quoted[1..quoted.len() - 1]);
        } else {
            self.0.extend_from_slice(text.as_bytes());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use time::macros::datetime;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    fn layer(level: LevelFilter) -> LogLayer {
        let clock = Clock::fixed(datetime!(2026-11-22 10:00:00.000_123_456 UTC));
        LogLayer { level, clock, output: Box::leak(Box::default()) }
    }

    /// Returns the lines that wait after the function has run.
    fn logged(log: impl FnOnce()) -> Vec<Value> {
        let layer = layer(LevelFilter::INFO);
        let output = layer.output;
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let lines = String::from_utf8(output.waiting().clone()).unwrap();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn line_has_time_level_fields_and_target() {
        let lines = logged(|| {
            let odd = "\u{e9} \"a\\b\"\n\u{1}";
            tracing::info!(
                http.status = 200,
                negative = -1,
                ratio = 0.5,
                done = true,
                odd,
                shown = %odd,
                debugged = ?Some("a"),
                lost = f64::NAN,
                "one {}",
                "message"
            );
        });
        let odd = "\u{e9} \"a\\b\"\n\u{1}";
        let expected = json!({
            "timestamp": "2026-11-22T10:00:00.000123Z", "level": "INFO", "message": "one message", "http.status": 200,
            "negative": -1, "ratio": 0.5, "done": true, "odd": odd, "shown": odd, "debugged": "Some(\"a\")",
            "lost": null, "target": module_path!(),
        });
        assert_eq!(lines, [expected]);
    }

    #[test]
    fn line_within_an_invocation_has_its_span() {
        let lines = logged(|| {
            let span = tracing::info_span!("Lambda runtime invoke", requestId = "r\"1", xrayTraceId = "Root=1");
            let other = tracing::info_span!("another", secret = "s");
            other.in_scope(|| tracing::info!("before"));
            span.in_scope(|| other.in_scope(|| tracing::info!("within")));
            tracing::info!("after");
        });
        let span = json!({"requestId": "r\"1", "xrayTraceId": "Root=1", "name": INVOCATION_SPAN});
        let spans: Vec<_> = lines.iter().map(|line| (line["message"].clone(), line["span"].clone())).collect();
        assert_eq!(spans, [("before".into(), Value::Null), ("within".into(), span), ("after".into(), Value::Null)]);
    }

    #[test]
    fn no_level_lets_another_crate_log_what_it_sends() {
        let trace = layer(LevelFilter::TRACE);
        let info = LevelFilter::INFO;
        for target in ["millrace_api::users", "millrace_shared::table"] {
            assert_eq!(trace.level_of(target), LevelFilter::TRACE, "{target}");
        }
        for target in ["aws_smithy_runtime::client::orchestrator", "hyper_util::client", "lambda_runtime"] {
            assert_eq!(trace.level_of(target), info, "{target}");
        }
        assert_eq!(layer(LevelFilter::WARN).level_of("lambda_runtime"), LevelFilter::WARN);
        assert_eq!(logged(|| tracing::debug!("hidden")), [] as [Value; 0]);
    }
}
