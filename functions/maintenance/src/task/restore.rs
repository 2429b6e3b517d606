//! Brings archived items back into the table.
//!
//! A restore is a create, so it goes the way of every create: through the stream, to all replicas; and an item that
//! expires again is archived again, as a fact of its own. It writes only where nothing stands, unless it is told to
//! overwrite; an item that has expired and is yet to be removed is left too, because over it nothing would be archived.
//! Where an email is one user's, it reserves the email along with the item, and leaves an item whose email another user has.
//!
//! Keys are dealt out to segments by their text, and each segment holds the rows that it brings back. What is restored
//! already, by an invocation whose answer was lost, is told as that and not as an obstacle.

use archiver::archive::ArchivedRow;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::change::CanonicalKey;
use shared::item::USER_ID;
use shared::item::restored::{Expiry, Obstacle, is_restored, restored};
use shared::raw_item::{NotAnItem, RawItem};
use shared::table::{Fault as TableFault, NotPut, RestoreTable};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::course::Course;
use super::dealt_to;
use super::found::tell;
use crate::facts::{Facts, Rows};
use crate::failure_bucket::BucketFault;
use crate::source::{Source, SourceFault};
use crate::sweep::{Library, Period, SweepFault, sweep};

/// Keys that are gone about between two resting places.
const KEYS: usize = 100;
const IN_FLIGHT: usize = 32;
/// How often an item that others write to is tried to be overwritten.
const TRIES: usize = 8;

const TAKEN: &str = "another user has its address by now";
const NO_USER: &str = "it has an address, which must be one user's, and a key that no user can have";
const OVERTAKEN: &str = "other writes overtook it again and again";

/// What to bring back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restore {
    /// Only tell what would be done.
    pub dry_run: bool,
    /// Only the item of this key.
    pub key: Option<CanonicalKey>,
    /// Only the items of this user.
    pub user: Option<String>,
    /// Only what was removed at or after this time.
    pub from: Option<OffsetDateTime>,
    /// Only what was removed before this time.
    pub to: Option<OffsetDateTime>,
    /// Of several rows of a key the latest, or each over the one before it.
    pub rows: Rows,
    /// When they expire again.
    pub expiry: Expiry,
    /// Whether to write over what stands there.
    pub overwrite: bool,
}

/// Why a restore stops before its end. What was restored until then stays.
#[derive(Debug, thiserror::Error)]
pub enum RestoreFault {
    /// The archive cannot be read.
    #[error(transparent)]
    Sweep(#[from] SweepFault),
    /// The table cannot be read.
    #[error(transparent)]
    Source(#[from] SourceFault),
    /// The table does not take an item, and may take it later.
    #[error("USERS_TABLE: an item cannot be put: {0}")]
    Table(#[from] TableFault),
    /// The report cannot be written.
    #[error(transparent)]
    Bucket(#[from] BucketFault),
}

/// Where a restore is.
#[derive(Debug, Default, Serialize, Deserialize)]
pub enum At {
    /// At its beginning.
    #[default]
    Start,
    /// After this key.
    After(CanonicalKey),
}

/// What a restore works on.
pub struct World<'w> {
    /// The archive.
    pub library: Library,
    /// The table, to be looked at.
    pub source: &'w Source,
    /// The table, to be written to.
    pub table: &'w RestoreTable,
}

/// A line of the report.
#[derive(Serialize)]
struct Line<'a> {
    key: &'a RawValue,
    revision: Option<String>,
    done: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

/// What became of a key.
enum Outcome {
    Restored,
    Already,
    Refused(String),
}

impl Restore {
    fn wants(&self, key: &CanonicalKey) -> bool {
        let of_the_user = |user: &str| {
            let key = RawItem::parse(key.as_str()).ok();
            key.is_some_and(|key| key.get(USER_ID).and_then(|id| id.as_s().ok()).is_some_and(|id| id == user))
        };
        self.key.as_ref().is_none_or(|wanted| wanted == key) && self.user.as_deref().is_none_or(of_the_user)
    }
}

/// Goes on with a restore; tells whether it is done.
///
/// # Errors
/// [`RestoreFault`].
pub async fn run(
    course: &mut Course<At>,
    world: &World<'_>,
    restore: &Restore,
    now: OffsetDateTime,
) -> Result<bool, RestoreFault> {
    let period = Period { from: restore.from, to: restore.to };
    let (segment, which, wants) = (course.segment(), restore.rows, restore.clone());
    let wanted = move |row: &ArchivedRow| dealt_to(segment, row.key.as_str()) && wants.wants(&row.key);
    let take = move |facts: &mut Facts, rows, held: &mut _| facts.add(rows, which, held);
    let (facts, seen) = sweep(&world.library, &period, course.stop_at, Facts::default(), wanted, take).await?;
    if matches!(course.at(), At::Start) {
        tell(course, "restore", &seen);
    }
    let mut keys = facts.into_keys();
    if let At::After(done) = course.at() {
        keys.retain(|(key, _)| key > done);
    }
    let started = Instant::now();
    let mut keys = keys.into_iter().peekable();
    while keys.peek().is_some() {
        if course.is_up() {
            return Ok(false);
        }
        let chunk: Vec<(CanonicalKey, Vec<ArchivedRow>)> = keys.by_ref().take(KEYS).collect();
        let now = now + started.elapsed();
        let (outcomes, fault) = if restore.dry_run {
            (look(world, &chunk, restore, now).await?, None)
        } else {
            put_until_fault(world.table, &chunk, restore, now).await
        };
        let Some((last, _)) = outcomes.len().checked_sub(1).and_then(|last| chunk.get(last)) else {
            return fault.map_or(Ok(true), Err);
        };
        let last = last.clone();
        for ((key, rows), outcome) in chunk.iter().zip(outcomes) {
            let (count, done, why) = match (&outcome, restore.dry_run) {
                (Outcome::Restored, true) => ("restore.ready", "would be restored", None),
                (Outcome::Restored, false) => ("restore.restored", "restored", None),
                (Outcome::Already, _) => ("restore.already", "restored already", None),
                (Outcome::Refused(why), true) => ("restore.refused", "would be refused", Some(why.as_str())),
                (Outcome::Refused(why), false) => ("restore.refused", "refused", Some(why.as_str())),
            };
            course.count(count, 1);
            course.count("restore.rows", rows.len());
            let revision = rows.last().map(|row| row.revision.to_string());
            course.report(&Line { key: &key.to_raw(), revision, done, why });
        }
        course.checkpoint(At::After(last)).await?;
        if let Some(fault) = fault {
            return Err(fault);
        }
    }
    Ok(true)
}

/// Puts these keys, and returns what became of those before the first fault: they are done, whatever comes after.
async fn put_until_fault(
    table: &RestoreTable,
    chunk: &[(CanonicalKey, Vec<ArchivedRow>)],
    restore: &Restore,
    now: OffsetDateTime,
) -> (Vec<Outcome>, Option<RestoreFault>) {
    let puts = chunk.iter().map(|(_, rows)| put_all(table, rows, restore, now));
    let mut outcomes = Vec::with_capacity(chunk.len());
    let mut puts = stream::iter(puts.collect::<Vec<_>>()).buffered(IN_FLIGHT);
    while let Some(outcome) = puts.next().await {
        match outcome {
            Ok(outcome) => outcomes.push(outcome),
            Err(fault) => return (outcomes, Some(fault)),
        }
    }
    (outcomes, None)
}

/// What would become of these keys.
async fn look(
    world: &World<'_>,
    chunk: &[(CanonicalKey, Vec<ArchivedRow>)],
    restore: &Restore,
    now: OffsetDateTime,
) -> Result<Vec<Outcome>, RestoreFault> {
    let keys: Vec<CanonicalKey> = chunk.iter().map(|(key, _)| key.clone()).collect();
    let (items, _) = world.source.read(&keys).await?;
    let outcome = async |((_, rows), there): (&(_, Vec<ArchivedRow>), Option<RawItem>)| {
        let Some(last) = rows.last() else { return Ok(Outcome::Restored) };
        let item = match item_of(last) {
            Ok(item) => item,
            Err(reason) => return Ok(Outcome::Refused(reason)),
        };
        match there {
            Some(there) if is_restored(&there, &item) => return Ok(Outcome::Already),
            Some(there) if !restore.overwrite => {
                return Ok(Outcome::Refused(in_the_way(Obstacle::of(&there, now)).to_owned()));
            }
            _ => {}
        }
        let taken = world.table.is_taken(&item.into_attributes(), now).await?;
        Ok(if taken { Outcome::Refused(TAKEN.to_owned()) } else { Outcome::Restored })
    };
    let looks: Vec<_> = chunk.iter().zip(items).map(outcome).collect();
    stream::iter(looks).buffered(IN_FLIGHT).try_collect().await
}

fn in_the_way(obstacle: Obstacle) -> &'static str {
    if obstacle.is_live {
        "a live item is there; tell overwrite to write over it"
    } else {
        "an item that has expired is there, which TTL is yet to remove and the archiver to archive"
    }
}

fn item_of(row: &ArchivedRow) -> Result<RawItem, String> {
    RawItem::parse(row.item.get()).map_err(|error: NotAnItem| error.to_string())
}

/// Puts a key's rows, each over the one before it.
async fn put_all(
    table: &RestoreTable,
    rows: &[ArchivedRow],
    restore: &Restore,
    now: OffsetDateTime,
) -> Result<Outcome, RestoreFault> {
    let (mut over, mut next, mut tries): (Option<RawItem>, _, _) = (None, 0, 0);
    while let Some(row) = rows.get(next) {
        let archived = match item_of(row) {
            Ok(archived) => archived,
            Err(reason) => return Ok(Outcome::Refused(reason)),
        };
        let of_before = over.as_ref().and_then(|there| Obstacle::of(there, now).version);
        let item = restored(archived, restore.expiry, of_before, now);
        // Needed only by a row that follows.
        let written = (next + 1 < rows.len()).then(|| RawItem::new(item.clone()));
        match table.put(item, over.as_ref(), now).await {
            Ok(()) => {
                over = written;
                next += 1;
            }
            Err(NotPut::Fault(TableFault::TooLarge(_))) => {
                return Ok(Outcome::Refused("the item would be over 400 KB".to_owned()));
            }
            Err(NotPut::Fault(fault)) => return Err(fault.into()),
            Err(NotPut::EmailTaken) => return Ok(Outcome::Refused(TAKEN.to_owned())),
            Err(NotPut::NoUser) => return Ok(Outcome::Refused(NO_USER.to_owned())),
            Err(NotPut::Overtaken) => return Ok(Outcome::Refused(OVERTAKEN.to_owned())),
            Err(NotPut::Held(there)) => {
                tries += 1;
                // Of a restore that was cut off this much is done; the put may also have met its own result.
                let done = there.as_ref().and_then(|there| {
                    rows[next..].iter().rposition(|row| item_of(row).is_ok_and(|item| is_restored(there, &item)))
                });
                match (done, there) {
                    (Some(done), _) if next + done + 1 == rows.len() => return Ok(Outcome::Already),
                    (Some(done), there) => {
                        next += done + 1;
                        over = there;
                    }
                    (None, _) if tries > TRIES => return Ok(Outcome::Refused(OVERTAKEN.to_owned())),
                    (None, None) => over = None,
                    (None, there) if restore.overwrite => over = there,
                    (None, Some(there)) => {
                        return Ok(Outcome::Refused(in_the_way(Obstacle::of(&there, now)).to_owned()));
                    }
                }
            }
        }
    }
    Ok(Outcome::Restored)
}
