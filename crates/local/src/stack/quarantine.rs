//! Records in quarantine, grouped by their reasons: [`QuarantineSummary`].

use std::collections::{BTreeMap, BTreeSet};

use millrace_shared::s3::{S3Bucket, S3Error};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{LocalStack, maintenance_function};

/// The prefix of the objects.
const PREFIX: &str = "quarantine/";
/// The maximum number of objects that are read for their reasons.
const MAX_READS: usize = 1_000;

/// Records that were quarantined, by their reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineSummary {
    /// The number of records.
    pub total: usize,
    /// The reasons of the records that were read, the most frequent first.
    pub reasons: Vec<QuarantineReason>,
    /// The bucket of the objects.
    pub bucket: String,
}

/// A reason for which records were quarantined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineReason {
    /// The reason with its fix.
    pub reason: String,
    /// The number of records.
    pub count: usize,
    /// The key of the first record's item, as DynamoDB JSON; `None` if the record has none.
    pub item_key: Option<String>,
    /// The key of the first record's object.
    pub object_key: String,
}

#[derive(Deserialize)]
struct QuarantineObject<'a> {
    reason: String,
    #[serde(borrow)]
    record: QuarantinedRecord<'a>,
}

#[derive(Deserialize)]
struct QuarantinedRecord<'a> {
    #[serde(borrow)]
    dynamodb: Option<QuarantinedChange<'a>>,
}

#[derive(Deserialize)]
struct QuarantinedChange<'a> {
    #[serde(borrow, rename = "Keys")]
    keys: Option<&'a RawValue>,
}

impl LocalStack {
    /// Returns the keys of all objects in quarantine.
    ///
    /// # Errors
    /// [`S3Error`] if they cannot be listed.
    pub async fn quarantine_keys(&self) -> Result<BTreeSet<String>, S3Error> {
        let Some(bucket) = self.failure_bucket() else { return Ok(BTreeSet::new()) };
        Ok(bucket.list(PREFIX).await?.into_iter().map(|object| object.key).collect())
    }

    /// Returns the records in quarantine that are not known, by their reasons.
    ///
    /// # Errors
    /// [`S3Error`] if they cannot be listed or read.
    pub async fn quarantined_since(&self, known: &BTreeSet<String>) -> Result<QuarantineSummary, S3Error> {
        let keys: Vec<String> = self.quarantine_keys().await?.difference(known).cloned().collect();
        let Some(bucket) = self.failure_bucket() else {
            return Ok(QuarantineSummary { total: 0, reasons: Vec::new(), bucket: String::new() });
        };
        let mut objects = Vec::new();
        for key in keys.iter().take(MAX_READS) {
            objects.extend(bucket.get(key).await?.map(|body| (key.clone(), body)));
        }
        let bucket = bucket.name().to_owned();
        Ok(QuarantineSummary { total: keys.len(), reasons: by_reason(&objects), bucket })
    }

    fn failure_bucket(&self) -> Option<S3Bucket> {
        let name = maintenance_function(&self.template)?.environment.get("FAILURE_BUCKET")?;
        Some(S3Bucket::new(self.s3(), name.clone()))
    }
}

/// Groups objects by their reasons.
fn by_reason(objects: &[(String, Vec<u8>)]) -> Vec<QuarantineReason> {
    let mut found: BTreeMap<String, QuarantineReason> = BTreeMap::new();
    for (key, body) in objects {
        let Ok(object) = serde_json::from_slice::<QuarantineObject<'_>>(body) else { continue };
        let entry = found.entry(object.reason.clone()).or_insert_with(|| QuarantineReason {
            reason: object.reason,
            count: 0,
            item_key: object.record.dynamodb.and_then(|change| change.keys).map(|keys| keys.get().to_owned()),
            object_key: key.clone(),
        });
        entry.count += 1;
    }
    let mut reasons: Vec<_> = found.into_values().collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.count));
    reasons
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn records_are_grouped_by_reason_with_the_most_frequent_first() {
        let object = |key: &str, reason: &str| {
            let keys = json!({"pk": {"S": key}});
            let body = json!({"format": 1, "reason": reason, "record": {"dynamodb": {"Keys": keys}}});
            (format!("quarantine/{key}.json"), body.to_string().into_bytes())
        };
        let unreadable = ("quarantine/x.json".to_owned(), b"{".to_vec());
        let objects = [object("a", "one"), object("b", "two"), object("c", "two"), unreadable];
        let expected = |reason: &str, count, key: &str| QuarantineReason {
            reason: reason.to_owned(),
            count,
            item_key: Some(json!({"pk": {"S": key}}).to_string()),
            object_key: format!("quarantine/{key}.json"),
        };
        assert_eq!(by_reason(&objects), [expected("two", 2, "b"), expected("one", 1, "a")]);
    }
}
