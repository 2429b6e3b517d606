//! The PostgreSQL replica for maintenance: read back, scanned, and written independently of the stream.

use futures::FutureExt;
use futures::future::BoxFuture;
use millrace_shared::change::CanonicalKey;
use millrace_shared::invocation::Invocation;
use millrace_shared::postgres::{PostgresError, PostgresErrorKind};
use millrace_shared::raw_item::RawItem;
use millrace_shared::replica_item::{ReplicaItem, ReplicaState};
use millrace_shared::revision::Revision;
use millrace_shared::table_reader::ScanSegment;
use time::OffsetDateTime;
use tokio::time::{Duration, Instant};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::PostgresSink;
use super::rejection::is_row_error;
use super::row::{RowArrays, TableRow};
use super::write::{RowFailure, UpsertMode};
use crate::{Replica, ReplicaPage, ReplicaReadError, ReplicaReadOutput, ReplicaWrite, WriteResult};

/// With items of 400 KB, the maximum, this is some 100 MB.
const PAGE_ROWS: i64 = 250;
/// A read has no deadline argument: callers check the time between pages.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

impl Replica for PostgresSink {
    fn read<'s>(&'s self, keys: &'s [CanonicalKey]) -> BoxFuture<'s, Result<ReplicaReadOutput, ReplicaReadError>> {
        async move {
            // A key that this table cannot store is not in it.
            let known: Vec<(usize, &CanonicalKey)> =
                keys.iter().enumerate().filter(|(_, key)| self.layout.check_key(key).is_ok()).collect();
            let texts: &Vec<&str> = &known.iter().map(|(_, key)| key.as_str()).collect();
            let query = self.database.run(Instant::now() + READ_TIMEOUT, |session| async move {
                let statement = session.statement(&self.layout.statements.read).await?;
                session.client().query(&statement, &[texts]).await
            });
            let rows = query.await.map_err(|fault| self.unread_fault(fault))?;
            let mut held = Vec::with_capacity(rows.len());
            let mut positions = Vec::with_capacity(rows.len());
            for row in &rows {
                let position: i64 = row.try_get(0).map_err(|error| self.unread(&error))?;
                let position = usize::try_from(position - 1).ok().and_then(|position| known.get(position));
                if let Some((index, key)) = position {
                    positions.push(*index);
                    held.push(((*key).clone(), self.replica_item(row, 1)?));
                }
            }
            self.mark_differing(&mut held, &rows, 2).await?;
            let mut found: Vec<Option<ReplicaItem>> = keys.iter().map(|_| None).collect();
            for (position, (_, held)) in positions.into_iter().zip(held) {
                found[position] = Some(held);
            }
            Ok(ReplicaReadOutput { items: found, units: 0.0 })
        }
        .boxed()
    }

    fn scan<'s>(
        &'s self,
        segment: ScanSegment,
        after: Option<&'s CanonicalKey>,
    ) -> BoxFuture<'s, Result<ReplicaPage, ReplicaReadError>> {
        async move {
            let (from, to) = hashes(segment);
            let after = &after.map(CanonicalKey::as_str);
            let query = self.database.run(Instant::now() + READ_TIMEOUT, |session| async move {
                let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&from, &to, &PAGE_ROWS];
                let statement = match after {
                    Some(key) => {
                        parameters.push(key);
                        session.statement(&self.layout.statements.scan_next_page).await?
                    }
                    None => session.statement(&self.layout.statements.scan).await?,
                };
                session.client().query(&statement, &parameters).await
            });
            let rows = query.await.map_err(|fault| self.unread_fault(fault))?;
            let mut held = Vec::with_capacity(rows.len());
            for row in &rows {
                held.push((self.key_of(row)?, self.replica_item(row, 1)?));
            }
            self.mark_differing(&mut held, &rows, 2).await?;
            let full = i64::try_from(rows.len()).is_ok_and(|rows| rows >= PAGE_ROWS);
            let next = if full { held.last().map(|(key, _)| key.clone()) } else { None };
            Ok(ReplicaPage { items: held, next, units: 0.0 })
        }
        .boxed()
    }

    fn refusal(&self, write: &ReplicaWrite<'_>, now: OffsetDateTime) -> Option<String> {
        TableRow::from_write(&self.layout, 0, write, now).err().map(|refused| refused.to_string())
    }

    fn put<'s>(
        &'s self,
        writes: &'s [ReplicaWrite<'s>],
        invocation: &'s Invocation,
    ) -> BoxFuture<'s, Vec<WriteResult>> {
        self.put_all(writes, invocation).boxed()
    }
}

impl PostgresSink {
    async fn put_all(&self, writes: &[ReplicaWrite<'_>], invocation: &Invocation) -> Vec<WriteResult> {
        let mut puts = vec![WriteResult::ConditionFailed; writes.len()];
        let mut rows = Vec::with_capacity(writes.len());
        for (index, write) in writes.iter().enumerate() {
            match TableRow::from_write(&self.layout, index, write, invocation.now) {
                Ok(row) => rows.push(row),
                Err(refused) => puts[index] = WriteResult::Permanent(refused.to_string()),
            }
        }
        self.count_replaced(&rows);
        TableRow::sort(&mut rows);
        let (expecting, fresh): (Vec<_>, Vec<_>) = rows.into_iter().partition(TableRow::is_conditional);
        for (rows, over) in [(&fresh, UpsertMode::IfAbsent), (&expecting, UpsertMode::Expected)] {
            let written = self.write(rows, over, invocation.deadline).await;
            for index in written.positions {
                puts[index] = WriteResult::Written;
            }
            for (index, left) in written.left {
                puts[index] = match left {
                    RowFailure::Poison(reason) => WriteResult::Permanent(reason),
                    RowFailure::Fault(reason) => WriteResult::Transient(reason),
                };
            }
        }
        puts
    }

    /// Reads the revision, the item and the expired flag of a row, from the column `from` on.
    fn replica_item(&self, row: &Row, from: usize) -> Result<ReplicaItem, ReplicaReadError> {
        let wrong = |error: tokio_postgres::Error| self.unread(&error);
        let revision: &[u8] = row.try_get(from).map_err(wrong)?;
        let item: Option<&str> = row.try_get(from + 1).map_err(wrong)?;
        let state = match item {
            None => ReplicaState::Tombstone { expired: row.try_get(from + 2).map_err(wrong)? },
            Some(item) => {
                let item = RawItem::parse(item);
                ReplicaState::Item(item.map_err(|_| self.malformed("an item that is not valid DynamoDB JSON"))?)
            }
        };
        Ok(ReplicaItem { revision: Some(Revision::decode(revision)), state, columns_differ: false })
    }

    /// Reads the key in the first column of a row.
    pub(super) fn key_of(&self, row: &Row) -> Result<CanonicalKey, ReplicaReadError> {
        let key: &str = row.try_get(0).map_err(|error| self.unread(&error))?;
        CanonicalKey::parse(key).map_err(|_| self.malformed("a key that is not valid"))
    }

    /// Marks the items whose typed columns do not have the values that the item gives, such as a column that was added
    /// after the row was written. `rows` are the rows of `held`; the column `item` contains the item.
    ///
    /// The server compares the columns, because it knows when two values of a type are equal. A row whose values it does
    /// not accept is located by bisection and differs: the table cannot contain them.
    async fn mark_differing(
        &self,
        held: &mut [(CanonicalKey, ReplicaItem)],
        rows: &[Row],
        item: usize,
    ) -> Result<(), ReplicaReadError> {
        let Some(sql) = &self.layout.statements.differing else { return Ok(()) };
        let (mut differing, mut compared) = (Vec::new(), Vec::new());
        for (index, ((key, held), row)) in held.iter().zip(rows).enumerate() {
            let (Some(Ok(revision)), Some(_)) = (&held.revision, held.item()) else { continue };
            let text: &str = row.try_get(item).map_err(|error| self.unread(&error))?;
            match TableRow::from_stored(&self.layout, index, key, *revision, text) {
                Ok(row) => compared.push(row),
                // The document has changed: this item would be rejected today.
                Err(_) => differing.push(index),
            }
        }
        if compared.is_empty() {
            for index in differing {
                held[index].1.columns_differ = true;
            }
            return Ok(());
        }
        let (until, mut open) = (Instant::now() + READ_TIMEOUT, vec![&compared[..]]);
        while let Some(rows) = open.pop() {
            let lists = &RowArrays::from_rows(&self.layout, rows);
            let query = self.database.run(until, |session| async move {
                let statement = session.statement(sql).await?;
                session.client().query(&statement, &lists.comparison_parameters()).await
            });
            match query.await {
                Ok(found) => {
                    for row in &found {
                        let position: i64 = row.try_get(0).map_err(|error| self.unread(&error))?;
                        let row = usize::try_from(position - 1).ok().and_then(|position| rows.get(position));
                        differing.extend(row.map(|row| row.index));
                    }
                }
                Err(fault) if is_row_error(&fault) && rows.len() > 1 => {
                    let (low, high) = rows.split_at(rows.len() / 2);
                    open.extend([high, low]);
                }
                Err(fault) if is_row_error(&fault) => differing.extend(rows.iter().map(|row| row.index)),
                Err(fault) => return Err(self.unread_fault(fault)),
            }
        }
        for index in differing {
            held[index].1.columns_differ = true;
        }
        Ok(())
    }

    fn unread(&self, error: &tokio_postgres::Error) -> ReplicaReadError {
        self.unread_fault(self.database.fault(error))
    }

    fn unread_fault(&self, fault: PostgresError) -> ReplicaReadError {
        let reason = match fault.kind {
            // The reason is for the log, and this error may quote the requested values.
            PostgresErrorKind::Refused(code) => {
                format!("{} rejected a query (SQLSTATE {})", super::SETTING, code.code())
            }
            _ => fault.reason,
        };
        ReplicaReadError { sink: self.name.to_string(), reason }
    }

    fn malformed(&self, what: &str) -> ReplicaReadError {
        let reason = format!("{} contains {what} in the table {}", super::SETTING, self.layout.table);
        ReplicaReadError { sink: self.name.to_string(), reason }
    }
}

/// Returns the range of hashes that belongs to a segment, both ends inclusive.
fn hashes(ScanSegment { segment, total_segments: of }: ScanSegment) -> (i64, i64) {
    let bound = |part: u32| i128::from(i64::MIN) + (i128::from(u64::MAX) + 1) * i128::from(part) / i128::from(of);
    let whole = |bound: i128| i64::try_from(bound).unwrap_or(i64::MAX);
    (whole(bound(segment)), whole(bound(segment + 1) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_segments_are_all_hashes_and_none_twice() {
        for of in [1, 2, 3, 7, 1_000] {
            let parts: Vec<_> = (0..of).map(|segment| hashes(ScanSegment { segment, total_segments: of })).collect();
            assert_eq!((parts[0].0, parts[parts.len() - 1].1), (i64::MIN, i64::MAX));
            assert!(parts.windows(2).all(|two| two[0].1 + 1 == two[1].0), "{of}");
        }
    }
}
