//! Writes rows with one statement for all of them, and locates the rows that make it fail.

use std::collections::HashMap;

use millrace_shared::change::CanonicalKey;
use millrace_shared::postgres::PostgresError;
use tokio::time::Instant;

use super::rejection::{RejectedRows, is_row_error};
use super::row::{RowArrays, TableRow};
use super::{PostgresSink, ServingError};

/// The condition on the stored rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UpsertMode {
    /// No row, or a row with a lower revision: the revision guard.
    Lower,
    /// No row.
    IfAbsent,
    /// Exactly the revisions that the rows expect.
    Expected,
}

/// The result of writing rows.
#[derive(Debug, Default)]
pub(super) struct UpsertOutput {
    /// The counts of rows that the guard accepted and rejected.
    pub(super) counts: UpsertCounts,
    /// The indexes of the rows written with [`UpsertMode::IfAbsent`] or [`UpsertMode::Expected`].
    pub(super) positions: Vec<usize>,
    /// A lower bound of the number of these rows that are items, as opposed to tombstones.
    pub(super) items: usize,
    /// The indexes of the rows that were not written, or may not have been, each with the error.
    pub(super) left: Vec<(usize, RowFailure)>,
}

/// The result of the revision guard.
#[derive(Debug, Default)]
pub(super) struct UpsertCounts {
    pub(super) applied: usize,
    pub(super) tombstones: usize,
    pub(super) duplicate: usize,
    pub(super) stale: usize,
}

impl UpsertCounts {
    /// Returns the number of items that were written.
    fn items(&self) -> usize {
        self.applied.saturating_sub(self.tombstones)
    }

    /// Adds the counts that the statement returned for `rows` rows.
    fn add(&mut self, answered: &tokio_postgres::Row, rows: usize) {
        let count = |index: usize| answered.try_get::<_, i64>(index).ok().and_then(|count| usize::try_from(count).ok());
        let [applied, tombstones, duplicate] = [0, 1, 2].map(|index| count(index).unwrap_or_default());
        // A tombstone that was purged while the statement ran may be counted twice.
        let duplicate = duplicate.min(rows.saturating_sub(applied));
        self.applied += applied;
        self.tombstones += tombstones;
        self.duplicate += duplicate;
        self.stale += rows.saturating_sub(applied + duplicate);
    }
}

/// An error of a row that was not written.
#[derive(Debug, Clone)]
pub(super) enum RowFailure {
    /// The server cannot store the row.
    Poison(String),
    /// A retry may succeed.
    Fault(String),
}

impl PostgresSink {
    /// Writes these rows, which must be sorted by their keys: all at once if possible, and by bisection if the server
    /// reports an error about a value.
    pub(super) async fn write(&self, rows: &[TableRow<'_>], over: UpsertMode, until: Instant) -> UpsertOutput {
        let mut written = UpsertOutput::default();
        let mut open = if rows.is_empty() { Vec::new() } else { vec![rows] };
        // The rows that the server rejected one by one, and the last of the errors of items.
        let (mut rejected, mut rejected_item) = (Vec::new(), None);
        while let Some(rows) = open.pop() {
            let Err(fault) = self.write_at_once(rows, over, until, &mut written).await else { continue };
            if is_row_error(&fault) && rows.len() > 1 {
                let (low, high) = rows.split_at(rows.len() / 2);
                open.extend([high, low]);
                continue;
            }
            let mut reason = fault.to_string();
            if is_row_error(&fault) {
                // Find out whether this row is invalid, or whether the table would accept no row at all.
                match if rejected.is_empty() { self.probe_tombstone(until).await } else { Ok(()) } {
                    Ok(()) => {
                        rejected.extend(rows.iter().map(|row| (row.index, row.has_item(), reason.clone())));
                        if rows.iter().any(TableRow::has_item) {
                            rejected_item = Some(fault);
                        }
                        continue;
                    }
                    Err(ServingError::Misconfigured(why) | ServingError::Transient(why)) => reason = why,
                }
            }
            // The remaining rows would fail with the same error.
            let left = open.drain(..).chain([rows]).flatten();
            written.left.extend(left.map(|row| (row.index, RowFailure::Fault(reason.clone()))));
        }
        let misfit = match rejected_item {
            Some(fault) if written.items + written.counts.items() == 0 => self.misfit_of_items(&fault, until).await,
            _ => None,
        };
        written.left.extend(rejected.into_iter().map(|(index, has_item, reason)| match &misfit {
            Some(misfit) if has_item => (index, RowFailure::Fault(misfit.clone())),
            _ => (index, RowFailure::Poison(reason)),
        }));
        written
    }

    /// Returns the error of a table that accepts no item: none of this batch, and none of those that it has.
    async fn misfit_of_items(&self, fault: &PostgresError, until: Instant) -> Option<String> {
        match self.accepts_other_items(fault, until).await {
            Ok(true) => None,
            Ok(false) => Some(self.describe_rejection(RejectedRows::Items, fault, until).await),
            Err(fault) => Some(fault.to_string()),
        }
    }

    async fn write_at_once(
        &self,
        rows: &[TableRow<'_>],
        over: UpsertMode,
        until: Instant,
        written: &mut UpsertOutput,
    ) -> Result<(), PostgresError> {
        let (lists, statements) = (&RowArrays::from_rows(&self.layout, rows), &self.layout.statements);
        let query = self.database.run(until, |session| async move {
            let (sql, expecting) = match over {
                UpsertMode::Lower => (&statements.apply, false),
                UpsertMode::IfAbsent => (&statements.insert, false),
                UpsertMode::Expected => (&statements.replace, true),
            };
            let statement = session.statement(sql).await?;
            let client = session.client();
            if expecting {
                client.query(&statement, &lists.expecting()).await
            } else {
                client.query(&statement, &lists.parameters()).await
            }
        });
        let answered = query.await?;
        if let (UpsertMode::Lower, Some(row)) = (over, answered.first()) {
            written.counts.add(row, rows.len());
            return Ok(());
        }
        let positions: HashMap<&CanonicalKey, usize> = rows.iter().map(|row| (row.key, row.index)).collect();
        let index = |row: &tokio_postgres::Row| positions.get(&self.key_of(row).ok()?).copied();
        written.positions.extend(answered.iter().filter_map(index));
        let tombstones = rows.iter().filter(|row| !row.has_item()).count();
        written.items += answered.len().saturating_sub(tombstones);
        Ok(())
    }
}
