//! Index of the failure objects of keys that differ, so that `verify` can report such a key as quarantined:
//! [`find_failures`].
//!
//! The bucket may contain any number of objects, and an object may have up to 6 MB. It is therefore read page by page
//! and object by object, and only the names of objects that contain one of the queried keys are retained. Reading stops
//! at the deadline; objects that were not read by then may contain the remaining keys.

use std::collections::HashMap;
use std::ops::ControlFlow;

use millrace_shared::change::CanonicalKey;
use millrace_shared::concurrency::for_each_until;
use millrace_shared::stream::{key_of, read};
use tokio::time::{Instant, timeout_at};

use crate::failure_bucket::{BucketError, FailureBucket, FailureObject};
use crate::failure_record::{self, FailedFunction, FunctionNames, ON_FAILURE_PREFIX, QUARANTINE};

const PAGE: i32 = 1_000;
/// Maximum number of objects that are read concurrently.
const READS_IN_FLIGHT: usize = 16;
/// Maximum total size of the objects that are read concurrently.
const READ_BYTES: u64 = 16 * 1024 * 1024;
/// Maximum number of objects listed per key: one is enough to show that there is something to redrive.
const OBJECTS_A_KEY: usize = 20;

/// The failure objects of a set of keys.
#[derive(Debug)]
pub struct FailureIndex {
    objects: HashMap<CanonicalKey, Vec<String>>,
    /// True if the whole bucket was read.
    pub is_complete: bool,
}

impl FailureIndex {
    /// Creates the index of a bucket that contains no failure objects.
    #[must_use]
    pub fn none() -> Self {
        Self { objects: HashMap::new(), is_complete: true }
    }

    /// Creates the index of a bucket that was not read.
    #[must_use]
    pub fn unread() -> Self {
        Self { objects: HashMap::new(), is_complete: false }
    }

    /// Returns the objects that contain a record of the key that may be missing in the sink; if there are many, only
    /// some of them.
    #[must_use]
    pub fn objects(&self, key: &CanonicalKey) -> &[String] {
        self.objects.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    /// Adds an object with this body to those of each key of which it contains a record.
    fn add(&mut self, listed: &FailureObject, body: &[u8], sink: &str, functions: &FunctionNames) {
        for key in keys_of(&listed.key, body, sink, functions) {
            let objects = self.objects.get_mut(&key).filter(|objects| objects.len() < OBJECTS_A_KEY);
            if let Some(objects) = objects.filter(|objects| !objects.contains(&listed.key)) {
                objects.push(listed.key.clone());
            }
        }
    }
}

/// Returns whether the bucket contains any failure object. If it does not, there is nothing to search for.
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

/// Searches the bucket for failure objects of these keys that concern this sink, until it is read completely or
/// `deadline` is reached.
///
/// # Errors
/// [`BucketError`] if the bucket cannot be read.
pub async fn find_failures<'k>(
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
                let mut failure = None;
                let get = |position: usize| bucket.get(&group[position].key);
                let bodies = for_each_until(deadline, READS_IN_FLIGHT, 0..group.len(), get, |position, body| {
                    match body {
                        Ok(body) => found.add(group[position], &body.unwrap_or_default(), sink, functions),
                        Err(error) => failure = Some(error),
                    }
                    if failure.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                });
                let unread = bodies.await;
                if let Some(error) = failure {
                    return Err(error);
                }
                if !unread.is_empty() {
                    return Ok(found);
                }
            }
        }
    }
    found.is_complete = true;
    Ok(found)
}

/// Divides a page into groups of objects that may be read concurrently. Objects that are too large to be failure
/// objects are left out.
fn groups(page: &[FailureObject]) -> Vec<Vec<&FailureObject>> {
    let mut groups: Vec<Vec<&FailureObject>> = Vec::new();
    let mut bytes = 0;
    for listed in page.iter().filter(|listed| listed.size_bytes <= failure_record::MAX_OBJECT_BYTES) {
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

/// Returns the keys of an object's records that may be missing in the sink; none if the object is not a failure of the
/// replicator.
fn keys_of(object: &str, body: &[u8], sink: &str, functions: &FunctionNames) -> Vec<CanonicalKey> {
    let failure = failure_record::read(object, body, functions).ok();
    let concerns = |failure: &failure_record::FailureRecord| {
        failure.function == FailedFunction::Replicator && failure.sink.as_deref().is_none_or(|its| its == sink)
    };
    let Some(failure) = failure.filter(concerns) else { return Vec::new() };
    let Ok(batch) = read(&failure.event) else { return Vec::new() };
    batch.records.iter().filter_map(|record| key_of(record.raw.to_raw()).ok()).collect()
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
            sizes(&[listed(1), listed(failure_record::MAX_OBJECT_BYTES + 1), listed(1)]),
            [2],
            "it is no failure"
        );
    }
}
