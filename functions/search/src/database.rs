//! Failover from the reader to the writer. [`SearchDatabases`]
//!
//! If the reader fails, the query runs on the writer, and the reader is skipped for 30 seconds, so that not every
//! request waits for an unavailable server. A query that times out is not repeated on the writer: it would take as long
//! there, at the expense of the writes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_shared::iam_token::TokenSigner;
use millrace_shared::postgres::{
    PostgresDatabase, PostgresError, PostgresErrorKind, PostgresSession, PostgresSettings,
};
use tokio::time::Instant;
use tokio_postgres::Error;

/// The maximum duration of a query.
pub(crate) const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// The time for which a failed reader is skipped.
const PAUSE: Duration = Duration::from_secs(30);
/// The session settings: transactions are read-only, positions in cursors have one text format, and each plan is made
/// for the actual parameter values, because a generic plan does not take rare statuses into account.
const SETUP: &str = "set default_transaction_read_only = on; set timezone = 'UTC'; set datestyle = 'ISO'; \
    set plan_cache_mode = force_custom_plan";

/// A failed query.
#[derive(Debug)]
pub(crate) enum SearchError {
    /// The query exceeded [`QUERY_TIMEOUT`].
    Timeout(PostgresError),
    /// The query exceeded the remaining time of the request, which was shorter than [`QUERY_TIMEOUT`].
    Late(PostgresError),
    /// The databases are unreachable.
    Unavailable(PostgresError),
    /// A database returned an error that an operator must fix.
    Refused(PostgresError),
}

/// The databases that serve queries: an optional reader, and the writer.
#[derive(Debug)]
pub(crate) struct SearchDatabases {
    reader: Option<PostgresDatabase>,
    writer: PostgresDatabase,
    reader_back_at: Mutex<Option<Instant>>,
}

impl SearchDatabases {
    pub(crate) fn new(
        writer: &PostgresSettings,
        reader: Option<&PostgresSettings>,
        signer: Option<TokenSigner>,
    ) -> Self {
        let reader = reader.filter(|reader| reader.address() != writer.address());
        Self {
            reader: reader.map(|reader| reader.database(signer.clone(), SETUP)),
            writer: writer.database(signer, SETUP),
            reader_back_at: Mutex::default(),
        }
    }

    /// Runs a query and returns by this deadline. The writer gets the time that the reader left.
    pub(crate) async fn run_with_failover<T, W>(
        &self,
        done_by: Instant,
        work: impl Fn(Arc<PostgresSession>) -> W,
    ) -> Result<T, SearchError>
    where
        W: Future<Output = Result<T, Error>>,
    {
        if let Some(reader) = self.reader.as_ref().filter(|_| self.is_reader_used()) {
            match run_query(reader, reader_share(left(done_by)), &work).await {
                Ok(response) => return Ok(response),
                Err(failure @ (SearchError::Timeout(_) | SearchError::Late(_))) => return Err(failure),
                Err(SearchError::Unavailable(fault) | SearchError::Refused(fault)) => self.mark_reader_down(&fault),
            }
        }
        run_query(&self.writer, left(done_by).min(QUERY_TIMEOUT), &work).await
    }

    fn is_reader_used(&self) -> bool {
        let back_at = *self.reader_back_at.lock().unwrap_or_else(PoisonError::into_inner);
        back_at.is_none_or(|back_at| back_at <= Instant::now())
    }

    fn mark_reader_down(&self, fault: &PostgresError) {
        *self.reader_back_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + PAUSE);
        tracing::warn!(error = %fault, pause_s = PAUSE.as_secs(), "reader unavailable: queries use the writer");
    }
}

/// Returns the reader's share of a request's remaining time. The writer needs the rest if the reader fails: of the 9 s
/// that a function with a timeout of 10 s works, the reader gets 5 and the writer 4.
fn reader_share(left: Duration) -> Duration {
    (left * 3 / 5).min(QUERY_TIMEOUT)
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

async fn run_query<T, W>(
    database: &PostgresDatabase,
    limit: Duration,
    work: &impl Fn(Arc<PostgresSession>) -> W,
) -> Result<T, SearchError>
where
    W: Future<Output = Result<T, Error>>,
{
    let until = Instant::now() + limit;
    let is_connected = AtomicBool::new(false);
    let query = database.run(until, |session| {
        is_connected.store(true, Ordering::Relaxed);
        work(session)
    });
    query.await.map_err(|fault| match fault.kind {
        // The connection was established, and the time limit passed during the query.
        _ if is_connected.load(Ordering::Relaxed) && Instant::now() >= until => {
            if limit == QUERY_TIMEOUT {
                SearchError::Timeout(fault)
            } else {
                SearchError::Late(fault)
            }
        }
        PostgresErrorKind::Unreachable => SearchError::Unavailable(fault),
        _ => SearchError::Refused(fault),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reader_and_the_writer_together_have_no_more_than_the_request() {
        for millis in (0..30_000).step_by(53) {
            let time = Duration::from_millis(millis);
            let reader = reader_share(time);
            let writer = time.saturating_sub(reader).min(QUERY_TIMEOUT);
            assert!(reader + writer <= time && reader <= QUERY_TIMEOUT, "{millis}");
            assert!(writer >= time * 2 / 5 || writer == QUERY_TIMEOUT, "{millis}: the writer has time to respond");
        }
        let usual = Duration::from_secs(9);
        assert_eq!(
            (reader_share(usual), usual.saturating_sub(reader_share(usual))),
            (QUERY_TIMEOUT, Duration::from_secs(4))
        );
    }
}
