//! The PostgreSQL replica for maintenance: read back, scanned, and written independently of the stream.

use futures::FutureExt;
use futures::future::BoxFuture;
use millrace_shared::change::CanonicalKey;
use millrace_shared::invocation::Invocation;
use millrace_shared::item::columns;
use millrace_shared::postgres::{PostgresError, PostgresErrorKind};
use millrace_shared::raw_item::RawItem;
use millrace_shared::replica_item::{ReplicaItem, ReplicaState};
use millrace_shared::revision::Revision;
use millrace_shared::table_reader::ScanSegment;
use time::OffsetDateTime;
use tokio::time::{Duration, Instant};
use tokio_postgres::types::ToSql;

use super::row::UserRow;
use super::write::{RowFailure, UpsertMode};
use super::{NAME, PostgresSink, statement};
use crate::{Replica, ReplicaPage, ReplicaReadError, ReplicaReadOutput, ReplicaWrite, WriteResult};

/// With items of 400 KB, the maximum, this is some 100 MB.
const PAGE_ROWS: i64 = 250;
/// A read has no deadline argument: callers check the time between pages.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

impl Replica for PostgresSink {
    fn read<'s>(&'s self, keys: &'s [CanonicalKey]) -> BoxFuture<'s, Result<ReplicaReadOutput, ReplicaReadError>> {
        async move {
            // A key that is not a user's cannot be in this table.
            let (mut places, mut users, mut seconds) = (Vec::new(), Vec::new(), Vec::new());
            for (index, key) in keys.iter().enumerate() {
                if let Ok((user, second)) = columns::key(key) {
                    places.push(index);
                    users.push(user);
                    seconds.push(second);
                }
            }
            let (users, seconds) = (&users, &seconds);
            let asked = self.database.run(Instant::now() + READ_TIMEOUT, |session| async move {
                let statement = session.statement(statement::READ).await?;
                session.client().query(&statement, &[users, seconds]).await
            });
            let rows = asked.await.map_err(unread)?;
            let mut held: Vec<Option<ReplicaItem>> = keys.iter().map(|_| None).collect();
            for row in &rows {
                let index: i64 = row.try_get(0).map_err(|error| self.unread(&error))?;
                let index = usize::try_from(index - 1).ok().and_then(|index| places.get(index));
                let index = index.and_then(|index| held.get_mut(*index));
                if let Some(index) = index {
                    *index = Some(self.held(row, 1)?);
                }
            }
            Ok(ReplicaReadOutput { held, units: 0.0 })
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
            let after = after.and_then(|key| columns::key(key).ok());
            let after = &after;
            let asked = self.database.run(Instant::now() + READ_TIMEOUT, |session| async move {
                let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&from, &to, &PAGE_ROWS];
                let statement = match after {
                    Some((user, second)) => {
                        parameters.extend([user as &(dyn ToSql + Sync), second]);
                        session.statement(statement::SCAN_NEXT_PAGE).await?
                    }
                    None => session.statement(statement::SCAN).await?,
                };
                session.client().query(&statement, &parameters).await
            });
            let rows = asked.await.map_err(unread)?;
            let mut held = Vec::with_capacity(rows.len());
            for row in &rows {
                let told = row.try_get::<_, &str>(0).and_then(|user| Ok((user, row.try_get::<_, &str>(1)?)));
                let (user, second) = told.map_err(|error| self.unread(&error))?;
                held.push((key_of(user, second)?, self.held(row, 2)?));
            }
            let full = i64::try_from(rows.len()).is_ok_and(|rows| rows >= PAGE_ROWS);
            let next = if full { held.last().map(|(key, _)| key.clone()) } else { None };
            Ok(ReplicaPage { held, next, units: 0.0 })
        }
        .boxed()
    }

    fn refusal(&self, write: &ReplicaWrite<'_>, now: OffsetDateTime) -> Option<String> {
        UserRow::of_write(0, write, now).err().map(|refused| refused.to_string())
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
            match UserRow::of_write(index, write, invocation.now) {
                Ok(row) => rows.push(row),
                Err(refused) => puts[index] = WriteResult::Permanent(refused.to_string()),
            }
        }
        UserRow::sort(&mut rows);
        let (expecting, fresh): (Vec<_>, Vec<_>) = rows.into_iter().partition(UserRow::is_conditional);
        for (rows, over) in [(&fresh, UpsertMode::IfAbsent), (&expecting, UpsertMode::Expected)] {
            let written = self.write(rows, over, invocation.deadline).await;
            for index in written.places {
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
    fn held(&self, row: &tokio_postgres::Row, from: usize) -> Result<ReplicaItem, ReplicaReadError> {
        let wrong = |error: tokio_postgres::Error| self.unread(&error);
        let revision: &[u8] = row.try_get(from).map_err(wrong)?;
        let item: Option<&str> = row.try_get(from + 1).map_err(wrong)?;
        let state = match item {
            None => ReplicaState::Tombstone { expired: row.try_get(from + 2).map_err(wrong)? },
            Some(item) => {
                let item = RawItem::parse(item);
                ReplicaState::Item(item.map_err(|_| malformed("an item that is not valid DynamoDB JSON"))?)
            }
        };
        Ok(ReplicaItem { revision: Some(Revision::decode(revision)), state })
    }

    fn unread(&self, error: &tokio_postgres::Error) -> ReplicaReadError {
        unread(self.database.fault(error))
    }
}

/// Returns the range of hashes that belongs to a segment, both ends inclusive.
fn hashes(ScanSegment { segment, total_segments: of }: ScanSegment) -> (i64, i64) {
    let bound = |part: u32| i128::from(i64::MIN) + (i128::from(u64::MAX) + 1) * i128::from(part) / i128::from(of);
    let whole = |bound: i128| i64::try_from(bound).unwrap_or(i64::MAX);
    (whole(bound(segment)), whole(bound(segment + 1) - 1))
}

fn key_of(user: &str, second: &str) -> Result<CanonicalKey, ReplicaReadError> {
    let json = serde_json::json!({"user_id": {"S": user}, "timestamp": {"N": second}});
    CanonicalKey::parse(&json.to_string()).map_err(|_| malformed("a key that is not valid"))
}

fn unread(fault: PostgresError) -> ReplicaReadError {
    let reason = match fault.kind {
        // The reason is for the log, and this error may quote the requested values.
        PostgresErrorKind::Refused(code) => format!("{} rejected a query (SQLSTATE {})", super::SETTING, code.code()),
        _ => fault.reason,
    };
    ReplicaReadError { sink: NAME.to_owned(), reason }
}

fn malformed(what: &str) -> ReplicaReadError {
    ReplicaReadError { sink: NAME.to_owned(), reason: format!("{} contains {what} in the table users", super::SETTING) }
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
