//! A task run: the cursor, the counts and the report of a segment, confirmed together by [`TaskRun::checkpoint`].

use std::time::Duration;

use millrace_shared::invocation::Invocation;
use millrace_shared::table_reader::ScanSegment;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::request::InvalidRequest;
use super::{TaskCursor, TaskRequest, TaskResponse, summary};
use crate::failure_bucket::{BucketError, FailureBucket};
use crate::progress::{CountOutcome, ProblemCounts, TaskProgress};

/// The part of an invocation's time that is reserved for writing the report; if less than four times this is left, a
/// quarter.
const REPORT_TIME_BUDGET: Duration = Duration::from_secs(5);
/// Size at which a part of a report is written.
const PART_BYTES: usize = 4 * 1024 * 1024;

/// A segment of a task in progress. `P` is its cursor, from which another invocation can continue.
///
/// Counts and report entries are pending until a [`TaskRun::checkpoint`] confirms them together with the next cursor.
/// An error discards pending work, because the next invocation does it again, and retains confirmed work.
#[derive(Debug)]
pub struct TaskRun<P> {
    task: &'static str,
    run: String,
    segment: ScanSegment,
    bucket: FailureBucket,
    sinks: Vec<String>,
    part: u32,
    cursor: P,
    confirmed: StepWork,
    pending: StepWork,
    /// True if this invocation has confirmed anything.
    advanced: bool,
    /// The deadline of the work.
    pub deadline: Instant,
    /// The time that the invocation has after `deadline`, reserved for the report.
    reporting: Duration,
}

/// The counts, and the report entries that are not written yet.
#[derive(Debug, Default)]
struct StepWork {
    progress: TaskProgress,
    problems: ProblemCounts,
    lines: Vec<u8>,
}

impl<P: Default + Serialize + DeserializeOwned> TaskRun<P> {
    /// Starts a task run, or resumes one from the request's cursor. The report is written to `bucket`.
    ///
    /// # Errors
    /// [`InvalidRequest::Cursor`] if the cursor is not one of this task.
    pub fn resume(
        request: &TaskRequest,
        invocation: &Invocation,
        bucket: &FailureBucket,
    ) -> Result<Self, InvalidRequest> {
        let task = request.definition.name;
        let at = request.cursor.as_ref().map(|cursor| serde_json::from_str(cursor.at.get())).transpose();
        let left = invocation.deadline.saturating_duration_since(Instant::now());
        let progress = request.cursor.as_ref().map(|cursor| cursor.progress.clone()).unwrap_or_default();
        let problems = request.cursor.as_ref().map_or_else(ProblemCounts::default, |cursor| ProblemCounts {
            differences: cursor.differences,
            problems: cursor.problems,
        });
        Ok(Self {
            task,
            run: request.run_id.clone(),
            segment: request.segment,
            bucket: bucket.clone(),
            sinks: Vec::new(),
            part: request.cursor.as_ref().map_or(0, |cursor| cursor.part),
            cursor: at.map_err(|error| InvalidRequest::Cursor(task, error))?.unwrap_or_default(),
            confirmed: StepWork { progress, problems, lines: Vec::new() },
            pending: StepWork::default(),
            advanced: false,
            deadline: invocation.deadline - REPORT_TIME_BUDGET.min(left / 4),
            reporting: REPORT_TIME_BUDGET.min(left / 4),
        })
    }

    /// Sets the sinks that the task processes.
    #[must_use]
    pub fn over(mut self, sinks: &[&str]) -> Self {
        self.sinks = sinks.iter().map(|sink| (*sink).to_owned()).collect();
        self
    }

    /// Returns the cursor from which the next invocation would continue.
    #[must_use]
    pub fn cursor(&self) -> &P {
        &self.cursor
    }

    /// Confirms the counts and report entries so far, and that all work before `position` is done. This is the only way to
    /// advance the cursor. Writes the report entries if they have grown large.
    ///
    /// # Errors
    /// [`BucketError`] if the write of the report is not confirmed. Its entries are retained, and written at the end of
    /// the invocation.
    pub async fn checkpoint(&mut self, position: P) -> Result<(), BucketError> {
        self.cursor = position;
        self.confirm();
        if self.confirmed.lines.len() < PART_BYTES { Ok(()) } else { self.write().await }
    }

    fn confirm(&mut self) {
        let StepWork { progress, problems, mut lines } = std::mem::take(&mut self.pending);
        self.confirmed.progress.add(&progress);
        self.confirmed.problems.add(problems);
        self.confirmed.lines.append(&mut lines);
        self.advanced = true;
    }

    /// Returns a confirmed count of this segment.
    #[must_use]
    pub fn confirmed_count(&self, name: &str) -> u64 {
        self.confirmed.progress.get(name)
    }

    /// Returns the segment of the table.
    #[must_use]
    pub fn segment(&self) -> ScanSegment {
        self.segment
    }

    /// Returns whether the deadline of the work has been reached.
    #[must_use]
    pub fn deadline_reached(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Returns the time by which the report's entries must be complete. It is after the deadline of the work; the rest
    /// of the reserved time, which is half of it, is enough to write the report.
    #[must_use]
    pub fn report_by(&self) -> Instant {
        self.deadline + self.reporting / 2
    }

    /// Waits until `time`, or until the deadline of the work; returns whether `time` came first.
    pub async fn wait_until(&self, time: Instant) -> bool {
        tokio::time::sleep_until(time.min(self.deadline)).await;
        time <= self.deadline
    }

    /// Adds to a count that needs no attention.
    pub fn count(&mut self, name: impl Into<String>, more: usize) {
        self.count_as(CountOutcome::Success, name, more);
    }

    /// Adds to a count with this outcome.
    pub fn count_as(&mut self, outcome: CountOutcome, name: impl Into<String>, more: usize) {
        self.pending.problems.count(outcome, more);
        self.pending.progress.count(name, more);
    }

    /// Adds an entry to the report.
    pub fn report(&mut self, line: &impl Serialize) {
        // An entry contains only strings and numbers, so it can always be serialized.
        if serde_json::to_writer(&mut self.pending.lines, line).is_ok() {
            self.pending.lines.push(b'\n');
        }
    }

    /// Writes the confirmed entries as the report's next part. They are discarded only after the bucket has confirmed
    /// the write.
    async fn write(&mut self) -> Result<(), BucketError> {
        if self.confirmed.lines.is_empty() {
            return Ok(());
        }
        let ScanSegment { segment, total_segments: of } = self.segment;
        let key = format!("reports/{}/{}-{segment}-of-{of}-{:05}.jsonl", self.run, self.task, self.part);
        self.bucket.put(&key, "application/x-ndjson", self.confirmed.lines.clone()).await?;
        self.confirmed.lines.clear();
        self.part += 1;
        Ok(())
    }

    /// Writes the rest of the report and returns the response. After a checkpoint, an error only ends the invocation:
    /// the next one resumes at the cursor, where a persistent error surfaces before the first checkpoint.
    ///
    /// # Errors
    /// The error of an invocation without a checkpoint, or [`BucketError`] if the report, or the result of a segment
    /// that is done, is not confirmed: both are then produced again from the previous cursor.
    pub async fn finish<E>(mut self, done: Result<bool, E>) -> Result<TaskResponse, E>
    where
        E: From<BucketError> + std::error::Error,
    {
        let done = match done {
            Err(fault) if self.advanced => {
                tracing::warn!(task.name = self.task, task.run_id = self.run, error = %fault, "task interrupted");
                false
            }
            done => done?,
        };
        if done {
            self.confirm();
        }
        self.write().await?;
        let mut response = TaskResponse::done(self.task, &self.run, self.segment);
        response.sinks = self.sinks;
        ProblemCounts { differences: response.differences, problems: response.problems } = self.confirmed.problems;
        response.progress = self.confirmed.progress;
        if done {
            summary::store_result(&response, &self.bucket).await?;
            return Ok(response);
        }
        response.done = false;
        response.cursor = Some(TaskCursor {
            task: self.task.to_owned(),
            run_id: self.run,
            segment: response.segment,
            segments: response.segments,
            part: self.part,
            progress: response.progress.clone(),
            differences: response.differences,
            problems: response.problems,
            replicas: response.sinks.clone(),
            at: serde_json::value::to_raw_value(&self.cursor).unwrap_or_default(),
        });
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use serde_json::value::RawValue;
    use time::OffsetDateTime;

    use super::*;

    /// A bucket at an endpoint without a server.
    fn nowhere() -> FailureBucket {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(aws_sdk_s3::config::BehaviorVersion::latest())
            .region(aws_sdk_s3::config::Region::from_static("eu-west-1"))
            .endpoint_url("http://127.0.0.1:1")
            .retry_config(aws_sdk_s3::config::retry::RetryConfig::disabled())
            .build();
        FailureBucket::new(aws_sdk_s3::Client::from_conf(config), "failures".to_owned())
    }

    fn begun() -> TaskRun<u32> {
        let payload = RawValue::from_string(json!({"task": "verify", "run_id": "monday"}).to_string()).unwrap();
        let time = Duration::from_mins(1);
        let invocation = Invocation::new(OffsetDateTime::UNIX_EPOCH, Instant::now(), time, "1".to_owned());
        TaskRun::resume(&TaskRequest::parse(&payload, &invocation).unwrap(), &invocation, &nowhere()).unwrap()
    }

    #[derive(Debug, thiserror::Error)]
    #[error("it may pass")]
    struct Passing;

    impl From<BucketError> for Passing {
        fn from(_: BucketError) -> Self {
            Self
        }
    }

    #[tokio::test]
    async fn a_fault_after_a_checkpoint_keeps_the_cursor_and_the_counts_before_it_and_no_others() {
        let mut task_run = begun();
        task_run.count("source.items", 3);
        task_run.count_as(CountOutcome::Difference, "dynamodb.missing", 2);
        task_run.count_as(CountOutcome::NotProcessed, "dynamodb.failed", 1);
        task_run.checkpoint(7).await.unwrap();
        task_run.count("source.items", 4);
        task_run.count_as(CountOutcome::Difference, "dynamodb.missing", 5);
        let response = task_run.finish(Err(Passing)).await.unwrap();
        let cursor = response.cursor.unwrap();
        assert_eq!((response.done, cursor.at.get(), cursor.progress.get("source.items")), (false, "7", 3));
        assert_eq!(response.progress.get("source.items"), 3, "the next invocation counts the others again");
        assert_eq!((response.differences, response.problems), (2, 3));
        assert_eq!((cursor.differences, cursor.problems), (2, 3));
    }

    #[tokio::test]
    async fn a_fault_before_a_checkpoint_is_the_invocation_s() {
        let mut task_run = begun();
        task_run.count("source.items", 3);
        assert!(task_run.finish(Err(Passing)).await.is_err());
    }

    #[tokio::test]
    async fn no_segment_is_done_whose_result_is_not_kept() {
        let mut task_run = begun();
        task_run.count("source.items", 3);
        task_run.confirm();
        assert_eq!(task_run.confirmed.progress.get("source.items"), 3);
        assert!(task_run.finish(Ok::<_, BucketError>(true)).await.is_err(), "its result is kept in the bucket first");
    }

    #[tokio::test]
    async fn a_report_that_is_not_confirmed_is_kept_until_it_is() {
        let mut task_run = begun();
        task_run.report(&json!({"key": "x".repeat(PART_BYTES)}));
        assert!(task_run.checkpoint(1).await.is_err(), "it is large, and the bucket does not take it");
        assert!(task_run.confirmed.lines.len() > PART_BYTES);
        assert_eq!((*task_run.cursor(), task_run.part), (1, 0));
        assert!(task_run.finish(Ok::<_, BucketError>(true)).await.is_err(), "no response without its report");
    }
}
