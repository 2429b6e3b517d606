//! Progress of an import: on standard error, as a bar on a terminal and otherwise as a line every few seconds; or as a
//! number that another part shows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::ImportSource;

/// The interval of the lines.
const INTERVAL: Duration = Duration::from_secs(5);

/// Where the progress of an import is shown.
pub enum ImportProgress {
    /// On standard error.
    StandardError(ProgressLine),
    /// The number of items that were written.
    Count(Arc<AtomicU64>),
}

impl ImportProgress {
    /// Shows the progress on standard error.
    #[must_use]
    pub fn on_standard_error(source: &ImportSource) -> Self {
        Self::StandardError(ProgressLine::new(source))
    }

    /// Reports the number of items that were written and of bytes that were read.
    pub(super) fn report(&self, items: u64, bytes_read: u64) {
        match self {
            Self::StandardError(line) => line.report(items, bytes_read),
            Self::Count(count) => count.store(items, Ordering::Relaxed),
        }
    }

    pub(super) fn end(&self) {
        if let Self::StandardError(line) = self {
            line.bar.finish_and_clear();
        }
    }
}

/// The progress on standard error.
pub struct ProgressLine {
    bar: ProgressBar,
    name: String,
    bytes: u64,
    reported: Mutex<Instant>,
}

impl ProgressLine {
    fn new(source: &ImportSource) -> Self {
        let bar = ProgressBar::with_draw_target(Some(source.bytes()), ProgressDrawTarget::stderr());
        // The template is a constant: if it were invalid, the bar would have indicatif's default style.
        if let Ok(style) = ProgressStyle::with_template("{elapsed:>4} [{bar:32}] {percent} % of {prefix}, {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        let name = source.path().display().to_string();
        bar.set_prefix(name.clone());
        Self { bar, name, bytes: source.bytes(), reported: Mutex::new(Instant::now()) }
    }

    fn report(&self, items: u64, bytes_read: u64) {
        if !self.bar.is_hidden() {
            self.bar.set_position(bytes_read);
            self.bar.set_message(counted(items));
            return;
        }
        let Ok(mut reported) = self.reported.lock() else { return };
        if reported.elapsed() >= INTERVAL {
            *reported = Instant::now();
            let percent = (bytes_read.saturating_mul(100) / self.bytes.max(1)).min(100);
            eprintln!("import: {}, {percent} % of {}", counted(items), self.name);
        }
    }
}

fn counted(items: u64) -> String {
    if items == 1 { "1 item".to_owned() } else { format!("{items} items") }
}
