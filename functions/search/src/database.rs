//! The reader, and the writer in its place when it is gone. [`Databases`]
//!
//! Whatever is wrong with the reader, the writer is asked instead, and for half a minute it is asked first, so that not
//! every request waits for what is not there. Not so a statement that takes too long: it would take as long there, at the
//! expense of the writes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shared::postgres::{Database, Fault, FaultKind, Session, Settings};
use shared::token::TokenSigner;
use tokio::time::Instant;
use tokio_postgres::Error;

/// The longest that a question may take. Twice this, for the reader and then the writer, is the function's own time.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);
/// How long a reader that was gone is not asked.
const PAUSE: Duration = Duration::from_secs(30);
/// Nothing here writes, places in cursors have one spelling, and a plan is made for the very values that are asked for:
/// one for any values knows nothing of a rare status.
const SETUP: &str = "set default_transaction_read_only = on; set timezone = 'UTC'; set datestyle = 'ISO'; \
    set plan_cache_mode = force_custom_plan";

/// Why nothing was answered.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The question took too long.
    Slow(Fault),
    /// The databases are out of reach.
    Gone(Fault),
    /// A database refuses what an operator must mend.
    Refused(Fault),
}

/// Where questions go.
#[derive(Debug)]
pub(crate) struct Databases {
    reader: Option<Database>,
    writer: Database,
    reader_back_at: Mutex<Option<Instant>>,
}

impl Databases {
    pub(crate) fn new(writer: &Settings, reader: Option<&Settings>, signer: Option<TokenSigner>) -> Self {
        let reader = reader.filter(|reader| reader.address() != writer.address());
        Self {
            reader: reader.map(|reader| reader.database(signer.clone(), SETUP)),
            writer: writer.database(signer, SETUP),
            reader_back_at: Mutex::default(),
        }
    }

    /// Asks.
    pub(crate) async fn ask<T, W>(&self, work: impl Fn(Arc<Session>) -> W) -> Result<T, Failure>
    where
        W: Future<Output = Result<T, Error>>,
    {
        if let Some(reader) = self.reader.as_ref().filter(|_| self.is_reader_asked()) {
            match ask(reader, &work).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Slow(fault)) => return Err(Failure::Slow(fault)),
                Err(Failure::Gone(fault) | Failure::Refused(fault)) => self.pause_reader(&fault),
            }
        }
        ask(&self.writer, &work).await
    }

    fn is_reader_asked(&self) -> bool {
        let back_at = *self.reader_back_at.lock().unwrap_or_else(PoisonError::into_inner);
        back_at.is_none_or(|back_at| back_at <= Instant::now())
    }

    fn pause_reader(&self, fault: &Fault) {
        *self.reader_back_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + PAUSE);
        tracing::warn!(reason = %fault, pause_s = PAUSE.as_secs(), "the reader is gone: the writer answers");
    }
}

async fn ask<T, W>(database: &Database, work: &impl Fn(Arc<Session>) -> W) -> Result<T, Failure>
where
    W: Future<Output = Result<T, Error>>,
{
    let until = Instant::now() + LIMIT;
    let is_asked = AtomicBool::new(false);
    let asked = database.run(until, |session| {
        is_asked.store(true, Ordering::Relaxed);
        work(session)
    });
    asked.await.map_err(|fault| match fault.kind {
        // A connection was there, and the time ran out over the question.
        _ if is_asked.load(Ordering::Relaxed) && Instant::now() >= until => Failure::Slow(fault),
        FaultKind::Unreachable => Failure::Gone(fault),
        _ => Failure::Refused(fault),
    })
}
