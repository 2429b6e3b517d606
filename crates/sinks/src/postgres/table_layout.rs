//! The layout of a table: its columns, and the conversion of an item to their values. [`TableLayout`]
//!
//! Every table has the same columns of replication (`key`, `revision`, `item`, `deleted_at`, `expired`, `changed_at`),
//! and is written by the same statements. The layout adds the typed columns that the replication document declares, and
//! the further requirements on a row: in the users service it is a user's record whose texts fit the indexes of search.

use millrace_shared::change::CanonicalKey;
use millrace_shared::item::columns::{self, RowError, TEXT_BYTES, first_attribute_with_nul, first_reserved_attribute};
use millrace_shared::item::restored::SourceSchema;
use millrace_shared::item::{ATTRIBUTES, EMAIL, NAME, STATUS};
use millrace_transform::columns::{ColumnError, ColumnType, ColumnValue, ColumnValues, TableColumns};

use super::statement::TableStatements;
use crate::document::{PostgresTable, SqlIdentifier, users_table};

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
pub(super) struct LayoutColumn {
    /// The quoted name.
    pub(super) name: String,
    /// The type of the list that carries its values.
    pub(super) list_type: &'static str,
    /// The cast from an element of that list, which may be empty.
    pub(super) cast: &'static str,
}

impl LayoutColumn {
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

/// The layout of a table, and the statements for it.
#[derive(Debug)]
pub(super) struct TableLayout {
    /// The table's name, for errors.
    pub(super) table: SqlIdentifier,
    pub(super) statements: TableStatements,
    /// The typed columns.
    pub(super) columns: TableColumns,
    /// The kind of items that the table contains.
    pub(super) source: SourceSchema,
    /// The requirements of search on the values of some columns, by the columns' indexes.
    rules: Vec<(usize, UserRule)>,
    /// The names of the columns that every user's record fits: those that search queries.
    search_columns: Vec<String>,
}

/// A part of the configuration that no record fits, if all records of a batch have the same problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MisfitKind {
    /// The source's keys are not those of users.
    Key,
    /// A column that the operator has declared.
    Column,
}

/// A requirement of search on the value of a column.
#[derive(Debug, Clone, Copy)]
enum UserRule {
    /// An index stores the text.
    Indexed(&'static str),
    /// The attributes are a map.
    Map,
}

impl TableLayout {
    /// The table of any source.
    pub(super) fn for_any_source(settings: &PostgresTable) -> Self {
        Self::new(settings, SourceSchema::Any)
    }

    /// The table of the users service, which search queries.
    pub(super) fn for_users(settings: &PostgresTable) -> Self {
        Self::new(settings, SourceSchema::Users)
    }

    fn new(settings: &PostgresTable, source: SourceSchema) -> Self {
        let definitions = settings.columns.definitions();
        let columns: Vec<_> = definitions
            .iter()
            .filter_map(|column| {
                // The document has validated the names.
                Some(LayoutColumn::new(&SqlIdentifier::parse(&column.name, usize::MAX).ok()?, column.kind))
            })
            .collect();
        let rules = definitions.iter().enumerate().filter_map(|(index, column)| {
            let path = column.path.to_string();
            let indexed = [NAME, EMAIL, STATUS].into_iter().find(|name| *name == path).map(UserRule::Indexed);
            Some((index, indexed.or_else(|| (path == ATTRIBUTES).then_some(UserRule::Map))?))
        });
        Self {
            statements: TableStatements::new(&settings.table, &columns),
            rules: if source == SourceSchema::Users { rules.collect() } else { Vec::new() },
            table: settings.table.clone(),
            columns: settings.columns.clone(),
            source,
            search_columns: match source {
                SourceSchema::Users => {
                    users_table().columns.definitions().iter().map(|column| column.name.clone()).collect()
                }
                SourceSchema::Any => Vec::new(),
            },
        }
    }

    /// Returns the part of the configuration that may be wrong rather than the record.
    pub(super) fn misfit(&self, refused: &RowEncodeError) -> Option<MisfitKind> {
        match refused {
            RowEncodeError::NoRow(RowError::Key) => Some(MisfitKind::Key),
            RowEncodeError::Column(ColumnError::Unfit { name, .. }) if self.search_columns.contains(name) => None,
            RowEncodeError::Column(ColumnError::Malformed { .. }) if self.source == SourceSchema::Users => None,
            RowEncodeError::Column(_) => Some(MisfitKind::Column),
            _ => None,
        }
    }

    /// Checks whether the table can contain this key.
    pub(super) fn check_key(&self, key: &CanonicalKey) -> Result<(), RowEncodeError> {
        if self.source == SourceSchema::Users {
            columns::key(key)?;
        }
        match key.as_str().len() {
            bytes if bytes > KEY_BYTES => Err(RowEncodeError::LongKey(bytes)),
            _ => Ok(()),
        }
    }

    /// Returns the values of the typed columns of an item.
    pub(super) fn values<'i>(&self, item: &'i str) -> Result<ColumnValues<'i>, RowEncodeError> {
        if let Some(name) = first_attribute_with_nul(item)? {
            return Err(RowError::Zero(name).into());
        }
        let found = self.columns.read(item)?;
        if self.source == SourceSchema::Users {
            self.check_user(item, &found)?;
        }
        Ok(found)
    }

    fn check_user(&self, item: &str, found: &ColumnValues<'_>) -> Result<(), RowEncodeError> {
        if let Some(name) = first_reserved_attribute(item)? {
            return Err(RowEncodeError::Reserved(name));
        }
        for (index, rule) in &self.rules {
            match (rule, found.values.get(*index).and_then(Option::as_ref)) {
                (UserRule::Indexed(name), Some(ColumnValue::Text(text))) if text.len() > TEXT_BYTES => {
                    return Err(RowError::Long(name).into());
                }
                (UserRule::Map, Some(ColumnValue::Json(json))) if !json.starts_with('{') => {
                    return Err(RowError::Type { attribute: ATTRIBUTES, wanted: "a map (M)" }.into());
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const ADA: &str = r#"{"user_id":{"S":"ada"},"timestamp":{"N":"7"},"name":{"S":"Ada \u00e9"},"email":{"S":"Ada@Example.com"},
        "status":{"NULL":true},"expires_at":{"N":"1.5e9"},"version":{"N":"12345678901234567890123456789012345678"},
        "created_at":{"S":"2026-11-22T10:00:00.123Z"},"attributes":{"M":{"n":{"N":"1.50"},"l":{"L":[]}}},"more":{"BOOL":true}}"#;

    fn users() -> TableLayout {
        TableLayout::for_users(&users_table())
    }

    fn refused(item: &str) -> String {
        users().values(item).unwrap_err().to_string()
    }

    #[test]
    fn columns_of_a_user_are_read_without_rounding_numbers() {
        let layout = users();
        let found = layout.values(ADA).unwrap();
        let value = |name: &str| {
            let index = layout.columns.definitions().iter().position(|column| column.name == name).unwrap();
            found.values[index].clone()
        };
        let text = |text: &str| Some(ColumnValue::Text(text.to_owned().into()));
        assert_eq!(
            (value("user_id"), value("name"), value("name_folded")),
            (text("ada"), text("Ada é"), text("ada é"))
        );
        assert_eq!((value("email"), value("status")), (text("Ada@Example.com"), None));
        assert_eq!(value("email_folded"), text("ada@example.com"));
        let digits = "12345678901234567890123456789012345678";
        assert_eq!(value("version"), Some(ColumnValue::Numeric(digits.into())));
        assert_eq!(value("timestamp"), Some(ColumnValue::Numeric("7".into())));
        assert_eq!(value("created_at"), Some(ColumnValue::Timestamp(datetime!(2026-11-22 10:00:00.123 UTC))));
        assert_eq!(value("attributes"), Some(ColumnValue::Json(r#"{"n":1.50,"l":[]}"#.to_owned())));
        assert!(layout.values("{}").unwrap().values.iter().all(Option::is_none));
    }

    #[test]
    fn another_type_under_a_column_s_name_is_refused_by_name_and_not_shown() {
        for (name, value) in [
            ("name", r#"{"N":"52"}"#),
            ("email", r#"{"SS":["s3cret"]}"#),
            ("status", r#"{"BOOL":true}"#),
            ("version", r#"{"S":"s3cret"}"#),
            ("version", r#"{"N":"s3cret"}"#),
            ("created_at", r#"{"S":"s3cret"}"#),
            ("updated_at", r#"{"N":"1"}"#),
            ("attributes", r#"{"S":"s3cret"}"#),
            ("attributes", r#"{"L":[]}"#),
            ("attributes", r#"{"M":{"a":{"N":"s3cret"}}}"#),
        ] {
            let error_text = refused(&format!(r#"{{"user_id":{{"S":"ada"}},"{name}":{value}}}"#));
            assert!(error_text.contains(name) && !error_text.contains("s3cret"), "{error_text}");
        }
        assert!(refused("[]").contains("not a map"));
    }

    #[test]
    fn text_that_no_index_stores_is_refused() {
        let item = |length: usize| format!(r#"{{"email":{{"S":"{}"}}}}"#, "x".repeat(length));
        assert!(users().values(&item(TEXT_BYTES)).is_ok());
        assert!(refused(&item(TEXT_BYTES + 1)).contains("email"));
        assert!(TableLayout::for_any_source(&users_table()).values(&item(TEXT_BYTES + 1)).is_ok(), "of any source");
    }

    #[test]
    fn reserved_attribute_and_key_of_another_table_are_refused() {
        assert!(refused(r#"{"a":{"S":"_rev"},"\u005frev":{"S":"a"}}"#).contains("_rev"));
        assert!(users().values(r#"{"a":{"M":{"_rev":{"S":"x"}}}}"#).is_ok());
        let key = CanonicalKey::parse(r#"{"order_id":{"S":"7"}}"#).unwrap();
        assert_eq!(users().check_key(&key), Err(RowEncodeError::NoRow(RowError::Key)));
        assert_eq!(TableLayout::for_any_source(&users_table()).check_key(&key), Ok(()));
    }
}
