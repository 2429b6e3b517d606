//! What a merge was made of: written before anything of it is retired, so that whoever comes after can finish it.

use std::collections::BTreeSet;

use archiver::archive::ArchiveDay;
use archiver::store::{ArchiveStore, StoreError};
use futures::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::catalog::DayListing;
use crate::task::merge::MergeOutput;

const IN_FLIGHT: usize = 16;
const FORMAT: u32 = 1;

/// A merge, as it is told beside what it retired.
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
    pub(super) fn of(
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
        // Texts and numbers: there is nothing that JSON cannot write.
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        let key = format!("superseded/manifests/{}/dt={}/{}.json", self.table, self.day, self.run);
        let sha256 = Sha256::digest(text.as_bytes()).into();
        store.put_text(&key, "application/json", text, sha256).await
    }
}

/// What the day's manifests tell of and is still there: a merge was cut off, or an archiver wrote an object again whose rows
/// are merged already.
pub(super) async fn left(
    store: &ArchiveStore,
    table: &str,
    day: ArchiveDay,
    shelf: &DayListing,
) -> Result<BTreeSet<String>, StoreError> {
    let there: BTreeSet<&str> = shelf.objects.iter().map(|object| object.key.as_str()).collect();
    let mut left = BTreeSet::new();
    for stored in store.list(&prefix(table, day)).await? {
        let Some(text) = store.text(&stored.key).await? else { continue };
        // One that cannot be read says nothing of what may go: its objects are merged once more.
        let Ok(manifest) = serde_json::from_slice::<MergeManifest>(&text) else { continue };
        if manifest.format == FORMAT {
            left.extend(manifest.inputs.into_iter().filter(|input| there.contains(input.as_str())));
        }
    }
    Ok(left)
}

/// Moves these objects below `superseded/`; returns how many were moved, and the first fault.
pub(super) async fn retire(store: &ArchiveStore, keys: &[&str]) -> (usize, Option<StoreError>) {
    let moves = stream::iter(keys.iter().map(|key| store.move_to_superseded(key))).buffer_unordered(IN_FLIGHT);
    let tally = |(retired, fault): (usize, Option<StoreError>), moved: Result<(), StoreError>| {
        std::future::ready(match moved {
            Ok(()) => (retired + 1, fault),
            Err(error) => (retired, fault.or(Some(error))),
        })
    };
    moves.fold((0, None), tally).await
}
