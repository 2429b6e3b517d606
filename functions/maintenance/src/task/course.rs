//! A segment of a task under way: where it is, what it has counted, what it has to report.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::invocation::Invocation;
use shared::raw_table::Segment;
use tokio::time::Instant;

use super::{Answer, BadOrder, Cursor, Order, Task};
use crate::failure_bucket::{BucketFault, FailureBucket};
use crate::progress::Progress;

/// Left for writing the report, of the time that an invocation has; of a short time, a quarter.
const REPORTING: Duration = Duration::from_secs(5);
/// A part of a report is written when it has grown to this.
const PART_BYTES: usize = 4 * 1024 * 1024;

/// A segment of a task under way. `P` is the place that it has come to.
#[derive(Debug)]
pub struct Course<P> {
    task: &'static str,
    run: String,
    segment: Segment,
    part: u32,
    progress: Progress,
    lines: Vec<u8>,
    /// The place. Where all before it is confirmed and its counts are taken, it is told by [`Course::reach`].
    pub at: P,
    /// Whether this invocation has come on.
    advanced: bool,
    /// When to stop working.
    pub stop_at: Instant,
}

impl<P: Default + Serialize + DeserializeOwned> Course<P> {
    /// Begins, or goes on where the cursor says.
    ///
    /// # Errors
    /// [`BadOrder::Cursor`] if the cursor's place is not one of this task.
    pub fn resume(order: &Order, invocation: &Invocation) -> Result<Self, BadOrder> {
        let task = order.task.name();
        let at = order.cursor.as_ref().map(|cursor| serde_json::from_str(cursor.at.get())).transpose();
        let left = invocation.stop_at.saturating_duration_since(Instant::now());
        Ok(Self {
            task,
            run: order.run.clone(),
            segment: order.segment,
            part: order.cursor.as_ref().map_or(0, |cursor| cursor.part),
            progress: order.cursor.as_ref().map(|cursor| cursor.progress.clone()).unwrap_or_default(),
            lines: Vec::new(),
            at: at.map_err(|error| BadOrder::Cursor(task, error))?.unwrap_or_default(),
            advanced: false,
            stop_at: invocation.stop_at - REPORTING.min(left / 4),
        })
    }

    /// Comes to a place: all before it is done and confirmed.
    pub fn reach(&mut self, place: P) {
        self.at = place;
        self.advanced = true;
    }

    /// Which part of the table.
    #[must_use]
    pub fn segment(&self) -> Segment {
        self.segment
    }

    /// Whether it is time to stop.
    #[must_use]
    pub fn is_up(&self) -> bool {
        Instant::now() >= self.stop_at
    }

    /// Waits until `time`, or until it is time to stop; tells whether the former came first.
    pub async fn wait_until(&self, time: Instant) -> bool {
        tokio::time::sleep_until(time.min(self.stop_at)).await;
        time <= self.stop_at
    }

    /// Adds to a count.
    pub fn count(&mut self, name: impl Into<String>, more: usize) {
        self.progress.count(name, more);
    }

    /// Adds a line to the report.
    pub fn report(&mut self, line: &impl Serialize) {
        // A line is of texts and numbers: there is nothing that JSON cannot write.
        if serde_json::to_writer(&mut self.lines, line).is_ok() {
            self.lines.push(b'\n');
        }
    }

    /// Writes the report so far if it has grown large.
    ///
    /// # Errors
    /// [`BucketFault`] if it is not confirmed.
    pub async fn write_if_large(&mut self, bucket: &FailureBucket) -> Result<(), BucketFault> {
        if self.lines.len() < PART_BYTES { Ok(()) } else { self.write(bucket).await }
    }

    async fn write(&mut self, bucket: &FailureBucket) -> Result<(), BucketFault> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let Segment { segment, of } = self.segment;
        let key = format!("reports/{}/{}-{segment}-of-{of}-{:05}.jsonl", self.run, self.task, self.part);
        bucket.put(&key, "application/x-ndjson", std::mem::take(&mut self.lines)).await?;
        self.part += 1;
        Ok(())
    }

    /// Writes what is left of the report, and answers. A fault after some way is told by the next invocation, which meets
    /// it at its start if it has not passed: so that the way is not gone again.
    ///
    /// # Errors
    /// The fault of a course that has not come on, or [`BucketFault`] if the report is not confirmed: what it told of is
    /// then gone about again.
    pub async fn answer<E>(mut self, done: Result<bool, E>, bucket: &FailureBucket) -> Result<Answer, E>
    where
        E: From<BucketFault> + std::error::Error,
    {
        let done = match done {
            Err(fault) if self.advanced => {
                tracing::warn!(task.name = self.task, task.run = self.run, error = %fault, "task interrupted");
                false
            }
            done => done?,
        };
        self.write(bucket).await?;
        let Segment { segment, of } = self.segment;
        let at = serde_json::value::to_raw_value(&self.at).unwrap_or_default();
        let cursor = (!done).then(|| Cursor {
            task: self.task.to_owned(),
            run: self.run.clone(),
            segment,
            segments: of,
            part: self.part,
            progress: self.progress.clone(),
            at,
        });
        let (task, progress) = (self.task.to_owned(), self.progress);
        Ok(Answer { task, run: self.run, segment, segments: of, done, cursor, progress })
    }
}

/// Adds the parts up and keeps the sum beside the reports.
///
/// # Errors
/// [`BucketFault`] if the sum is not confirmed.
pub async fn summary(order: &Order, bucket: &FailureBucket) -> Result<Answer, BucketFault> {
    let mut progress = Progress::default();
    if let Task::Summary(parts) = &order.task {
        for part in parts {
            progress.add(part);
        }
    }
    let (task, run) = (order.task.name().to_owned(), order.run.clone());
    let answer = Answer { task, run, segment: 0, segments: 1, done: true, cursor: None, progress };
    let body = serde_json::to_vec(&answer).unwrap_or_default();
    bucket.put(&format!("reports/{}/summary.json", order.run), "application/json", body).await?;
    Ok(answer)
}
