//! Runs maintenance tasks for the demo.

use std::time::Duration;

use millrace_maintenance::MaintenanceHandler;
use millrace_maintenance::progress::TaskProgress;
use millrace_maintenance::task::TaskResponse;
use millrace_shared::clock::Clock;
use millrace_shared::invocation::Invocation;
use serde_json::Value;
use serde_json::value::to_raw_value;
use tokio::time::Instant;

use super::report::DemoReport;
use super::{DemoError, wait_until_drained};
use millrace_local::stack::LocalStack;
use millrace_shared::clock::new_uuid;

/// Time limit of an invocation; much longer than a task of the demo needs.
const TIME: Duration = Duration::from_mins(1);

pub(super) struct TaskRunner<'s> {
    stack: &'s LocalStack,
    maintenance: MaintenanceHandler,
}

impl<'s> TaskRunner<'s> {
    pub(super) fn new(stack: &'s LocalStack) -> Result<Self, DemoError> {
        Ok(Self { stack, maintenance: stack.maintenance().ok_or(DemoError::NoMaintenance)? })
    }

    /// Waits until all stream records are processed.
    pub(super) async fn wait_until_drained(&self) -> Result<(), DemoError> {
        wait_until_drained(self.stack).await
    }

    /// Runs a task to completion, and shows its counters.
    pub(super) async fn run_task(&self, report: &mut DemoReport, request: &str) -> Result<TaskProgress, DemoError> {
        let mut state: Value = serde_json::from_str(request).unwrap_or_default();
        loop {
            let now = Clock::system().now();
            let invocation = Invocation::new(now, Instant::now(), TIME, new_uuid(now).to_string());
            let payload = to_raw_value(&state).unwrap_or_default();
            let response = Box::pin(self.maintenance.handle(&payload, &invocation)).await?;
            let TaskResponse { done: true, progress, .. } = response else {
                state["cursor"] = serde_json::json!(response.cursor);
                continue;
            };
            report.show(request, &progress.to_string());
            return Ok(progress);
        }
    }
}
