//! A sink whose verdicts are observed, and whose faults can be switched on: [`ObservedSink`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, pending};
use millrace_shared::change::{Change, ChangeKind};
use millrace_shared::invocation::Invocation;
use millrace_sinks::{DeduplicatedBatch, Sink, SinkMisconfiguredError, SinkOutcome};
use tokio::time::{Instant, sleep, timeout_at};

use super::verdict::{KnownRevisions, RequiredChange, key_hash, resolve};
use super::{ChangeObserver, ChangeVerdict, SinkReport};
use crate::fault_switches::{SLOW, SinkFault};

/// The reason of the failures that a switch causes.
const SIMULATED: &str = "simulated by a switch of the console";
/// The interval at which a sink that is cut off looks at its switch.
const POLL_EVERY: Duration = Duration::from_millis(100);

/// A sink that reports its verdicts to an observer.
pub struct ObservedSink {
    inner: Box<dyn Sink>,
    name: Arc<str>,
    observer: Arc<ChangeObserver>,
    known: Mutex<KnownRevisions>,
}

impl ObservedSink {
    /// Wraps a sink.
    #[must_use]
    pub fn new(inner: Box<dyn Sink>, observer: Arc<ChangeObserver>) -> Self {
        let name: Arc<str> = inner.name().into();
        observer.add_sink(&name);
        Self { inner, name, observer, known: Mutex::default() }
    }

    async fn apply_faulty(
        &self,
        batch: DeduplicatedBatch<'_>,
        invocation: &Invocation,
    ) -> Result<SinkOutcome, SinkMisconfiguredError> {
        if self.observer.is_killed(&invocation.request_id) {
            // The first half is written, then the process ends: this future is dropped.
            let half = batch.latest_per_key.len().div_ceil(2);
            let part = DeduplicatedBatch { changes: batch.changes, latest_per_key: &batch.latest_per_key[..half] };
            let outcome = self.inner.apply(part, invocation).await;
            self.observer.kill(&invocation.request_id);
            drop(outcome);
            return pending().await;
        }
        let failed = || SinkOutcome::all_failed(&self.inner.required_changes(batch), SIMULATED);
        match self.observer.switches().sink_fault(&self.name) {
            SinkFault::Off => self.inner.apply(batch, invocation).await,
            SinkFault::Refuse => Ok(failed()),
            SinkFault::Slow => {
                sleep(SLOW).await;
                self.inner.apply(batch, invocation).await
            }
            SinkFault::CutOff => {
                // As a client does that waits for a connection; an operator who repairs it is not kept waiting.
                let is_cut = || self.observer.switches().sink_fault(&self.name) == SinkFault::CutOff;
                while is_cut() && Instant::now() < invocation.deadline {
                    sleep(POLL_EVERY).await;
                }
                Ok(failed())
            }
            SinkFault::ResponseLost => {
                self.inner.apply(batch, invocation).await?;
                Ok(failed())
            }
        }
    }

    fn report(&self, required: &[&Change<'_>], result: Result<&SinkOutcome, &SinkMisconfiguredError>, request: &str) {
        let verdicts = match result {
            Ok(outcome) => {
                let change = |change: &&Change<'_>| RequiredChange {
                    index: change.index,
                    key: key_hash(change.key.canonical().as_str()),
                    revision: change.revision,
                    removed: matches!(change.effect, ChangeKind::Remove { .. }),
                };
                let changes: Vec<RequiredChange> = required.iter().map(change).collect();
                resolve(&changes, outcome, &mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
            }
            Err(error) => {
                let reason = super::shorten(&error.to_string());
                required.iter().map(|change| (change.index, ChangeVerdict::Failed, Some(reason.clone()))).collect()
            }
        };
        self.observer.report(request, SinkReport { sink: Arc::clone(&self.name), verdicts });
    }
}

impl Sink for ObservedSink {
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
        async move {
            let required = self.inner.required_changes(batch);
            // The replicator drops a sink that does not respond by the deadline; the verdict is reported before.
            let result = timeout_at(invocation.deadline, self.apply_faulty(batch, invocation)).await;
            let result =
                result.unwrap_or_else(|_| Ok(SinkOutcome::all_failed(&required, "the sink did not respond in time")));
            self.report(&required, result.as_ref(), &invocation.request_id);
            result
        }
        .boxed()
    }

    fn required_changes<'b>(&self, batch: DeduplicatedBatch<'b>) -> Vec<&'b Change<'b>> {
        self.inner.required_changes(batch)
    }
}
