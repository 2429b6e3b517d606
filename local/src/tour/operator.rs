//! Whoever runs the tasks of maintenance.

use std::time::Duration;

use maintenance::Maintenance;
use maintenance::progress::Progress;
use maintenance::task::Answer;
use serde_json::Value;
use serde_json::value::to_raw_value;
use shared::clock::Clock;
use shared::invocation::Invocation;
use tokio::time::Instant;

use super::page::Page;
use super::{TourError, drained};
use crate::lambda::request_id;
use crate::stack::Stack;

/// Far more than a task of the tour takes.
const TIME: Duration = Duration::from_mins(1);

pub(super) struct Operator<'s> {
    stack: &'s Stack,
    maintenance: Maintenance,
}

impl<'s> Operator<'s> {
    pub(super) fn of(stack: &'s Stack) -> Result<Self, TourError> {
        Ok(Self { stack, maintenance: stack.maintenance().ok_or(TourError::NoMaintenance)? })
    }

    /// Waits until the streams are handled.
    pub(super) async fn waits(&self) -> Result<(), TourError> {
        drained(self.stack).await
    }

    /// Runs a task to its end, and shows what it counted.
    pub(super) async fn orders(&self, page: &mut Page, order: &str) -> Result<Progress, TourError> {
        let mut told: Value = serde_json::from_str(order).unwrap_or_default();
        loop {
            let now = Clock::system().now();
            let invocation = Invocation::new(now, Instant::now(), TIME, request_id(now).to_string());
            let payload = to_raw_value(&told).unwrap_or_default();
            let answer = Box::pin(self.maintenance.handle(&payload, &invocation)).await?;
            let Answer { done: true, progress, .. } = answer else {
                told["cursor"] = serde_json::json!(answer.cursor);
                continue;
            };
            page.exhibit(order, &progress.to_string());
            return Ok(progress);
        }
    }
}
