//! The failure objects of keys that differ: what `verify` finds of such a key is no surprise. [`of_keys`]
//!
//! The bucket is read page by page and object by object, and of it only the names of objects that hold one of the keys in
//! question are kept: it may have any number of objects, and an object up to 6 MB. The reading ends at the deadline; what
//! was not read until then may hold the others.

use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt, stream};
use shared::change::CanonicalKey;
use shared::stream::{key_of, read};
use tokio::time::{Instant, timeout_at};

use crate::failure_bucket::{BucketError, FailureBucket, FailureObject};
use crate::failure_record::{self, FailedFunction, FunctionNames, ON_FAILURE_PREFIX, QUARANTINE};

const PAGE: i32 = 1_000;
/// Objects that are read side by side: at most so many,
const READS_IN_FLIGHT: usize = 16;
/// and no more of them than have this size together.
const READ_BYTES: u64 = 16 * 1024 * 1024;
/// So many objects are named for a key: where one is, there is something to redrive.
const OBJECTS_A_KEY: usize = 20;

/// The failure objects of some keys.
#[derive(Debug)]
pub struct FailureIndex {
    objects: HashMap<CanonicalKey, Vec<String>>,
    /// Whether the whole bucket was read.
    pub is_complete: bool,
}

impl FailureIndex {
    /// Those of a bucket that has no failure object.
    #[must_use]
    pub fn none() -> Self {
        Self { objects: HashMap::new(), is_complete: true }
    }

    /// Those of a bucket that was not read.
    #[must_use]
    pub fn unread() -> Self {
        Self { objects: HashMap::new(), is_complete: false }
    }

    /// The objects that hold a record of the key which may be missing in the sink, some of them if there are many.
    #[must_use]
    pub fn of(&self, key: &CanonicalKey) -> &[String] {
        self.objects.get(key).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Whether the bucket has any failure object: without one there is nothing to look for.
///
/// # Errors
/// [`BucketError`] if the bucket cannot be listed.
pub async fn any(bucket: &FailureBucket) -> Result<bool, BucketError> {
    for prefix in [ON_FAILURE_PREFIX, QUARANTINE] {
        if !bucket.list(prefix, None, 1).await?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The failure objects of these keys that concern this sink, as far as the bucket can be read by `deadline`.
///
/// # Errors
/// [`BucketError`] if the bucket cannot be read.
pub async fn of_keys<'k>(
    keys: impl Iterator<Item = &'k CanonicalKey>,
    sink: &str,
    bucket: &FailureBucket,
    functions: &FunctionNames,
    deadline: Instant,
) -> Result<FailureIndex, BucketError> {
    let mut found = FailureIndex { objects: keys.map(|key| (key.clone(), Vec::new())).collect(), is_complete: false };
    for prefix in [ON_FAILURE_PREFIX, QUARANTINE] {
        let mut after: Option<String> = None;
        loop {
            let Ok(page) = timeout_at(deadline, bucket.list(prefix, after.as_deref(), PAGE)).await else {
                return Ok(found);
            };
            let page = page?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            for group in groups(&page) {
                let bodies = stream::iter(group).map(|listed| async move {
                    let body = bucket.get(&listed.key).await?.unwrap_or_default();
                    Ok::<_, BucketError>((listed, body))
                });
                let bodies = bodies.buffer_unordered(READS_IN_FLIGHT).try_collect::<Vec<_>>();
                let Ok(bodies) = timeout_at(deadline, bodies).await else { return Ok(found) };
                for (listed, body) in bodies? {
                    for key in keys_of(&listed.key, &body, sink, functions) {
                        let objects = found.objects.get_mut(&key).filter(|objects| objects.len() < OBJECTS_A_KEY);
                        if let Some(objects) = objects.filter(|objects| !objects.contains(&listed.key)) {
                            objects.push(listed.key.clone());
                        }
                    }
                }
            }
        }
    }
    found.is_complete = true;
    Ok(found)
}

/// A page in groups that may be read side by side; objects that are no failures by their size are left out.
fn groups(page: &[FailureObject]) -> Vec<Vec<&FailureObject>> {
    let mut groups: Vec<Vec<&FailureObject>> = Vec::new();
    let mut bytes = 0;
    for listed in page.iter().filter(|listed| listed.size_bytes <= failure_record::OBJECT_BYTES_MOST) {
        bytes += listed.size_bytes;
        match groups.last_mut() {
            Some(group) if group.len() < READS_IN_FLIGHT && bytes <= READ_BYTES => group.push(listed),
            _ => {
                bytes = listed.size_bytes;
                groups.push(vec![listed]);
            }
        }
    }
    groups
}

/// The keys of an object's records that may be missing in the sink; none of what is no failure of the replicator.
fn keys_of(object: &str, body: &[u8], sink: &str, functions: &FunctionNames) -> Vec<CanonicalKey> {
    let failure = failure_record::read(object, body, functions).ok();
    let concerns = |failure: &failure_record::FailureRecord| {
        failure.function == FailedFunction::Replicator && failure.sink.as_deref().is_none_or(|its| its == sink)
    };
    let Some(failure) = failure.filter(concerns) else { return Vec::new() };
    let Ok(batch) = read(&failure.event) else { return Vec::new() };
    batch.records.iter().filter_map(|record| key_of(record.raw).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_group_is_read_that_does_not_fit() {
        let listed = |size_bytes| FailureObject { key: "k".to_owned(), modified: None, size_bytes };
        let megabyte = 1024 * 1024;
        let sizes = |page: &[FailureObject]| -> Vec<usize> { groups(page).iter().map(Vec::len).collect() };
        assert_eq!(sizes(&[]), [0; 0]);
        let small: Vec<FailureObject> = (0..40).map(|_| listed(1_000)).collect();
        assert_eq!(sizes(&small), [16, 16, 8]);
        let large: Vec<FailureObject> = (0..5).map(|_| listed(6 * megabyte)).collect();
        assert_eq!(sizes(&large), [2, 2, 1]);
        assert_eq!(
            sizes(&[listed(1), listed(failure_record::OBJECT_BYTES_MOST + 1), listed(1)]),
            [2],
            "it is no failure"
        );
    }
}
