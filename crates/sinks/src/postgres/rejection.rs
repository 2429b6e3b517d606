//! Rows that the server rejects: whether the record is invalid, or the table accepts none.
//!
//! The table may have more than the sink has declared: columns, constraints, generated columns and triggers of the
//! operator. They may reject one record, which is that record's error, or every record, which is a misconfiguration. The
//! difference is shown by rows that the table accepts: others of the same batch, or copies of items that it has
//! ([`TableStatements::probe_stored`](super::statement::TableStatements)). Every probe is rolled back.
//!
//! A table without items has no copies, and an item without attributes may be the only one that it rejects. At the start,
//! such a rejection is an error only if it does not depend on the item; otherwise the first batch decides.

use millrace_shared::postgres::{PostgresError, PostgresErrorKind};
use tokio::time::Instant;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use super::{PostgresSink, ServingError, statement};
use crate::document::{SEARCH_COLUMNS, SqlIdentifier};

/// The columns of the constraint `$2` of the table `$1`.
const CONSTRAINT_COLUMNS: &str = "select array(select attribute.attname::text from unnest(found.conkey) as attnum \
    join pg_attribute attribute using (attnum) where attribute.attrelid = found.conrelid order by attnum) \
    from pg_constraint found join pg_class on pg_class.oid = found.conrelid \
    where relnamespace = 'public'::regnamespace and relname = $1 and conname = $2";

/// The generated columns of the table `$1` that are not among `$2`.
const GENERATED_COLUMNS: &str = "select coalesce(array_agg(attname::text order by attnum), '{}') \
    from pg_attribute join pg_class on pg_class.oid = attrelid where relnamespace = 'public'::regnamespace \
    and relname = $1 and attgenerated <> '' and not attisdropped and attname <> all ($2)";

/// The rows that a table rejects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RejectedRows {
    /// Every row, even a tombstone.
    All,
    /// Every item.
    Items,
}

/// Returns whether the error may be that of a single row: a value that cannot be stored, or one that is too long for an
/// index (SQLSTATE 54000).
pub(super) fn is_row_error(fault: &PostgresError) -> bool {
    fault.is_data_error() || is_index_limit(fault)
}

fn is_index_limit(fault: &PostgresError) -> bool {
    matches!(&fault.kind, PostgresErrorKind::Refused(code) if *code == SqlState::PROGRAM_LIMIT_EXCEEDED)
}

impl PostgresSink {
    /// Checks whether the table accepts a tombstone and an item.
    pub(super) async fn probe_rows(&self, until: Instant) -> Result<(), ServingError> {
        self.probe_tombstone(until).await?;
        match self.probe(&self.layout.statements.probe_item, until).await {
            Ok(_) => Ok(()),
            Err(fault) if self.may_accept_other_items(&fault, until).await? => Ok(()),
            Err(fault) => Err(self.rejection(RejectedRows::Items, fault, until).await),
        }
    }

    /// Returns whether the table may accept an item although it rejects one without attributes: it has no items, and the
    /// rejection depends on the values of the item.
    async fn may_accept_other_items(&self, fault: &PostgresError, until: Instant) -> Result<bool, PostgresError> {
        let is_by_trigger =
            matches!(&fault.kind, PostgresErrorKind::Refused(code) if *code == SqlState::RAISE_EXCEPTION);
        if !is_by_trigger && (!is_row_error(fault) || !self.depends_on_item(fault, until).await?) {
            return Ok(false);
        }
        let sql = self.layout.statements.sample.as_str();
        let items = self.database.run(until, |session| async move { session.client().query(sql, &[]).await }).await?;
        Ok(items.is_empty())
    }

    /// Returns whether the part of the table that rejected a row concerns only columns whose values the item gives: those
    /// that the sink writes, and generated ones. Any other column has the same value in every row, so that a constraint
    /// which concerns one, too, is reported at the start although some items may meet it.
    async fn depends_on_item(&self, fault: &PostgresError, until: Instant) -> Result<bool, PostgresError> {
        let rejecting = match (&fault.rejected_by.column, &fault.rejected_by.constraint) {
            (Some(column), None) => vec![column.clone()],
            (_, Some(constraint)) => match self.read_names(CONSTRAINT_COLUMNS, constraint, until).await? {
                Some(columns) => columns,
                None => return Ok(false),
            },
            // The expression of a generated column, or a trigger, cannot process the item.
            (None, None) => return Ok(true),
        };
        let declared = self.layout.columns.definitions().iter().map(|column| column.name.as_str());
        let written: Vec<&str> = declared.chain(statement::own_columns()).collect();
        let generated = self.read_names(GENERATED_COLUMNS, &written, until).await?.unwrap_or_default();
        Ok(rejecting.iter().all(|column| written.contains(&column.as_str()) || generated.contains(column)))
    }

    /// Checks whether the table accepts a tombstone, which has no value of an item.
    pub(super) async fn probe_tombstone(&self, until: Instant) -> Result<(), ServingError> {
        match self.probe(&self.layout.statements.probe_tombstone, until).await {
            Ok(_) => Ok(()),
            Err(fault) => Err(self.rejection(RejectedRows::All, fault, until).await),
        }
    }

    /// Returns whether the table would accept an item that it has once more. A table without an item accepts none.
    async fn accepts_stored_items(&self, until: Instant) -> Result<bool, PostgresError> {
        self.probe(&self.layout.statements.probe_stored, until).await
    }

    /// Returns whether the table would accept an item although it rejects this one. A value that is too long for an index
    /// is the item's own error as soon as the table accepts an empty item.
    pub(super) async fn accepts_other_items(
        &self,
        fault: &PostgresError,
        until: Instant,
    ) -> Result<bool, PostgresError> {
        Ok(self.accepts_stored_items(until).await?
            || (is_index_limit(fault) && self.probe(&self.layout.statements.probe_item, until).await.is_ok()))
    }

    /// Returns whether the row of a probe was accepted.
    async fn probe(&self, sql: &str, until: Instant) -> Result<bool, PostgresError> {
        let probed = self.database.run(until, |session| async move { session.client().batch_execute(sql).await });
        match probed.await {
            Err(fault) if matches!(&fault.kind, PostgresErrorKind::Refused(code) if code.code() == statement::PROBED) => {
                Ok(true)
            }
            Err(fault) => Err(fault),
            Ok(()) => Ok(false),
        }
    }

    async fn rejection(&self, rows: RejectedRows, fault: PostgresError, until: Instant) -> ServingError {
        if is_row_error(&fault) {
            ServingError::Misconfigured(self.describe_rejection(rows, &fault, until).await)
        } else {
            fault.into()
        }
    }

    /// Returns the error of a table that rejects all of these rows, with the column and the fix.
    pub(super) async fn describe_rejection(&self, rows: RejectedRows, fault: &PostgresError, until: Instant) -> String {
        let name = &self.layout.table;
        let table = format!("public.{}", name.quoted());
        let what = match rows {
            RejectedRows::All => "row",
            RejectedRows::Items => "item",
        };
        let cause = match (&fault.rejected_by.column, &fault.rejected_by.constraint) {
            (Some(column), None) => format!(
                "its column {column:?} must not be null, and has no default value; run: alter table {table} alter column \
                 {} drop not null",
                quoted(column)
            ),
            (_, Some(constraint)) => {
                let columns = self.names(CONSTRAINT_COLUMNS, constraint, until).await;
                let drop = if columns.is_some() {
                    format!("alter table {table} drop constraint {}", quoted(constraint))
                } else {
                    format!("drop index public.{}", quoted(constraint))
                };
                format!("its constraint {constraint:?}{} rejects it; run: {drop}", listed(columns.as_deref()))
            }
            (None, None) => {
                let declared = self.layout.columns.definitions().iter().map(|column| column.name.as_str());
                let declared: Vec<&str> = declared.chain(SEARCH_COLUMNS).collect();
                match self.names(GENERATED_COLUMNS, &declared, until).await.unwrap_or_default().as_slice() {
                    [] => "check its triggers and the types of the columns that were added to it".to_owned(),
                    [column] => format!(
                        "check its generated column {column:?}, or run: alter table {table} drop column {}",
                        quoted(column)
                    ),
                    several => format!("check its generated columns {}", several.join(", ")),
                }
            }
        };
        format!("{fault}: the table {name} rejects every {what}, so no record is at fault: {cause}")
    }

    /// Returns the names that a query of the catalog for the table and this parameter finds; `None` if it finds no row.
    async fn names(&self, sql: &str, parameter: &(dyn ToSql + Sync), until: Instant) -> Option<Vec<String>> {
        // Without the names, the message is shorter.
        self.read_names(sql, parameter, until).await.ok().flatten()
    }

    async fn read_names(
        &self,
        sql: &str,
        parameter: &(dyn ToSql + Sync),
        until: Instant,
    ) -> Result<Option<Vec<String>>, PostgresError> {
        let table = &self.layout.table.as_str();
        let query = self
            .database
            .run(until, |session| async move { session.client().query_opt(sql, &[table, parameter]).await });
        Ok(query.await?.and_then(|row| row.try_get(0).ok()))
    }
}

fn quoted(name: &str) -> String {
    // A name of the catalog is valid, so the error is impossible.
    SqlIdentifier::parse(name, usize::MAX).map(|name| name.quoted()).unwrap_or_default()
}

/// Returns the columns as a part of a sentence.
fn listed(columns: Option<&[String]>) -> String {
    let quoted: Vec<_> = columns.unwrap_or_default().iter().map(|name| format!("{name:?}")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [column] => format!(" on the column {column}"),
        several => format!(" on the columns {}", several.join(", ")),
    }
}
