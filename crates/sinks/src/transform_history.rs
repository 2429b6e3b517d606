//! The rules with which the items of a replica were written, recorded in the failure bucket: [`TransformHistory`].
//!
//! After a change of the rules, of the key of a hash, or of the table, a replica still contains items of other rules,
//! until a repair over all segments has rewritten them. The digest of the rules and the table is therefore recorded when
//! the replicator starts with it, before it writes with it, and a repair records each segment that it has completed with
//! this digest:
//!
//! ```text
//! transforms/<replica>/current/<digest>
//! transforms/<replica>/written/<digest>
//! transforms/<replica>/repaired/<digest>/<segments>-<segment>-<start of the repair, in epoch seconds>
//! ```
//!
//! The latest object below `current/` names the rules in use, and only a segment that was repaired after it counts, so
//! that rules which are replaced and set again need another repair. A replica without any object has had no rules.
//! A task with rules that are not in use records them below `written/` before it writes with them, and only a segment
//! that was repaired after that counts.
//!
//! When the replicator starts with other rules, an execution environment with the former ones may still write behind
//! the position of a repair. Each environment therefore records its rules again every [`RECORD_INTERVAL`], so that those
//! of an environment that remains in use become the rules in use again, and a segment counts only if its repair began
//! [`OTHER_RULES_TIME`] after other rules were last replaced or written.
//!
//! An object is never deleted and has no content of interest, so concurrent writers cannot contradict each other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use millrace_shared::metric;
use millrace_shared::s3::{ObjectMeta, S3Bucket, S3Error};
use millrace_shared::table_reader::ScanSegment;
use time::OffsetDateTime;
use tokio::time::{Instant, timeout_at};

/// The prefix of all objects.
const PREFIX: &str = "transforms/";
/// Replaces the digest of a replica that stores items as they are.
const NO_RULES: &str = "none";
/// The time limit of a record; Lambda limits the whole start to 10 seconds.
pub const REPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// The time after which an execution environment records its rules again, before it writes with them.
pub const RECORD_INTERVAL: time::Duration = time::Duration::minutes(5);
/// The time in which a function may write with other rules after the rules in use were recorded, or after it has recorded
/// its own: [`RECORD_INTERVAL`], and the longest timeout of a Lambda function.
pub const OTHER_RULES_TIME: time::Duration = time::Duration::minutes(20);

/// Whether the items of a replica were written with the rules in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransformState {
    /// A repair over all segments has passed since the rules are in use, or the replica has never had rules.
    Confirmed,
    /// No repair over all segments has passed since the rules are in use.
    Unrepaired {
        /// The time from which on a repair has to begin.
        repair_from: OffsetDateTime,
    },
    /// The replicator has not started with these rules, or has started with other rules since.
    Unused,
}

/// The result of the repair of a segment, for the rules in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepairRecord {
    /// The segment has no items of other rules: it is recorded, or every segment has been before.
    Confirmed,
    /// The segment may have items of other rules, because its repair began too early.
    TooEarly {
        /// The time from which on a repair has to begin.
        repair_from: OffsetDateTime,
    },
    /// The rules of the repair are not in use.
    Unused,
}

/// The recorded rules of the replicas.
#[derive(Debug, Clone)]
pub struct TransformHistory {
    bucket: S3Bucket,
}

impl TransformHistory {
    /// Creates a client of the records in the failure bucket.
    #[must_use]
    pub fn new(bucket: S3Bucket) -> Self {
        Self { bucket }
    }

    /// Returns the state of a replica whose rules have this digest; `None` if it stores items as they are.
    ///
    /// # Errors
    /// [`S3Error`] if the records cannot be listed.
    pub async fn state(&self, replica: &str, digest: Option<&str>) -> Result<TransformState, S3Error> {
        let objects = self.bucket.list(&format!("{PREFIX}{replica}/")).await?;
        Ok(state_of(replica, &objects, digest.unwrap_or(NO_RULES)))
    }

    /// Records that the replicator starts with these rules, and returns the state before.
    ///
    /// # Errors
    /// [`S3Error`] if the records cannot be listed or written.
    pub async fn record_start(&self, replica: &str, digest: Option<&str>) -> Result<TransformState, S3Error> {
        let state = self.state(replica, digest).await?;
        if state == TransformState::Unused {
            self.put(&format!("{PREFIX}{replica}/current/{}", digest.unwrap_or(NO_RULES))).await?;
        }
        Ok(state)
    }

    /// Records that a task writes with these rules, if they are not in use.
    ///
    /// # Errors
    /// [`S3Error`] if the records cannot be listed or written. The task must then not write.
    pub async fn record_write(&self, replica: &str, digest: Option<&str>) -> Result<(), S3Error> {
        if self.state(replica, digest).await? == TransformState::Unused {
            self.put(&format!("{PREFIX}{replica}/written/{}", digest.unwrap_or(NO_RULES))).await?;
        }
        Ok(())
    }

    /// Records that a repair which began at `began` has completed a segment with these rules. One that began too early is
    /// not recorded, nor is one with rules that the replicator has not started with.
    ///
    /// # Errors
    /// [`S3Error`] if the records cannot be listed or written.
    pub async fn record_repair(
        &self,
        replica: &str,
        digest: Option<&str>,
        ScanSegment { segment, total_segments }: ScanSegment,
        began: OffsetDateTime,
    ) -> Result<RepairRecord, S3Error> {
        match self.state(replica, digest).await? {
            TransformState::Confirmed => {}
            TransformState::Unused => return Ok(RepairRecord::Unused),
            TransformState::Unrepaired { repair_from } if began < repair_from => {
                return Ok(RepairRecord::TooEarly { repair_from });
            }
            TransformState::Unrepaired { .. } => {
                let digest = digest.unwrap_or(NO_RULES);
                let began = began.unix_timestamp();
                self.put(&format!("{PREFIX}{replica}/repaired/{digest}/{total_segments}-{segment}-{began}")).await?;
            }
        }
        Ok(RepairRecord::Confirmed)
    }

    /// Records that the replicator starts with these rules, or continues with them, and reports a replica that may
    /// contain items of other rules, in the log and by the metric `OutdatedReplicas`: at every start, and later only if
    /// other rules have been recorded meanwhile. A failure is also logged.
    ///
    /// # Errors
    /// The reason if the rules are not recorded by the deadline. The replicator must then not write with them: if it
    /// did, and started with the former rules again, these would count as confirmed.
    pub async fn report_rules(
        &self,
        replica: &str,
        digest: Option<&str>,
        is_start: bool,
        deadline: Instant,
    ) -> Result<(), String> {
        // The future of a request of the SDK is large.
        let error = match timeout_at(deadline, Box::pin(self.record_start(replica, digest))).await {
            Ok(Ok(TransformState::Confirmed)) => return Ok(()),
            Ok(Ok(TransformState::Unrepaired { .. })) if !is_start => return Ok(()),
            Ok(Ok(TransformState::Unrepaired { .. } | TransformState::Unused)) => {
                metric::OUTDATED_REPLICAS.increment([replica], 1);
                tracing::warn!(
                    sink = replica,
                    "the replica may contain items of other rules: run repair over all segments"
                );
                return Ok(());
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "S3 did not respond in time".to_owned(),
        };
        tracing::warn!(sink = replica, error, "cannot compare the rules of the replica with those of the last start");
        Err(error)
    }

    async fn put(&self, key: &str) -> Result<(), S3Error> {
        self.bucket.put(key, "application/json", b"{}".to_vec()).await
    }
}

/// Returns the state of a replica from its records.
fn state_of(replica: &str, objects: &[ObjectMeta], digest: &str) -> TransformState {
    let (current, repaired) = (format!("{PREFIX}{replica}/current/"), format!("{PREFIX}{replica}/repaired/{digest}/"));
    let written = format!("{PREFIX}{replica}/written/");
    let below =
        |prefix| objects.iter().filter_map(move |object| Some((object.modified?, object.key.strip_prefix(prefix)?)));
    let others = below(&*written).filter(|(_, others)| *others != digest).map(|(modified, _)| modified).max();
    // Of two at the same time, the other rules count.
    let latest = below(&*current).max_by_key(|(modified, started)| (*modified, *started != digest));
    let (since, started) = match latest {
        Some(latest) => latest,
        None if digest == NO_RULES && others.is_none() => return TransformState::Confirmed,
        None => return TransformState::Unused,
    };
    if started != digest {
        return TransformState::Unused;
    }
    let since = others.map_or(since, |others| others.max(since));
    let mut segments: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    let repair_from = since + OTHER_RULES_TIME;
    // The start of the repair decides, and not only the time of its record, because other rules may be recorded between
    // the comparison of a segment and its record.
    for (_, name) in below(&*repaired).filter(|(modified, _)| *modified >= since) {
        if let Some((total, segment, began)) = parse_segment(name)
            && began >= repair_from.unix_timestamp()
        {
            segments.entry(total).or_default().insert(segment);
        }
    }
    let is_complete = |(total, done): (&u32, &BTreeSet<u32>)| (0..*total).all(|segment| done.contains(&segment));
    if segments.iter().any(is_complete) {
        TransformState::Confirmed
    } else {
        TransformState::Unrepaired { repair_from }
    }
}

/// Parses the number of segments, the segment and the start of its repair from the name of a record.
fn parse_segment(name: &str) -> Option<(u32, u32, i64)> {
    let mut parts = name.splitn(3, '-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The objects with these keys and times in epoch seconds.
    fn objects(keys: &[(&str, i64)]) -> Vec<ObjectMeta> {
        let object = |(key, second): &(&str, i64)| ObjectMeta {
            key: format!("transforms/staging/{key}"),
            modified: OffsetDateTime::from_unix_timestamp(*second).ok(),
            size_bytes: 2,
        };
        keys.iter().map(object).collect()
    }

    fn state(keys: &[(&str, i64)], digest: &str) -> TransformState {
        state_of("staging", &objects(keys), digest)
    }

    /// The state since this second.
    fn unrepaired(second: i64) -> TransformState {
        TransformState::Unrepaired { repair_from: OffsetDateTime::from_unix_timestamp(second + 1_200).unwrap() }
    }

    #[test]
    fn repair_of_all_segments_confirms_the_rules() {
        let started = ("current/a", 1);
        assert_eq!(state(&[], "a"), TransformState::Unused);
        assert_eq!(state(&[started], "a"), unrepaired(1));
        assert_eq!(state(&[started, ("repaired/a/2-0-1201", 1_202)], "a"), unrepaired(1));
        let other_split = [started, ("repaired/a/2-0-1201", 1_202), ("repaired/a/3-1-1201", 1_202)];
        assert_eq!(state(&other_split, "a"), unrepaired(1));
        let other_rules = [started, ("repaired/b/1-0-1201", 1_202)];
        assert_eq!(state(&other_rules, "a"), unrepaired(1));
        let complete = [started, ("repaired/a/2-0-1201", 1_202), ("repaired/a/2-1-1500", 1_900)];
        assert_eq!(state(&complete, "a"), TransformState::Confirmed);
    }

    #[test]
    fn repair_that_began_too_early_does_not_confirm_the_rules() {
        for began in ["1-0-1200", "1-0-0", "1-0-", "1-0", "1-0--1"] {
            let key = format!("repaired/a/{began}");
            assert_eq!(state(&[("current/a", 1), (&key, 1_300)], "a"), unrepaired(1), "{began}");
        }
    }

    #[test]
    fn other_rules_in_between_require_another_repair() {
        let repaired = ("repaired/a/1-0-1201", 1_202);
        let changed = [("current/a", 1), repaired, ("current/b", 1_300)];
        assert_eq!(state(&changed, "a"), TransformState::Unused);
        assert_eq!(state(&changed, "b"), unrepaired(1_300));
        let set_again = [("current/a", 1_400), repaired, ("current/b", 1_300)];
        assert_eq!(state(&set_again, "a"), unrepaired(1_400));
        let at_once = [("current/a", 3), ("current/b", 3)];
        assert_eq!((state(&at_once, "a"), state(&at_once, "b")), (TransformState::Unused, TransformState::Unused));
    }

    #[test]
    fn other_rules_of_a_task_require_another_repair() {
        let repaired = [("current/a", 1), ("repaired/a/1-0-1300", 1_302)];
        let written = |rules, second| [&repaired[..], &[(rules, second)]].concat();
        assert_eq!(state(&written("written/b", 1_400), "a"), unrepaired(1_400));
        assert_eq!(state(&written("written/b", 1_400), "b"), TransformState::Unused);
        assert_eq!(state(&written("written/b", 100), "a"), TransformState::Confirmed);
        assert_eq!(state(&written("written/a", 1_400), "a"), TransformState::Confirmed);
        assert_eq!(state(&[("written/b", 3)], NO_RULES), TransformState::Unused);
        // While the segment was repaired, and in the second of its record.
        for second in [101, 1_301, 1_302] {
            assert_eq!(state(&written("written/b", second), "a"), unrepaired(second), "{second}");
        }
    }

    #[test]
    fn replica_without_rules_is_confirmed_unless_it_has_had_rules() {
        assert_eq!(state(&[], NO_RULES), TransformState::Confirmed);
        let removed = [("current/a", 1), ("repaired/a/1-0-1201", 1_202)];
        assert_eq!(state(&removed, NO_RULES), TransformState::Unused);
        let repaired = [("current/a", 1), ("current/none", 3), ("repaired/none/1-0-1203", 1_204)];
        assert_eq!(state(&repaired, NO_RULES), TransformState::Confirmed);
    }
}
