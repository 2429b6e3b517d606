//! The form of a table: its key, its columns, and the conversion of an item to their values. [`TableForm`]
//!
//! Every table has the same columns of replication (`revision`, `item`, `deleted_at`, `expired`, `changed_at`), and is
//! written by the same statements. The form adds the key and the typed columns: those of a user's record, or those that
//! a replication document declares.

use std::borrow::Cow;

use millrace_shared::change::CanonicalKey;
use millrace_shared::item::columns::{self, RowError, UserColumns, first_attribute_with_nul};
use millrace_transform::columns::{ColumnError, ColumnType, ColumnValue, ColumnValues, TableColumns};

use super::statement::TableStatements;
use crate::document::{PostgresTable, SqlIdentifier};

/// The maximum length of a canonical key in bytes. PostgreSQL limits an index entry to a third of a page of 8 KB.
const KEY_BYTES: usize = 2_600;

/// An item that cannot be encoded as a row. The message names the attribute and never contains a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RowEncodeError {
    #[error(transparent)]
    NoRow(#[from] RowError),
    #[error(transparent)]
    Column(#[from] ColumnError),
    #[error("the key has {0} bytes in canonical form: a PostgreSQL index stores at most {KEY_BYTES}")]
    LongKey(usize),
    #[error("the image contains the attribute {0}, which is reserved for replicas: rename it in the source")]
    Reserved(&'static str),
    #[error("the stream contains no new images: set its view type to NEW_IMAGE or NEW_AND_OLD_IMAGES")]
    View,
}

/// A column as the statements name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FormColumn {
    /// The quoted name.
    pub(super) name: String,
    /// The type of the list that carries its values.
    pub(super) list_type: &'static str,
    /// The cast from an element of that list, which may be empty.
    pub(super) cast: &'static str,
}

impl FormColumn {
    fn new(name: &SqlIdentifier, kind: ColumnType) -> Self {
        // Numbers, JSON and lists are sent as text and parsed by the server: no float is involved.
        let (list_type, cast) = match kind {
            ColumnType::Text | ColumnType::FoldedText => ("text[]", ""),
            ColumnType::Numeric => ("text[]", "::numeric"),
            ColumnType::BigInt => ("int8[]", ""),
            ColumnType::Boolean => ("bool[]", ""),
            ColumnType::Timestamp(_) => ("timestamptz[]", ""),
            ColumnType::Date => ("date[]", ""),
            ColumnType::Json => ("text[]", "::jsonb"),
            ColumnType::Bytes => ("bytea[]", ""),
            ColumnType::TextArray => ("text[]", "::text[]"),
            ColumnType::NumericArray => ("text[]", "::numeric[]"),
        };
        Self { name: name.quoted(), list_type, cast }
    }
}

/// The typed columns of the table `users`.
const USER_COLUMNS: [(&str, ColumnType); 10] = [
    ("name", ColumnType::Text),
    ("email", ColumnType::Text),
    ("status", ColumnType::Text),
    ("attributes", ColumnType::Json),
    ("expires_at", ColumnType::Numeric),
    ("version", ColumnType::Numeric),
    ("created_at", ColumnType::Timestamp(millrace_transform::columns::TimestampFormat::Rfc3339)),
    ("updated_at", ColumnType::Timestamp(millrace_transform::columns::TimestampFormat::Rfc3339)),
    ("name_folded", ColumnType::Text),
    ("email_domain", ColumnType::Text),
];

/// The form of a table, and the statements for it.
#[derive(Debug)]
pub(super) struct TableForm {
    /// The table's name, for errors.
    pub(super) table: SqlIdentifier,
    pub(super) statements: TableStatements,
    /// The number of columns of the key.
    pub(super) key_columns: usize,
    /// The types of the typed columns.
    pub(super) kinds: Vec<ColumnType>,
    content: FormContent,
}

#[derive(Debug)]
enum FormContent {
    /// The records of users.
    Users,
    /// The items of any table.
    Document(TableColumns),
}

/// The values of a key's columns; a key has one or two.
#[derive(Debug)]
pub(super) struct KeyValues<'a>(Cow<'a, str>, Option<Cow<'a, str>>);

impl KeyValues<'_> {
    pub(super) fn get(&self, column: usize) -> &str {
        if column == 0 { &self.0 } else { self.1.as_deref().unwrap_or_default() }
    }
}

impl TableForm {
    /// The table of the users service, with the columns that search queries.
    pub(super) fn users() -> Self {
        let table = SqlIdentifier::constant("users");
        let column = |name: &'static str, kind| FormColumn::new(&SqlIdentifier::constant(name), kind);
        let keys = [column("user_id", ColumnType::Text), column("timestamp", ColumnType::Numeric)];
        let columns: Vec<_> = USER_COLUMNS.iter().map(|(name, kind)| column(name, *kind)).collect();
        Self {
            statements: TableStatements::new(&table, &keys, &columns),
            key_columns: keys.len(),
            kinds: USER_COLUMNS.iter().map(|(_, kind)| *kind).collect(),
            table,
            content: FormContent::Users,
        }
    }

    /// The table of a replication document.
    pub(super) fn of_document(settings: &PostgresTable) -> Self {
        let keys = [FormColumn::new(&SqlIdentifier::constant("key"), ColumnType::Text)];
        let definitions = settings.columns.definitions();
        let columns: Vec<_> = definitions
            .iter()
            .filter_map(|column| {
                // The document has validated the names.
                Some(FormColumn::new(&SqlIdentifier::parse(&column.name, usize::MAX).ok()?, column.kind))
            })
            .collect();
        Self {
            statements: TableStatements::new(&settings.table, &keys, &columns),
            key_columns: keys.len(),
            kinds: definitions.iter().map(|column| column.kind).collect(),
            table: settings.table.clone(),
            content: FormContent::Document(settings.columns.clone()),
        }
    }

    /// Returns the typed columns if a document declares them.
    pub(super) fn declared_columns(&self) -> Option<&TableColumns> {
        match &self.content {
            FormContent::Users => None,
            FormContent::Document(columns) => Some(columns),
        }
    }

    /// Returns the values of the key's columns.
    pub(super) fn key_values<'k>(&self, key: &'k CanonicalKey) -> Result<KeyValues<'k>, RowEncodeError> {
        match self.content {
            FormContent::Users => {
                let (user_id, second) = columns::key(key)?;
                Ok(KeyValues(user_id, Some(second)))
            }
            FormContent::Document(_) if key.as_str().len() > KEY_BYTES => {
                Err(RowEncodeError::LongKey(key.as_str().len()))
            }
            FormContent::Document(_) => Ok(KeyValues(Cow::Borrowed(key.as_str()), None)),
        }
    }

    /// Returns the key whose columns have these texts; `None` if they are not the texts of a key.
    pub(super) fn key_of(&self, texts: &[&str]) -> Option<CanonicalKey> {
        match (&self.content, texts) {
            (FormContent::Users, [user, second]) => {
                let json = serde_json::json!({"user_id": {"S": user}, "timestamp": {"N": second}});
                CanonicalKey::parse(&json.to_string()).ok()
            }
            (FormContent::Document(_), [key]) => CanonicalKey::parse(key).ok(),
            _ => None,
        }
    }

    /// Returns the values of the typed columns of an item.
    pub(super) fn values<'i>(&self, item: &'i str) -> Result<ColumnValues<'i>, RowEncodeError> {
        match &self.content {
            FormContent::Users => user_values(UserColumns::read(item)?),
            FormContent::Document(columns) => {
                if let Some(name) = first_attribute_with_nul(item)? {
                    return Err(RowError::Zero(name).into());
                }
                Ok(columns.read(item)?)
            }
        }
    }
}

/// Returns the values of [`USER_COLUMNS`].
fn user_values(columns: UserColumns<'_>) -> Result<ColumnValues<'_>, RowEncodeError> {
    if let Some(name) = columns.reserved {
        return Err(RowEncodeError::Reserved(name));
    }
    let values = vec![
        columns.name.map(ColumnValue::Text),
        columns.email.map(ColumnValue::Text),
        columns.status.map(ColumnValue::Text),
        columns.attributes.map(ColumnValue::Json),
        columns.expires_at.map(ColumnValue::Numeric),
        columns.version.map(ColumnValue::Numeric),
        columns.created_at.map(ColumnValue::Timestamp),
        columns.updated_at.map(ColumnValue::Timestamp),
        columns.name_folded.map(ColumnValue::Text),
        columns.email_domain.map(ColumnValue::Text),
    ];
    Ok(ColumnValues { values, replaced_by_null: Vec::new() })
}
