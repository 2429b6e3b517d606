//! A sink of your own: an in-memory replica that implements [`Sink`], fed with sample stream events.
//!
//! ```sh
//! cargo run -p millrace-sinks --example custom_sink
//! ```
//!
//! Prints the outcome of each batch: a create, an update, the create again (Lambda delivers at least once), a delete, and
//! the update again. The replays are stale and change nothing. A sink for production also implements `Replica`, so that
//! maintenance can read it back, and passes the suite in `tests/sink_contract.rs`.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use millrace_replicator::deduplicate::latest_per_key;
use millrace_shared::change::{Change, ChangeKind};
use millrace_shared::clock::Clock;
use millrace_shared::invocation::Invocation;
use millrace_shared::revision::Revision;
use millrace_shared::stream;
use millrace_sinks::{DeduplicatedBatch, FailedChange, FailureKind, Sink, SinkMisconfiguredError, SinkOutcome};
use serde_json::value::RawValue;
use tokio::time::Instant;

/// The sample events, as Lambda delivers them.
const BATCHES: [(&str, &str); 5] = [
    ("create", include_str!("../../../events/user-created.json")),
    ("update", include_str!("../../../events/user-renamed.json")),
    ("create again", include_str!("../../../events/user-created.json")),
    ("delete", include_str!("../../../events/user-deleted.json")),
    ("update again", include_str!("../../../events/user-renamed.json")),
];

/// The largest item that this sink accepts.
const MAX_ITEM_BYTES: usize = 64 * 1024;

/// A stored item, or a tombstone if `item` is `None`. A tombstone keeps its revision, so that a late write of the deleted
/// item is recognized as stale.
#[derive(Debug)]
struct StoredItem {
    revision: Revision,
    item: Option<String>,
}

/// A replica in memory, by key.
#[derive(Debug, Default)]
struct MemorySink {
    items: Mutex<HashMap<String, StoredItem>>,
}

impl MemorySink {
    /// Applies one change if nothing or a lower revision is stored under its key. A database does both in one conditional
    /// statement, because invocations run concurrently.
    fn apply_change(&self, change: &Change<'_>, outcome: &mut SinkOutcome) {
        let item = match change.effect {
            ChangeKind::Write { image: Some(image) } => Some(image.get().to_owned()),
            ChangeKind::Remove { .. } => None,
            ChangeKind::Write { image: None } => {
                // No redelivery of this record succeeds, so it is quarantined, and the rest of the batch goes on.
                outcome.failures.push(permanent(change, "the record has no new image"));
                return;
            }
        };
        if item.as_ref().is_some_and(|item| item.len() > MAX_ITEM_BYTES) {
            outcome.failures.push(permanent(change, "the item is larger than 64 KiB"));
            return;
        }
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let key = change.key.canonical().to_string();
        match items.get(&key).map(|stored| stored.revision.cmp(&change.revision)) {
            Some(std::cmp::Ordering::Equal) => outcome.duplicate += 1,
            Some(std::cmp::Ordering::Greater) => outcome.stale += 1,
            Some(std::cmp::Ordering::Less) | None => {
                outcome.applied += 1;
                outcome.tombstones += usize::from(item.is_none());
                items.insert(key, StoredItem { revision: change.revision, item });
            }
        }
    }

    /// Prints the state of each key.
    fn print(&self) {
        for (key, stored) in self.items.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let state = if stored.item.is_some() { "an item" } else { "a tombstone" };
            println!("stored: {key}: {state}, revision {}", stored.revision);
        }
    }
}

fn permanent(change: &Change<'_>, reason: &str) -> FailedChange {
    FailedChange { index: change.index, kind: FailureKind::Permanent(reason.to_owned()) }
}

impl Sink for MemorySink {
    fn name(&self) -> &'static str {
        "memory"
    }

    /// A sink with a connection checks its settings and its schema here, before the first batch.
    fn check(&self) -> BoxFuture<'_, Result<(), SinkMisconfiguredError>> {
        ready(Ok(())).boxed()
    }

    /// A change that is not applied before the deadline is a transient failure: Lambda redelivers it.
    fn apply<'s>(
        &'s self,
        batch: DeduplicatedBatch<'s>,
        invocation: &'s Invocation,
    ) -> BoxFuture<'s, Result<SinkOutcome, SinkMisconfiguredError>> {
        async move {
            let mut outcome = SinkOutcome::default();
            for change in batch.latest_per_key {
                if Instant::now() < invocation.deadline {
                    self.apply_change(change, &mut outcome);
                } else {
                    let kind = FailureKind::Transient("the deadline has passed".to_owned());
                    outcome.failures.push(FailedChange { index: change.index, kind });
                }
            }
            Ok(outcome)
        }
        .boxed()
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let sink = MemorySink::default();
    sink.check().await?;
    for (name, event) in BATCHES {
        // The replicator's handler does the same: it parses each record alone, keeps the latest change per key, and
        // passes both to every sink.
        let event: &RawValue = serde_json::from_str(event)?;
        let batch = stream::read(event)?;
        let changes: Vec<&Change<'_>> = batch.records.iter().filter_map(|record| record.read.as_ref().ok()).collect();
        let latest: Vec<&Change<'_>> = latest_per_key(&changes).into_iter().map(|index| changes[index]).collect();

        let now = Clock::system().now();
        let invocation = Invocation::new(now, Instant::now(), Duration::from_secs(30), "example".to_owned());
        let outcome = sink.apply(DeduplicatedBatch { changes: &changes, latest_per_key: &latest }, &invocation).await?;
        let SinkOutcome { applied, duplicate, stale, tombstones, failures, .. } = outcome;
        println!(
            "{name}: {applied} applied ({tombstones} tombstones), {duplicate} duplicate, {stale} stale, {} failed",
            failures.len()
        );
    }
    sink.print();
    Ok(())
}
