//! The records of the rules with which the items of a replica were written: [`TransformRecords`].
//!
//! After a change of the rules, of the key of a hash, or of the table, a replica still contains items of other rules,
//! until a repair over all segments has rewritten them. The digest of the rules and the table is therefore recorded in
//! the failure bucket when the replicator starts with it, before it writes with it, and a repair records each segment
//! that it has completed with this digest:
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

use time::OffsetDateTime;

/// The prefix of all objects.
pub const PREFIX: &str = "transforms/";
/// Replaces the digest of a replica that stores items as they are.
pub const NO_RULES: &str = "none";
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

/// The records of one replica.
#[derive(Debug)]
pub struct TransformRecords<'o> {
    /// The time of each object, and its key after the name of the replica.
    objects: Vec<(OffsetDateTime, &'o str)>,
}

impl<'o> TransformRecords<'o> {
    /// Selects the records of a replica from objects, each with its key and the time of its last write.
    pub fn new(replica: &str, objects: impl IntoIterator<Item = (&'o str, Option<OffsetDateTime>)>) -> Self {
        let own = |(key, modified): (&'o str, Option<OffsetDateTime>)| {
            let name = key.strip_prefix(PREFIX)?.strip_prefix(replica)?.strip_prefix('/')?;
            Some((modified?, name))
        };
        Self { objects: objects.into_iter().filter_map(own).collect() }
    }

    /// Returns the objects below a folder, each with its time and its name.
    fn below<'s>(&'s self, folder: &'s str) -> impl Iterator<Item = (OffsetDateTime, &'o str)> + 's {
        self.objects.iter().filter_map(move |(modified, name)| Some((*modified, name.strip_prefix(folder)?)))
    }

    /// Returns the digest of the rules with which the replicator started last, or [`NO_RULES`]; `None` if it has recorded
    /// none.
    #[must_use]
    pub fn rules_in_use(&self) -> Option<&'o str> {
        self.below("current/").max().map(|(_, digest)| digest)
    }

    /// Returns the state of the replica if its rules have this digest.
    #[must_use]
    pub fn state(&self, digest: &str) -> TransformState {
        let others = self.below("written/").filter(|(_, others)| *others != digest).map(|(modified, _)| modified).max();
        // Of two at the same time, the other rules count.
        let latest = self.below("current/").max_by_key(|(modified, started)| (*modified, *started != digest));
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
        let repaired = format!("repaired/{digest}/");
        // The start of the repair decides, and not only the time of its record, because other rules may be recorded
        // between the comparison of a segment and its record.
        for (_, name) in self.below(&repaired).filter(|(modified, _)| *modified >= since) {
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
}

/// Parses the number of segments, the segment and the start of its repair from the name of a record.
fn parse_segment(name: &str) -> Option<(u32, u32, i64)> {
    let mut parts = name.splitn(3, '-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The state of the replica `staging` with these objects, each with its time in epoch seconds.
    fn state(keys: &[(&str, i64)], digest: &str) -> TransformState {
        let keys: Vec<_> = keys.iter().map(|(key, second)| (format!("transforms/staging/{key}"), *second)).collect();
        let objects =
            keys.iter().map(|(key, second)| (key.as_str(), OffsetDateTime::from_unix_timestamp(*second).ok()));
        TransformRecords::new("staging", objects).state(digest)
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

    #[test]
    fn latest_start_names_the_rules_in_use() {
        let at = |second| OffsetDateTime::from_unix_timestamp(second).ok();
        let objects = [
            ("transforms/staging/current/a", at(1)),
            ("transforms/staging/current/b", at(2)),
            ("transforms/staging/written/c", at(3)),
            ("transforms/staging-2/current/d", at(4)),
            ("reports/staging/current/e", at(5)),
        ];
        assert_eq!(TransformRecords::new("staging", objects).rules_in_use(), Some("b"));
        assert_eq!(TransformRecords::new("other", objects).rules_in_use(), None);
    }
}
