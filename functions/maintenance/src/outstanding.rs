//! The keys that have a failure outstanding: what `verify` finds of them is no surprise.

use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt, stream};
use shared::change::CanonicalKey;
use shared::stream::{key_of, read};

use crate::failure::{self, Function, Functions, GIVEN_UP, QUARANTINE};
use crate::failure_bucket::{BucketFault, FailureBucket, Listed};

const PAGE: i32 = 1_000;
const READS_IN_FLIGHT: usize = 16;

/// The replicator's outstanding failures, read once and only if they are asked for.
#[derive(Debug, Default)]
pub struct Outstanding(Option<HashMap<CanonicalKey, Vec<Entry>>>);

/// An object that holds a record of a key.
#[derive(Debug)]
struct Entry {
    /// The sink that the record failed in; nothing if it may be missing in any.
    sink: Option<String>,
    object: String,
}

impl Outstanding {
    /// The objects that hold a record of the key which may be missing in the sink, as of the first time that any are asked
    /// for.
    ///
    /// # Errors
    /// [`BucketFault`] if the bucket cannot be read.
    pub async fn of(
        &mut self,
        key: &CanonicalKey,
        sink: &str,
        bucket: &FailureBucket,
        functions: &Functions,
    ) -> Result<Vec<String>, BucketFault> {
        let entries = match self.0.take() {
            Some(entries) => entries,
            None => collect(bucket, functions).await?,
        };
        let of_sink = |entry: &&Entry| entry.sink.as_deref().is_none_or(|its| its == sink);
        let of_key = entries.get(key).map(Vec::as_slice).unwrap_or_default();
        let objects = of_key.iter().filter(of_sink).map(|entry| entry.object.clone()).collect();
        self.0 = Some(entries);
        Ok(objects)
    }
}

async fn collect(
    bucket: &FailureBucket,
    functions: &Functions,
) -> Result<HashMap<CanonicalKey, Vec<Entry>>, BucketFault> {
    let mut entries: HashMap<CanonicalKey, Vec<Entry>> = HashMap::new();
    for prefix in [GIVEN_UP, QUARANTINE] {
        let mut after: Option<String> = None;
        loop {
            let page = bucket.list(prefix, after.as_deref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            let keys = stream::iter(page).map(|Listed { key, .. }| async move {
                let body = bucket.get(&key).await?.unwrap_or_default();
                Ok::<_, BucketFault>(keys_of(&key, &body, functions))
            });
            let keys: Vec<_> = keys.buffer_unordered(READS_IN_FLIGHT).try_collect().await?;
            for (key, entry) in keys.into_iter().flatten() {
                entries.entry(key).or_default().push(entry);
            }
        }
    }
    Ok(entries)
}

/// The keys of an object's records; none of what is no failure of the replicator.
fn keys_of(object: &str, body: &[u8], functions: &Functions) -> Vec<(CanonicalKey, Entry)> {
    let failure = failure::read(object, body, functions).ok();
    let Some(failure) = failure.filter(|failure| failure.function == Function::Replicator) else { return Vec::new() };
    let Ok(batch) = read(&failure.event) else { return Vec::new() };
    let entry = |key| (key, Entry { sink: failure.sink.clone(), object: object.to_owned() });
    batch.records.iter().filter_map(|record| key_of(record.raw).ok()).map(entry).collect()
}
