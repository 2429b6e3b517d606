//! The SQL statements of a replica. Each takes lists, with one value per row, and is one round trip for all rows.
//!
//! Rows are sorted by their keys and are locked in that order, because `unnest` preserves it. The statements contain
//! the quoted names of the table and its columns, which come from the configuration, and no value.

use std::fmt::Write as _;

use super::table_layout::LayoutColumn;
use crate::document::SqlIdentifier;

/// Makes a new session use the indexes: a statement is planned once per session, often while the table is still empty,
/// and the plan is still used when the table has millions of rows.
pub(super) const SETUP: &str = "set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off; \
    set jit = off";

/// The columns of replication, in the order of the lists; the key is the first.
const OWN_COLUMNS: [(&str, &str, &str); 6] = [
    ("key", "text[]", ""),
    ("revision", "bytea[]", ""),
    ("item", "text[]", "::jsonb"),
    ("deleted_at", "timestamptz[]", ""),
    ("expired", "bool[]", ""),
    ("changed_at", "timestamptz[]", ""),
];

/// Returns the names of the columns of replication.
pub(super) fn own_columns() -> [&'static str; 6] {
    OWN_COLUMNS.map(|(name, ..)| name)
}

/// The error code with which a probe ends if the row was accepted; the error rolls the insert back.
pub(super) const PROBED: &str = "MR001";
/// The number of stored items that are taken as samples of the items that a table accepts.
const SAMPLES: usize = 10;

/// Returns whether the server is read-only, and its encoding.
pub(super) const CHECK: &str = "select pg_is_in_recovery() or current_setting('transaction_read_only') = 'on', \
    current_setting('server_encoding')";

/// The statements for a table.
#[derive(Debug)]
pub(super) struct TableStatements {
    /// The write with the revision guard: each row is written if its key has no row or one with a lower revision. It
    /// returns how many rows were written, how many of them are tombstones, and how many were rejected because of the
    /// same revision; the rest are stale.
    ///
    /// The stored revisions are read first, in the statement's snapshot, so that a replay writes and locks nothing. A
    /// row that another transaction writes in between is rejected by the `on conflict` clause, and counts as stale.
    pub(super) apply: String,
    /// The insert of rows whose keys have no row; it returns the keys that were written.
    pub(super) insert: String,
    /// The update of rows that have exactly the revisions of the last list; it returns the keys that were written. Rows
    /// are locked in the lists' order before any is changed.
    pub(super) replace: String,
    /// Inserts a tombstone, which has no value of an item, and ends with the error [`PROBED`] if the table accepts it.
    pub(super) probe_tombstone: String,
    /// Inserts an item without attributes, then copies of some stored items, until one is accepted: it ends with the
    /// error [`PROBED`] then, and with the error of the first one otherwise.
    pub(super) probe_item: String,
    /// Inserts copies of some stored items: it ends with the error [`PROBED`] if the table accepts one, and without an
    /// error if it accepts none or has no item.
    pub(super) probe_stored: String,
    /// Deletes tombstones that were created before `$1`, at most `$2` of them, and none that another transaction has
    /// locked.
    pub(super) purge: String,
    /// Reads some of the items that the table has.
    pub(super) sample: String,
    /// Reads the rows under these keys, each with the index of its key.
    pub(super) read: String,
    /// The first page of a segment of the table, from the hash `$1` to `$2`: at most `$3` rows.
    pub(super) scan: String,
    /// The page of a segment after the key `$4`.
    pub(super) scan_next_page: String,
    /// Returns the indexes of the rows whose revision is that of the list and whose typed columns are not those of the
    /// lists; `None` if the table has no typed columns.
    pub(super) differing: Option<String>,
}

impl TableStatements {
    /// Writes the statements for a table with these typed columns.
    pub(super) fn new(table: &SqlIdentifier, columns: &[LayoutColumn]) -> Self {
        let table = format!("public.{}", table.quoted());
        let lists = RowLists(columns);
        let names = lists.names();
        let stored_names = lists.stored_names();
        let all_types = lists.types();
        let values = lists.values();
        let hash = "hashtextextended(key, 0)";
        let page = format!("select key, revision, item::text, expired from {table} where");
        let order = format!("order by {hash}, key limit $3");
        let expected = all_types.matches('$').count() + 1;
        Self {
            apply: format!(
                "with incoming as materialized (select {names}, \
                 (select stored.revision from {table} stored where stored.key = list.key) as stored_revision \
                 from unnest({all_types}) as list ({names})), \
                 written as (insert into {table} as stored ({stored_names}) select {values} from incoming \
                 where stored_revision is null or stored_revision < revision on conflict (key) do update set {} \
                 where stored.revision < excluded.revision returning stored.deleted_at) \
                 select (select count(*) from written), (select count(deleted_at) from written), \
                 (select count(*) from incoming where stored_revision = revision)",
                lists.replaced_by_excluded(),
            ),
            insert: format!(
                "insert into {table} as stored ({stored_names}) select {values} \
                 from unnest({all_types}) as list ({names}) \
                 on conflict (key) do nothing returning stored.key",
            ),
            replace: format!(
                "with incoming as materialized (select {names}, expected, ordinal \
                 from unnest({all_types}, ${expected}::bytea[]) with ordinality as list ({names}, expected, ordinal)), \
                 locked as materialized (select incoming.ordinal from incoming join {table} stored on stored.key = incoming.key \
                 and stored.revision = incoming.expected order by incoming.ordinal for update of stored) \
                 update {table} as stored set {} from incoming join locked using (ordinal) \
                 where stored.key = incoming.key and stored.revision = incoming.expected returning stored.key",
                lists.replaced_by_incoming(),
            ),
            probe_tombstone: probe(&insert_probe(&table, "deleted_at", "now()")),
            probe_item: {
                let empty = insert_probe(&table, "item", "'{}'");
                probe(&format!("{} {} {empty}", attempt(&empty), lists.insert_samples(&table)))
            },
            probe_stored: probe(&lists.insert_samples(&table)),
            purge: format!(
                "delete from {table} where key in (select key from {table} where deleted_at < $1 \
                 order by deleted_at limit $2 for update skip locked) and deleted_at < $1"
            ),
            sample: format!(
                "select item::text from {table} where item is not null order by changed_at desc limit {SAMPLES}"
            ),
            read: format!(
                "select list.ordinal, stored.revision, stored.item::text, stored.expired \
                 from unnest($1::text[]) with ordinality as list (key, ordinal) join {table} stored on stored.key = list.key"
            ),
            scan: format!("{page} {hash} between $1 and $2 {order}"),
            scan_next_page: format!(
                "{page} {hash} between {after} and $2 and {hash} >= $1 and ({hash}, key) > ({after}, $4::text) {order}",
                after = "hashtextextended($4::text, 0)",
            ),
            differing: lists.differing(&table),
        }
    }
}

/// The lists of a statement for these typed columns. They are named as the columns of replication, and `c1`, `c2`, … for
/// the typed columns, so that no name of the configuration can be mistaken for one of the statement's own.
struct RowLists<'f>(&'f [LayoutColumn]);

impl RowLists<'_> {
    /// Each column as its name in the table, its name in the lists, the type of its list, and the cast.
    fn all(&self) -> impl Iterator<Item = (&str, String, &'static str, &'static str)> {
        let own = OWN_COLUMNS.iter().map(|(name, kind, cast)| (*name, (*name).to_owned(), *kind, *cast));
        own.chain(self.typed())
    }

    fn typed(&self) -> impl Iterator<Item = (&str, String, &'static str, &'static str)> {
        let columns = self.0.iter().enumerate();
        columns.map(|(n, column)| (column.name.as_str(), format!("c{}", n + 1), column.list_type, column.cast))
    }

    fn names(&self) -> String {
        joined(self.all().map(|(_, alias, ..)| alias))
    }

    fn stored_names(&self) -> String {
        joined(self.all().map(|(name, ..)| name.to_owned()))
    }

    fn types(&self) -> String {
        joined(self.all().enumerate().map(|(n, (_, _, kind, _))| format!("${}::{kind}", n + 1)))
    }

    /// Returns the values of the columns of a row. They are converted only when the row is written: text is smaller than
    /// JSON in PostgreSQL's binary form, and most rows of a replay are not written.
    fn values(&self) -> String {
        joined(self.all().map(|(_, alias, _, cast)| format!("{alias}{cast}")))
    }

    /// Returns the assignments of an update: all columns but the key get the new row's values.
    fn replaced_by_excluded(&self) -> String {
        joined(self.all().skip(1).map(|(name, ..)| format!("{name} = excluded.{name}")))
    }

    fn replaced_by_incoming(&self) -> String {
        joined(self.all().skip(1).map(|(name, alias, _, cast)| format!("{name} = incoming.{alias}{cast}")))
    }

    /// Returns the statements that insert copies of some stored items, until the table accepts one. Every name of the
    /// document is qualified or a target, so that it cannot be mistaken for the variable.
    fn insert_samples(&self, table: &str) -> String {
        let parts = |part: &dyn Fn(&str, &str) -> String| {
            self.typed().map(|(name, alias, ..)| part(name, &alias)).collect::<Vec<_>>().concat()
        };
        let insert = format!(
            "insert into {table} (key, revision, item, changed_at{}) \
             values (' probe', '\\x00', copied.item, now(){}); {ACCEPTED}",
            parts(&|name, _| format!(", {name}")),
            parts(&|_, alias| format!(", copied.{alias}")),
        );
        format!(
            "for copied in select sampled.item{} from {table} sampled where sampled.item is not null \
             order by sampled.changed_at desc limit {SAMPLES} loop {} end loop;",
            parts(&|name, alias| format!(", sampled.{name} as {alias}")),
            attempt(&insert),
        )
    }

    fn differing(&self, table: &str) -> Option<String> {
        let mut stored = String::new();
        for (name, ..) in self.typed() {
            // Writing to a string cannot fail.
            let _ = write!(stored, "{}stored.{name}", if stored.is_empty() { "" } else { ", " });
        }
        let incoming = joined(self.typed().map(|(_, alias, _, cast)| format!("list.{alias}{cast}")));
        let own = OWN_COLUMNS[..2].iter().map(|(name, kind, _)| ((*name).to_owned(), *kind));
        let lists: Vec<_> = own.chain(self.typed().map(|(_, alias, kind, _)| (alias, kind))).collect();
        let types = joined(lists.iter().enumerate().map(|(n, (_, kind))| format!("${}::{kind}", n + 1)));
        let names = joined(lists.into_iter().map(|(alias, _)| alias));
        (!stored.is_empty()).then(|| {
            format!(
                "select list.ordinal from unnest({types}) with ordinality as list ({names}, ordinal) \
                 join {table} stored on stored.key = list.key and stored.revision = list.revision \
                 where row({stored}) is distinct from row({incoming})"
            )
        })
    }
}

/// The end of an insert that the table has accepted, along with its deferred constraints: an error that rolls it back.
const ACCEPTED: &str = "set constraints all immediate; raise exception using errcode = 'MR001';";

/// Returns a statement that runs these ones, which insert a row and roll it back.
fn probe(statements: &str) -> String {
    // No name is long enough to contain the tag.
    let tag = format!("$probe_{}$", "p".repeat(64));
    format!("do {tag} declare copied record; begin {statements} end {tag}")
}

/// Returns the statements that insert a row with this value, and roll it back.
fn insert_probe(table: &str, column: &str, value: &str) -> String {
    format!("insert into {table} (key, revision, {column}) values (' probe', '\\x00', {value}); {ACCEPTED}")
}

/// Returns a statement that ignores the error of a row that the table rejects, also one that a trigger raises. A row that
/// is rejected only because its original has the same unique value is accepted.
fn attempt(statements: &str) -> String {
    let accepted = format!("raise exception using errcode = '{PROBED}'");
    format!(
        "begin {statements} exception when sqlstate '{PROBED}' then raise; \
         when unique_violation or exclusion_violation then {accepted}; when others then null; end;"
    )
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::PROBED;
    use crate::document::users_table;
    use crate::postgres::table_layout::TableLayout;

    #[test]
    fn parameters_are_numbered_without_a_gap() {
        let statements = TableLayout::for_users(&users_table()).statements;
        for (sql, count) in [(&statements.apply, 17), (&statements.insert, 17), (&statements.replace, 18)] {
            assert!(sql.contains(&format!("${count}::")) && !sql.contains(&format!("${}", count + 1)), "{sql}");
        }
        for probe in [&statements.probe_tombstone, &statements.probe_item, &statements.probe_stored] {
            assert!(probe.contains("values (' probe', ") && probe.contains(PROBED), "{probe}");
        }
    }
}
