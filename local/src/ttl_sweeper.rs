//! TTL on this machine: a sweep every few seconds, which removes what DynamoDB's TTL removes.
//!
//! DynamoDB takes hours to days; nothing may rest on the haste here.

use std::sync::Arc;
use std::time::Duration;

use shared::clock::Clock;
use tokio::task::JoinHandle;

use crate::dynamodb::DynamoDbEngine;

/// The running sweeps.
pub struct TtlSweeper(JoinHandle<()>);

impl TtlSweeper {
    /// Sweeps `every` so often, for the first time after as long: who expires items by hand is not forestalled.
    #[must_use]
    pub fn start(engine: Arc<DynamoDbEngine>, every: Duration, clock: Clock) -> Self {
        Self(tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                match engine.sweep_ttl(clock.now()).await {
                    Ok(0) => {}
                    Ok(items) => tracing::info!(items, "expired items removed"),
                    Err(error) => tracing::warn!(%error, "expired items not removed, trying again"),
                }
            }
        }))
    }

    /// Ends the sweeps and lets go of the engine.
    pub async fn stop(self) {
        self.0.abort();
        // It was aborted: there is no other outcome to look at.
        let _ = self.0.await;
    }
}
