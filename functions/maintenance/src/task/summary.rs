//! Adds up the counts of a run's segments: [`SummaryTask`].
//!
//! Each segment stores its result in the failure bucket when it is done, so that a state machine with 1000 segments
//! does not carry the results: its payload is limited to 256 KB, which the counts of 1000 segments exceed.

use std::collections::BTreeSet;

use futures::future::LocalBoxFuture;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use millrace_shared::invocation::Invocation;
use millrace_shared::table_reader::ScanSegment;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::error::{ClassifiedError, TaskError, TaskErrorKind};
use super::registry::{MaintenanceTask, RunTask, TASKS};
use super::request::InvalidRequest;
use super::{TaskRequest, TaskResponse};
use crate::failure_bucket::{BucketError, FailureBucket};
use crate::handler::MaintenanceHandler;
use crate::progress::TaskProgress;

const IN_FLIGHT: usize = 16;
/// The part that the keys of a run's results have in common. The results are stored next to the run's reports.
const RESULTS: &str = "results/";

/// Fields of the request of a summary.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct SummaryRequest {
    /// The results to add up: the last response of each segment
    #[cfg_attr(feature = "cli", arg(skip))]
    segment_results: Option<Vec<SegmentResult>>,
    /// Add up the results that the segments of this task stored in the failure bucket
    #[cfg_attr(feature = "cli", arg(long, value_name = "TASK"))]
    of_task: Option<String>,
}

/// The task `summary`: the results to add up.
#[derive(Debug, Clone, PartialEq)]
pub enum SummaryTask {
    /// The results in the request.
    Results(Vec<SegmentResult>),
    /// The stored results of the segments of the task with this name.
    SegmentsOf(&'static str),
}

/// The members of a segment's last response that are added up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentResult {
    /// True if the segment is done.
    pub done: bool,
    /// Its counts.
    pub progress: TaskProgress,
    /// The number of differences found.
    pub differences: u64,
    /// The number of problems found.
    pub problems: u64,
    /// The sinks that the segment processed.
    #[serde(default)]
    pub sinks: Vec<String>,
}

/// Error of a summary.
#[derive(Debug, thiserror::Error)]
pub enum SummaryError {
    /// A segment is not done, or its result has expired.
    #[error("FAILURE_BUCKET: {key} does not exist: segment {segment} of {task} is not done in run {run}")]
    Missing {
        /// The key of the result.
        key: String,
        /// The segment's index.
        segment: u32,
        /// The task's name.
        task: &'static str,
        /// The run ID.
        run: String,
    },
    /// The object was not written by a segment.
    #[error("FAILURE_BUCKET: {key} is not the result of a segment: {cause}")]
    Unreadable {
        /// The key of the object.
        key: String,
        /// The error of the parser.
        cause: serde_json::Error,
    },
    /// A result cannot be read, or the sum cannot be written.
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

impl ClassifiedError for SummaryError {
    fn kind(&self) -> TaskErrorKind {
        match self {
            Self::Missing { .. } | Self::Unreadable { .. } => TaskErrorKind::Invalid,
            Self::Bucket(_) => TaskErrorKind::Failed,
        }
    }

    /// The segments have done their work.
    fn is_rejection(&self) -> bool {
        false
    }
}

impl MaintenanceTask for SummaryTask {
    const NAME: &'static str = "summary";
    const SUMMARY: &'static str =
        "adds up the results of a run's segments; the state machine and millrace task do this after the last segment";
    const HAS_SEGMENTS: bool = false;
    type Request = SummaryRequest;

    fn parse(request: SummaryRequest, _: OffsetDateTime) -> Result<Self, InvalidRequest> {
        match (request.segment_results, request.of_task) {
            (Some(results), None) => match results.iter().position(|result| !result.done) {
                None => Ok(Self::Results(results)),
                Some(index) => Err(InvalidRequest::Value {
                    field: "segment_results",
                    found: format!("a list in which entry {index} belongs to a segment that is not done"),
                    wanted: "the last response of each segment".to_owned(),
                }),
            },
            (None, Some(name)) => {
                let summed = || TASKS.iter().filter(|task| task.has_segments).map(|task| task.name);
                let unknown = || InvalidRequest::Value {
                    field: "of_task",
                    found: format!("{name:?}"),
                    wanted: format!("one of {}", summed().collect::<Vec<_>>().join(", ")),
                };
                summed().find(|task| *task == name).map(Self::SegmentsOf).ok_or_else(unknown)
            }
            _ => Err(InvalidRequest::MissingField(
                Self::NAME,
                "either of_task, which names the task to summarize, or segment_results",
            )),
        }
    }
}

/// Runs once, without the source, after all segments are done.
impl RunTask for SummaryTask {
    fn respond<'a>(
        &'a self,
        handler: &'a MaintenanceHandler,
        request: &'a TaskRequest,
        _: &'a Invocation,
    ) -> LocalBoxFuture<'a, Result<TaskResponse, TaskError>> {
        Box::pin(
            async move { Ok(run(self, &request.run_id, request.segment.total_segments, &handler.failures).await?) },
        )
    }
}

/// Returns whether a key is that of a segment's result.
#[must_use]
pub fn is_result(key: &str) -> bool {
    key.strip_prefix("reports/").and_then(|key| key.split_once('/')).is_some_and(|(_, name)| name.starts_with(RESULTS))
}

fn result_key(run: &str, task: &str, ScanSegment { segment, total_segments: of }: ScanSegment) -> String {
    format!("reports/{run}/{RESULTS}{task}-{segment:04}-of-{of:04}.json")
}

/// Stores the response of a segment that is done.
///
/// # Errors
/// [`BucketError`] if the write is not confirmed.
pub(super) async fn store_result(response: &TaskResponse, bucket: &FailureBucket) -> Result<(), BucketError> {
    let segment = ScanSegment { segment: response.segment, total_segments: response.segments };
    let body = serde_json::to_vec(response).unwrap_or_default();
    bucket.put(&result_key(&response.run_id, &response.task, segment), "application/json", body).await
}

/// Adds up the results, and stores the sum next to the reports.
///
/// # Errors
/// [`SummaryError`] if a result is missing or cannot be read, because a partial sum is never returned.
async fn run(
    summary: &SummaryTask,
    run: &str,
    segments: u32,
    bucket: &FailureBucket,
) -> Result<TaskResponse, SummaryError> {
    let mut sum = TaskResponse::done(SummaryTask::NAME, run, ScanSegment { segment: 0, total_segments: segments });
    let mut sinks = BTreeSet::new();
    let mut add = |result: SegmentResult| {
        sum.progress.add(&result.progress);
        sum.differences += result.differences;
        sum.problems += result.problems;
        sinks.extend(result.sinks);
    };
    match summary {
        SummaryTask::Results(results) => results.iter().cloned().for_each(add),
        SummaryTask::SegmentsOf(task) => {
            let results = stream::iter(0..segments).map(|segment| read(task, run, segment, segments, bucket));
            let mut results = results.buffered(IN_FLIGHT);
            while let Some(result) = results.try_next().await? {
                add(result);
            }
            sum.of_task = Some((*task).to_owned());
        }
    }
    sum.sinks = sinks.into_iter().collect();
    let body = serde_json::to_vec(&sum).unwrap_or_default();
    bucket.put(&format!("reports/{run}/summary.json"), "application/json", body).await?;
    Ok(sum)
}

async fn read(
    task: &'static str,
    run: &str,
    segment: u32,
    of: u32,
    bucket: &FailureBucket,
) -> Result<SegmentResult, SummaryError> {
    let key = result_key(run, task, ScanSegment { segment, total_segments: of });
    let Some(body) = bucket.get(&key).await? else {
        return Err(SummaryError::Missing { key, segment, task, run: run.to_owned() });
    };
    serde_json::from_slice(&body).map_err(|cause| SummaryError::Unreadable { key, cause })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_keys_and_report_keys_are_distinguished() {
        assert!(is_result(&result_key("monday", "verify", ScanSegment { segment: 3, total_segments: 8 })));
        assert!(!is_result("reports/monday/summary.json") && !is_result("reports/results/verify-0-of-1-00000.jsonl"));
    }
}
