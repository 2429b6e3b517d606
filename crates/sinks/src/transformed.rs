//! A sink or replica that stores transformed items: [`TransformedSink`].
//!
//! A failure names the change from which the batch has to be delivered again, so that the same decision is made again.
//!
//! The sink inside receives changes whose images are transformed already, and a removal for an item that the filter
//! leaves out. So every kind of sink applies a transformation in the same way, and one without a transformation is not
//! wrapped: its images stay as the stream delivered them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_shared::change::{CanonicalKey, Change, ChangeKind, ItemImage};
use millrace_shared::invocation::Invocation;
use millrace_shared::table_reader::{IndexSchema, ScanSegment, SourceDescription};
use millrace_transform::ItemTransform;
use millrace_transform::batch_transform::{TransformedChange, redelivered_from, transform_changes};
use millrace_transform::item_transform::key_names;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::{
    DeduplicatedBatch, FailedChange, FailureKind, Replica, ReplicaPage, ReplicaReadError, ReplicaReadOutput,
    ReplicaWrite, Sink, SinkMisconfiguredError, SinkOutcome, WriteResult,
};

/// A sink that stores transformed items.
pub struct TransformedSink<S> {
    inner: S,
    transform: Arc<ItemTransform>,
    /// The setting that contains the rules, for errors.
    setting: String,
    /// Whether the rules have been checked against the replica's table.
    is_checked: AtomicBool,
    /// The stream of which a key has matched the rules.
    fitting: Mutex<Option<Box<str>>>,
    /// The digest of the rules and of the table.
    digest: String,
}

impl<S: Sink> TransformedSink<S> {
    /// Adds a transformation to a sink. `setting` names the rules in errors.
    #[must_use]
    pub fn new(inner: S, transform: Arc<ItemTransform>, setting: String) -> Self {
        let digest = transform.digest().to_owned();
        Self { inner, transform, setting, is_checked: AtomicBool::new(false), fitting: Mutex::new(None), digest }
    }

    /// Sets the digest of the rules and of the table.
    #[must_use]
    pub fn with_digest(self, digest: String) -> Self {
        Self { digest, ..self }
    }

    /// Fails if a rule does not fit the replica's table, as far as the table has been described.
    fn check_table(&self) -> Result<(), SinkMisconfiguredError> {
        if !self.is_checked.load(Ordering::Relaxed)
            && let Some(names) = self.inner.key_names()
        {
            self.check_rules(&names)?;
            self.is_checked.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Fails if a rule concerns a key attribute, or gives the key attribute of an index a value that the replica's table
    /// rejects.
    fn check_rules(&self, key_names: &[String]) -> Result<(), SinkMisconfiguredError> {
        let mut problems = self.transform.key_problems(key_names);
        for index in self.inner.indexes() {
            problems.extend(self.transform.index_problems(&index.table, &index.name, &index.key));
        }
        if problems.is_empty() {
            return Ok(());
        }
        let reasons: Vec<String> =
            problems.iter().map(|problem| format!("{}{} {}", self.setting, problem.pointer, problem.reason)).collect();
        Err(SinkMisconfiguredError { sink: self.inner.name().to_owned(), reason: reasons.join("; ") })
    }

    /// Returns, for each change, the reason why its key does not match the rules, if it does not.
    fn misfits(&self, changes: &[&Change<'_>]) -> Vec<Option<String>> {
        if self.transform.settings().attributes.is_empty() {
            return vec![None; changes.len()];
        }
        // Nearly all keys have the attributes of the one before.
        let mut last: Option<(Vec<String>, Option<String>)> = None;
        let misfit = |change: &&Change<'_>| {
            let names = key_names(change.key.canonical());
            if let Some((_, misfit)) = last.as_ref().filter(|(last, _)| *last == names) {
                return misfit.clone();
            }
            let is_misfit = !self.transform.key_problems(&names).is_empty();
            let misfit = is_misfit.then(|| {
                format!(
                    "the record's key does not match {}: its attributes are {}, and those of the stream's other \
                     records differ",
                    self.setting,
                    names.join(", ")
                )
            });
            last = Some((names, misfit.clone()));
            misfit
        };
        changes.iter().map(misfit).collect()
    }

    /// Returns whether an earlier change has shown that the rules match the keys of this stream. All keys of a stream
    /// have the same schema, so a key that does not match is then the record's error.
    fn has_fitted(&self, change: &Change<'_>) -> bool {
        self.fitting.lock().unwrap_or_else(PoisonError::into_inner).as_deref() == Some(change.source.arn())
    }

    fn fits(&self, change: &Change<'_>) {
        let mut fitting = self.fitting.lock().unwrap_or_else(PoisonError::into_inner);
        if fitting.as_deref() != Some(change.source.arn()) {
            *fitting = Some(change.source.arn().into());
        }
    }

    async fn apply_all(
        &self,
        batch: DeduplicatedBatch<'_>,
        invocation: &Invocation,
    ) -> Result<SinkOutcome, SinkMisconfiguredError> {
        if !self.is_checked.load(Ordering::Relaxed) {
            // The table could not be described at the start.
            if let Err(reason) = self.inner.load_shape(invocation.deadline).await {
                return Ok(SinkOutcome::all_failed(&self.required_changes(batch), &reason));
            }
        }
        self.check_table()?;
        let misfits = self.misfits(batch.latest_per_key);
        if let Some(first) = batch.latest_per_key.first()
            && misfits.iter().all(Option::is_some)
            && !self.has_fitted(first)
        {
            // Whether the rules or the records are wrong: every record of the stream may have such a key.
            let known = self.inner.key_names();
            self.check_rules(&known.unwrap_or_else(|| key_names(first.key.canonical())))?;
            let reason = misfits.into_iter().flatten().next().unwrap_or_default();
            return Ok(SinkOutcome::all_failed(&self.required_changes(batch), &reason));
        }
        if let Some(position) = misfits.iter().position(Option::is_none) {
            self.fits(batch.latest_per_key[position]);
        }
        let decisions = transform_changes(&self.transform, batch.changes, batch.latest_per_key);
        let (mut filtered, mut failures) = (Vec::new(), Vec::new());
        let mut changes: Vec<Change<'_>> = Vec::with_capacity(decisions.len());
        for ((change, decision), misfit) in batch.latest_per_key.iter().zip(&decisions).zip(misfits) {
            if let Some(misfit) = misfit {
                failures.push(FailedChange { index: change.index, kind: FailureKind::Permanent(misfit) });
                continue;
            }
            let effect = match decision {
                TransformedChange::Unchanged => change.effect,
                TransformedChange::Write(text) => {
                    let Some(image) = ItemImage::scan(text) else {
                        let reason = "the rules give an image that is not a JSON object".to_owned();
                        failures.push(FailedChange { index: change.index, kind: FailureKind::Permanent(reason) });
                        continue;
                    };
                    ChangeKind::Write { image: Some(image) }
                }
                TransformedChange::Tombstone => ChangeKind::Remove { expired: false, image: None },
                TransformedChange::Omitted => {
                    filtered.push(change.index);
                    continue;
                }
                TransformedChange::Failed(error) => {
                    failures
                        .push(FailedChange { index: change.index, kind: FailureKind::Permanent(error.to_string()) });
                    continue;
                }
            };
            changes.push(Change { effect, ..(*change).clone() });
        }
        let latest_per_key: Vec<&Change<'_>> = changes.iter().collect();
        let transformed = DeduplicatedBatch { latest_per_key: &latest_per_key, ..batch };
        let mut outcome = self.inner.apply(transformed, invocation).await?;
        for failure in &mut outcome.failures {
            // The records before a failure are not delivered again.
            let change = batch.latest_per_key.iter().find(|change| change.index == failure.index);
            let Some(change) = change else { continue };
            match failure.kind {
                FailureKind::Transient(_) => {
                    failure.index = redelivered_from(&self.transform, batch.changes, change).index;
                }
                FailureKind::Permanent(_) => {
                    let first = redelivered_from(&self.transform, batch.changes, change).index;
                    outcome.redelivered_from.insert(failure.index, first);
                }
            }
        }
        outcome.filtered.append(&mut filtered);
        outcome.failures.append(&mut failures);
        Ok(outcome)
    }
}

impl<S: Sink> Sink for TransformedSink<S> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), SinkMisconfiguredError>> {
        async {
            self.inner.check().await?;
            self.check_table()
        }
        .boxed()
    }

    fn load_shape(&self, deadline: Instant) -> BoxFuture<'_, Result<(), String>> {
        self.inner.load_shape(deadline)
    }

    fn key_names(&self) -> Option<Vec<String>> {
        self.inner.key_names()
    }

    fn indexes(&self) -> Vec<IndexSchema> {
        self.inner.indexes()
    }

    fn apply<'s>(
        &'s self,
        batch: DeduplicatedBatch<'s>,
        invocation: &'s Invocation,
    ) -> BoxFuture<'s, Result<SinkOutcome, SinkMisconfiguredError>> {
        self.apply_all(batch, invocation).boxed()
    }

    fn required_changes<'b>(&self, batch: DeduplicatedBatch<'b>) -> Vec<&'b Change<'b>> {
        let required = self.inner.required_changes(batch).into_iter();
        required.map(|change| redelivered_from(&self.transform, batch.changes, change)).collect()
    }
}

impl<R: Replica> Replica for TransformedSink<R> {
    fn transform(&self) -> Option<&ItemTransform> {
        Some(&self.transform)
    }

    fn rules_digest(&self) -> Option<&str> {
        Some(&self.digest)
    }

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

    fn revision_name(&self) -> &str {
        self.inner.revision_name()
    }

    fn check_source<'s>(&'s self, source: &'s SourceDescription) -> BoxFuture<'s, Result<(), SinkMisconfiguredError>> {
        async move {
            self.inner.check_source(source).await?;
            self.check_rules(&source.key_names())
        }
        .boxed()
    }

    fn stream_arn(&self) -> Option<String> {
        self.inner.stream_arn()
    }

    fn refusal(&self, write: &ReplicaWrite<'_>, now: OffsetDateTime) -> Option<String> {
        self.inner.refusal(write, now)
    }

    fn put<'s>(
        &'s self,
        writes: &'s [ReplicaWrite<'s>],
        invocation: &'s Invocation,
    ) -> BoxFuture<'s, Vec<WriteResult>> {
        self.inner.put(writes, invocation)
    }
}
