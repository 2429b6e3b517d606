//! Restores archived items to the table.
//!
//! A restore is a create, so it is processed like every create: through the stream, by all replicas. An item that
//! expires again is archived again, as another row. By default an item is written only if none exists under its key. An
//! item that has expired and that TTL has not removed yet counts as existing, because it would not be archived if it
//! were overwritten. With `overwrite`, existing items are replaced. If emails are unique, a restore reserves the email
//! together with the item, and refuses an item whose email belongs to another user.
//!
//! Keys are assigned to segments by a hash of their text, and each segment retains the rows that it restores in memory.
//! An item that was already restored, by an invocation whose response was lost, is reported as such and not as a
//! conflict. With `overwrite`, it is already restored only if it also has the requested expiry.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use futures::{StreamExt as _, stream};
use millrace_archive::ArchivedRow;
use millrace_shared::change::CanonicalKey;
use millrace_shared::item::restored::{ExistingItem, RestoreRules, RestoredExpiry, SourceSchema};
use millrace_shared::item::{AttributeMap, EXPIRES_AT, USER_ID};
use millrace_shared::raw_item::{ItemSyntaxError, RawItem};
use millrace_shared::table::{RestorePutError, RestoreTable, TableError};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::report_corrupt_objects;
use crate::archive_scan::{ArchiveScanError, TimeRange, scan_archive};
use crate::failure_bucket::BucketError;
use crate::progress::CountOutcome;
use crate::row_versions::{VersionFilter, VersionsByKey};
use crate::source::{OtherKeyError, SourceTableError};
use crate::task::belongs_to_segment;
use crate::task::context::TaskContext;
use crate::task::error::{ArchiveOffError, ClassifiedError, TaskErrorKind};
use crate::task::registry::{MaintenanceTask, SegmentTask};
use crate::task::request::{InvalidRequest, in_range, key, one_of, time};
use crate::task::task_run::TaskRun;

/// Number of keys that are processed between two checkpoints.
const KEYS: usize = 100;
const IN_FLIGHT: usize = 32;
/// Maximum number of attempts to overwrite an item that is modified concurrently.
const TRIES: usize = 8;

/// The same maximum as for the expiry of a user in the API: 50 years of 365.25 days.
const MAX_EXTEND_SECONDS: u32 = 50 * 31_557_600;

const TAKEN: &str = "the email belongs to another user";
const NO_USER: &str = "the item has an email, which must belong to one user, but its key is not a valid user key";
const OVERTAKEN: &str = "the item was modified concurrently on every attempt: run the task again";

/// Fields of the request of a restore.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct RestoreRequest {
    /// Restore the item with this key, in DynamoDB JSON such as `{"pk":{"S":"a"},"sk":{"N":"1"}}`
    #[cfg_attr(feature = "cli", arg(long, value_name = "JSON", value_parser = crate::task::options::json_text))]
    key: Option<Box<RawValue>>,
    /// Restore the items of this user
    #[cfg_attr(feature = "cli", arg(long, value_name = "ID"))]
    user_id: Option<String>,
    /// Restore items that were removed at this time or later, such as 2026-11-22T00:00:00Z
    #[cfg_attr(feature = "cli", arg(long, value_name = "TIME"))]
    from: Option<String>,
    /// Restore items that were removed before this time
    #[cfg_attr(feature = "cli", arg(long, value_name = "TIME"))]
    to: Option<String>,
    /// Rows of a key that are restored: the latest one, or all of them in order (default: latest)
    #[cfg_attr(feature = "cli", arg(long, value_name = "latest|all"))]
    versions: Option<String>,
    /// The items expire this many seconds after the restore, 1 to 1577880000
    #[cfg_attr(feature = "cli", arg(long, value_name = "SECONDS"))]
    expires_in_seconds: Option<u32>,
    /// The items do not expire
    #[cfg_attr(feature = "cli", arg(long))]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    never_expires: bool,
    /// Replace existing items
    #[cfg_attr(feature = "cli", arg(long))]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    overwrite: bool,
    /// Reports the outcome that each key would have, without writing (default: true)
    #[cfg_attr(feature = "cli", arg(skip))]
    dry_run: Option<bool>,
}

/// The task `restore`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreTask {
    /// If true, the task only reports the actions that it would take.
    dry_run: bool,
    /// Only the item with this key.
    key: Option<CanonicalKey>,
    /// Only the items of this user.
    user: Option<String>,
    /// Only items that were removed at or after this time.
    from: Option<OffsetDateTime>,
    /// Only items that were removed before this time.
    to: Option<OffsetDateTime>,
    /// Of several rows of a key, the latest one, or all of them, each written over the previous one.
    rows: VersionFilter,
    /// The new expiry of the items.
    expiry: RestoredExpiry,
    /// If true, existing items are replaced.
    overwrite: bool,
}

impl MaintenanceTask for RestoreTask {
    const NAME: &'static str = "restore";
    const SUMMARY: &'static str = "restores archived items to the table, by default without overwriting";
    type Request = RestoreRequest;

    fn parse(request: RestoreRequest, _: OffsetDateTime) -> Result<Self, InvalidRequest> {
        let extend = in_range("expires_in_seconds", request.expires_in_seconds, 1..=MAX_EXTEND_SECONDS)?;
        let expiry = match (extend, request.never_expires) {
            (Some(seconds), false) => RestoredExpiry::After(seconds.into()),
            (None, true) => RestoredExpiry::Never,
            _ => {
                let needs = "either expires_in_seconds, after which the items expire again, or \"never_expires\": true";
                return Err(InvalidRequest::MissingField(Self::NAME, needs));
            }
        };
        let (from, to) = (time("from", request.from.as_deref())?, time("to", request.to.as_deref())?);
        if request.key.is_none() && request.user_id.is_none() && from.is_none() && to.is_none() {
            return Err(InvalidRequest::MissingField(Self::NAME, "key, user_id, from or to (the items to restore)"));
        }
        let versions = [("latest", VersionFilter::Latest), ("all", VersionFilter::All)];
        Ok(Self {
            dry_run: request.dry_run.unwrap_or(true),
            key: request.key.as_deref().map(|json| key("key", json)).transpose()?,
            user: request.user_id,
            from,
            to,
            rows: one_of("versions", request.versions.as_deref(), versions)?,
            expiry,
            overwrite: request.overwrite,
        })
    }
}

/// Error of a restore. Items that were restored before the error remain.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The deployment has no archive.
    #[error(transparent)]
    ArchiveOff(#[from] ArchiveOffError),
    /// The archive cannot be read.
    #[error(transparent)]
    Sweep(#[from] ArchiveScanError),
    /// The table cannot be read.
    #[error(transparent)]
    Source(#[from] SourceTableError),
    /// The table does not accept an item at the moment; a retry may succeed.
    #[error("SOURCE_TABLE: cannot write an item: {0}")]
    Table(#[from] TableError),
    /// The report cannot be written.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The items are to expire, but the table has no TTL attribute.
    #[error(
        "expires_in_seconds: table {0} has no TTL attribute: set \"never_expires\": true, or enable TTL on the table"
    )]
    NoTtl(String),
    /// TTL removes items by an attribute of the key, so no other expiry can be set.
    #[error(
        "restore: the TTL attribute {attribute:?} of table {table} is part of the key, so an item with another expiry \
         would be another item: turn TTL off, and restore with \"never_expires\": true"
    )]
    TtlInKey {
        /// The name of the table.
        table: String,
        /// The name of the attribute.
        attribute: String,
    },
    /// The key is not a key of the table.
    #[error(transparent)]
    OtherKey(#[from] OtherKeyError),
    /// The items of the table have no users.
    #[error("user_id: table {0} is not the table of the users service: select items by key, from or to")]
    NoUsers(String),
}

impl ClassifiedError for RestoreError {
    fn kind(&self) -> TaskErrorKind {
        match self {
            Self::NoTtl(_) | Self::NoUsers(_) | Self::TtlInKey { .. } => TaskErrorKind::Invalid,
            Self::OtherKey(error) => error.kind(),
            Self::ArchiveOff(error) => error.kind(),
            Self::Sweep(error) => error.kind(),
            Self::Source(_) | Self::Table(_) | Self::Bucket(_) => TaskErrorKind::Failed,
        }
    }

    /// After the first item, a part of the items may have been restored.
    fn is_rejection(&self) -> bool {
        matches!(
            self,
            Self::NoTtl(_) | Self::TtlInKey { .. } | Self::NoUsers(_) | Self::OtherKey(_) | Self::ArchiveOff(_)
        )
    }
}

/// Cursor of a restore.
#[derive(Debug, Default, Serialize, Deserialize)]
pub enum RestoreCursor {
    /// At the beginning.
    #[default]
    Start,
    /// After this key.
    After(CanonicalKey),
}

/// A report entry.
#[derive(Serialize)]
struct RestoreEntry<'a> {
    key: &'a RawValue,
    revision: Option<String>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// The outcome of a key.
enum RestoreOutcome {
    Restored,
    AlreadyRestored,
    Refused(String),
}

impl RestoreTask {
    /// Returns the rules for the attributes of the source table.
    async fn rules(&self, context: &TaskContext<'_>) -> Result<RestoreRules, RestoreError> {
        let schema = context.restore_table.rules().schema;
        let name = || context.table().to_owned();
        if let Some(key) = &self.key {
            context.source.check_key("key", Self::NAME, key)?;
        }
        if schema == SourceSchema::Any && self.user.is_some() {
            return Err(RestoreError::NoUsers(name()));
        }
        let ttl_attribute = match schema {
            // The API hides an expired user whether or not TTL is enabled.
            SourceSchema::Users => Some(EXPIRES_AT.to_owned()),
            SourceSchema::Any => context.source.ttl_attribute().await?,
        };
        if ttl_attribute.is_none() && self.expiry != RestoredExpiry::Never {
            return Err(RestoreError::NoTtl(name()));
        }
        let key = &context.source.description().key;
        if let Some(attribute) = ttl_attribute.clone().filter(|ttl| key.iter().any(|(name, _)| name == ttl)) {
            return Err(RestoreError::TtlInKey { table: name(), attribute });
        }
        let partition_key = key.first().map(|(name, _)| name.clone());
        Ok(RestoreRules { partition_key: partition_key.unwrap_or_default(), ttl_attribute, schema })
    }

    fn matches(&self, key: &CanonicalKey) -> bool {
        let of_the_user = |user: &str| {
            let key = RawItem::parse(key.as_str()).ok();
            key.is_some_and(|key| key.get(USER_ID).and_then(|id| id.as_s().ok()).is_some_and(|id| id == user))
        };
        self.key.as_ref().is_none_or(|wanted| wanted == key) && self.user.as_deref().is_none_or(of_the_user)
    }
}

impl SegmentTask for RestoreTask {
    type Cursor = RestoreCursor;
    type Error = RestoreError;

    async fn run(
        &self,
        task_run: &mut TaskRun<RestoreCursor>,
        context: &TaskContext<'_>,
    ) -> Result<bool, RestoreError> {
        let archive = context.archive_reader()?;
        let table = context.restore_table.with_rules(self.rules(context).await?);
        let period = TimeRange { from: self.from, to: self.to };
        let (segment, which, filter) = (task_run.segment(), self.rows, self.clone());
        let wanted = move |row: &ArchivedRow| belongs_to_segment(segment, row.key.as_str()) && filter.matches(&row.key);
        let take = move |facts: &mut VersionsByKey, rows, held: &mut _| facts.add(rows, which, held);
        let (facts, seen) =
            scan_archive(&archive, &period, task_run.deadline, VersionsByKey::default(), wanted, take).await?;
        if matches!(task_run.cursor(), RestoreCursor::Start) {
            report_corrupt_objects(task_run, "restore", &seen);
        }
        let mut keys = facts.into_keys();
        if let RestoreCursor::After(done) = task_run.cursor() {
            keys.retain(|(key, _)| key > done);
        }
        let (started, claims) = (Instant::now(), EmailClaims::default());
        let mut keys = keys.into_iter().peekable();
        while keys.peek().is_some() {
            if task_run.deadline_reached() {
                return Ok(false);
            }
            let chunk: Vec<(CanonicalKey, Vec<ArchivedRow>)> = keys.by_ref().take(KEYS).collect();
            let now = context.invocation.now + started.elapsed();
            let there = if self.dry_run {
                let keys: Vec<CanonicalKey> = chunk.iter().map(|(key, _)| key.clone()).collect();
                context.source.read(&keys).await?.0
            } else {
                chunk.iter().map(|_| None).collect()
            };
            let target = |there| {
                if self.dry_run {
                    RestoreTarget::Copy { table: &table, there, claims: &claims }
                } else {
                    RestoreTarget::Table(&table)
                }
            };
            let puts = chunk.iter().zip(there).map(|((_, rows), there)| put_all(target(there), rows, self, now));
            let (outcomes, fault) = until_fault(puts.collect()).await;
            let Some((last, _)) = outcomes.len().checked_sub(1).and_then(|last| chunk.get(last)) else {
                return fault.map_or(Ok(true), Err);
            };
            let last = last.clone();
            for ((key, rows), result) in chunk.iter().zip(outcomes) {
                let (count, outcome, reason) = match (&result, self.dry_run) {
                    (RestoreOutcome::Restored, true) => (CountOutcome::Success, "would_restore", None),
                    (RestoreOutcome::Restored, false) => (CountOutcome::Success, "restored", None),
                    (RestoreOutcome::AlreadyRestored, _) => (CountOutcome::Success, "already_restored", None),
                    (RestoreOutcome::Refused(reason), true) => {
                        (CountOutcome::NotProcessed, "would_refuse", Some(reason.as_str()))
                    }
                    (RestoreOutcome::Refused(reason), false) => {
                        (CountOutcome::NotProcessed, "refused", Some(reason.as_str()))
                    }
                };
                task_run.count_as(count, format!("restore.{outcome}"), 1);
                task_run.count("restore.rows", rows.len());
                let revision = rows.last().map(|row| row.revision.to_string());
                task_run.report(&RestoreEntry { key: &key.to_raw(), revision, outcome, reason });
            }
            task_run.checkpoint(RestoreCursor::After(last)).await?;
            if let Some(fault) = fault {
                return Err(fault);
            }
        }
        Ok(true)
    }
}

/// Returns the outcomes of the keys before the first error, and the error. These keys are done in any case.
async fn until_fault(
    puts: Vec<impl Future<Output = Result<RestoreOutcome, RestoreError>>>,
) -> (Vec<RestoreOutcome>, Option<RestoreError>) {
    let mut outcomes = Vec::with_capacity(puts.len());
    let mut puts = stream::iter(puts).buffered(IN_FLIGHT);
    while let Some(outcome) = puts.next().await {
        match outcome {
            Ok(outcome) => outcomes.push(outcome),
            Err(fault) => return (outcomes, Some(fault)),
        }
    }
    (outcomes, None)
}

/// The target of the rows of a key: the table, or, in a dry run, a copy of the item that the table has under the key.
/// For the copy, the table predicts the result of each write.
enum RestoreTarget<'t> {
    Table(&'t RestoreTable),
    Copy { table: &'t RestoreTable, there: Option<RawItem>, claims: &'t EmailClaims },
}

/// The emails that the keys of this dry run would reserve, and the users that would then have them.
#[derive(Debug, Default)]
struct EmailClaims(Mutex<HashMap<String, Option<String>>>);

impl EmailClaims {
    /// Reserves an email for a user, unless it belongs to another user.
    fn take(&self, address: &str, user: Option<&String>) -> bool {
        let mut claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        claims.entry(address.to_owned()).or_insert_with(|| user.cloned()).as_ref() == user
    }

    fn release_claim(&self, address: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(address);
    }
}

impl RestoreTarget<'_> {
    fn rules(&self) -> &RestoreRules {
        match self {
            Self::Table(table) | Self::Copy { table, .. } => table.rules(),
        }
    }

    async fn put(
        &mut self,
        item: AttributeMap,
        over: Option<&RawItem>,
        now: OffsetDateTime,
    ) -> Result<(), RestorePutError> {
        let (table, there, claims) = match self {
            Self::Table(table) => return table.put(item, over, now).await,
            Self::Copy { table, there, claims } => (table, there, claims),
        };
        table.predict(&item, over, there.as_ref(), now).await?;
        let address = table.reserved_email(&item, now);
        let user = item.get(USER_ID).and_then(|id| id.as_s().ok());
        if address.as_ref().is_some_and(|address| !claims.take(address, user)) {
            return Err(RestorePutError::EmailTaken);
        }
        let before = there.take().and_then(|there| table.reserved_email(&there.into_attributes(), now));
        if let Some(before) = before.filter(|before| Some(before) != address.as_ref()) {
            claims.release_claim(&before);
        }
        *there = Some(RawItem::new(item));
        Ok(())
    }
}

fn too_many_attributes(count: usize) -> String {
    format!("the existing item has {count} attributes, too many for a condition: delete it first")
}

fn conflict_reason(obstacle: ExistingItem) -> &'static str {
    if obstacle.is_live {
        "a live item exists: set \"overwrite\": true to replace it"
    } else {
        "an expired item is still in the table: retry after TTL has deleted it"
    }
}

fn item_of(row: &ArchivedRow) -> Result<RawItem, String> {
    RawItem::parse(row.item.get()).map_err(|error: ItemSyntaxError| error.to_string())
}

/// Writes the rows of a key, each over the previous one. A dry run does so with the copy, so its decisions are the
/// same.
async fn put_all(
    mut table: RestoreTarget<'_>,
    rows: &[ArchivedRow],
    restore: &RestoreTask,
    now: OffsetDateTime,
) -> Result<RestoreOutcome, RestoreError> {
    let rules = table.rules().clone();
    let (mut over, mut next, mut tries): (Option<RawItem>, _, _) = (None, 0, 0);
    while let Some(row) = rows.get(next) {
        let archived = match item_of(row) {
            Ok(archived) => archived,
            Err(reason) => return Ok(RestoreOutcome::Refused(reason)),
        };
        let of_before = over.as_ref().and_then(|there| rules.existing(there, now).version);
        let item = rules.restored(archived, restore.expiry, of_before, now);
        // Needed only by a row that follows.
        let written = (next + 1 < rows.len()).then(|| RawItem::new(item.clone()));
        match table.put(item, over.as_ref(), now).await {
            Ok(()) => {
                over = written;
                next += 1;
            }
            Err(RestorePutError::Fault(TableError::TooLarge(_))) => {
                return Ok(RestoreOutcome::Refused("the item would exceed 400 KB".to_owned()));
            }
            Err(RestorePutError::Fault(fault)) => return Err(fault.into()),
            Err(RestorePutError::EmailTaken) => return Ok(RestoreOutcome::Refused(TAKEN.to_owned())),
            Err(RestorePutError::InvalidUserKey) => return Ok(RestoreOutcome::Refused(NO_USER.to_owned())),
            Err(RestorePutError::TooManyAttributes(count)) => {
                return Ok(RestoreOutcome::Refused(too_many_attributes(count)));
            }
            Err(RestorePutError::TooManyConflicts) => return Ok(RestoreOutcome::Refused(OVERTAKEN.to_owned())),
            Err(RestorePutError::Conflict(there)) => {
                tries += 1;
                let existing = there.as_ref().map(|there| rules.existing(there, now));
                let expired = existing.filter(|existing| !existing.is_live);
                if let Some(expired) = expired.filter(|_| !restore.overwrite) {
                    return Ok(RestoreOutcome::Refused(conflict_reason(expired).to_owned()));
                }
                // The rows up to this one were written by an interrupted restore, or by an earlier attempt of this
                // write.
                let live = there.as_ref().filter(|_| expired.is_none());
                let done = live.and_then(|there| {
                    rows[next..]
                        .iter()
                        .rposition(|row| item_of(row).is_ok_and(|item| rules.matches_archived(there, &item)))
                });
                match (done, there) {
                    (Some(done), Some(there)) if next + done + 1 == rows.len() => {
                        if !restore.overwrite || rules.has_expiry(&there, restore.expiry, now) {
                            return Ok(RestoreOutcome::AlreadyRestored);
                        }
                        if tries > TRIES {
                            return Ok(RestoreOutcome::Refused(OVERTAKEN.to_owned()));
                        }
                        // The item is restored, but with another expiry than the one that this request sets.
                        next += done;
                        over = Some(there);
                    }
                    // A user that equals an archived one was restored: its version is that of a restore. Any other item
                    // may as well have been written again.
                    (Some(_), Some(there)) if rules.schema == SourceSchema::Any && !restore.overwrite => {
                        return Ok(RestoreOutcome::Refused(conflict_reason(rules.existing(&there, now)).to_owned()));
                    }
                    (Some(done), there) => {
                        next += done + 1;
                        over = there;
                    }
                    (None, _) if tries > TRIES => return Ok(RestoreOutcome::Refused(OVERTAKEN.to_owned())),
                    (None, None) => over = None,
                    (None, there) if restore.overwrite => over = there,
                    (None, Some(there)) => {
                        return Ok(RestoreOutcome::Refused(conflict_reason(rules.existing(&there, now)).to_owned()));
                    }
                }
            }
        }
    }
    Ok(RestoreOutcome::Restored)
}
