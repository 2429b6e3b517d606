//! The document of the users service: [`users_table`], its table in PostgreSQL, which search queries.

use millrace_transform::columns::{OtherwiseRule, TableColumns};

use super::identifier::SqlIdentifier;
use super::postgres_table::PostgresTable;
use super::{ReplicaEntry, ReplicationDocument};

/// The document that declares the table. It is the default of the source schema `users`.
pub const USERS_DOCUMENT: &str = include_str!("../../../../functions/search/replication.json");
/// The name of the table.
pub(crate) const USERS_TABLE: &str = "users";
/// The name of the replica, which no other replica has.
pub(super) const USERS_REPLICA: &str = "postgres";

/// The columns that the migration of search adds (`functions/search/migrations`): no document may declare them.
pub(crate) const SEARCH_COLUMNS: [&str; 2] = ["expires_at", "email_domain"];

/// Returns the table of the users service.
#[must_use]
pub fn users_table() -> PostgresTable {
    let document = ReplicationDocument::parse(USERS_DOCUMENT).ok();
    let table = document.as_ref().and_then(|document| document.replicas().first()?.postgres_table().cloned());
    // The document is part of the program, and a test parses it.
    table.unwrap_or_else(|| PostgresTable {
        table: SqlIdentifier::constant(USERS_TABLE),
        columns: TableColumns::default(),
    })
}

impl ReplicaEntry {
    /// Returns whether this is the table of the users service, by its name.
    #[must_use]
    pub fn is_users_table(&self) -> bool {
        self.name.as_str() == USERS_REPLICA
    }

    /// Returns why search could not query this table of the users service, as the JSON Pointer of a member in the
    /// replica, and the problem with the fix.
    #[must_use]
    pub fn users_table_problems(&self) -> Vec<(String, String)> {
        let (Some(table), default) = (self.postgres_table(), users_table()) else { return Vec::new() };
        let mut problems = Vec::new();
        for column in default.columns.definitions() {
            if !table.columns.definitions().contains(column) {
                let format = column.kind.special_format().map(|format| format!(", \"format\": {format:?}"));
                let expected = format!(
                    "{{\"path\": {:?}, \"type\": {:?}{}}}",
                    column.path.to_string(),
                    column.kind.name(),
                    format.unwrap_or_default()
                );
                let reason = format!("must be {expected} in the table that search queries");
                problems.push((format!("columns/{}", column.name), reason));
            }
        }
        for column in table.columns.definitions() {
            if SEARCH_COLUMNS.contains(&column.name.as_str()) {
                let reason = "is the name of a column that search computes: choose another name";
                problems.push((format!("columns/{}", column.name), reason.to_owned()));
            }
        }
        if table.columns.otherwise() != OtherwiseRule::Quarantine {
            let reason = "must be \"quarantine\" in the table that search queries, so that each row is a user's record";
            problems.push(("otherwise".to_owned(), reason.to_owned()));
        }
        if !self.transform.is_empty() {
            let reason = "has rules (where, attributes), but search queries all users with all of their attributes: \
                          remove them, or declare another replica";
            problems.push(("table".to_owned(), reason.to_owned()));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_of_the_users_service_is_valid() {
        let document = ReplicationDocument::parse(USERS_DOCUMENT).unwrap();
        let [replica] = document.replicas() else { panic!("one replica") };
        assert!(replica.is_users_table() && replica.users_table_problems().is_empty());
        assert_eq!(replica.postgres_table(), Some(&users_table()));
        assert_eq!(users_table().table.as_str(), USERS_TABLE);
        assert_eq!(users_table().columns.definitions().len(), 11);
    }
}
