//! Counts of the events that occurred in a set of scenarios: scenarios without delayed writes verify nothing about
//! them.

use std::collections::BTreeMap;
use std::fmt;

/// Counts by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Coverage(BTreeMap<&'static str, u64>);

impl Coverage {
    pub(super) fn see(&mut self, what: &'static str) {
        self.see_many(what, 1);
    }

    pub(super) fn see_many(&mut self, what: &'static str, times: usize) {
        if times > 0 {
            *self.0.entry(what).or_default() += times as u64;
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (what, times) in &other.0 {
            *self.0.entry(what).or_default() += times;
        }
    }

    /// Returns the `names` that never occurred.
    pub(super) fn missing(&self, names: &[&'static str]) -> Vec<&'static str> {
        names.iter().copied().filter(|name| !self.0.contains_key(name)).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, times)| writeln!(f, "{times:>12}  {what}"))
    }
}

/// The events that must occur in a few thousand scenarios.
pub(super) const EXPECTED: &[&str] = &[
    "write: plain",
    "write: changes nothing",
    "write: reserved attribute",
    "write: too large for one sink",
    "write: unreadable record",
    "write: recreates a deleted item",
    "delete",
    "expiry",
    "expiry: unarchivable",
    "delivery",
    "delivery: answered in part",
    "delivery: crashed",
    "delivery: response lost",
    "delivery: time up",
    "delivery again",
    "delivery again: of a prefix",
    "delivery again: reordered across items",
    "given up: age",
    "given up: retries",
    "given up: not recorded",
    "sink: applied",
    "sink: duplicate",
    "sink: stale",
    "sink: spared what it had confirmed",
    "sink: tombstone",
    "sink: tombstone held off a late write",
    "sink: written beside the stream",
    "sink: refused beside the stream",
    "trouble: refused",
    "trouble: throttled",
    "trouble: cut before",
    "trouble: response lost",
    "trouble: zombie",
    "trouble: silence",
    "trouble: silence after landing",
    "trouble: left unread",
    "zombie: left by a crash",
    "zombie: landed",
    "shard: split",
    "shard: drained and its children read",
    "stream: re-created, the old one drained",
    "stream: re-created, the old one lost",
    "stream: gap",
    "replica: lost",
    "tombstones: expired",
    "backfill",
    "repair",
    "repair: left an item",
    "redrive",
    "redrive: by one that does not know a sink",
    "redrive: after the tombstone expired",
    "redrive: left a failure",
    "redrive: rows for the archive",
    "redrive: moved a failure below redriven",
    "maintenance: crashed",
    "task: interrupted",
    "task: continued from its cursor",
    "task: retried after a failed invocation",
    "source: a page after another",
    "quarantine: put",
    "archive: put",
    "archive: a row in two objects",
    "archive sink: a removal superseded in its batch",
    "archive sink: poison",
    "rules: a tombstone of an item in the source",
    "rules: an item that was never stored",
];
