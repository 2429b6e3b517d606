//! A sink decorator that injects faults.

use std::future::pending;
use std::sync::Mutex;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use millrace_shared::change::Change;
use millrace_shared::invocation::Invocation;
use millrace_sinks::{DeduplicatedBatch, FailedChange, FailureKind, Sink, SinkMisconfiguredError, SinkOutcome};

/// A fault in the changes with these sequence numbers, or in the entire sink.
#[derive(Debug, Clone)]
pub(crate) enum SinkFault {
    /// The changes are not written and fail with a transient error.
    Rejects(Vec<u64>),
    /// This number of changes is written; the others are throttled.
    Throttles(usize),
    /// The changes are written, but reported as failed: the response was lost.
    FailsAfterLanding(Vec<u64>),
    /// The changes are not written and fail permanently.
    CannotHold(Vec<u64>),
    /// Nothing is written, and the call never returns.
    Hangs,
    /// Everything is written, and the call never returns.
    HangsAfterLanding,
    /// Everything is written after a delay.
    IsSlow(Duration),
}

/// A sink with the given faults, one per batch in order, and without faults after the last one.
pub(crate) struct FaultySink<S> {
    inner: S,
    troubles: Mutex<Vec<SinkFault>>,
}

impl<S: Sink> FaultySink<S> {
    pub(crate) fn new(inner: S, troubles: impl IntoIterator<Item = SinkFault>) -> Self {
        let mut troubles: Vec<_> = troubles.into_iter().collect();
        troubles.reverse();
        Self { inner, troubles: Mutex::new(troubles) }
    }

    async fn apply_in_trouble(
        &self,
        batch: DeduplicatedBatch<'_>,
        invocation: &Invocation,
    ) -> Result<SinkOutcome, SinkMisconfiguredError> {
        let trouble = self.troubles.lock().unwrap().pop();
        let hit = |numbers: &[u64], change: &Change<'_>| {
            numbers.iter().any(|number| number.to_string() == change.revision.sequence().to_string())
        };
        let (spared, struck, kind) = match &trouble {
            None => return self.inner.apply(batch, invocation).await,
            Some(SinkFault::Hangs) => return pending().await,
            Some(SinkFault::HangsAfterLanding) => {
                self.inner.apply(batch, invocation).await?;
                return pending().await;
            }
            Some(SinkFault::IsSlow(time)) => {
                tokio::time::sleep(*time).await;
                return self.inner.apply(batch, invocation).await;
            }
            Some(SinkFault::FailsAfterLanding(numbers)) => {
                let struck: Vec<_> =
                    batch.latest_per_key.iter().copied().filter(|change| hit(numbers, change)).collect();
                (batch.latest_per_key.to_vec(), struck, FailureKind::Transient("the response was lost".to_owned()))
            }
            Some(SinkFault::Throttles(capacity)) => {
                let (spared, struck) = batch.latest_per_key.split_at((*capacity).min(batch.latest_per_key.len()));
                (spared.to_vec(), struck.to_vec(), FailureKind::Transient("throttled".to_owned()))
            }
            Some(SinkFault::Rejects(numbers)) => {
                let (struck, spared) = batch.latest_per_key.iter().copied().partition(|change| hit(numbers, change));
                (spared, struck, FailureKind::Transient("refused".to_owned()))
            }
            Some(SinkFault::CannotHold(numbers)) => {
                let (struck, spared) = batch.latest_per_key.iter().copied().partition(|change| hit(numbers, change));
                (spared, struck, FailureKind::Permanent("too large".to_owned()))
            }
        };
        let spared = DeduplicatedBatch { changes: batch.changes, latest_per_key: &spared };
        let mut outcome = self.inner.apply(spared, invocation).await?;
        outcome.failures.extend(struck.iter().map(|change| FailedChange { index: change.index, kind: kind.clone() }));
        Ok(outcome)
    }
}

impl<S: Sink> Sink for FaultySink<S> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), SinkMisconfiguredError>> {
        self.inner.check()
    }

    fn apply<'s>(
        &'s self,
        batch: DeduplicatedBatch<'s>,
        invocation: &'s Invocation,
    ) -> BoxFuture<'s, Result<SinkOutcome, SinkMisconfiguredError>> {
        self.apply_in_trouble(batch, invocation).boxed()
    }

    fn required_changes<'b>(&self, batch: DeduplicatedBatch<'b>) -> Vec<&'b Change<'b>> {
        self.inner.required_changes(batch)
    }
}
