//! Progress display on standard error: a bar on a terminal, otherwise one line per response.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use millrace_maintenance::progress::TaskProgress;
use millrace_maintenance::task::TaskResponse;

/// The interval at which the bar's elapsed time is updated.
const TICK: Duration = Duration::from_millis(200);

pub(super) struct ProgressDisplay {
    segments: u32,
    bar: ProgressBar,
    /// The progress of each segment so far, and whether the segment is done.
    so_far: Mutex<BTreeMap<u32, (TaskProgress, bool)>>,
}

impl ProgressDisplay {
    /// Creates the display of a task that processes `items` items, if the number is known.
    pub(super) fn new(segments: u32, items: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(items, ProgressDrawTarget::stderr());
        let template = match items {
            Some(_) => "{elapsed:>4} [{bar:32}] {pos} of {len} items, {msg}",
            None => "{elapsed:>4} {spinner} {pos} objects, {msg}",
        };
        // The template is a constant: if it were invalid, the bar would have indicatif's default style.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        if !bar.is_hidden() {
            bar.set_message(format!("0 of {segments} segments done"));
            bar.enable_steady_tick(TICK);
        }
        Self { segments, bar, so_far: Mutex::new(BTreeMap::new()) }
    }

    pub(super) fn report(&self, response: &TaskResponse) {
        if self.bar.is_hidden() {
            let state = if response.done { "done" } else { "continues" };
            let progress = response.progress.to_string();
            let counts = if progress.is_empty() { "no counts" } else { &progress };
            eprintln!("segment {} of {} {state}: {counts}", response.segment, response.segments);
            return;
        }
        let mut so_far = self.so_far.lock().unwrap_or_else(PoisonError::into_inner);
        so_far.insert(response.segment, (response.progress.clone(), response.done));
        let mut sum = TaskProgress::default();
        so_far.values().for_each(|(progress, _)| sum.add(progress));
        let done = so_far.values().filter(|(_, done)| *done).count();
        self.bar.set_position(sum.get("source.items").max(sum.get("redrive.objects")));
        self.bar.set_message(format!("{done} of {} segments done", self.segments));
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
