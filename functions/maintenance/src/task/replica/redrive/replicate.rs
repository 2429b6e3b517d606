//! Redrive of the replicator's records: their keys are reconciled in every sink.

use std::collections::BTreeMap;

use millrace_shared::change::CanonicalKey;
use millrace_shared::invocation::Invocation;
use millrace_shared::revision::Revision;
use millrace_shared::stream::{StreamRecord, key_of, read};

use super::{OpenFailure, open_for, wrong_table_reason};
use crate::repair::{ReconcileError, RepairOutcome, StaleKey, predict, reconcile_keys};
use crate::task::context::TaskContext;

/// Returns the key of a record and its revision, so that later deliveries up to that revision change nothing.
fn stale(record: &StreamRecord<'_>, context: &TaskContext<'_>) -> Result<StaleKey, String> {
    if let Some(reason) = wrong_table_reason(record, context.source) {
        return Err(reason);
    }
    let key = key_of(record.raw.to_raw()).map_err(|reason| format!("cannot read the key: {reason}"))?;
    let record_revision =
        record.source.as_ref().zip(record.number).map(|(source, number)| Revision::new(source.label(), number));
    Ok(StaleKey { key, record_revision })
}

/// Returns the keys of an object's records. If one cannot be determined, the object is skipped.
fn keys(object: &mut OpenFailure, context: &TaskContext<'_>) -> Vec<StaleKey> {
    let mut found = Vec::new();
    let mut unknown = None;
    if let Ok(batch) = read(&object.failure.event) {
        for (place, record) in batch.records.iter().enumerate() {
            match stale(record, context) {
                Ok(key) => found.push(key),
                Err(reason) => drop(unknown.get_or_insert(format!("record {}: {reason}", place + 1))),
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
    let mut wanted: BTreeMap<CanonicalKey, Option<Revision>> = BTreeMap::new();
    let mut holders: Vec<(&mut OpenFailure, Vec<CanonicalKey>)> = Vec::new();
    for object in open_for(objects, |targets| targets.replicas) {
        let keys = keys(object, context);
        for StaleKey { key, record_revision } in &keys {
            let highest = wanted.entry(key.clone()).or_default();
            *highest = (*highest).max(*record_revision);
        }
        holders.push((object, keys.into_iter().map(|stale| stale.key).collect()));
    }
    let wanted: Vec<StaleKey> =
        wanted.into_iter().map(|(key, record_revision)| StaleKey { key, record_revision }).collect();
    let (mut left, mut written) = (BTreeMap::new(), 0);
    for replica in context.replicas {
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
