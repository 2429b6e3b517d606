//! Writes rows with one statement for all of them, and locates the rows that make it fail.

use std::collections::HashMap;

use millrace_shared::change::CanonicalKey;
use millrace_shared::postgres::{PostgresError, PostgresErrorKind};
use tokio::time::Instant;
use tokio_postgres::error::SqlState;

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
    pub(super) places: Vec<usize>,
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

/// Returns whether the error may be that of a single row: a value that cannot be stored, or one that is too long for an
/// index (SQLSTATE 54000).
pub(super) fn is_row_error(fault: &PostgresError) -> bool {
    let is_index_limit =
        matches!(&fault.kind, PostgresErrorKind::Refused(code) if *code == SqlState::PROGRAM_LIMIT_EXCEEDED);
    fault.is_data_error() || is_index_limit
}

impl PostgresSink {
    /// Writes these rows, which must be sorted by their keys: all at once if possible, and by bisection if the server
    /// reports an error about a value.
    pub(super) async fn write(&self, rows: &[TableRow<'_>], over: UpsertMode, until: Instant) -> UpsertOutput {
        let mut written = UpsertOutput::default();
        let mut open = if rows.is_empty() { Vec::new() } else { vec![rows] };
        let mut trusted = false;
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
                match if trusted { Ok(()) } else { self.probe_insert(until).await } {
                    Ok(()) => {
                        trusted = true;
                        written.left.extend(rows.iter().map(|row| (row.index, RowFailure::Poison(reason.clone()))));
                        continue;
                    }
                    Err(ServingError::Broken(why) | ServingError::Transient(why)) => reason = why,
                }
            }
            // The remaining rows would fail with the same error.
            let left = open.drain(..).chain([rows]).flatten();
            written.left.extend(left.map(|row| (row.index, RowFailure::Fault(reason.clone()))));
        }
        written
    }

    async fn write_at_once(
        &self,
        rows: &[TableRow<'_>],
        over: UpsertMode,
        until: Instant,
        written: &mut UpsertOutput,
    ) -> Result<(), PostgresError> {
        let (lists, statements) = (&RowArrays::of(&self.form, rows), &self.form.statements);
        let asked = self.database.run(until, |session| async move {
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
        let answered = asked.await?;
        if let (UpsertMode::Lower, Some(row)) = (over, answered.first()) {
            written.counts.add(row, rows.len());
            return Ok(());
        }
        let places: HashMap<&CanonicalKey, usize> = rows.iter().map(|row| (row.key, row.index)).collect();
        let index = |row: &tokio_postgres::Row| places.get(&self.key_of(row).ok()?).copied();
        written.places.extend(answered.iter().filter_map(index));
        Ok(())
    }
}
