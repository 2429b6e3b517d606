//! A PostgreSQL replica behind the fault injector ([`FaultyReplica`]). Each call is one statement or a few; a fault
//! affects the whole call.
//!
//! A call's effect may occur long after its caller has stopped waiting, so it owns its data and has its own deadline.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use millrace_shared::change::{CanonicalKey, Change, ChangeKind};
use millrace_shared::invocation::Invocation;
use millrace_shared::raw_item::RawItem;
use millrace_shared::revision::Revision;
use millrace_shared::stream;
use millrace_shared::table_reader::ScanSegment;
use millrace_sinks::postgres::PostgresSink;
use millrace_sinks::{
    DeduplicatedBatch, Replica, ReplicaCondition, ReplicaPage, ReplicaReadError, ReplicaReadOutput, ReplicaWrite, Sink,
    SinkMisconfiguredError, SinkOutcome, WriteResult, WriteTarget,
};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::fault_injector::{FaultInjector, FaultPoint, InjectedFault};

/// The time limit of a delayed write; a statement takes a millisecond.
const LATE: Duration = Duration::from_secs(20);

/// The PostgreSQL replica with injected faults.
pub(super) struct FaultyReplica {
    pub(super) injector: FaultInjector,
    pub(super) point: FaultPoint,
    pub(super) inner: Arc<PostgresSink>,
}

/// A write that owns its data, so that it can outlive its caller.
struct OwnedWrite {
    key: CanonicalKey,
    item: Option<RawItem>,
    expired: bool,
    revision: Revision,
    over: ReplicaCondition,
}

fn later(invocation: &Invocation) -> Invocation {
    Invocation { deadline: Instant::now() + LATE, ..invocation.clone() }
}

/// The stream event that delivers these changes again.
fn told_again(changes: &[&Change<'_>]) -> Box<RawValue> {
    let mut event = String::from(r#"{"Records":["#);
    for (position, change) in changes.iter().enumerate() {
        let comma = if position == 0 { "" } else { "," };
        let (name, image, expired) = match change.effect {
            ChangeKind::Write { image } => ("MODIFY", format!(r#""NewImage":{},"#, image.unwrap().get()), false),
            ChangeKind::Remove { expired, .. } => ("REMOVE", String::new(), expired),
        };
        let identity = r#""userIdentity":{"type":"Service","principalId":"dynamodb.amazonaws.com"},"#;
        let identity = if expired { identity } else { "" };
        let (arn, keys, number) = (change.source.arn(), change.key.raw().get(), change.revision.sequence());
        let written = write!(
            event,
            r#"{comma}{{"eventName":"{name}",{identity}"eventSourceARN":"{arn}","dynamodb":{{"Keys":{keys},{image}
                "SequenceNumber":"{number}","StreamViewType":"NEW_AND_OLD_IMAGES"}}}}"#
        );
        written.unwrap();
    }
    event.push_str("]}");
    RawValue::from_string(event).unwrap()
}

impl FaultyReplica {
    fn unread(&self, trouble: InjectedFault) -> ReplicaReadError {
        ReplicaReadError { sink: self.inner.name().to_owned(), reason: format!("{trouble:?}") }
    }
}

impl Sink for FaultyReplica {
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
            let latest = batch.latest_per_key;
            if latest.is_empty() {
                return Ok(SinkOutcome::default());
            }
            let (event, inner, invocation) = (told_again(latest), Arc::clone(&self.inner), invocation.clone());
            let effect = async move {
                let batch = stream::read(&event).unwrap();
                let changes: Vec<_> = batch.records.iter().map(|record| record.read.as_ref().unwrap()).collect();
                inner
                    .apply(DeduplicatedBatch { changes: &changes, latest_per_key: &changes }, &later(&invocation))
                    .await
            };
            match self.injector.pass(self.point, true, effect).await {
                Ok(outcome) => {
                    let mut outcome = outcome?;
                    for failure in &mut outcome.failures {
                        failure.index = latest[failure.index].index;
                    }
                    Ok(outcome)
                }
                Err(trouble) => Ok(SinkOutcome::all_failed(latest, &format!("{trouble:?}"))),
            }
        }
        .boxed()
    }
}

impl Replica for FaultyReplica {
    fn read<'s>(&'s self, keys: &'s [CanonicalKey]) -> BoxFuture<'s, Result<ReplicaReadOutput, ReplicaReadError>> {
        async move {
            let (keys, inner) = (keys.to_vec(), Arc::clone(&self.inner));
            let effect = async move { inner.read(&keys).await };
            self.injector.pass(self.point, false, effect).await.unwrap_or_else(|trouble| Err(self.unread(trouble)))
        }
        .boxed()
    }

    fn scan<'s>(
        &'s self,
        segment: ScanSegment,
        after: Option<&'s CanonicalKey>,
    ) -> BoxFuture<'s, Result<ReplicaPage, ReplicaReadError>> {
        async move {
            let (after, inner) = (after.cloned(), Arc::clone(&self.inner));
            let effect = async move { inner.scan(segment, after.as_ref()).await };
            self.injector.pass(self.point, false, effect).await.unwrap_or_else(|trouble| Err(self.unread(trouble)))
        }
        .boxed()
    }

    fn refusal(&self, write: &ReplicaWrite<'_>, now: OffsetDateTime) -> Option<String> {
        self.inner.refusal(write, now)
    }

    fn put<'s>(
        &'s self,
        writes: &'s [ReplicaWrite<'s>],
        invocation: &'s Invocation,
    ) -> BoxFuture<'s, Vec<WriteResult>> {
        async move {
            if writes.is_empty() {
                return Vec::new();
            }
            let owned: Vec<OwnedWrite> = writes.iter().map(OwnedWrite::from_write).collect();
            let (inner, invocation) = (Arc::clone(&self.inner), invocation.clone());
            let effect = async move {
                let writes: Vec<ReplicaWrite<'_>> = owned.iter().map(OwnedWrite::write).collect();
                inner.put(&writes, &later(&invocation)).await
            };
            let put = self.injector.pass(self.point, true, effect).await;
            put.unwrap_or_else(|trouble| vec![WriteResult::Transient(format!("{trouble:?}")); writes.len()])
        }
        .boxed()
    }
}

impl OwnedWrite {
    fn from_write(write: &ReplicaWrite<'_>) -> Self {
        let item = write.target.item_text().map(|item| RawItem::parse(&item).unwrap());
        let expired = matches!(write.target, WriteTarget::Tombstone { expired: true });
        Self { key: write.key.clone(), item, expired, revision: write.revision, over: write.over }
    }

    fn write(&self) -> ReplicaWrite<'_> {
        let target = self.item.as_ref().map_or(WriteTarget::Tombstone { expired: self.expired }, WriteTarget::Item);
        ReplicaWrite { key: &self.key, target, revision: self.revision, over: self.over }
    }
}
