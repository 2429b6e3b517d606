//! Adds up the counts of a run's segments: [`run`].
//!
//! Each segment stores its result in the failure bucket when it is done, so that a state machine with 1000 segments
//! does not carry the results: its payload is limited to 256 KB, which the counts of 1000 segments exceed.

use std::collections::BTreeSet;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use millrace_shared::table_reader::ScanSegment;
use serde::Deserialize;

use super::TaskResponse;
use crate::failure_bucket::{BucketError, FailureBucket};
use crate::progress::TaskProgress;

const IN_FLIGHT: usize = 16;
/// The part that the keys of a run's results have in common. The results are stored next to the run's reports.
const RESULTS: &str = "results/";

/// The results to add up.
#[derive(Debug, Clone, PartialEq)]
pub enum SummaryRequest {
    /// The results in the request.
    Results(Vec<SegmentResult>),
    /// The stored results of the segments of the task with this name.
    SegmentsOf(&'static str),
}

/// The members of a segment's last response that are added up.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
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
pub(super) async fn keep(answer: &TaskResponse, bucket: &FailureBucket) -> Result<(), BucketError> {
    let segment = ScanSegment { segment: answer.segment, total_segments: answer.segments };
    let body = serde_json::to_vec(answer).unwrap_or_default();
    bucket.put(&result_key(&answer.run_id, &answer.task, segment), "application/json", body).await
}

/// Adds up the results, and stores the sum next to the reports.
///
/// # Errors
/// [`SummaryError`] if a result is missing or cannot be read, because a partial sum is never returned.
pub async fn run(
    summary: &SummaryRequest,
    run: &str,
    segments: u32,
    bucket: &FailureBucket,
) -> Result<TaskResponse, SummaryError> {
    let mut sum = TaskResponse::done("summary", run, ScanSegment { segment: 0, total_segments: segments });
    let mut sinks = BTreeSet::new();
    let mut add = |result: SegmentResult| {
        sum.progress.add(&result.progress);
        sum.differences += result.differences;
        sum.problems += result.problems;
        sinks.extend(result.sinks);
    };
    match summary {
        SummaryRequest::Results(results) => results.iter().cloned().for_each(add),
        SummaryRequest::SegmentsOf(task) => {
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
    fn a_result_is_told_from_a_report() {
        assert!(is_result(&result_key("monday", "verify", ScanSegment { segment: 3, total_segments: 8 })));
        assert!(!is_result("reports/monday/summary.json") && !is_result("reports/results/verify-0-of-1-00000.jsonl"));
    }
}
