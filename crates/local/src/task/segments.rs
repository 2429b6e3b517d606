//! Runs all segments of a task, each as a loop of invocations: [`run`].

use futures::{StreamExt as _, TryStreamExt as _, stream};
use millrace_maintenance::TaskError;
use millrace_maintenance::task::TaskResponse;
use millrace_maintenance::task::capacity_budget::MAX_CONCURRENT_SEGMENTS;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

/// Invokes the function until every segment is done, then once more for the sum, which is returned. Calls `tell` with
/// the response of each invocation except the last.
///
/// The second argument of `invoke` multiplies the duration of the invocation. It doubles as long as a segment returns the
/// cursor that it was given: the duration was too short for the work between two checkpoints, which was then discarded.
pub(super) async fn run(
    order: &Map<String, Value>,
    segments: u32,
    invoke: impl AsyncFn(Box<RawValue>, u32) -> Result<TaskResponse, TaskError>,
    tell: impl Fn(&TaskResponse),
) -> Result<TaskResponse, TaskError> {
    let (invoke, tell) = (&invoke, &tell);
    let branches = stream::iter(0..segments).map(|segment| run_segment(order, segment, invoke, tell));
    branches.buffered(MAX_CONCURRENT_SEGMENTS.into()).try_collect::<()>().await?;
    let sum = json!({
        "task": "summary", "run_id": order.get("run_id"), "of_task": order.get("task"), "segments": segments,
    });
    invoke(raw(&sum), 1).await
}

async fn run_segment(
    order: &Map<String, Value>,
    segment: u32,
    invoke: &impl AsyncFn(Box<RawValue>, u32) -> Result<TaskResponse, TaskError>,
    tell: &impl Fn(&TaskResponse),
) -> Result<(), TaskError> {
    let mut order = order.clone();
    order.insert("segment".to_owned(), segment.into());
    let (mut position, mut factor) = (None, 1_u32);
    loop {
        let answer = invoke(raw(&order), factor).await?;
        tell(&answer);
        let TaskResponse { done: false, cursor, .. } = answer else { return Ok(()) };
        let reached = cursor.as_ref().map(|cursor| cursor.at.get().to_owned());
        factor = if reached == position { factor.saturating_mul(2) } else { 1 };
        position = reached;
        order.insert("cursor".to_owned(), json!(cursor));
    }
}

fn raw(order: &impl serde::Serialize) -> Box<RawValue> {
    // A request contains only texts and numbers, so it can always be written as JSON.
    to_raw_value(order).unwrap_or_default()
}
