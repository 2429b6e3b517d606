//! The SQL statements of a replica. Each takes lists, with one value per row, and is one round trip for all rows.
//!
//! Rows are sorted by their keys and are locked in that order, because `unnest` preserves it. The statements contain
//! the quoted names of the table and its columns, which come from the configuration, and no value.

use std::fmt::Write as _;

use super::form::FormColumn;
use crate::document::SqlIdentifier;

/// Makes a new session use the indexes: a statement is planned once per session, often while the table is still empty,
/// and the plan is still used when the table has millions of rows.
pub(super) const SETUP: &str = "set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off; \
    set jit = off";

/// The columns of replication, in the order of the lists.
const OWN_COLUMNS: [(&str, &str, &str); 5] = [
    ("revision", "bytea[]", ""),
    ("item", "text[]", "::jsonb"),
    ("deleted_at", "timestamptz[]", ""),
    ("expired", "bool[]", ""),
    ("changed_at", "timestamptz[]", ""),
];

/// The error code of [`TableStatements::probe`] if the row was accepted: a division by zero follows the insert, and
/// rolls it back.
pub(super) const PROBED: &str = "22012";

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
    /// Checks whether the table accepts a row that is certainly valid: it always ends with an error.
    pub(super) probe: String,
    /// Deletes tombstones that were created before `$1`, at most `$2` of them, and none that another transaction has
    /// locked.
    pub(super) purge: String,
    /// Returns whether the table has an item.
    pub(super) any_item: String,
    /// Reads the rows under these keys, each with the index of its key.
    pub(super) read: String,
    /// The first page of a segment of the table, from the hash `$1` to `$2`: at most `$3` rows.
    pub(super) scan: String,
    /// The page of a segment after the key whose columns begin with `$4`.
    pub(super) scan_next_page: String,
    /// Returns the indexes of the rows whose revision is that of the list and whose typed columns are not those of the
    /// lists; `None` if the table has no typed columns.
    pub(super) differing: Option<String>,
}

impl TableStatements {
    /// Writes the statements for a table with this key and these typed columns.
    pub(super) fn new(table: &SqlIdentifier, keys: &[FormColumn], columns: &[FormColumn]) -> Self {
        let table = format!("public.{}", table.quoted());
        let lists = RowLists { keys, columns };
        let key_names = joined(keys.iter().map(|key| key.name.clone()));
        // A condition that the row `stored` has the key of the row `alias`, whose key columns are named `k1`, `k2`.
        let same_key = |alias: &str, cast: bool| {
            let condition = |(n, key): (usize, &FormColumn)| {
                format!("stored.{} = {alias}.k{}{}", key.name, n + 1, if cast { key.cast } else { "" })
            };
            keys.iter().enumerate().map(condition).collect::<Vec<_>>().join(" and ")
        };
        let names = lists.names();
        let stored_names = lists.stored_names();
        let all_types = lists.types();
        let told = lists.told();
        let key_texts = |prefix: &str| joined(keys.iter().map(|key| format!("{prefix}{}::text", key.name)));
        let hash = |of: &str| format!("hashtextextended({of}, 0)");
        let first_key = &keys[0].name;
        let numbered =
            |from: usize| joined(keys.iter().enumerate().map(|(n, key)| format!("${}::text{}", from + n, key.cast)));
        let read_lists = joined((1..=keys.len()).map(|n| format!("${n}::text[]")));
        let key_aliases = joined((1..=keys.len()).map(|n| format!("k{n}")));
        let page = format!("select {}, revision, item::text, expired from {table} where", key_texts(""));
        let order = format!("order by {}, {key_names} limit $3", hash(first_key));
        let expected = all_types.matches('$').count() + 1;
        Self {
            apply: format!(
                "with told as materialized (select {told}, \
                 (select stored.revision from {table} stored where {}) as standing \
                 from unnest({all_types}) as list ({names})), \
                 written as (insert into {table} as stored ({stored_names}) select {names} from told \
                 where standing is null or standing < revision on conflict ({key_names}) do update set {} \
                 where stored.revision < excluded.revision returning stored.deleted_at) \
                 select (select count(*) from written), (select count(deleted_at) from written), \
                 (select count(*) from told where standing = revision)",
                same_key("list", true),
                lists.replaced_by_excluded(),
            ),
            insert: format!(
                "insert into {table} as stored ({stored_names}) select {told} \
                 from unnest({all_types}) as list ({names}) \
                 on conflict ({key_names}) do nothing returning {}",
                key_texts("stored."),
            ),
            replace: format!(
                "with told as materialized (select {told}, list.expected, list.place \
                 from unnest({all_types}, ${expected}::bytea[]) with ordinality as list ({names}, expected, place)), \
                 locked as materialized (select told.place from told join {table} stored on {same} \
                 and stored.revision = told.expected order by told.place for update of stored) \
                 update {table} as stored set {} from told join locked using (place) \
                 where {same} and stored.revision = told.expected returning {}",
                lists.replaced_by_told(),
                key_texts("stored."),
                same = same_key("told", false),
            ),
            probe: format!(
                "with probe as (insert into {table} ({key_names}, revision, item, changed_at) \
                 values ({}, '\\x00', '{{}}', now()) returning 1) select 1 / (count(*) - 1) from probe",
                joined(keys.iter().map(|key| if key.cast.is_empty() { "' probe'" } else { "0" }.to_owned())),
            ),
            purge: format!(
                "delete from {table} where ({key_names}) in (select {key_names} from {table} where deleted_at < $1 \
                 order by deleted_at limit $2 for update skip locked) and deleted_at < $1"
            ),
            any_item: format!("select exists (select from {table} where item is not null)"),
            read: format!(
                "select list.place, stored.revision, stored.item::text, stored.expired \
                 from unnest({read_lists}) with ordinality as list ({key_aliases}, place) join {table} stored on {}",
                same_key("list", true)
            ),
            scan: format!("{page} {} between $1 and $2 {order}", hash(first_key)),
            scan_next_page: format!(
                "{page} {hash} between {after} and $2 and {hash} >= $1 \
                 and ({hash}, {key_names}) > ({after}, {}) {order}",
                numbered(4),
                hash = hash(first_key),
                after = hash("$4::text"),
            ),
            differing: lists.differing(&table, &same_key("list", true)),
        }
    }
}

/// The names that the lists of a statement have: `k1`, `k2` for the key, the columns of replication, and `c1`, `c2`, …
/// for the typed columns, so that no name of the configuration can be mistaken for one of the statement's own.
struct RowLists<'f> {
    keys: &'f [FormColumn],
    columns: &'f [FormColumn],
}

impl RowLists<'_> {
    /// Each column as its name in the table, its name in the lists, the type of its list, and the cast.
    fn all(&self) -> impl Iterator<Item = (&str, String, &'static str, &'static str)> {
        let keys = self.keys.iter().enumerate();
        let keys = keys.map(|(n, key)| (key.name.as_str(), format!("k{}", n + 1), key.list_type, key.cast));
        let own = OWN_COLUMNS.iter().map(|(name, kind, cast)| (*name, (*name).to_owned(), *kind, *cast));
        keys.chain(own).chain(self.typed())
    }

    fn typed(&self) -> impl Iterator<Item = (&str, String, &'static str, &'static str)> {
        let columns = self.columns.iter().enumerate();
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

    /// Returns the expressions that give the columns of a row of the lists.
    fn told(&self) -> String {
        joined(self.all().map(|(_, alias, _, cast)| format!("list.{alias}{cast} as {alias}")))
    }

    /// Returns the assignments of an update: all columns get the new row's values, and none keeps its old value.
    fn replaced_by_excluded(&self) -> String {
        joined(self.all().skip(self.keys.len()).map(|(name, ..)| format!("{name} = excluded.{name}")))
    }

    fn replaced_by_told(&self) -> String {
        joined(self.all().skip(self.keys.len()).map(|(name, alias, ..)| format!("{name} = told.{alias}")))
    }

    fn differing(&self, table: &str, same_key: &str) -> Option<String> {
        let mut stored = String::new();
        for (name, ..) in self.typed() {
            // Writing to a string cannot fail.
            let _ = write!(stored, "{}stored.{name}", if stored.is_empty() { "" } else { ", " });
        }
        let told = joined(self.typed().map(|(_, alias, _, cast)| format!("list.{alias}{cast}")));
        let keys = self.keys.iter().enumerate().map(|(n, key)| (format!("k{}", n + 1), key.list_type));
        let revision = std::iter::once(("revision".to_owned(), "bytea[]"));
        let lists: Vec<_> = keys.chain(revision).chain(self.typed().map(|(_, alias, kind, _)| (alias, kind))).collect();
        let types = joined(lists.iter().enumerate().map(|(n, (_, kind))| format!("${}::{kind}", n + 1)));
        let names = joined(lists.into_iter().map(|(alias, _)| alias));
        (!stored.is_empty()).then(|| {
            format!(
                "select list.place from unnest({types}) with ordinality as list ({names}, place) \
                 join {table} stored on {same_key} and stored.revision = list.revision \
                 where row({stored}) is distinct from row({told})"
            )
        })
    }
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use crate::postgres::form::TableForm;

    #[test]
    fn parameters_are_numbered_without_a_gap() {
        let statements = TableForm::users().statements;
        for (sql, count) in [(&statements.apply, 17), (&statements.insert, 17), (&statements.replace, 18)] {
            assert!(sql.contains(&format!("${count}::")) && !sql.contains(&format!("${}", count + 1)), "{sql}");
        }
        assert!(statements.probe.contains("values (' probe', 0, "), "{}", statements.probe);
    }
}
