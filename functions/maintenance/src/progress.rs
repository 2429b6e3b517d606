//! The progress of a task, in counts that add up over invocations and segments.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Counts by name, e.g. `source.items` or `dynamodb.missing`; an absent name has the count 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskProgress(BTreeMap<String, u64>);

impl TaskProgress {
    /// Adds `more` to a count.
    pub fn count(&mut self, name: impl Into<String>, more: usize) {
        if more > 0 {
            *self.0.entry(name.into()).or_default() += more as u64;
        }
    }

    /// Adds all counts of another part.
    pub fn add(&mut self, part: &Self) {
        for (name, count) in &part.0 {
            *self.0.entry(name.clone()).or_default() += count;
        }
    }

    /// Returns a count.
    #[must_use]
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Returns the sum of all counts whose names have this ending, e.g. `.missing` for all sinks.
    #[must_use]
    pub fn sum(&self, ending: &str) -> u64 {
        self.0.iter().filter(|(name, _)| name.ends_with(ending)).map(|(_, count)| count).sum()
    }
}

/// The meaning of a count for the result of the task. The exit code is computed from it, never from the count's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountOutcome {
    /// Items that were processed, or a number that needs no attention.
    Success,
    /// Differences that were found and that this task does not repair.
    Difference,
    /// Items or objects that were not processed or cannot be read; in a dry run, those that would not be processed.
    NotProcessed,
}

/// The numbers of counted items that need attention.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProblemCounts {
    /// The differences that were found and not repaired.
    pub differences: u64,
    /// The differences, plus the items and objects that were not processed.
    pub problems: u64,
}

impl ProblemCounts {
    /// Counts `more` items with this outcome.
    pub fn count(&mut self, outcome: CountOutcome, more: usize) {
        let more = more as u64;
        match outcome {
            CountOutcome::Success => {}
            CountOutcome::Difference => self.add(Self { differences: more, problems: more }),
            CountOutcome::NotProcessed => self.problems += more,
        }
    }

    /// Adds the counts of another part.
    pub fn add(&mut self, part: Self) {
        self.differences += part.differences;
        self.problems += part.problems;
    }
}

impl fmt::Display for TaskProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (name, count)) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { ", " };
            write!(f, "{comma}{name} {count}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problem_counts_are_of_differences_and_of_what_was_not_processed() {
        let mut counts = ProblemCounts::default();
        counts.count(CountOutcome::Success, 100);
        assert_eq!(counts, ProblemCounts::default());
        counts.count(CountOutcome::Difference, 2);
        counts.count(CountOutcome::NotProcessed, 3);
        counts.add(ProblemCounts { differences: 1, problems: 4 });
        assert_eq!(counts, ProblemCounts { differences: 3, problems: 9 });
    }

    #[test]
    fn parts_add_up() {
        let (mut one, mut other) = (TaskProgress::default(), TaskProgress::default());
        one.count("source.items", 3);
        one.count("dynamodb.missing", 0);
        other.count("source.items", 4);
        other.count("dynamodb.missing", 1);
        other.count("postgres.missing", 2);
        one.add(&other);
        assert_eq!(one.to_string(), "dynamodb.missing 1, postgres.missing 2, source.items 7");
        assert_eq!((one.get("source.items"), one.get("absent"), one.sum(".missing")), (7, 0, 3));
    }
}
