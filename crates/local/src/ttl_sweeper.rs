//! Periodic TTL deletion: removes the items that DynamoDB's TTL would remove, every few seconds.
//!
//! DynamoDB takes hours to days; no test or program may depend on the short delay here.

use std::sync::Arc;
use std::time::Duration;

use millrace_shared::clock::Clock;
use tokio::task::JoinHandle;

use crate::dynamodb::DynamoDbEngine;

/// The background task that deletes expired items.
pub struct TtlSweeper(JoinHandle<()>);

impl TtlSweeper {
    /// Deletes expired items at the interval `every`. The first pass runs after one interval, so that a caller that
    /// expires items by hand does so first.
    #[must_use]
    pub fn start(engine: Arc<DynamoDbEngine>, every: Duration, clock: Clock) -> Self {
        Self(tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                match engine.sweep_ttl(clock.now()).await {
                    Ok(0) => {}
                    Ok(items) => tracing::info!(items, "expired items removed"),
                    Err(error) => tracing::warn!(%error, "cannot remove expired items, retrying"),
                }
            }
        }))
    }

    /// Ends the task and releases the engine.
    pub async fn stop(self) {
        self.0.abort();
        // The task was aborted: its result contains no other information.
        let _ = self.0.await;
    }
}
