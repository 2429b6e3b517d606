//! The schema of a table that a replication document declares: [`plan`] has the steps that create it, or add what it
//! lacks.
//!
//! A migration is additive: it creates the table, its columns, its view and its reader role, and it changes comments.
//! It drops and renames nothing. A column whose type is another one, or that the document no longer declares, is an
//! error with the statement that removes it: a column that nothing writes any more would keep values that are no longer
//! those of the item.
//!
//! The comment on a column names the attribute that it contains. It also shows which columns are Millrace's: a column
//! without such a comment is the operator's own, and is left alone.

use std::fmt;

use millrace_transform::columns::{ColumnDefinition, ColumnType};
use tokio_postgres::{Client, Row};

use crate::document::{PostgresTable, SqlIdentifier};

/// The beginning of the comment on a typed column.
const COMMENT: &str = "DynamoDB attribute ";

/// The columns of every table: name, type, definition, and comment.
const OWN_COLUMNS: [(&str, &str, &str, &str); 6] = [
    ("key", "text", "collate \"C\" primary key", "The key as canonical DynamoDB JSON"),
    ("revision", "bytea", "not null", "The age of the change; only a higher revision replaces it"),
    ("item", "jsonb", "", "The item as DynamoDB JSON; null in a tombstone"),
    ("deleted_at", "timestamp with time zone", "", "The time at which the tombstone was written"),
    ("expired", "boolean", "not null default false", "Whether TTL removed the item of a tombstone"),
    ("changed_at", "timestamp with time zone", "", "The time of the change; null if maintenance wrote the row"),
];
/// The columns that the view has before the typed ones.
const VIEW_COLUMNS: [&str; 4] = ["key", "item", "revision", "changed_at"];

/// The columns of the table or the view `$1`, in their order.
const COLUMNS: &str = "select a.attname::text, format_type(a.atttypid, a.atttypmod), col_description(c.oid, a.attnum) \
    from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped \
    where c.relnamespace = 'public'::regnamespace and c.relname = $1 order by a.attnum";

/// A column as the catalog describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct StoredColumn {
    name: String,
    kind: String,
    comment: Option<String>,
}

/// A table as the catalog describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StoredTable {
    /// The columns; empty if the table does not exist.
    columns: Vec<StoredColumn>,
    /// The names of the view's columns; empty if the view does not exist.
    view: Vec<String>,
}

/// A step of a migration: its name, and its SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableStep {
    pub(super) name: String,
    pub(super) sql: String,
    /// Whether the replica can be written without it.
    pub(super) is_optional: bool,
}

/// A table that cannot be brought to the declared layout; the text has the problem and the fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableConflict(String);

impl fmt::Display for TableConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads the table and its view from the catalog.
pub(super) async fn stored_table(client: &Client, table: &PostgresTable) -> Result<StoredTable, tokio_postgres::Error> {
    let column = |row: &Row| -> Result<StoredColumn, tokio_postgres::Error> {
        Ok(StoredColumn { name: row.try_get(0)?, kind: row.try_get(1)?, comment: row.try_get(2)? })
    };
    let view = table.view();
    let columns = client.query(COLUMNS, &[&table.table.as_str()]).await?;
    let of_view = client.query(COLUMNS, &[&view.as_str()]).await?;
    Ok(StoredTable {
        columns: columns.iter().map(column).collect::<Result<_, _>>()?,
        view: of_view.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?,
    })
}

/// Plans the steps from the stored table to the declared one.
pub(super) fn plan(declared: &PostgresTable, stored: &StoredTable) -> Result<Vec<TableStep>, TableConflict> {
    let name = &declared.table;
    let table = format!("public.{}", name.quoted());
    let definitions = declared.columns.definitions();
    let step = |what: String, sql: String| TableStep { name: format!("{name}: {what}"), sql, is_optional: false };
    let mut steps = Vec::new();
    let mut columns: Vec<&str> = Vec::new();
    if stored.columns.is_empty() {
        steps.push(step("create the table".to_owned(), create_table(&table, definitions)));
        columns.extend(definitions.iter().map(|column| column.name.as_str()));
    } else {
        for (own, kind, _, _) in OWN_COLUMNS {
            if !stored.columns.iter().any(|column| column.name == own && column.kind == kind) {
                return Err(TableConflict(format!(
                    "the table {name} exists and is not a replica: it has no column {own} of the type {kind}; name \
                     another table in the replication document"
                )));
            }
        }
        let is_ours =
            |column: &&StoredColumn| column.comment.as_ref().is_some_and(|comment| comment.starts_with(COMMENT));
        for column in stored.columns.iter().filter(is_ours) {
            if !definitions.iter().any(|declared| declared.name == column.name) {
                return Err(TableConflict(format!(
                    "the table {name} has the column {:?}, which the replication document no longer declares: declare \
                     it, or run: {}",
                    column.name,
                    drop_column(&table, &column.name)
                )));
            }
            columns.push(&column.name);
        }
        for declared in definitions {
            let Some(column) = stored.columns.iter().find(|column| column.name == declared.name) else {
                let sql = add_column(&table, declared);
                steps.push(step(format!("add the column {}, which a repair fills", declared.name), sql));
                columns.push(&declared.name);
                continue;
            };
            if column.kind != catalog_type(declared.kind) {
                return Err(TableConflict(format!(
                    "the column {:?} of the table {name} has the type {}, and the replication document declares {}: \
                     choose another name, or run: {}",
                    column.name,
                    column.kind,
                    declared.kind,
                    drop_column(&table, &column.name)
                )));
            }
            if !is_ours(&column) {
                if column.comment.is_some() {
                    return Err(TableConflict(format!(
                        "the table {name} has a column {:?} that is not Millrace's: choose another name",
                        column.name
                    )));
                }
                columns.push(&declared.name);
            }
            if column.comment.as_deref() != Some(comment(declared).as_str()) {
                let sql = comment_on(&table, declared);
                steps.push(step(format!("fill the column {} from {}", declared.name, declared.path), sql));
            }
        }
    }
    // The view keeps its columns and gets new ones at its end, whatever the order of the table's columns: a view that
    // is created again loses the rights to it.
    columns.sort_by_key(|name| stored.view.iter().position(|stored| stored == name).unwrap_or(usize::MAX));
    let view: Vec<&str> = VIEW_COLUMNS.into_iter().chain(columns).collect();
    if stored.view != view {
        let is_beginning = stored.view.iter().zip(&view).all(|(stored, new)| stored == new);
        let sql = create_view(declared, &table, &view, !is_beginning || stored.view.len() > view.len());
        let name = format!("{name}: create the view {}", declared.view());
        steps.push(TableStep { name, sql, is_optional: true });
    }
    Ok(steps)
}

/// Returns the name that the catalog has for a type.
fn catalog_type(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Timestamp(_) => "timestamp with time zone",
        other => other.name(),
    }
}

fn quoted(name: &str) -> String {
    // The document has validated the names, so the error is impossible.
    SqlIdentifier::parse(name, usize::MAX).map(|name| name.quoted()).unwrap_or_default()
}

fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn create_table(table: &str, columns: &[ColumnDefinition]) -> String {
    let own = OWN_COLUMNS.map(|(name, kind, rest, _)| format!("{name} {kind} {rest}"));
    let typed = columns.iter().map(|column| format!("{} {}", quoted(&column.name), column.kind));
    let listed: Vec<String> = own.into_iter().chain(typed).collect();
    let mut sql = format!(
        "create table {table} ({}, constraint item_or_tombstone check ((item is null) = (deleted_at is not null))); \
         create index on {table} (changed_at); \
         create index on {table} (deleted_at) where deleted_at is not null; \
         create index on {table} (hashtextextended(key, 0))",
        listed.join(", ")
    );
    for (name, _, _, comment) in OWN_COLUMNS {
        sql.extend(["; comment on column ", table, ".", name, " is ", &quote_literal(comment)]);
    }
    for column in columns {
        sql.extend(["; ", &comment_on(table, column)]);
    }
    sql
}

fn add_column(table: &str, column: &ColumnDefinition) -> String {
    let (name, kind) = (quoted(&column.name), column.kind);
    format!("alter table {table} add column {name} {kind}; {}", comment_on(table, column))
}

fn comment_on(table: &str, column: &ColumnDefinition) -> String {
    format!("comment on column {table}.{} is {}", quoted(&column.name), quote_literal(&comment(column)))
}

fn comment(ColumnDefinition { path, kind, .. }: &ColumnDefinition) -> String {
    match kind.special_format() {
        Some(format) => format!("{COMMENT}{path} ({format})"),
        None => format!("{COMMENT}{path}"),
    }
}

fn drop_column(table: &str, name: &str) -> String {
    format!("alter table {table} drop column {} cascade", quoted(name))
}

fn create_view(declared: &PostgresTable, table: &str, columns: &[&str], is_new: bool) -> String {
    let view = format!("public.{}", declared.view().quoted());
    let drop = if is_new { format!("drop view if exists {view}; ") } else { String::new() };
    let columns: Vec<String> = columns.iter().map(|name| quoted(name)).collect();
    let listed = columns.join(", ");
    format!("{drop}create or replace view {view} as select {listed} from {table} where deleted_at is null")
}

/// Creates the role that may read the view, if the user may create roles, and grants it access.
pub(super) fn reader_role(declared: &PostgresTable) -> String {
    let (role, view) = (declared.reader_role(), declared.view().quoted());
    let (name, quoted) = (quote_literal(role.as_str()), role.quoted());
    // No name is long enough to contain the tag.
    let tag = format!("$reader_{}$", "r".repeat(64));
    format!(
        "do {tag} begin \
         if not exists (select from pg_roles where rolname = {name}) then \
         begin create role {quoted} nologin; \
         exception when insufficient_privilege or duplicate_object or unique_violation then null; end; end if; \
         if exists (select from pg_roles where rolname = {name}) then \
         grant usage on schema public to {quoted}; grant select on public.{view} to {quoted}; end if; \
         end {tag}"
    )
}

#[cfg(test)]
mod tests {
    use millrace_transform::AttributePath;
    use millrace_transform::columns::{OtherwiseRule, TableColumns, TimestampFormat};

    use super::*;

    fn table(columns: &[(&str, &str, ColumnType)]) -> PostgresTable {
        let column = |(name, path, kind): &(&str, &str, ColumnType)| ColumnDefinition {
            name: (*name).to_owned(),
            path: AttributePath::parse(path).unwrap(),
            kind: *kind,
        };
        let columns = columns.iter().map(column).collect();
        PostgresTable {
            table: SqlIdentifier::constant("orders"),
            columns: TableColumns::new(columns, OtherwiseRule::Null),
        }
    }

    /// The table as it is after a migration.
    fn stored(columns: &[(&str, &str, &str)]) -> StoredTable {
        let own = OWN_COLUMNS.iter().map(|(name, kind, _, comment)| (*name, *kind, *comment));
        let columns = own.chain(columns.iter().copied()).map(|(name, kind, comment)| StoredColumn {
            name: name.to_owned(),
            kind: kind.to_owned(),
            comment: (!comment.is_empty()).then(|| comment.to_owned()),
        });
        let columns: Vec<_> = columns.collect();
        let typed = columns[OWN_COLUMNS.len()..].iter().map(|column| column.name.clone());
        StoredTable { view: VIEW_COLUMNS.iter().map(|name| (*name).to_owned()).chain(typed).collect(), columns }
    }

    fn names(steps: &[TableStep]) -> Vec<&str> {
        steps.iter().map(|step| step.name.as_str()).collect()
    }

    const CITY: (&str, &str, ColumnType) = ("city", "address.city", ColumnType::Text);
    const STORED_CITY: (&str, &str, &str) = ("city", "text", "DynamoDB attribute address.city");

    #[test]
    fn absent_table_is_created_and_a_present_one_needs_nothing() {
        let steps = plan(&table(&[CITY]), &StoredTable::default()).unwrap();
        assert_eq!(names(&steps), ["orders: create the table", "orders: create the view orders_live"]);
        assert!(
            steps[0].sql.contains("comment on column public.\"orders\".\"city\" is 'DynamoDB attribute address.city'")
        );
        assert_eq!(plan(&table(&[CITY]), &stored(&[STORED_CITY])), Ok(Vec::new()));
    }

    #[test]
    fn new_column_is_added_at_the_end() {
        let ended = ("ended", "ended", ColumnType::Timestamp(TimestampFormat::EpochSeconds));
        let steps = plan(&table(&[ended, CITY]), &stored(&[STORED_CITY])).unwrap();
        let expected = ["orders: add the column ended, which a repair fills", "orders: create the view orders_live"];
        assert_eq!(names(&steps), expected);
        assert!(steps[0].sql.ends_with("is 'DynamoDB attribute ended (epoch_seconds)'"), "{}", steps[0].sql);
        assert!(steps[1].sql.contains("\"changed_at\", \"city\", \"ended\" from") && !steps[1].sql.contains("drop"));
    }

    #[test]
    fn folded_column_has_the_type_text_and_another_comment() {
        let folded = ("city", "address.city", ColumnType::FoldedText);
        assert_eq!(names(&plan(&table(&[folded]), &stored(&[STORED_CITY])).unwrap()).len(), 1);
        let comment = "DynamoDB attribute address.city (case_folded)";
        assert_eq!(plan(&table(&[folded]), &stored(&[("city", "text", comment)])), Ok(Vec::new()));
    }

    #[test]
    fn another_path_is_a_step_that_the_replica_waits_for() {
        let steps = plan(&table(&[CITY]), &stored(&[("city", "text", "DynamoDB attribute town")])).unwrap();
        assert_eq!(names(&steps), ["orders: fill the column city from address.city"]);
        assert!(!steps[0].is_optional);
    }

    #[test]
    fn conflicting_column_is_an_error_with_the_drop_statement() {
        let conflict = |declared: &PostgresTable, stored: &StoredTable| plan(declared, stored).unwrap_err().to_string();
        let dropped = "alter table public.\"orders\" drop column \"city\" cascade";
        let text = conflict(&table(&[]), &stored(&[STORED_CITY]));
        assert!(text.contains("no longer declares") && text.contains(dropped), "{text}");
        let text = conflict(&table(&[("city", "address.city", ColumnType::Json)]), &stored(&[STORED_CITY]));
        assert!(text.contains("has the type text") && text.contains("declares jsonb"), "{text}");
        assert!(text.contains(dropped), "{text}");
        let text = conflict(&table(&[CITY]), &stored(&[("city", "text", "of the sales team")]));
        assert!(text.contains("not Millrace's"), "{text}");
        let foreign = StoredTable {
            columns: vec![StoredColumn { name: "id".to_owned(), kind: "integer".to_owned(), comment: None }],
            view: Vec::new(),
        };
        assert!(conflict(&table(&[]), &foreign).contains("not a replica: it has no column key"));
    }

    #[test]
    fn declared_column_of_the_operator_does_not_change_the_order_of_the_view() {
        let note = ("note", "note", ColumnType::Text);
        let mut stored = stored(&[("note", "text", ""), STORED_CITY]);
        stored.view.retain(|name| name != "note");
        let steps = plan(&table(&[note, CITY]), &stored).unwrap();
        assert_eq!(names(&steps), ["orders: fill the column note from note", "orders: create the view orders_live"]);
        assert!(steps[1].sql.contains("\"city\", \"note\" from") && !steps[1].sql.contains("drop"), "{}", steps[1].sql);
        stored.view.push("note".to_owned());
        stored.columns.iter_mut().find(|column| column.name == "note").unwrap().comment =
            Some("DynamoDB attribute note".to_owned());
        assert_eq!(plan(&table(&[note, CITY]), &stored), Ok(Vec::new()), "the next migration has nothing to do");
    }

    #[test]
    fn column_of_the_operator_is_left_alone() {
        assert_eq!(plan(&table(&[CITY]), &stored(&[STORED_CITY, ("note", "text", "")])).unwrap().len(), 1, "the view");
    }

    #[test]
    fn names_and_paths_cannot_end_their_literal() {
        let odd = ("a\"b", r"it's\.here", ColumnType::Text);
        let sql = &plan(&table(&[odd]), &StoredTable::default()).unwrap()[0].sql;
        assert!(sql.contains(r#""orders"."a""b" is 'DynamoDB attribute it''s\.here'"#), "{sql}");
    }
}
