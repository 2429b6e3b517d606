//! The last stream records as text, so that they can be delivered again or out of order: [`RecentRecords`].

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// The maximum number of records.
const RECORDS: usize = 64;
/// The maximum number of bytes of all records.
const BYTES: usize = 2 * 1024 * 1024;

/// The last records, oldest first, each with the canonical key of its item.
#[derive(Debug, Clone, Default)]
pub struct RecentRecords {
    records: VecDeque<(String, Arc<str>)>,
    bytes: usize,
}

impl RecentRecords {
    pub(super) fn push(&mut self, key: String, record: Arc<str>) {
        if record.len() > BYTES || self.records.iter().any(|(_, known)| *known == record) {
            return;
        }
        self.bytes += record.len();
        self.records.push_back((key, record));
        while self.records.len() > RECORDS || self.bytes > BYTES {
            let Some((_, oldest)) = self.records.pop_front() else { return };
            self.bytes -= oldest.len();
        }
    }

    /// Returns the last records, at most `most`, in the order of the stream.
    #[must_use]
    pub fn last(&self, most: usize) -> Vec<Arc<str>> {
        let skipped = self.records.len().saturating_sub(most);
        self.records.iter().skip(skipped).map(|(_, record)| Arc::clone(record)).collect()
    }

    /// Returns the oldest retained record of the item that changed last among those with several retained records: a
    /// record that is older than the state of its item.
    #[must_use]
    pub fn outdated(&self) -> Option<(&str, Arc<str>)> {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        self.records.iter().for_each(|(key, _)| *seen.entry(key).or_default() += 1);
        let (key, _) =
            self.records.iter().rev().find(|(key, _)| seen.get(key.as_str()).is_some_and(|count| *count > 1))?;
        let (key, record) = self.records.iter().find(|(other, _)| other == key)?;
        Some((key, Arc::clone(record)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_bounded_by_number_and_bytes() {
        let mut recent = RecentRecords::default();
        (0..500).for_each(|n| recent.push("k".to_owned(), n.to_string().into()));
        assert_eq!((recent.records.len(), recent.last(2)), (RECORDS, vec![Arc::from("498"), Arc::from("499")]));
        (0..9).for_each(|n| recent.push("k".to_owned(), format!("{n}{}", "x".repeat(BYTES / 4)).into()));
        assert!(recent.bytes <= BYTES && recent.records.len() <= 4);
        recent.push("k".to_owned(), "x".repeat(BYTES + 1).into());
        assert!(recent.bytes <= BYTES);
    }

    #[test]
    fn outdated_record_belongs_to_an_item_that_changed_later() {
        let mut recent = RecentRecords::default();
        recent.push("a".to_owned(), "a1".into());
        recent.push("b".to_owned(), "b1".into());
        assert!(recent.outdated().is_none());
        recent.push("a".to_owned(), "a2".into());
        recent.push("a".to_owned(), "a2".into());
        assert_eq!(recent.outdated(), Some(("a", Arc::from("a1"))));
    }
}
