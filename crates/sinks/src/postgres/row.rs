//! Table rows, encoded from changes and writes, and the lists that carry many of them in one statement.

use std::borrow::Cow;

use millrace_shared::change::{CanonicalKey, Change, ChangeKind};
use millrace_shared::revision::{Revision, RevisionBytes};
use millrace_transform::columns::{ColumnDefinition, ColumnType, ColumnValue, ColumnValues};
use time::{Date, OffsetDateTime};
use tokio_postgres::types::ToSql;

use super::table_layout::{RowEncodeError, TableLayout};
use crate::{ReplicaCondition, ReplicaWrite, WriteTarget};

/// A row to be written.
#[derive(Debug)]
pub(super) struct TableRow<'a> {
    /// The index of the change or write that the row was encoded from.
    pub(super) index: usize,
    pub(super) key: &'a CanonicalKey,
    revision: RevisionBytes,
    /// The typed columns; empty for a tombstone.
    columns: ColumnValues<'a>,
    item: Option<Cow<'a, str>>,
    gone: Option<OffsetDateTime>,
    expired: bool,
    changed_at: Option<OffsetDateTime>,
    /// The stored revision that the write requires, if any.
    expected: Option<RevisionBytes>,
}

impl<'a> TableRow<'a> {
    /// Returns the row for a change; a tombstone gets the time `now`.
    pub(super) fn from_change(
        layout: &TableLayout,
        index: usize,
        change: &'a Change<'_>,
        now: OffsetDateTime,
    ) -> Result<Self, RowEncodeError> {
        let key = change.key.canonical();
        let row = Self::bare(layout, index, key, change.revision, change.approximate_creation_time)?;
        match change.effect {
            ChangeKind::Write { image: Some(image) } => row.with_item(layout, Cow::Borrowed(image.get())),
            ChangeKind::Write { image: None } => Err(RowEncodeError::View),
            ChangeKind::Remove { expired, .. } => Ok(Self { gone: Some(now), expired, ..row }),
        }
    }

    /// Returns the row for a write that does not come from the stream.
    pub(super) fn from_write(
        layout: &TableLayout,
        index: usize,
        write: &ReplicaWrite<'a>,
        now: OffsetDateTime,
    ) -> Result<Self, RowEncodeError> {
        let mut row = Self::bare(layout, index, write.key, write.revision, None)?;
        if let ReplicaCondition::Revision(Some(there)) = write.over {
            row.expected = Some(there.encode());
        }
        if let Some(item) = write.target.item_text() {
            return row.with_item(layout, item);
        }
        let expired = matches!(write.target, WriteTarget::Tombstone { expired: true });
        Ok(Self { gone: Some(now), expired, ..row })
    }

    /// Returns the row of a stored item, for a comparison of its typed columns with the item.
    pub(super) fn from_stored(
        layout: &TableLayout,
        index: usize,
        key: &'a CanonicalKey,
        revision: Revision,
        item: &'a str,
    ) -> Result<Self, RowEncodeError> {
        Self::bare(layout, index, key, revision, None)?.with_item(layout, Cow::Borrowed(item))
    }

    fn bare(
        layout: &TableLayout,
        index: usize,
        key: &'a CanonicalKey,
        revision: Revision,
        changed_at: Option<OffsetDateTime>,
    ) -> Result<Self, RowEncodeError> {
        layout.check_key(key)?;
        Ok(Self {
            index,
            key,
            revision: revision.encode(),
            columns: ColumnValues::default(),
            item: None,
            gone: None,
            expired: false,
            changed_at,
            expected: None,
        })
    }

    fn with_item(mut self, layout: &TableLayout, item: Cow<'a, str>) -> Result<Self, RowEncodeError> {
        self.columns = match &item {
            Cow::Borrowed(item) => layout.values(item)?,
            Cow::Owned(item) => layout.values(item)?.into_owned(),
        };
        self.item = Some(item);
        Ok(self)
    }

    /// Returns whether the row contains an item.
    pub(super) fn has_item(&self) -> bool {
        self.item.is_some()
    }

    /// Returns the indexes of the columns that are null because they cannot store the item's values.
    pub(super) fn replaced_by_null(&self) -> &[usize] {
        &self.columns.replaced_by_null
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
pub(super) struct RowArrays<'r> {
    keys: Vec<&'r str>,
    revision: Vec<&'r [u8]>,
    item: Vec<Option<&'r str>>,
    deleted_at: Vec<Option<OffsetDateTime>>,
    expired: Vec<bool>,
    changed_at: Vec<Option<OffsetDateTime>>,
    columns: Vec<ColumnArray<'r>>,
    expected: Vec<Option<&'r [u8]>>,
}

/// The values of a typed column.
enum ColumnArray<'r> {
    Text(Vec<Option<Cow<'r, str>>>),
    BigInt(Vec<Option<i64>>),
    Boolean(Vec<Option<bool>>),
    Timestamp(Vec<Option<OffsetDateTime>>),
    Date(Vec<Option<Date>>),
    Bytes(Vec<Option<&'r [u8]>>),
}

impl<'r> ColumnArray<'r> {
    fn with_capacity(kind: ColumnType, rows: usize) -> Self {
        match kind {
            ColumnType::BigInt => Self::BigInt(Vec::with_capacity(rows)),
            ColumnType::Boolean => Self::Boolean(Vec::with_capacity(rows)),
            ColumnType::Timestamp(_) => Self::Timestamp(Vec::with_capacity(rows)),
            ColumnType::Date => Self::Date(Vec::with_capacity(rows)),
            ColumnType::Bytes => Self::Bytes(Vec::with_capacity(rows)),
            ColumnType::Text
            | ColumnType::FoldedText
            | ColumnType::Numeric
            | ColumnType::Json
            | ColumnType::TextArray
            | ColumnType::NumericArray => Self::Text(Vec::with_capacity(rows)),
        }
    }

    /// Appends a value. A value of another type than the column's, which the layout never gives, is null.
    fn push(&mut self, value: Option<&'r ColumnValue<'r>>) {
        match (self, value) {
            (Self::Text(values), value) => values.push(value.and_then(text)),
            (Self::BigInt(values), Some(ColumnValue::BigInt(number))) => values.push(Some(*number)),
            (Self::BigInt(values), _) => values.push(None),
            (Self::Boolean(values), Some(ColumnValue::Boolean(value))) => values.push(Some(*value)),
            (Self::Boolean(values), _) => values.push(None),
            (Self::Timestamp(values), Some(ColumnValue::Timestamp(time))) => values.push(Some(*time)),
            (Self::Timestamp(values), _) => values.push(None),
            (Self::Date(values), Some(ColumnValue::Date(date))) => values.push(Some(*date)),
            (Self::Date(values), _) => values.push(None),
            (Self::Bytes(values), Some(ColumnValue::Bytes(bytes))) => values.push(Some(bytes)),
            (Self::Bytes(values), _) => values.push(None),
        }
    }

    fn as_parameter(&self) -> &(dyn ToSql + Sync) {
        match self {
            Self::Text(values) => values,
            Self::BigInt(values) => values,
            Self::Boolean(values) => values,
            Self::Timestamp(values) => values,
            Self::Date(values) => values,
            Self::Bytes(values) => values,
        }
    }
}

/// Returns the text that the server parses as the value.
fn text<'v>(value: &'v ColumnValue<'_>) -> Option<Cow<'v, str>> {
    match value {
        ColumnValue::Text(text) | ColumnValue::Numeric(text) => Some(Cow::Borrowed(text.as_ref())),
        ColumnValue::Json(json) => Some(Cow::Borrowed(json.as_str())),
        ColumnValue::TextArray(elements) | ColumnValue::NumericArray(elements) => {
            Some(Cow::Owned(array_literal(elements)))
        }
        ColumnValue::BigInt(_)
        | ColumnValue::Boolean(_)
        | ColumnValue::Timestamp(_)
        | ColumnValue::Date(_)
        | ColumnValue::Bytes(_) => None,
    }
}

/// Returns the text form of an array: each element in quotes, with a backslash before quotes and backslashes.
fn array_literal(elements: &[Cow<'_, str>]) -> String {
    let mut literal = String::with_capacity(2 + elements.iter().map(|element| element.len() + 3).sum::<usize>());
    literal.push('{');
    for (position, element) in elements.iter().enumerate() {
        literal.push_str(if position > 0 { ",\"" } else { "\"" });
        for character in element.chars() {
            if matches!(character, '"' | '\\') {
                literal.push('\\');
            }
            literal.push(character);
        }
        literal.push('"');
    }
    literal.push('}');
    literal
}

impl<'r> RowArrays<'r> {
    pub(super) fn from_rows(layout: &TableLayout, rows: &'r [TableRow<'r>]) -> Self {
        fn list<'r, T>(rows: &'r [TableRow<'r>], part: impl Fn(&'r TableRow<'r>) -> T) -> Vec<T> {
            rows.iter().map(part).collect()
        }
        let column = |(position, column): (usize, &ColumnDefinition)| {
            let mut array = ColumnArray::with_capacity(column.kind, rows.len());
            // A tombstone has no values.
            for row in rows {
                array.push(row.columns.values.get(position).and_then(Option::as_ref));
            }
            array
        };
        Self {
            keys: list(rows, |row| row.key.as_str()),
            revision: list(rows, |row| row.revision.as_ref()),
            item: list(rows, |row| row.item.as_deref()),
            deleted_at: list(rows, |row| row.gone),
            expired: list(rows, |row| row.expired),
            changed_at: list(rows, |row| row.changed_at),
            columns: layout.columns.definitions().iter().enumerate().map(column).collect(),
            expected: list(rows, |row| row.expected.as_ref().map(AsRef::as_ref)),
        }
    }

    /// Returns the parameters of a statement without expected revisions.
    pub(super) fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        let own: [&(dyn ToSql + Sync); 6] =
            [&self.keys, &self.revision, &self.item, &self.deleted_at, &self.expired, &self.changed_at];
        own.into_iter().chain(self.columns.iter().map(ColumnArray::as_parameter)).collect()
    }

    /// Returns the parameters of a statement with expected revisions.
    pub(super) fn expecting(&self) -> Vec<&(dyn ToSql + Sync)> {
        let mut parameters = self.parameters();
        parameters.push(&self.expected);
        parameters
    }

    /// Returns the parameters of a comparison of the typed columns.
    pub(super) fn comparison_parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        let own: [&(dyn ToSql + Sync); 2] = [&self.keys, &self.revision];
        own.into_iter().chain(self.columns.iter().map(ColumnArray::as_parameter)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn array_literal_escapes_quotes_and_backslashes() {
        let elements = ["", "a,b", "\"", "\\", "{}", "NULL", "é\n"].map(Cow::Borrowed);
        assert_eq!(array_literal(&elements), "{\"\",\"a,b\",\"\\\"\",\"\\\\\",\"{}\",\"NULL\",\"é\n\"}");
        assert_eq!(array_literal(&[]), "{}");
    }
}
