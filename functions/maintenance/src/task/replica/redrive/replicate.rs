//! Redrive of the replicator's records: their keys are reconciled in every sink.
//!
//! A replica without an item gets a tombstone, so that no later delivery of the record writes one. If no image of the
//! record matches the filter of the replica, no delivery of the record with these rules writes an item. The replica then
//! gets no tombstone, which would disclose the key of the item, as when the replicator omits the write.

use std::collections::BTreeMap;

use millrace_shared::change::CanonicalKey;
use millrace_shared::invocation::Invocation;
use millrace_shared::revision::Revision;
use millrace_shared::stream::{StreamRecord, key_of, read};
use millrace_sinks::Replica;
use millrace_transform::batch_transform::may_be_replicated;

use super::{OpenFailure, open_for, wrong_table_reason};
use crate::repair::{ReconcileError, RepairOutcome, StaleKey, predict, reconcile_keys};
use crate::task::context::TaskContext;

/// The key of a record, and for each replica the record's revision if a delivery of the record may write to the replica.
struct RecordKey {
    key: CanonicalKey,
    revisions: Vec<Option<Revision>>,
}

/// Returns the key of a record and its revision, so that later deliveries up to that revision change nothing.
fn record_key(record: &StreamRecord<'_>, context: &TaskContext<'_>) -> Result<RecordKey, String> {
    if let Some(reason) = wrong_table_reason(record, context.source) {
        return Err(reason);
    }
    let key = key_of(record.raw.to_raw()).map_err(|reason| format!("cannot read the key: {reason}"))?;
    let revision =
        record.source.as_ref().zip(record.number).map(|(source, number)| Revision::new(source.label(), number));
    let revisions = context.replicas.iter().map(|replica| revision.filter(|_| may_write(record, *replica))).collect();
    Ok(RecordKey { key, revisions })
}

/// Returns whether a delivery of the record may write to the replica.
fn may_write(record: &StreamRecord<'_>, replica: &dyn Replica) -> bool {
    match (replica.transform(), &record.read) {
        (Some(transform), Ok(change)) => may_be_replicated(transform, change),
        // A record that cannot be read now may be readable by a later version.
        _ => true,
    }
}

/// Returns the keys of an object's records. If one cannot be determined, the object is skipped.
fn keys(object: &mut OpenFailure, context: &TaskContext<'_>) -> Vec<RecordKey> {
    let mut found = Vec::new();
    let mut unknown = None;
    if let Ok(batch) = read(&object.failure.event) {
        for (position, record) in batch.records.iter().enumerate() {
            match record_key(record, context) {
                Ok(key) => found.push(key),
                Err(reason) => drop(unknown.get_or_insert(format!("record {}: {reason}", position + 1))),
            }
        }
    }
    if let Some(reason) = unknown {
        object.skip(reason);
    }
    found
}

/// Reconciles the keys of all records whose key can be determined; returns the number of writes. A dry run takes the
/// same steps, but writes nothing.
pub(super) async fn redrive(
    context: &TaskContext<'_>,
    objects: &mut [OpenFailure],
    invocation: &Invocation,
    dry_run: bool,
) -> Result<usize, ReconcileError> {
    let mut wanted: BTreeMap<CanonicalKey, Vec<Option<Revision>>> = BTreeMap::new();
    let mut holders: Vec<(&mut OpenFailure, Vec<CanonicalKey>)> = Vec::new();
    for object in open_for(objects, |targets| targets.replicas) {
        let keys = keys(object, context);
        for RecordKey { key, revisions } in &keys {
            let highest = wanted.entry(key.clone()).or_insert_with(|| vec![None; revisions.len()]);
            for (highest, revision) in highest.iter_mut().zip(revisions) {
                *highest = (*highest).max(*revision);
            }
        }
        holders.push((object, keys.into_iter().map(|record| record.key).collect()));
    }
    let (mut left, mut written) = (BTreeMap::new(), 0);
    for (position, replica) in context.replicas.iter().enumerate() {
        let stale = |(key, revisions): (&CanonicalKey, &Vec<Option<Revision>>)| StaleKey {
            key: key.clone(),
            record_revision: revisions[position],
        };
        let wanted: Vec<StaleKey> = wanted.iter().map(stale).collect();
        let outcomes = if dry_run {
            predict(context.source, &**replica, &wanted, invocation).await?
        } else {
            reconcile_keys(context.source, &**replica, &wanted, invocation).await?
        };
        for (StaleKey { key, .. }, outcomes) in wanted.iter().zip(outcomes) {
            match outcomes {
                RepairOutcome::InSync => {}
                RepairOutcome::Written => written += 1,
                RepairOutcome::Failed(reason) => {
                    left.entry(key.clone()).or_insert_with(|| format!("sink {}: {reason}", replica.name()));
                }
            }
        }
    }
    for (object, keys) in holders {
        if let Some(reason) = keys.iter().find_map(|key| left.get(key)) {
            object.skip(reason.clone());
        }
    }
    Ok(written)
}
