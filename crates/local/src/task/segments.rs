//! Runs all segments of a task, each as a loop of invocations: [`run`].

use futures::{StreamExt as _, TryStreamExt as _, stream};
use millrace_maintenance::TaskError;
use millrace_maintenance::task::TaskResponse;
use millrace_maintenance::task::capacity_budget::MAX_CONCURRENT_SEGMENTS;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

/// Invokes the function until every segment is done, then once more for the sum, which is returned. Calls `report` with
/// the response of each invocation except the last.
///
/// The second argument of `invoke` multiplies the duration of the invocation. It doubles as long as a segment returns the
/// cursor that it was given: the duration was too short for the work between two checkpoints, which was then discarded.
pub(super) async fn run(
    request: &Map<String, Value>,
    segments: u32,
    invoke: impl AsyncFn(Box<RawValue>, u32) -> Result<TaskResponse, TaskError>,
    report: impl Fn(&TaskResponse),
) -> Result<TaskResponse, TaskError> {
    let (invoke, report) = (&invoke, &report);
    let branches = stream::iter(0..segments).map(|segment| run_segment(request, segment, invoke, report));
    branches.buffered(MAX_CONCURRENT_SEGMENTS.into()).try_collect::<()>().await?;
    let sum = json!({
        "task": "summary", "run_id": request.get("run_id"), "of_task": request.get("task"), "segments": segments,
    });
    invoke(raw(&sum), 1).await
}

async fn run_segment(
    request: &Map<String, Value>,
    segment: u32,
    invoke: &impl AsyncFn(Box<RawValue>, u32) -> Result<TaskResponse, TaskError>,
    report: &impl Fn(&TaskResponse),
) -> Result<(), TaskError> {
    let mut request = request.clone();
    request.insert("segment".to_owned(), segment.into());
    let (mut position, mut factor) = (None, 1_u32);
    loop {
        let response = invoke(raw(&request), factor).await?;
        report(&response);
        let TaskResponse { done: false, cursor, .. } = response else { return Ok(()) };
        let reached = cursor.as_ref().map(|cursor| cursor.at.get().to_owned());
        factor = if reached == position { factor.saturating_mul(2) } else { 1 };
        position = reached;
        request.insert("cursor".to_owned(), json!(cursor));
    }
}

fn raw(request: &impl serde::Serialize) -> Box<RawValue> {
    // A request contains only texts and numbers, so it can always be written as JSON.
    to_raw_value(request).unwrap_or_default()
}
