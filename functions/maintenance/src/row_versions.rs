//! The archived versions of each key, sorted by revision and deduplicated: [`VersionsByKey`].

use std::collections::BTreeMap;

use millrace_archive::ArchivedRow;
use millrace_shared::change::CanonicalKey;

use crate::archive_scan::{ArchiveScanError, MemoryBudget};

/// Selects the rows of a key that are retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionFilter {
    /// The row with the highest revision.
    Latest,
    /// All rows.
    All,
}

/// Rows grouped by key.
#[derive(Debug, Default)]
pub struct VersionsByKey(BTreeMap<CanonicalKey, Vec<ArchivedRow>>);

impl VersionsByKey {
    /// Adds the rows of an object.
    ///
    /// # Errors
    /// Never fails: it only releases memory, and retains no row that was not counted when it was read.
    pub fn add(
        &mut self,
        rows: Vec<ArchivedRow>,
        which: VersionFilter,
        held: &mut MemoryBudget,
    ) -> Result<(), ArchiveScanError> {
        for row in rows {
            let facts = self.0.entry(row.key.clone()).or_default();
            match facts.binary_search_by(|fact| fact.revision.cmp(&row.revision)) {
                Ok(_) => held.shrink(&row),
                Err(position) => facts.insert(position, row),
            }
            if which == VersionFilter::Latest && facts.len() > 1 {
                held.shrink(&facts.remove(0));
            }
        }
        Ok(())
    }

    /// Returns the keys and their rows, in order.
    #[must_use]
    pub fn into_keys(self) -> Vec<(CanonicalKey, Vec<ArchivedRow>)> {
        self.0.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use millrace_archive::ItemText;
    use millrace_shared::revision::Revision;
    use serde_json::value::RawValue;
    use time::OffsetDateTime;

    use super::*;

    fn row(user: &str, number: u32) -> ArchivedRow {
        let item = format!(r#"{{"k":{{"S":"{user}"}}}}"#);
        ArchivedRow {
            key: CanonicalKey::parse(&item).unwrap(),
            revision: Revision::parse(&format!("2026-01-01T00:00:00.000#{number}")).unwrap(),
            removed_at: OffsetDateTime::UNIX_EPOCH,
            event_id: None,
            item: ItemText::from_json(&RawValue::from_string(item).unwrap()).unwrap(),
        }
    }

    fn item_texts(which: VersionFilter) -> Vec<Vec<String>> {
        let (mut facts, mut held) = (VersionsByKey::default(), MemoryBudget::default());
        facts.add(vec![row("a", 9), row("b", 1)], which, &mut held).unwrap();
        facts.add(vec![row("a", 10), row("a", 9), row("a", 8)], which, &mut held).unwrap();
        let numbers = |rows: Vec<ArchivedRow>| rows.iter().map(|row| row.revision.sequence().to_string()).collect();
        facts.into_keys().into_iter().map(|(_, rows)| numbers(rows)).collect()
    }

    #[test]
    fn the_latest_is_the_highest_as_a_number_whatever_order_the_objects_come_in() {
        assert_eq!(item_texts(VersionFilter::Latest), [["10"], ["1"]]);
    }

    #[test]
    fn all_versions_are_returned_once_in_order_of_age() {
        assert_eq!(item_texts(VersionFilter::All), [vec!["8", "9", "10"], vec!["1"]]);
    }
}
