//! What a test logs: [`logged`].

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

/// Writes to whoever takes the log of this thread.
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

/// What this thread logs meanwhile, down to `INFO`, a JSON line each, with the fields of docs/logging.md. The subscriber is the process's: those of single
/// threads, started and ended side by side, now and then miss lines, since what nobody listens to is remembered
/// process-wide. What a thread logs of which nobody takes the log costs next to nothing.
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
