//! The replicas that the environment declares: those of a document, or the only one of the variables.
//! [`ConfiguredReplicas`]

use std::sync::Arc;

use millrace_shared::environment::{self, Environment, VariableReader};
use millrace_shared::replica_item::ReservedNames;
use millrace_transform::ItemTransform;
use millrace_transform::columns::TableColumns;

use super::within;
use crate::document::{
    ArchivedRecords, DEFAULT_CONCURRENCY, DocumentLocation, MAX_CONCURRENCY, PostgresTable, REPLICATION, ReplicaEntry,
    ReplicationDocument, RoleArn, SinkSettings, TableAddress, TableSettings,
};
use crate::hash_keys::hash_keys;
use crate::{SinkName, archive, dynamodb, postgres};

/// The variable that names the only replica if there is no document.
pub(super) const REPLICA_TABLE: &str = "REPLICA_TABLE";
/// The advice after the problems of a document.
const CHECK_DOCUMENT: &str = "correct the document, and check it with millrace transform --document FILE --items PATH \
                              --key NAMES before it is deployed (parameter Replication)";
/// The variables that configure the only replica if there is no document.
const REPLICA_VARIABLES: [&str; 4] = [REPLICA_TABLE, "REPLICA_REGION", "REPLICA_ROLE_ARN", "REPLICA_MAX_CONCURRENCY"];

/// A `DynamoDB` replica, which may be in another Region or account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReplicaTable {
    pub(super) name: SinkName,
    /// The setting that names the table, for errors.
    pub(super) setting: String,
    pub(super) table: TableSettings,
    /// The rules for the stored items; `None` if the replica stores items unchanged.
    pub(super) transform: Option<Arc<ItemTransform>>,
}

/// A table of the PostgreSQL database that the document declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RelationalTable {
    pub(super) name: SinkName,
    /// The place in the document, for errors.
    pub(super) setting: String,
    pub(super) table: PostgresTable,
    /// The rules for the stored items; `None` if the replica stores items unchanged.
    pub(super) transform: Option<Arc<ItemTransform>>,
}

/// The replicas of a document, or the only replica of the variables.
#[derive(Debug, Default)]
pub(super) struct ConfiguredReplicas {
    pub(super) dynamodb: Vec<ReplicaTable>,
    pub(super) postgres: Vec<RelationalTable>,
    /// The table of the users service, if the document declares it, with its place in the document.
    pub(super) users: Option<(String, ReplicaEntry)>,
    /// The columns of all stores.
    pub(super) columns: TableColumns,
}

impl RelationalTable {
    /// Returns the digest of the rules and of the table. The database is not part of it, because functions may reach
    /// the same one by different addresses.
    pub(super) fn digest(&self) -> Option<String> {
        self.transform.as_ref().map(|rules| rules.digest_at(self.table.table.as_str()))
    }
}

impl ReplicaTable {
    /// Returns the digest of the rules and of the table's address.
    pub(super) fn digest(&self) -> Option<String> {
        let TableSettings { table, region, role_arn, .. } = &self.table;
        // An ARN contains the Region and the account.
        let of_name = |part: Option<&str>| part.filter(|_| table.region().is_none()).unwrap_or_default().to_owned();
        let (region, account) = (of_name(region.as_deref()), of_name(role_arn.as_ref().map(RoleArn::account)));
        self.transform.as_ref().map(|rules| rules.digest_at(&format!("{region}:{account}:{}", table.as_str())))
    }

    /// Returns why the table cannot be a replica of the source that this variable names, as far as the names say.
    pub(super) fn refusal(&self, variable: &str, source: &TableAddress) -> Option<String> {
        let Self { setting, table, .. } = self;
        let is_own = source.region().is_some() || (table.region.is_none() && table.role_arn.is_none());
        if table.table == *source && is_own {
            let text = source.as_str();
            return Some(format!(
                "{setting} is {text:?}, which is {variable}: set it to another table; millrace attach {text} \
                 --replica-table ARN checks it and writes the files to deploy"
            ));
        }
        let partition = table.table.partition().or(table.role_arn.as_ref().map(RoleArn::partition))?;
        let its = source.partition().filter(|its| *its != partition)?;
        Some(format!(
            "{setting} or its role is in the partition {partition}, but {variable} is in {its}, and a function cannot \
             reach a table of another partition: name a table and a role in {its}; millrace attach {} --replica-table \
             ARN --replica-role-arn ARN checks them and writes the files to deploy",
            source.as_str()
        ))
    }
}

/// Reads the replicas from the document `text`.
pub(super) fn replicas_of_document(
    text: &str,
    environment: &Environment,
    reserved: &ReservedNames,
    read: &mut VariableReader<'_>,
) -> Option<ConfiguredReplicas> {
    for name in REPLICA_VARIABLES.into_iter().filter(|name| environment.get(name).is_some()) {
        read.add_error(format!("{name} is set in addition to {REPLICATION}, which replaces it: remove one of them"));
    }
    match DocumentLocation::parse(text) {
        Ok(None) => {}
        Ok(Some(location)) => {
            read.add_error(format!("{REPLICATION} is {location}, whose object was not read at the start"));
            return None;
        }
        Err(problem) => {
            read.add_error(problem.to_string());
            return None;
        }
    }
    let document = match ReplicationDocument::parse(text) {
        Ok(document) => document,
        Err(invalid) => {
            let (last, others) = invalid.problems().split_last()?;
            for problem in others {
                read.add_error(problem.to_string());
            }
            read.add_error(format!("{last}; {CHECK_DOCUMENT}"));
            return None;
        }
    };
    for problem in document.reserved_problems(reserved) {
        read.add_error(problem.to_string());
    }
    let keys = match hash_keys(&document, environment) {
        Ok(keys) => keys,
        Err(problems) => {
            for problem in problems {
                read.add_error(problem);
            }
            return None;
        }
    };
    let mut replicas = ConfiguredReplicas { columns: document.columns().clone(), ..ConfiguredReplicas::default() };
    for (index, entry) in document.replicas().iter().enumerate() {
        let (name, pointer) = (entry.name.clone(), format!("/replicas/{index}"));
        let transform = match ItemTransform::new(&entry.transform, &keys) {
            Ok(transform) => (!entry.transform.is_empty()).then(|| Arc::new(transform)),
            Err(missing) => {
                read.add_error(format!("{REPLICATION} {pointer}/attributes/hash: {missing}"));
                continue;
            }
        };
        match &entry.sink {
            SinkSettings::DynamoDb(table) => {
                let setting = format!("{REPLICATION} {pointer}/table");
                replicas.dynamodb.push(ReplicaTable { name, setting, table: table.clone(), transform });
            }
            SinkSettings::Postgres(table) => {
                if environment.get(postgres::SETTING).is_none() {
                    read.add_error(format!(
                        "{REPLICATION} {pointer}/sink is \"postgres\", but {} is not set: set it to the URL of the \
                         database, or remove this entry",
                        postgres::SETTING
                    ));
                }
                let setting = format!("{REPLICATION} {pointer}");
                if entry.is_users_table() {
                    replicas.users = Some((setting, entry.clone()));
                } else {
                    replicas.postgres.push(RelationalTable { name, setting, table: table.clone(), transform });
                }
            }
            SinkSettings::Archive { records: ArchivedRecords::Expired } => {
                if environment.get(archive::SETTING).is_none() {
                    read.add_error(format!(
                        "{REPLICATION} {pointer}/sink is \"archive\", but {} is not set: set it to the bucket of the \
                         archive, or remove this entry",
                        archive::SETTING
                    ));
                }
            }
        }
    }
    Some(replicas)
}

/// Reads the only replica from the variables.
pub(super) fn replica_of_variables(read: &mut VariableReader<'_>) -> Option<Vec<ReplicaTable>> {
    let table = read.required(REPLICA_TABLE, TableAddress::parse);
    let region = read.optional("REPLICA_REGION", environment::text);
    let role_arn = read.optional("REPLICA_ROLE_ARN", RoleArn::parse);
    let limit = read.optional("REPLICA_MAX_CONCURRENCY", within(1, MAX_CONCURRENCY)).unwrap_or(DEFAULT_CONCURRENCY);
    let table = table?;
    if let (Some(its), Some(own)) = (table.region(), &region)
        && its != own
    {
        read.add_error(format!(
            "REPLICA_REGION is {own:?}, but the ARN in {REPLICA_TABLE} is in {its}: remove REPLICA_REGION, or correct \
             one of them"
        ));
    }
    if let (Some(its), Some(role)) = (table.partition(), &role_arn)
        && its != role.partition()
    {
        read.add_error(format!(
            "REPLICA_ROLE_ARN is in the partition {}, but the ARN in {REPLICA_TABLE} is in {its}, and a role cannot \
             be used in another partition: set REPLICA_ROLE_ARN to a role in {its}, or correct {REPLICA_TABLE}; \
             millrace attach TABLE --replica-table ARN --replica-role-arn ARN checks both and writes the files to deploy",
            role.partition()
        ));
    }
    let region = table.region().map(str::to_owned).or(region);
    let settings = TableSettings { table, region, role_arn, max_concurrency: limit };
    let name = SinkName::from_static(dynamodb::NAME);
    Some(vec![ReplicaTable { name, setting: REPLICA_TABLE.to_owned(), table: settings, transform: None }])
}
