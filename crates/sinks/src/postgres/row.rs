//! Table rows, encoded from changes and writes, and the arrays that carry many of them in one statement.

use std::borrow::Cow;

use millrace_shared::change::{CanonicalKey, Change, ChangeKind};
use millrace_shared::item::columns::{self, RowError, UserColumns};
use millrace_shared::revision::{Revision, RevisionBytes};
use time::OffsetDateTime;
use tokio_postgres::types::ToSql;

use crate::{ReplicaCondition, ReplicaWrite, WriteTarget};

/// A change that cannot be encoded as a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RowEncodeError {
    #[error(transparent)]
    NoRow(#[from] RowError),
    #[error("the image contains the attribute {0}, which is reserved for replicas: rename it in the source")]
    Reserved(&'static str),
    #[error("the stream contains no new images: set its view type to NEW_IMAGE or NEW_AND_OLD_IMAGES")]
    View,
}

/// A row to be written.
#[derive(Debug)]
pub(super) struct UserRow<'a> {
    /// The index of the change or write that the row was encoded from.
    pub(super) index: usize,
    key: &'a CanonicalKey,
    user_id: Cow<'a, str>,
    second: Cow<'a, str>,
    revision: RevisionBytes,
    columns: UserColumns<'a>,
    item: Option<Cow<'a, str>>,
    gone: Option<OffsetDateTime>,
    expired: bool,
    changed_at: Option<OffsetDateTime>,
    /// The stored revision that the write requires, if any.
    expected: Option<RevisionBytes>,
}

impl<'a> UserRow<'a> {
    /// Returns the row for a change; a tombstone gets the time `now`.
    pub(super) fn of_change(index: usize, change: &'a Change<'_>, now: OffsetDateTime) -> Result<Self, RowEncodeError> {
        let key = change.key.canonical();
        let row = Self::bare(index, key, change.revision, change.approximate_creation_time)?;
        match change.effect {
            ChangeKind::Write { image: Some(image) } => row.holding(Cow::Borrowed(image.get())),
            ChangeKind::Write { image: None } => Err(RowEncodeError::View),
            ChangeKind::Remove { expired, .. } => Ok(Self { gone: Some(now), expired, ..row }),
        }
    }

    /// Returns the row for a write that does not come from the stream.
    pub(super) fn of_write(
        index: usize,
        write: &ReplicaWrite<'a>,
        now: OffsetDateTime,
    ) -> Result<Self, RowEncodeError> {
        let mut row = Self::bare(index, write.key, write.revision, None)?;
        if let ReplicaCondition::Revision(Some(there)) = write.over {
            row.expected = Some(there.encode());
        }
        match write.target {
            WriteTarget::Item(item) => row.holding(Cow::Owned(item.encode())),
            WriteTarget::Tombstone { expired } => Ok(Self { gone: Some(now), expired, ..row }),
        }
    }

    fn bare(
        index: usize,
        key: &'a CanonicalKey,
        revision: Revision,
        changed_at: Option<OffsetDateTime>,
    ) -> Result<Self, RowEncodeError> {
        let (user_id, second) = columns::key(key)?;
        Ok(Self {
            index,
            key,
            user_id,
            second,
            revision: revision.encode(),
            columns: UserColumns::default(),
            item: None,
            gone: None,
            expired: false,
            changed_at,
            expected: None,
        })
    }

    fn holding(mut self, item: Cow<'a, str>) -> Result<Self, RowEncodeError> {
        self.columns = match &item {
            Cow::Borrowed(item) => UserColumns::read(item)?,
            Cow::Owned(item) => UserColumns::read(item)?.into_owned(),
        };
        if let Some(name) = self.columns.reserved {
            return Err(RowEncodeError::Reserved(name));
        }
        self.item = Some(item);
        Ok(self)
    }

    /// Returns the row's user ID and second, in canonical form.
    pub(super) fn names(&self) -> (&str, &str) {
        (&self.user_id, &self.second)
    }

    /// Returns whether the write requires a stored revision.
    pub(super) fn is_conditional(&self) -> bool {
        self.expected.is_some()
    }

    /// Sorts rows by their keys before they are written: two statements that lock the same rows in different orders
    /// would wait for each other.
    pub(super) fn sort(rows: &mut [Self]) {
        rows.sort_unstable_by(|one, other| one.key.cmp(other.key));
    }
}

/// Many rows, as one list per column, in the order of the statements' parameters.
pub(super) struct ColumnArrays<'r> {
    user_id: Vec<&'r str>,
    second: Vec<&'r str>,
    revision: Vec<&'r [u8]>,
    name: Vec<Option<&'r str>>,
    email: Vec<Option<&'r str>>,
    status: Vec<Option<&'r str>>,
    attributes: Vec<Option<&'r str>>,
    expires_at: Vec<Option<&'r str>>,
    version: Vec<Option<&'r str>>,
    created_at: Vec<Option<OffsetDateTime>>,
    updated_at: Vec<Option<OffsetDateTime>>,
    item: Vec<Option<&'r str>>,
    deleted_at: Vec<Option<OffsetDateTime>>,
    expired: Vec<bool>,
    changed_at: Vec<Option<OffsetDateTime>>,
    name_folded: Vec<Option<&'r str>>,
    email_domain: Vec<Option<&'r str>>,
    expected: Vec<Option<&'r [u8]>>,
}

impl<'r> ColumnArrays<'r> {
    pub(super) fn of(rows: &'r [UserRow<'r>]) -> Self {
        fn list<'r, T>(rows: &'r [UserRow<'r>], part: impl Fn(&'r UserRow<'r>) -> T) -> Vec<T> {
            rows.iter().map(part).collect()
        }
        Self {
            user_id: list(rows, |row| row.user_id.as_ref()),
            second: list(rows, |row| row.second.as_ref()),
            revision: list(rows, |row| row.revision.as_ref()),
            name: list(rows, |row| row.columns.name.as_deref()),
            email: list(rows, |row| row.columns.email.as_deref()),
            status: list(rows, |row| row.columns.status.as_deref()),
            attributes: list(rows, |row| row.columns.attributes.as_deref()),
            expires_at: list(rows, |row| row.columns.expires_at.as_deref()),
            version: list(rows, |row| row.columns.version.as_deref()),
            created_at: list(rows, |row| row.columns.created_at),
            updated_at: list(rows, |row| row.columns.updated_at),
            item: list(rows, |row| row.item.as_deref()),
            deleted_at: list(rows, |row| row.gone),
            expired: list(rows, |row| row.expired),
            changed_at: list(rows, |row| row.changed_at),
            name_folded: list(rows, |row| row.columns.name_folded.as_deref()),
            email_domain: list(rows, |row| row.columns.email_domain.as_deref()),
            expected: list(rows, |row| row.expected.as_ref().map(AsRef::as_ref)),
        }
    }

    /// Returns the parameters of a statement without expected revisions.
    pub(super) fn parameters(&self) -> [&(dyn ToSql + Sync); 17] {
        [
            &self.user_id,
            &self.second,
            &self.revision,
            &self.name,
            &self.email,
            &self.status,
            &self.attributes,
            &self.expires_at,
            &self.version,
            &self.created_at,
            &self.updated_at,
            &self.item,
            &self.deleted_at,
            &self.expired,
            &self.changed_at,
            &self.name_folded,
            &self.email_domain,
        ]
    }

    /// Returns the parameters of a statement with expected revisions.
    pub(super) fn expecting(&self) -> Vec<&(dyn ToSql + Sync)> {
        let mut parameters = self.parameters().to_vec();
        parameters.push(&self.expected);
        parameters
    }
}
