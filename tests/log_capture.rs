//! Capture of the log lines of a test ([`logged`]).

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::Once;

use tracing::Level;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::telemetry;

thread_local! {
    static TAKEN: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Writes to the buffer that captures this thread's log, if there is one.
struct ThreadLog;

impl Write for ThreadLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        TAKEN.with_borrow_mut(|taken| taken.as_mut().map(|taken| taken.extend(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the log lines of this thread while the future runs, from level `INFO` on, one JSON object each, with the
/// fields of docs/logging.md.
///
/// The subscriber is process-wide: per-thread subscribers that start and end concurrently sometimes miss lines, because
/// the information that no subscriber is interested in a call site is cached for the whole process. Logging in a thread
/// whose log is not captured costs almost nothing.
pub(crate) async fn logged(doing: impl Future<Output = ()>) -> Vec<String> {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let listened_to =
            |metadata: &tracing::Metadata<'_>| *metadata.level() <= Level::INFO && TAKEN.with_borrow(Option::is_some);
        let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(|| ThreadLog);
        let lines = lines.with_filter(dynamic_filter_fn(move |metadata, _| listened_to(metadata)));
        tracing_subscriber::registry().with(lines).init();
    });
    TAKEN.set(Some(Vec::new()));
    doing.await;
    let taken = TAKEN.take().unwrap();
    let lines: Vec<String> = String::from_utf8(taken).unwrap().lines().map(str::to_owned).collect();
    let parsed = lines.iter().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    parsed.filter(telemetry::is_own).for_each(|line| telemetry::logging::assert_documented(&line));
    lines
}
