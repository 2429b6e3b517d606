//! A PostgreSQL replica in a replication document: [`PostgresTable`], its table and its columns.

use millrace_transform::columns::{
    CASE_FOLDED, ColumnDefinition, ColumnType, OtherwiseRule, TableColumns, TimestampFormat,
};
use millrace_transform::{AttributePath, AttributeSettings};
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use super::identifier::{IDENTIFIER_BYTES, SqlIdentifier};
use super::json::{JsonValue, member_pointer};
use super::{DocumentReader, Members, ReplicaParts, SinkSettings, TableIdentity, nearest};

/// The columns that every table has, and those of PostgreSQL itself.
const RESERVED_COLUMNS: [&str; 12] = [
    "key",
    "revision",
    "item",
    "deleted_at",
    "expired",
    "changed_at",
    "tableoid",
    "xmin",
    "cmin",
    "xmax",
    "cmax",
    "ctid",
];
/// The maximum number of columns of a document's table.
const MAX_COLUMNS: usize = 200;
/// The start and the end that the reader role's name adds to the table's; both limit the length of the table's name.
const READER: (&str, &str) = ("millrace_", "_reader");
/// The end of the name of the view.
const VIEW: &str = "_live";
/// The maximum length of a table's name in bytes.
const TABLE_BYTES: usize = IDENTIFIER_BYTES - READER.0.len() - READER.1.len();

/// The members of a PostgreSQL replica.
pub(super) const POSTGRES_MEMBERS: [&str; 7] = ["name", "sink", "table", "columns", "otherwise", "where", "attributes"];
/// The members of a column.
pub(super) const COLUMN_MEMBERS: [&str; 3] = ["path", "type", "format"];

/// A table of PostgreSQL that mirrors a source, and the columns that it has in addition to the item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresTable {
    /// The table's name.
    pub table: SqlIdentifier,
    /// The typed columns. Their names are valid [`SqlIdentifier`]s.
    pub columns: TableColumns,
}

impl PostgresTable {
    /// Returns the name of the view without tombstones.
    #[must_use]
    pub fn view(&self) -> SqlIdentifier {
        view_of(&self.table)
    }

    /// Returns the name of the role that may read the view.
    #[must_use]
    pub fn reader_role(&self) -> SqlIdentifier {
        self.table.derived(READER.0, READER.1)
    }
}

/// Returns the name of the view of a table.
pub(super) fn view_of(table: &SqlIdentifier) -> SqlIdentifier {
    table.derived("", VIEW)
}

impl Serialize for PostgresTable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_map(None)?;
        members.serialize_entry("table", &self.table)?;
        members.serialize_entry("columns", &ColumnMembers(self.columns.definitions()))?;
        members.serialize_entry("otherwise", self.columns.otherwise().name())?;
        members.end()
    }
}

/// A column as a member of `columns`.
struct Column<'c>(&'c ColumnDefinition);

impl Serialize for Column<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_map(None)?;
        members.serialize_entry("path", &self.0.path.to_string())?;
        members.serialize_entry("type", self.0.kind.name())?;
        if let ColumnType::Timestamp(format) = self.0.kind {
            members.serialize_entry("format", format.name())?;
        } else if let Some(format) = self.0.kind.special_format() {
            members.serialize_entry("format", format)?;
        }
        members.end()
    }
}

/// Columns as the member `columns`, in their order.
pub(super) struct ColumnMembers<'c>(pub(super) &'c [ColumnDefinition]);

impl Serialize for ColumnMembers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|column| (&column.name, Column(column))))
    }
}

impl DocumentReader {
    /// Reads the table and the columns of a PostgreSQL replica. Without columns of its own, it has those of the
    /// document.
    pub(super) fn postgres_table(
        &mut self,
        pointer: &str,
        members: &Members<'_>,
        shared: &[ColumnDefinition],
    ) -> ReplicaParts {
        let location = |name: &str| member_pointer(pointer, name);
        let given = |name: &str| members.get(name).copied();
        let table = self.text(&location("table"), given("table"), "the name of a table, such as \"orders\"");
        let table = table.and_then(|text| self.parsed(&location("table"), table_name(text)));
        let columns = match given("columns") {
            None => Some(shared.to_vec()),
            Some(JsonValue::Object(listed)) => self.columns(&location("columns"), listed),
            Some(other) => {
                let reason = format!("is {}: set it to an object with a member for each column", other.quoted());
                self.add(location("columns"), reason);
                None
            }
        };
        let rules = OtherwiseRule::NAMES.map(|rule| format!("{rule:?}")).join(" or ");
        let otherwise = self.optional(&location("otherwise"), given("otherwise"), &rules, |text| {
            OtherwiseRule::parse(text).ok_or_else(|| format!("is {text:?}: set it to {rules}"))
        });
        let identity = table.clone().map(TableIdentity::Postgres);
        let sink = table.zip(columns).zip(otherwise.ok()).map(|((table, columns), otherwise)| {
            let columns = TableColumns::new(columns, otherwise.unwrap_or_default());
            SinkSettings::Postgres(PostgresTable { table, columns })
        });
        ReplicaParts { table: identity, sink, ..ReplicaParts::default() }
    }

    pub(super) fn columns(&mut self, pointer: &str, listed: &[(String, JsonValue)]) -> Option<Vec<ColumnDefinition>> {
        if listed.len() > MAX_COLUMNS {
            self.add(pointer, format!("has {} members: at most {MAX_COLUMNS} are allowed", listed.len()));
            return None;
        }
        let mut columns = Vec::with_capacity(listed.len());
        for (index, (name, value)) in listed.iter().enumerate() {
            let location = member_pointer(pointer, name);
            if listed[..index].iter().any(|(other, _)| other == name) {
                self.add(location, "occurs twice: remove one of them");
                columns.push(None);
                continue;
            }
            let is_name = match SqlIdentifier::parse(name, IDENTIFIER_BYTES) {
                Ok(_) if RESERVED_COLUMNS.contains(&name.as_str()) => {
                    self.add(&*location, "is the name of a column that every table has: choose another name");
                    false
                }
                Ok(_) => true,
                Err(reason) => {
                    self.add(&*location, reason);
                    false
                }
            };
            let column = self.column(&location, name, value);
            columns.push(column.filter(|_| is_name));
        }
        columns.into_iter().collect()
    }

    fn column(&mut self, pointer: &str, name: &str, value: &JsonValue) -> Option<ColumnDefinition> {
        let members = self.members(pointer, value, &COLUMN_MEMBERS, "a column")?;
        let location = |name: &str| member_pointer(pointer, name);
        let given = |name: &str| members.get(name).copied();
        let path = self.text(&location("path"), given("path"), "the path of an attribute, such as \"address.city\"");
        let path = path.and_then(|text| self.parsed(&location("path"), attribute_path(text)));
        let expected = format!("one of {}", ColumnType::NAMES.join(", "));
        let kind = self.text(&location("type"), given("type"), &expected);
        let kind = kind.and_then(|text| {
            let kind = ColumnType::parse(text).ok_or_else(|| {
                let hint = nearest(text, &ColumnType::NAMES).map(|name| format!("; did you mean {name:?}?"));
                format!("is {text:?}: set it to {expected}{}", hint.unwrap_or_default())
            });
            self.parsed(&location("type"), kind)
        });
        let expected = formats(kind);
        let format = self.optional(&location("format"), given("format"), &expected, |text| {
            let format = ColumnFormat::parse(text).filter(|format| format.is_for(kind));
            format.ok_or_else(|| format!("is {text:?}: set it to {expected}"))
        });
        let kind = match (kind, format) {
            (Some(ColumnType::Timestamp(_)), Ok(Some(ColumnFormat::Timestamp(format)))) => {
                Some(ColumnType::Timestamp(format))
            }
            (Some(ColumnType::Text), Ok(Some(ColumnFormat::CaseFolded))) => Some(ColumnType::FoldedText),
            (Some(kind), Ok(Some(_))) => {
                let reason = format!("is only for the types timestamptz and text, not for {kind}: remove it");
                self.add(location("format"), reason);
                None
            }
            (kind, Ok(_)) => kind,
            (_, Err(_)) => None,
        };
        Some(ColumnDefinition { name: name.to_owned(), path: path?, kind: kind? })
    }
}

/// The format of a column.
#[derive(Debug, Clone, Copy)]
enum ColumnFormat {
    Timestamp(TimestampFormat),
    CaseFolded,
}

impl ColumnFormat {
    fn parse(text: &str) -> Option<Self> {
        if text == CASE_FOLDED { Some(Self::CaseFolded) } else { TimestampFormat::parse(text).map(Self::Timestamp) }
    }

    /// Returns whether a column of this type can have the format, as far as the type has formats.
    fn is_for(self, kind: Option<ColumnType>) -> bool {
        match kind {
            Some(ColumnType::Timestamp(_)) => matches!(self, Self::Timestamp(_)),
            Some(ColumnType::Text) => matches!(self, Self::CaseFolded),
            _ => true,
        }
    }
}

/// Returns the formats of a type; those of all types if it has none or is not known.
fn formats(kind: Option<ColumnType>) -> String {
    let times = TimestampFormat::NAMES.join(", ");
    match kind {
        Some(ColumnType::Text) => CASE_FOLDED.to_owned(),
        Some(ColumnType::Timestamp(_)) => format!("one of {times}"),
        _ => format!("one of {times}, {CASE_FOLDED}"),
    }
}

impl DocumentReader {
    /// Rejects a rename of the value that a column names: the path of a column is one in the stored item, so the column
    /// would be null in every row.
    pub(super) fn reject_renamed_columns(&mut self, pointer: &str, parts: &ReplicaParts, rules: &AttributeSettings) {
        let Some(SinkSettings::Postgres(table)) = &parts.sink else { return };
        for (path, name) in &rules.rename {
            let is_present =
                |column: &AttributePath| rules.rename.iter().any(|(path, name)| path.renamed(name).contains(column));
            let columns = table.columns.definitions().iter();
            for column in columns.filter(|column| path.contains(&column.path) && !is_present(&column.path)) {
                let location = member_pointer(&format!("{pointer}/attributes/rename"), &path.to_string());
                self.add(
                    location,
                    format!(
                        "is {name:?}, so that the column {:?}, whose path is {}, has no value: set the path of the column \
                         to {}",
                        column.name,
                        column.path,
                        path.renamed(name)
                    ),
                );
            }
        }
    }
}

fn table_name(text: &str) -> Result<SqlIdentifier, String> {
    if text.contains('.') {
        return Err(format!(
            "is {text:?}: set it to the name of a table without a schema and without dots, such as \"orders\" (the \
             schema is public)"
        ));
    }
    SqlIdentifier::parse(text, TABLE_BYTES)
}

fn attribute_path(text: &str) -> Result<AttributePath, String> {
    if text.contains('\0') {
        return Err(format!("is {text:?}: PostgreSQL cannot store an attribute whose name contains U+0000"));
    }
    AttributePath::parse(text).map_err(|error| format!("{error} (the path is {text:?})"))
}
