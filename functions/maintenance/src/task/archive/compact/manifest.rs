//! The manifest of a merge: its inputs and outputs. It is written before any input is moved, so that a later invocation
//! can complete an interrupted merge.

use std::collections::BTreeSet;

use futures::{StreamExt as _, stream};
use millrace_archive::ArchiveDay;
use millrace_archive::store::{ArchiveStore, StoreError};
use millrace_shared::hash::sha256;
use serde::{Deserialize, Serialize};

use crate::catalog::DayListing;
use crate::task::archive::merge::MergeOutput;

const IN_FLIGHT: usize = 16;
const FORMAT: u32 = 1;

/// The record of a merge, stored next to the inputs that it supersedes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MergeManifest {
    format: u32,
    table: String,
    day: String,
    pub(super) run: String,
    rows: u64,
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<MergeOutput>,
}

fn prefix(table: &str, day: ArchiveDay) -> String {
    format!("superseded/manifests/{table}/dt={day}/")
}

impl MergeManifest {
    pub(super) fn new(
        table: &str,
        day: ArchiveDay,
        run: String,
        rows: u64,
        inputs: Vec<String>,
        outputs: Vec<MergeOutput>,
    ) -> Self {
        Self { format: FORMAT, table: table.to_owned(), day: day.to_string(), run, rows, inputs, outputs }
    }

    pub(super) async fn put(&self, store: &ArchiveStore) -> Result<(), StoreError> {
        // The manifest contains only strings and numbers, so it can always be serialized.
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        let key = format!("superseded/manifests/{}/dt={}/{}.json", self.table, self.day, self.run);
        let sha256 = sha256(&text);
        store.put_text(&key, "application/json", text, sha256).await
    }
}

/// Returns the inputs of the day's manifests that still exist: a merge was interrupted, or an archiver wrote an object
/// again whose rows are already merged.
pub(super) async fn remaining_inputs(
    store: &ArchiveStore,
    table: &str,
    day: ArchiveDay,
    listing: &DayListing,
) -> Result<BTreeSet<String>, StoreError> {
    let there: BTreeSet<&str> = listing.objects.iter().map(|object| object.key.as_str()).collect();
    let mut left = BTreeSet::new();
    for stored in store.list(&prefix(table, day)).await? {
        let Some(text) = store.text(&stored.key).await? else { continue };
        // An unreadable manifest does not show which objects may be moved; they are merged again.
        let Ok(manifest) = serde_json::from_slice::<MergeManifest>(&text) else { continue };
        if manifest.format == FORMAT {
            left.extend(manifest.inputs.into_iter().filter(|input| there.contains(input.as_str())));
        }
    }
    Ok(left)
}

/// Moves these objects below `superseded/`; returns the number of moved objects, and the first error.
pub(super) async fn supersede(store: &ArchiveStore, keys: &[&str]) -> (usize, Option<StoreError>) {
    let moves = stream::iter(keys.iter().map(|key| store.move_to_superseded(key))).buffer_unordered(IN_FLIGHT);
    let tally = |(superseded, fault): (usize, Option<StoreError>), moved: Result<(), StoreError>| {
        std::future::ready(match moved {
            Ok(()) => (superseded + 1, fault),
            Err(error) => (superseded, fault.or(Some(error))),
        })
    };
    moves.fold((0, None), tally).await
}
