//! Replicas of a stack that a task can compare with the source: [`StackReplica`].

use millrace_shared::environment::Environment;
use millrace_sinks::document::{REPLICATION, ReplicationDocument, SinkSettings};

use super::StartError;
use crate::dynamodb::table_arn;

/// The variable with the table of a stack without a replication document.
const REPLICA_TABLE: &str = "REPLICA_TABLE";
/// The variable with the URL of PostgreSQL, which is a replica of its own only without a document.
const POSTGRES_URL: &str = "POSTGRES_URL";

/// A replica that stores items, unlike the archive and the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackReplica {
    /// The name in the replication document, or that of the only replica of its kind.
    pub name: String,
    /// The store of the replica's items.
    pub store: ReplicaStore,
    /// The setting that names the table, for errors.
    setting: String,
}

/// The store of a replica's items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplicaStore {
    /// A `DynamoDB` table.
    DynamoDb(String),
    /// A table of PostgreSQL.
    Postgres(String),
}

impl StackReplica {
    /// Returns the replicas of a replicator's environment. An invalid document has none, since it is refused later.
    pub(super) fn from_environment(environment: &Environment) -> Vec<Self> {
        let Some(text) = environment.get(REPLICATION) else {
            let replica =
                |name: &str, store, setting: &str| Self { name: name.to_owned(), store, setting: setting.to_owned() };
            let table = environment
                .get(REPLICA_TABLE)
                .map(|table| replica("dynamodb", ReplicaStore::DynamoDb(table.to_owned()), "ReplicaTableArn"));
            let users = ReplicaStore::Postgres("users".to_owned());
            let postgres = environment.get(POSTGRES_URL).map(|_| replica("postgres", users, POSTGRES_URL));
            return table.into_iter().chain(postgres).collect();
        };
        let document = ReplicationDocument::parse(text).ok();
        let entries = document.iter().flat_map(ReplicationDocument::replicas).enumerate();
        entries
            .filter_map(|(index, entry)| {
                let store = match &entry.sink {
                    SinkSettings::DynamoDb(table) => ReplicaStore::DynamoDb(table.table.as_str().to_owned()),
                    SinkSettings::Postgres(table) => ReplicaStore::Postgres(table.table.as_str().to_owned()),
                    SinkSettings::Archive { .. } => return None,
                };
                let setting = format!("{REPLICATION} /replicas/{index}/table");
                Some(Self { name: entry.name.to_string(), store, setting })
            })
            .collect()
    }

    /// Fails if the replica is a table of an account, which this machine does not reach.
    pub(super) fn check_reachable(&self) -> Result<(), StartError> {
        match &self.store {
            ReplicaStore::DynamoDb(arn) if arn.starts_with("arn:") && !arn.starts_with(&table_arn("")) => {
                let fix = if self.setting.starts_with(REPLICATION) {
                    "omit --parameter Replication, and test the rules of the document with millrace transform"
                } else {
                    "omit --parameter ReplicaTableArn, and the stack creates the replica here"
                };
                Err(StartError::RemoteReplica { setting: self.setting.clone(), arn: arn.clone(), fix })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn replicas(variables: &[(&str, &str)]) -> Vec<StackReplica> {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        StackReplica::from_environment(&variables.iter().map(pair).collect())
    }

    #[test]
    fn replicas_are_those_of_the_document_or_of_the_variables() {
        let named = |replicas: &[StackReplica]| -> Vec<String> {
            replicas.iter().map(|replica| format!("{} {:?}", replica.name, replica.store)).collect()
        };
        let own = [("REPLICA_TABLE", "UsersReplica"), ("POSTGRES_URL", "postgres://a@b/c")];
        assert_eq!(named(&replicas(&own)), [r#"dynamodb DynamoDb("UsersReplica")"#, r#"postgres Postgres("users")"#]);
        let archive = json!({"name": "archive", "sink": "archive", "records": "expired"});
        let only = json!({"version": 1, "replicas": [archive]}).to_string();
        assert_eq!(replicas(&[("REPLICATION", &only), ("POSTGRES_URL", "postgres://a@b/c")]), []);
        let several = json!({"version": 1, "replicas": [
            archive,
            {"name": "copy", "sink": "dynamodb", "table": "Copy"},
            {"name": "sql", "sink": "postgres", "table": "orders"},
        ]});
        let several = replicas(&[("REPLICATION", &several.to_string())]);
        assert_eq!(named(&several), [r#"copy DynamoDb("Copy")"#, r#"sql Postgres("orders")"#]);
        assert_eq!(replicas(&[("REPLICATION", "{")]), []);
    }

    #[test]
    fn table_of_an_account_is_refused_with_the_setting_that_names_it() {
        let arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/Copy";
        let own = table_arn("Copy");
        assert!(replicas(&[("REPLICA_TABLE", &own)])[0].check_reachable().is_ok());
        let message = replicas(&[("REPLICA_TABLE", arn)])[0].check_reachable().unwrap_err().to_string();
        assert!(message.contains(&format!("ReplicaTableArn is {arn}")), "{message}");
        assert!(message.contains("omit --parameter ReplicaTableArn"), "{message}");
        let document = json!({"version": 1, "replicas": [{"name": "copy", "sink": "dynamodb", "table": arn}]});
        let message = replicas(&[("REPLICATION", &document.to_string())])[0].check_reachable().unwrap_err().to_string();
        assert!(message.contains(&format!("REPLICATION /replicas/0/table is {arn}")), "{message}");
        assert!(message.contains("millrace transform"), "{message}");
    }
}
