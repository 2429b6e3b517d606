//! Two replicas for the simulation: [`MemoryReplica`], a map under one lock, and [`BoundedKey`], which cannot store
//! every item.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use millrace_shared::change::{CanonicalKey, Change, ChangeKind};
use millrace_shared::invocation::Invocation;
use millrace_shared::raw_item::RawItem;
use millrace_shared::replica_item::{RESERVED, ReplicaItem, ReplicaState};
use millrace_shared::revision::Revision;
use millrace_shared::table_reader::ScanSegment;
use millrace_sinks::{
    DeduplicatedBatch, FailedChange, FailureKind, Replica, ReplicaCondition, ReplicaPage, ReplicaReadError,
    ReplicaReadOutput, ReplicaWrite, Sink, SinkMisconfiguredError, SinkOutcome, WriteResult, WriteTarget,
};
use time::OffsetDateTime;

use super::fault_injector::{FaultInjector, FaultPoint};

/// Maximum number of concurrent writes.
const IN_FLIGHT: usize = 3;
const PAGE: usize = 2;
/// The attribute that the smaller of the two sinks cannot store.
pub(super) const LARGE: &str = "large";

/// The contents of a replica.
pub(super) type MemoryItems = BTreeMap<CanonicalKey, ReplicaItem>;

/// A replica in memory.
#[derive(Clone)]
pub(super) struct MemoryReplica {
    injector: FaultInjector,
    point: FaultPoint,
    pub(super) items: Arc<Mutex<MemoryItems>>,
}

enum MemoryWrite {
    Applied { tombstone: bool },
    Duplicate,
    Stale,
}

impl MemoryReplica {
    pub(super) fn new(injector: FaultInjector, point: FaultPoint) -> Self {
        Self { injector, point, items: Arc::default() }
    }

    async fn write(&self, change: &Change<'_>) -> Result<MemoryWrite, FailureKind> {
        let state = match change.effect {
            ChangeKind::Write { image } => {
                ReplicaState::Item(holdable(image.unwrap().get()).map_err(FailureKind::Permanent)?)
            }
            ChangeKind::Remove { expired, .. } => ReplicaState::Tombstone { expired },
        };
        let (key, revision, items) = (change.key.canonical().clone(), change.revision, Arc::clone(&self.items));
        let effect = async move {
            let mut items = items.lock().unwrap();
            let there = items.get(&key).and_then(|held| held.revision.clone()).and_then(Result::ok);
            let done = match there {
                Some(there) if there == revision => MemoryWrite::Duplicate,
                Some(there) if there > revision => MemoryWrite::Stale,
                _ => MemoryWrite::Applied { tombstone: matches!(state, ReplicaState::Tombstone { .. }) },
            };
            let held_off =
                matches!(done, MemoryWrite::Stale) && matches!(items[&key].state, ReplicaState::Tombstone { .. });
            if let MemoryWrite::Applied { .. } = done {
                items.insert(key, ReplicaItem { revision: Some(Ok(revision)), state, columns_differ: false });
            }
            (done, held_off)
        };
        let (done, held_off) = self
            .injector
            .pass(self.point, true, effect)
            .await
            .map_err(|trouble| FailureKind::Transient(format!("{trouble:?}")))?;
        self.injector.see(match done {
            MemoryWrite::Applied { tombstone: false } => "sink: applied",
            MemoryWrite::Applied { tombstone: true } => "sink: tombstone",
            MemoryWrite::Duplicate => "sink: duplicate",
            MemoryWrite::Stale => "sink: stale",
        });
        if held_off {
            self.injector.see("sink: tombstone held off a late write");
        }
        Ok(done)
    }

    async fn put_one(&self, write: &ReplicaWrite<'_>) -> WriteResult {
        let state = match (write.target, write.target.item_text()) {
            (WriteTarget::Tombstone { expired }, _) => ReplicaState::Tombstone { expired },
            (_, item) => match holdable(&item.unwrap()) {
                Ok(item) => ReplicaState::Item(item),
                Err(reason) => return WriteResult::Permanent(reason),
            },
        };
        let (key, revision, over, items) = (write.key.clone(), write.revision, write.over, Arc::clone(&self.items));
        let effect = async move {
            let mut items = items.lock().unwrap();
            let there = items.get(&key);
            let stored: Option<Revision> = there.and_then(|held| held.revision.clone()).and_then(Result::ok);
            let may = match over {
                ReplicaCondition::IfAbsent => there.is_none(),
                ReplicaCondition::Revision(expected) => stored == expected,
            };
            if may {
                items.insert(key, ReplicaItem { revision: Some(Ok(revision)), state, columns_differ: false });
            }
            may
        };
        match self.injector.pass(self.point, true, effect).await {
            Ok(true) => {
                self.injector.see("sink: written beside the stream");
                WriteResult::Written
            }
            Ok(false) => {
                self.injector.see("sink: refused beside the stream");
                WriteResult::ConditionFailed
            }
            Err(trouble) => WriteResult::Transient(format!("{trouble:?}")),
        }
    }

    fn unread(&self, trouble: super::fault_injector::InjectedFault) -> ReplicaReadError {
        ReplicaReadError { sink: self.name().to_owned(), reason: format!("{trouble:?}") }
    }
}

fn is_large(write: &ReplicaWrite<'_>) -> bool {
    write.target.item_text().is_some_and(|item| RawItem::parse(&item).unwrap().get(LARGE).is_some())
}

/// Parses the item; fails if it contains an attribute that replicas reserve.
fn holdable(image: &str) -> Result<RawItem, String> {
    let item = RawItem::parse(image).unwrap();
    match RESERVED.iter().find(|name| item.get(name).is_some()) {
        Some(name) => Err(format!("the attribute {name} is reserved")),
        None => Ok(item),
    }
}

impl Sink for MemoryReplica {
    fn name(&self) -> &'static str {
        "shelf"
    }

    fn check(&self) -> BoxFuture<'_, Result<(), SinkMisconfiguredError>> {
        async { Ok(()) }.boxed()
    }

    fn apply<'s>(
        &'s self,
        batch: DeduplicatedBatch<'s>,
        _: &'s Invocation,
    ) -> BoxFuture<'s, Result<SinkOutcome, SinkMisconfiguredError>> {
        async move {
            let mut outcome = SinkOutcome::default();
            let mut writes = stream::iter(0..batch.latest_per_key.len())
                .map(|position| async move {
                    (batch.latest_per_key[position].index, self.write(batch.latest_per_key[position]).await)
                })
                .buffer_unordered(IN_FLIGHT);
            while let Some((index, done)) = writes.next().await {
                match done {
                    Ok(MemoryWrite::Applied { tombstone }) => {
                        outcome.applied += 1;
                        outcome.tombstones += usize::from(tombstone);
                    }
                    Ok(MemoryWrite::Duplicate) => outcome.duplicate += 1,
                    Ok(MemoryWrite::Stale) => outcome.stale += 1,
                    Err(kind) => outcome.failures.push(FailedChange { index, kind }),
                }
            }
            Ok(outcome)
        }
        .boxed()
    }
}

impl Replica for MemoryReplica {
    fn read<'s>(&'s self, keys: &'s [CanonicalKey]) -> BoxFuture<'s, Result<ReplicaReadOutput, ReplicaReadError>> {
        async move {
            let (items, keys) = (Arc::clone(&self.items), keys.to_vec());
            let effect = async move {
                let items = items.lock().unwrap();
                keys.iter().map(|key| items.get(key).cloned()).collect()
            };
            let held = self.injector.pass(self.point, false, effect).await.map_err(|trouble| self.unread(trouble))?;
            Ok(ReplicaReadOutput { items: held, units: 1.0 })
        }
        .boxed()
    }

    fn scan<'s>(
        &'s self,
        _: ScanSegment,
        after: Option<&'s CanonicalKey>,
    ) -> BoxFuture<'s, Result<ReplicaPage, ReplicaReadError>> {
        async move {
            let (items, after) = (Arc::clone(&self.items), after.cloned());
            let effect = async move {
                let items = items.lock().unwrap();
                let rest = items.iter().filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after));
                let page: Vec<_> = rest.take(PAGE + 1).map(|(key, held)| (key.clone(), held.clone())).collect();
                page
            };
            let mut held =
                self.injector.pass(self.point, false, effect).await.map_err(|trouble| self.unread(trouble))?;
            let next = if held.len() > PAGE {
                held.pop();
                held.last().map(|(key, _)| key.clone())
            } else {
                None
            };
            Ok(ReplicaPage { items: held, next, units: 1.0 })
        }
        .boxed()
    }

    fn refusal(&self, write: &ReplicaWrite<'_>, _: OffsetDateTime) -> Option<String> {
        holdable(&write.target.item_text()?).err()
    }

    fn put<'s>(&'s self, writes: &'s [ReplicaWrite<'s>], _: &'s Invocation) -> BoxFuture<'s, Vec<WriteResult>> {
        async move {
            let mut puts = vec![WriteResult::Transient("unfinished".to_owned()); writes.len()];
            let mut open = stream::iter(0..writes.len())
                .map(|position| async move { (position, self.put_one(&writes[position]).await) })
                .buffer_unordered(IN_FLIGHT);
            while let Some((position, put)) = open.next().await {
                puts[position] = put;
            }
            puts
        }
        .boxed()
    }
}

/// A replica with its own name that cannot store items with the attribute [`LARGE`] while `refuses` is set.
#[derive(Clone)]
pub(super) struct BoundedKey {
    name: &'static str,
    inner: Arc<dyn Replica>,
    refuses: Arc<Mutex<bool>>,
}

impl BoundedKey {
    pub(super) fn new(name: &'static str, inner: Arc<dyn Replica>, refuses: bool) -> Self {
        Self { name, inner, refuses: Arc::new(Mutex::new(refuses)) }
    }

    /// Allows every item from now on.
    pub(super) fn grow(&self) {
        *self.refuses.lock().unwrap() = false;
    }

    fn is_too_large(&self, change: &Change<'_>) -> bool {
        let large = |image: &str| image.contains(&format!("\"{LARGE}\""));
        *self.refuses.lock().unwrap()
            && matches!(change.effect, ChangeKind::Write { image: Some(image) } if large(image.get()))
    }
}

const TOO_LARGE: &str = "the item is too large";

impl Sink for BoundedKey {
    fn name(&self) -> &'static str {
        self.name
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
            let (large, rest): (Vec<_>, Vec<_>) =
                batch.latest_per_key.iter().copied().partition(|change| self.is_too_large(change));
            let mut outcome = self
                .inner
                .apply(DeduplicatedBatch { changes: batch.changes, latest_per_key: &rest }, invocation)
                .await?;
            let kind = || FailureKind::Permanent(TOO_LARGE.to_owned());
            outcome.failures.extend(large.iter().map(|change| FailedChange { index: change.index, kind: kind() }));
            Ok(outcome)
        }
        .boxed()
    }
}

impl Replica for BoundedKey {
    fn read<'s>(&'s self, keys: &'s [CanonicalKey]) -> BoxFuture<'s, Result<ReplicaReadOutput, ReplicaReadError>> {
        self.inner.read(keys)
    }

    fn scan<'s>(
        &'s self,
        segment: ScanSegment,
        after: Option<&'s CanonicalKey>,
    ) -> BoxFuture<'s, Result<ReplicaPage, ReplicaReadError>> {
        self.inner.scan(segment, after)
    }

    fn refusal(&self, write: &ReplicaWrite<'_>, now: OffsetDateTime) -> Option<String> {
        let large = *self.refuses.lock().unwrap() && is_large(write);
        if large { Some(TOO_LARGE.to_owned()) } else { self.inner.refusal(write, now) }
    }

    fn put<'s>(
        &'s self,
        writes: &'s [ReplicaWrite<'s>],
        invocation: &'s Invocation,
    ) -> BoxFuture<'s, Vec<WriteResult>> {
        async move {
            let refuses = *self.refuses.lock().unwrap();
            let large = |write: &ReplicaWrite<'_>| refuses && is_large(write);
            let rest: Vec<ReplicaWrite<'_>> = writes.iter().filter(|write| !large(write)).copied().collect();
            let mut puts = self.inner.put(&rest, invocation).await.into_iter();
            let put = |write| {
                if large(write) { WriteResult::Permanent(TOO_LARGE.to_owned()) } else { puts.next().unwrap() }
            };
            writes.iter().map(put).collect()
        }
        .boxed()
    }
}
