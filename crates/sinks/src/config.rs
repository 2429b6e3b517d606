//! The settings of the sinks, which the replicator and the maintenance function share: [`SinksConfig`].

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_config::SdkConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_sdk_dynamodb::config::{Region, SharedCredentialsProvider};
use millrace_archive::config::ArchiveConfig;
use millrace_shared::aws;
use millrace_shared::cache::{Cache, CacheSettings};
use millrace_shared::environment::{self, Environment, EnvironmentError, VariableReader};
use millrace_shared::iam_token::TokenSigner;
use millrace_shared::item::restored::SourceSchema;
use millrace_shared::postgres::PostgresSettings;
use millrace_shared::replica_item::ReservedNames;
use millrace_transform::ItemTransform;
use millrace_transform::columns::TableColumns;
use time::Duration;

use crate::archive::{self, ArchiveSink};
use crate::cache::CacheSink;
use crate::document::{
    ArchivedRecords, DEFAULT_CONCURRENCY, DocumentLocation, MAX_CONCURRENCY, PostgresTable, REPLICATION, ReplicaEntry,
    ReplicationDocument, RoleArn, SinkSettings, TableAddress, TableSettings, USERS_TABLE, users_table,
};
use crate::document_object::read_document;
use crate::dynamodb::{self, AssumedRole, DynamoDbSink};
use crate::hash_keys::{hash_keys, load_hash_keys, needs_hash_keys};
use crate::postgres::{self, PostgresSchema, PostgresSink};
use crate::{Replica, Sink, SinkName, TransformedSink};

/// The default retention of tombstones. A stream retains records for one day; the other week is for records that wait
/// in the failure bucket.
const TOMBSTONE_RETENTION_DAYS: u16 = 8;
/// The minimum retention of tombstones. A stream delivers a record for one day, and a tombstone must outlive every record
/// of its item, with a margin for clocks.
const TOMBSTONE_RETENTION_DAYS_MIN: u16 = 2;
/// The maximum retention of tombstones: ten years. A longer time is more likely a mistyped unit than an intention.
const TOMBSTONE_RETENTION_DAYS_LIMIT: u16 = 3_650;

/// The variable that names the only replica if there is no document.
const REPLICA_TABLE: &str = "REPLICA_TABLE";
/// What to do after the problems of a document.
const CHECK_DOCUMENT: &str = "correct the document, and check it with millrace transform --document FILE --items PATH \
                              --key NAMES before it is deployed (parameter Replication)";
/// The variables that configure the only replica if there is no document.
const REPLICA_VARIABLES: [&str; 4] = [REPLICA_TABLE, "REPLICA_REGION", "REPLICA_ROLE_ARN", "REPLICA_MAX_CONCURRENCY"];

/// The settings of all sinks, from the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinksConfig {
    replicas: Vec<ReplicaTable>,
    /// The ARN of the source table, if configured.
    source_arn: Option<TableAddress>,
    /// The attributes that replication adds to the items of `DynamoDB` replicas.
    reserved: ReservedNames,
    tombstone: Duration,
    /// The cache in front of the source, if configured.
    cache: Option<CacheSettings>,
    /// The PostgreSQL database, if configured.
    postgres: Option<PostgresSettings>,
    /// The table of the users service in that database, if the source is the table of that service.
    users_table: Option<PostgresTable>,
    /// The other tables of the document in that database.
    tables: Vec<RelationalTable>,
    /// The columns that the document declares for all stores.
    columns: TableColumns,
    /// The archive, if its bucket is configured.
    archive: Option<ArchiveConfig>,
}

/// A `DynamoDB` replica, which may be in another Region or account.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ReplicaTable {
    name: SinkName,
    /// The setting that names the table, for errors.
    setting: String,
    table: TableSettings,
    /// What the replica stores of an item; `None` if it stores items as they are.
    transform: Option<Arc<ItemTransform>>,
}

/// A table of the PostgreSQL database that the document declares.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RelationalTable {
    name: SinkName,
    /// The place in the document, for errors.
    setting: String,
    table: PostgresTable,
    /// What the replica stores of an item; `None` if it stores items as they are.
    transform: Option<Arc<ItemTransform>>,
}

/// The transformation of a sink, and the setting that contains its rules, for errors.
struct SinkRules {
    transform: Arc<ItemTransform>,
    setting: String,
}

/// The replicas of a document, or the only replica of the variables.
#[derive(Debug, Default)]
struct ConfiguredReplicas {
    dynamodb: Vec<ReplicaTable>,
    postgres: Vec<RelationalTable>,
    /// The table of the users service, if the document declares it, with its place in the document.
    users: Option<(String, ReplicaEntry)>,
    /// The columns of all stores.
    columns: TableColumns,
}

impl ReplicaTable {
    /// Returns why the table cannot be a replica of the source that this variable names, as far as the names say.
    fn refusal(&self, variable: &str, source: &TableAddress) -> Option<String> {
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

impl SinksConfig {
    /// Parses the environment. A document in S3 must have been read before ([`load_document`]).
    ///
    /// # Errors
    /// [`EnvironmentError`]: every variable that is missing or malformed, and every problem of the document.
    pub fn parse(environment: &Environment) -> Result<Self, EnvironmentError> {
        let mut read = environment.read();
        let reserved = read.optional("RESERVED_PREFIX", ReservedNames::parse).unwrap_or_default();
        let replicas = match environment.get(REPLICATION) {
            Some(text) => document(text, environment, &reserved, &mut read),
            None => {
                only_replica(&mut read).map(|dynamodb| ConfiguredReplicas { dynamodb, ..ConfiguredReplicas::default() })
            }
        };
        let source_arn = read.optional("SOURCE_TABLE_ARN", TableAddress::parse_arn);
        if let (Some(source), Some(replicas)) = (&source_arn, &replicas) {
            let refusals = replicas.dynamodb.iter().filter_map(|replica| replica.refusal("SOURCE_TABLE_ARN", source));
            refusals.for_each(|problem| read.add_error(problem));
        }
        let days = read
            .optional("TOMBSTONE_RETENTION_DAYS", within(TOMBSTONE_RETENTION_DAYS_MIN, TOMBSTONE_RETENTION_DAYS_LIMIT))
            .unwrap_or(TOMBSTONE_RETENTION_DAYS);
        let cache = read.collect_optional(CacheSettings::parse(|name| environment.get(name)));
        let postgres = read.collect_optional(PostgresSettings::parse(postgres::SETTING, |name| environment.get(name)));
        let archive = environment.get(archive::SETTING).and_then(|_| read.collect(ArchiveConfig::parse(environment)));
        let schema = read.optional("SOURCE_SCHEMA", SourceSchema::parse).unwrap_or_default();
        let is_users = schema == SourceSchema::Users;
        let has_tables =
            replicas.as_ref().is_none_or(|replicas| !replicas.postgres.is_empty() || replicas.users.is_some());
        if environment.get(postgres::SETTING).is_some() && !is_users && !has_tables {
            read.add_error(format!(
                "{} is set, but the table of PostgreSQL is not declared: add a replica with \"sink\": \"postgres\" and \
                 its table to {REPLICATION}; set SOURCE_SCHEMA to users if the source is the table of the users \
                 service, otherwise remove the variable",
                postgres::SETTING
            ));
        }
        if environment.get("CACHE_URL").is_some() && !is_users {
            read.add_error(
                "CACHE_URL is set, but a cache is available only for the table of the users service: set SOURCE_SCHEMA \
                 to users if the source is that table, otherwise remove CACHE_URL"
                    .to_owned(),
            );
        }
        for RelationalTable { setting, table, .. } in replicas.iter().flat_map(|replicas| &replicas.postgres) {
            if is_users && table.table.as_str() == USERS_TABLE {
                read.add_error(format!(
                    "{setting}/table is {USERS_TABLE:?}, the table of the users service: choose another name"
                ));
            }
        }
        for (setting, users) in replicas.iter().filter_map(|replicas| replicas.users.as_ref()) {
            if !is_users {
                read.add_error(format!(
                    "{setting}/name is {:?}, the name of the table of the users service: choose another name, or set \
                     SOURCE_SCHEMA to users if the source is the table of that service",
                    users.name.as_str()
                ));
                continue;
            }
            for (member, reason) in users.users_table_problems() {
                read.add_error(format!("{setting}/{member} {reason}"));
            }
        }
        let problems = read.problems();
        let (Some(replicas), true) = (replicas, problems.is_empty()) else {
            return Err(problems);
        };
        let ConfiguredReplicas { dynamodb: replicas, postgres: tables, users, columns } = replicas;
        let tombstone = Duration::days(days.into());
        let declared = users.and_then(|(_, users)| users.postgres_table().cloned());
        let users_table = (is_users && postgres.is_some()).then(|| declared.unwrap_or_else(users_table));
        Ok(Self { replicas, source_arn, reserved, tombstone, cache, postgres, users_table, tables, columns, archive })
    }

    /// Creates the clients of the replicas. A replica without a Region and a role of its own uses the function's.
    pub async fn replica_clients(&self, sdk: &SdkConfig) -> ReplicaClients {
        let mut clients = ReplicaClients::from(aws_sdk_dynamodb::Client::new(sdk));
        for ReplicaTable { name, table, .. } in &self.replicas {
            if table.region.is_none() && table.role_arn.is_none() {
                continue;
            }
            let mut config = aws_sdk_dynamodb::config::Builder::from(sdk);
            if let Some(region) = &table.region {
                config = config.region(Region::new(region.clone()));
            }
            let mut role = None;
            if let Some(arn) = &table.role_arn {
                let provider = AssumeRoleProvider::builder(arn.as_str()).session_name("millrace-replicator");
                let credentials = SharedCredentialsProvider::new(provider.configure(sdk).build().await);
                config = config.credentials_provider(credentials.clone());
                role = Some(AssumedRole { arn: arn.clone(), credentials });
            }
            let client = aws_sdk_dynamodb::Client::from_conf(config.build());
            clients.of_replica.insert(name.clone(), ReplicaClient { client, role });
        }
        clients
    }

    /// Returns all sinks.
    #[must_use]
    pub fn sinks(
        &self,
        clients: &ReplicaClients,
        postgres: impl IntoIterator<Item = PostgresSink>,
        cache: Option<Cache>,
    ) -> Vec<Box<dyn Sink>> {
        let tables = self.dynamodb_sinks(clients).map(|(sink, rules)| as_sink(sink, rules));
        let mut sinks: Vec<Box<dyn Sink>> = tables.collect();
        sinks.extend(postgres.into_iter().map(|sink| {
            let rules = self.rules_of(&sink);
            as_sink(sink, rules)
        }));
        sinks.extend(cache.map(|cache| Box::new(CacheSink::new(cache)) as Box<dyn Sink>));
        sinks
    }

    /// Returns the sinks that store items, which can be read back and repaired.
    #[must_use]
    pub fn replicas(
        &self,
        clients: &ReplicaClients,
        postgres: impl IntoIterator<Item = PostgresSink>,
    ) -> Vec<Box<dyn Replica>> {
        let tables = self.dynamodb_sinks(clients).map(|(sink, rules)| as_replica(sink, rules));
        let mut replicas: Vec<Box<dyn Replica>> = tables.collect();
        replicas.extend(postgres.into_iter().map(|sink| {
            let rules = self.rules_of(&sink);
            as_replica(sink, rules)
        }));
        replicas
    }

    /// Returns the ARN of the source table, if it is configured.
    #[must_use]
    pub fn source_arn(&self) -> Option<&str> {
        self.source_arn.as_ref().map(TableAddress::as_str)
    }

    /// Returns the problems of the replicas if the source is the table that this variable names, each with the setting
    /// and the fix.
    #[must_use]
    pub fn source_problems(&self, variable: &str, source: &str) -> Vec<String> {
        let Ok(source) = TableAddress::parse(source) else { return Vec::new() };
        self.replicas.iter().filter_map(|replica| replica.refusal(variable, &source)).collect()
    }

    /// Returns the PostgreSQL replicas, each with a connection of its own; not yet connected. Without a signer, they
    /// log in with a password.
    #[must_use]
    pub fn postgres(&self, signer: Option<&TokenSigner>) -> Vec<PostgresSink> {
        let Some(settings) = &self.postgres else { return Vec::new() };
        let sink = || PostgresSink::new(settings, signer.cloned(), self.tombstone);
        let users = self.users_table.iter().map(|table| sink().with_users_table(table.clone()));
        let tables = self.tables.iter().map(|RelationalTable { name, setting, table, .. }| {
            sink().of_table(name.clone(), setting.clone(), table.clone())
        });
        users.chain(tables).collect()
    }

    /// Returns the settings of the PostgreSQL database, if configured. Creating its tables requires them; the
    /// replicator does not create tables.
    #[must_use]
    pub fn postgres_settings(&self) -> Option<&PostgresSettings> {
        self.postgres.as_ref()
    }

    /// Returns the tables that the PostgreSQL database has.
    #[must_use]
    pub fn postgres_schema(&self) -> PostgresSchema {
        let tables = self.tables.iter().map(|replica| replica.table.clone()).collect();
        PostgresSchema { users: self.users_table.clone(), tables }
    }

    /// Returns the cache in front of the source, if configured; not yet connected.
    #[must_use]
    pub fn cache(&self, signer: Option<TokenSigner>) -> Option<Cache> {
        self.cache.clone().map(|settings| Cache::new(settings, signer))
    }

    /// Returns the archive as a sink of the replicator, if its bucket is configured.
    #[must_use]
    pub fn archive(&self, s3: aws_sdk_s3::Client) -> Option<ArchiveSink> {
        self.archive.as_ref().map(|archive| ArchiveSink::new(archive.writer(s3)))
    }

    /// Returns the columns that the document declares for all stores, and so for the Parquet files of the archive.
    #[must_use]
    pub fn columns(&self) -> &TableColumns {
        &self.columns
    }

    /// Returns the replicas of the document, each with the digest of its rules; `None` if it stores items as they are.
    #[must_use]
    pub fn transform_digests(&self) -> Vec<(SinkName, Option<String>)> {
        let tables = self.replicas.iter().filter(|replica| replica.setting != REPLICA_TABLE);
        let tables = tables.map(|replica| (&replica.name, &replica.transform));
        let relational = self.tables.iter().map(|replica| (&replica.name, &replica.transform));
        let digest = |transform: &Option<Arc<ItemTransform>>| transform.as_ref().map(|rules| rules.digest().to_owned());
        tables.chain(relational).map(|(name, transform)| (name.clone(), digest(transform))).collect()
    }

    /// Returns the transformation of a PostgreSQL sink.
    fn rules_of(&self, sink: &PostgresSink) -> Option<SinkRules> {
        let RelationalTable { setting, transform, .. } =
            self.tables.iter().find(|table| table.name.as_str() == sink.name())?;
        Some(SinkRules { transform: transform.clone()?, setting: format!("{setting}/attributes") })
    }

    /// Returns the `DynamoDB` sinks, each with its transformation.
    fn dynamodb_sinks(&self, clients: &ReplicaClients) -> impl Iterator<Item = (DynamoDbSink, Option<SinkRules>)> {
        self.replicas.iter().map(|ReplicaTable { name, setting, table, transform }| {
            let ReplicaClient { client, role } = clients.of(name);
            let rules = transform.clone().map(|transform| SinkRules {
                transform,
                setting: setting.trim_end_matches("/table").to_owned() + "/attributes",
            });
            let sink = DynamoDbSink::new(client, table.table.as_str(), table.max_concurrency, self.tombstone)
                .with_name(name.clone(), setting.clone())
                .with_role(role)
                .with_reserved_names(self.reserved.clone())
                .with_source(self.source_arn.as_ref().map(|arn| arn.as_str().to_owned()));
            (sink, rules)
        })
    }
}

/// The clients of the `DynamoDB` replicas, created once.
#[derive(Debug, Clone)]
pub struct ReplicaClients {
    /// The client of every other replica.
    default: aws_sdk_dynamodb::Client,
    /// The clients of the replicas in another Region or account, by name.
    of_replica: BTreeMap<SinkName, ReplicaClient>,
}

/// A client of a replica.
#[derive(Debug, Clone)]
struct ReplicaClient {
    client: aws_sdk_dynamodb::Client,
    role: Option<AssumedRole>,
}

impl ReplicaClients {
    fn of(&self, name: &SinkName) -> ReplicaClient {
        let own = self.of_replica.get(name).cloned();
        own.unwrap_or_else(|| ReplicaClient { client: self.default.clone(), role: None })
    }
}

/// The same client for every replica.
impl From<aws_sdk_dynamodb::Client> for ReplicaClients {
    fn from(default: aws_sdk_dynamodb::Client) -> Self {
        Self { default, of_replica: BTreeMap::new() }
    }
}

/// Replaces the location of a replication document by the document, and adds the keys of its hashes; both are read with
/// clients of the process. An environment without such a location and keys is returned unchanged.
///
/// # Errors
/// As [`load_document`] and [`load_hash_keys`].
pub async fn load_document_at_start(environment: Environment) -> Result<Environment, EnvironmentError> {
    let environment = match environment.get(REPLICATION).map(DocumentLocation::parse) {
        Some(Ok(Some(_))) => {
            let s3 = aws::s3(&aws::load().await, &environment);
            load_document(environment, &s3).await?
        }
        _ => environment,
    };
    if needs_hash_keys(&environment) {
        let client = aws_sdk_secretsmanager::Client::new(&aws::load().await);
        return load_hash_keys(environment, &client).await;
    }
    Ok(environment)
}

/// Like [`load_document_at_start`], with this client.
///
/// # Errors
/// [`EnvironmentError`] if the document cannot be read; it names the bucket, the key and the permission.
pub async fn load_document(environment: Environment, s3: &aws_sdk_s3::Client) -> Result<Environment, EnvironmentError> {
    // A malformed location is reported by `SinksConfig::parse`, together with all other problems.
    let Some(Ok(Some(location))) = environment.get(REPLICATION).map(DocumentLocation::parse) else {
        return Ok(environment);
    };
    // The future of a request of the SDK is large, and every caller would contain it.
    match Box::pin(read_document(s3, &location)).await {
        Ok(text) => Ok(environment.with(REPLICATION, text)),
        Err(error) => {
            let mut read = environment.read();
            read.add_error(error.to_string());
            Err(read.problems())
        }
    }
}

/// Reads the replicas from the document `text`.
fn document(
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

fn as_sink(sink: impl Sink + 'static, rules: Option<SinkRules>) -> Box<dyn Sink> {
    match rules {
        Some(SinkRules { transform, setting }) => Box::new(TransformedSink::new(sink, transform, setting)),
        None => Box::new(sink),
    }
}

fn as_replica(sink: impl Replica + 'static, rules: Option<SinkRules>) -> Box<dyn Replica> {
    match rules {
        Some(SinkRules { transform, setting }) => Box::new(TransformedSink::new(sink, transform, setting)),
        None => Box::new(sink),
    }
}

/// Reads the only replica from the variables.
fn only_replica(read: &mut VariableReader<'_>) -> Option<Vec<ReplicaTable>> {
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
    let name = SinkName::of_default(dynamodb::NAME);
    Some(vec![ReplicaTable { name, setting: REPLICA_TABLE.to_owned(), table: settings, transform: None }])
}

/// Returns a parser for a number from `least` to `limit`.
fn within<T>(least: T, limit: T) -> impl Fn(&str) -> Result<T, String>
where
    T: std::str::FromStr + std::fmt::Display + PartialOrd,
{
    move |text| {
        let parsed = environment::number::<T>(text).ok().filter(|number| *number >= least && *number <= limit);
        parsed.ok_or_else(|| format!("is {text:?}: set it to a number from {least} to {limit}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::USERS_DOCUMENT;

    fn parse(variables: &[(&str, &str)]) -> Result<SinksConfig, EnvironmentError> {
        SinksConfig::parse(&variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn the_replica_table_is_enough() {
        let config = parse(&[("REPLICA_TABLE", "UsersReplica")]).unwrap();
        let [replica] = &config.replicas[..] else { panic!("one replica") };
        assert_eq!((replica.name.as_str(), replica.table.max_concurrency), ("dynamodb", 128));
        assert_eq!(config.tombstone, Duration::days(8));
        assert_eq!((&replica.table.region, &replica.table.role_arn), (&None, &None));
    }

    #[test]
    fn a_tombstone_outlives_the_records_of_a_stream() {
        let days = |days| parse(&[("REPLICA_TABLE", "UsersReplica"), ("TOMBSTONE_RETENTION_DAYS", days)]);
        let said = days("1").unwrap_err().to_string();
        assert!(said.contains("TOMBSTONE_RETENTION_DAYS is \"1\": set it to a number from 2 to 3650"), "{said}");
        assert_eq!(days("2").unwrap().tombstone, Duration::days(2));
    }

    async fn sdk() -> SdkConfig {
        let defaults = aws_config::defaults(aws_config::BehaviorVersion::latest());
        defaults.region(Region::from_static("eu-west-1")).no_credentials().load().await
    }

    fn region(client: &aws_sdk_dynamodb::Client) -> Option<String> {
        client.config().region().map(ToString::to_string)
    }

    #[tokio::test]
    async fn the_replica_may_be_in_another_region() {
        let arn = "arn:aws:dynamodb:ap-south-1:111122223333:table/Orders";
        for (variables, expected) in [
            (vec![("REPLICA_TABLE", "UsersReplica")], "eu-west-1"),
            (vec![("REPLICA_TABLE", "UsersReplica"), ("REPLICA_REGION", "us-east-2")], "us-east-2"),
            (vec![("REPLICA_TABLE", arn)], "ap-south-1"),
            (vec![("REPLICA_TABLE", arn), ("REPLICA_REGION", "ap-south-1")], "ap-south-1"),
        ] {
            let config = parse(&variables).unwrap();
            let clients = config.replica_clients(&sdk().await).await;
            let client = clients.of(&config.replicas[0].name).client;
            assert_eq!(region(&client).as_deref(), Some(expected), "{variables:?}");
        }
        let said = parse(&[("REPLICA_TABLE", arn), ("REPLICA_REGION", "eu-west-1")]).unwrap_err().to_string();
        assert!(
            said.contains("REPLICA_REGION is \"eu-west-1\", but the ARN in REPLICA_TABLE is in ap-south-1"),
            "{said}"
        );
        let role = ("REPLICA_ROLE_ARN", "arn:aws-cn:iam::111122223333:role/replication");
        let said = parse(&[("REPLICA_TABLE", arn), role]).unwrap_err().to_string();
        assert!(
            said.contains("REPLICA_ROLE_ARN is in the partition aws-cn, but the ARN in REPLICA_TABLE is in aws,")
                && said.contains("set REPLICA_ROLE_ARN to a role in aws, or correct REPLICA_TABLE"),
            "{said}"
        );
    }

    const BUCKET: (&str, &str) = ("ARCHIVE_BUCKET", "orders-archive");
    const DOCUMENT: &str = r#"{"version":1,"replicas":[
        {"name":"staging","sink":"dynamodb","table":"arn:aws:dynamodb:us-east-2:111122223333:table/Orders",
         "role_arn":"arn:aws:iam::111122223333:role/replication","max_concurrency":16},
        {"name":"near","sink":"dynamodb","table":"OrdersCopy"},
        {"name":"archive","sink":"archive","records":"expired"}]}"#;

    #[tokio::test]
    async fn a_document_has_several_replicas_each_with_its_client() {
        let config = parse(&[("REPLICATION", DOCUMENT), BUCKET]).unwrap();
        let names: Vec<&str> = config.replicas.iter().map(|replica| replica.name.as_str()).collect();
        assert_eq!(names, ["staging", "near"]);
        assert_eq!(config.replicas[1].setting, "REPLICATION /replicas/1/table");
        assert!(config.archive.is_some());
        let clients = config.replica_clients(&sdk().await).await;
        let [staging, near] = [0, 1].map(|index: usize| clients.of(&config.replicas[index].name));
        assert_eq!(region(&staging.client).as_deref(), Some("us-east-2"));
        assert_eq!(staging.role.unwrap().arn.as_str(), "arn:aws:iam::111122223333:role/replication");
        assert_eq!((region(&near.client).as_deref(), near.role.is_none()), (Some("eu-west-1"), true));
    }

    #[test]
    fn a_replica_that_is_the_source_or_in_another_partition_is_rejected() {
        let source = ("SOURCE_TABLE_ARN", "arn:aws:dynamodb:us-east-2:111122223333:table/Orders");
        let said = parse(&[("REPLICATION", DOCUMENT), BUCKET, source]).unwrap_err().to_string();
        assert!(said.contains("1 problem:") && said.contains("REPLICATION /replicas/0/table"), "{said}");
        assert!(said.contains("which is SOURCE_TABLE_ARN: set it to another table"), "{said}");
        let source = ("SOURCE_TABLE_ARN", "arn:aws-cn:dynamodb:cn-north-1:111122223333:table/Orders");
        let said = parse(&[("REPLICATION", DOCUMENT), BUCKET, source]).unwrap_err().to_string();
        assert!(said.contains("partition aws,") && said.contains("SOURCE_TABLE_ARN is in aws-cn"), "{said}");
        assert!(said.contains("name a table and a role in aws-cn"), "{said}");
        let said = parse(&[("REPLICA_TABLE", "UsersReplica"), ("SOURCE_TABLE_ARN", "Users")]).unwrap_err().to_string();
        assert!(said.contains("SOURCE_TABLE_ARN is \"Users\": set it to arn:aws:dynamodb:"), "{said}");
    }

    #[test]
    fn a_sink_of_users_is_rejected_for_any_other_table() {
        let table = ("REPLICA_TABLE", "OrdersReplica");
        for sink in
            [("POSTGRES_URL", "postgres://millrace:s3cret@db:5432/users"), ("CACHE_URL", "redis://:s3cret@c:6379")]
        {
            for schema in [&[][..], &[("SOURCE_SCHEMA", "any")]] {
                let said = parse(&[&[table, sink], schema].concat()).unwrap_err().to_string();
                assert!(said.contains("1 problem:") && said.contains(&format!("{} is set, but", sink.0)), "{said}");
                assert!(said.contains("SOURCE_SCHEMA") && said.contains("otherwise remove"), "{said}");
                assert!(!said.contains("s3cret"), "{said}");
            }
            parse(&[table, sink, ("SOURCE_SCHEMA", "users")]).unwrap();
        }
    }

    #[test]
    fn a_table_of_postgres_is_declared_for_any_source() {
        let document = r#"{"version":1,"replicas":[{"name":"sql","sink":"postgres","table":"orders"},
            {"name":"lines","sink":"postgres","table":"users"}]}"#;
        let (document, url) = (("REPLICATION", document), ("POSTGRES_URL", "postgres://millrace@db:5432/shop"));
        let names = |variables: &[(&str, &str)]| -> Vec<String> {
            let config = parse(variables).unwrap();
            assert!(config.postgres_settings().is_some());
            config.postgres(None).iter().map(|sink| sink.name().to_owned()).collect()
        };
        assert_eq!(names(&[document, url]), ["sql", "lines"]);
        let said = parse(&[document]).unwrap_err().to_string();
        assert!(said.contains("2 problems:") && said.contains("/replicas/0/sink is \"postgres\", but POSTGRES_URL"));
        let users = ("SOURCE_SCHEMA", "users");
        let said = parse(&[document, url, users]).unwrap_err().to_string();
        assert!(said.contains("/replicas/1/table is \"users\", the table of the users service"), "{said}");
        let orders = ("REPLICATION", r#"{"version":1,"replicas":[{"name":"sql","sink":"postgres","table":"orders"}]}"#);
        assert_eq!(names(&[orders, url, users]), ["postgres", "sql"]);
    }

    #[test]
    fn users_table_accepts_more_columns_and_rejects_fewer() {
        let declared = |edit: &dyn Fn(&mut serde_json::Value)| {
            let mut document: serde_json::Value = serde_json::from_str(USERS_DOCUMENT).unwrap();
            edit(&mut document["replicas"][0]);
            document.to_string()
        };
        let url = ("POSTGRES_URL", "postgres://millrace@db:5432/users");
        let parse = |document: &str, schema| parse(&[("REPLICATION", document), url, ("SOURCE_SCHEMA", schema)]);
        let plan = |replica: &mut serde_json::Value| {
            replica["columns"]["plan"] = serde_json::json!({"path": "attributes.plan", "type": "text"});
        };
        let config = parse(&declared(&plan), "users").unwrap();
        let names: Vec<String> = config.postgres(None).iter().map(|sink| sink.name().to_owned()).collect();
        assert_eq!(names, ["postgres"]);
        let schema = config.postgres_schema();
        assert_eq!((schema.users.unwrap().columns.definitions().len(), schema.tables.len()), (12, 0));
        let said = parse(&declared(&|_| {}), "any").unwrap_err().to_string();
        assert!(
            said.contains("1 problem:") && said.contains("/replicas/0/name is \"postgres\", the name of"),
            "{said}"
        );
        let wrong = |replica: &mut serde_json::Value| {
            replica["columns"]["name_folded"] = serde_json::json!({"path": "name", "type": "text"});
            replica["otherwise"] = "null".into();
            replica["attributes"] = serde_json::json!({"exclude": ["email"]});
            replica["columns"]["expires_at"] = serde_json::json!({"path": "expires_at", "type": "numeric"});
        };
        let said = parse(&declared(&wrong), "users").unwrap_err().to_string();
        for part in [
            "4 problems:",
            "/replicas/0/columns/expires_at is the name of a column that search computes",
            r#"/replicas/0/columns/name_folded must be {"path": "name", "type": "text", "format": "case_folded"}"#,
            r#"/replicas/0/otherwise must be "quarantine""#,
            "/replicas/0/table has rules (where, attributes)",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }

    #[test]
    fn key_of_a_hash_is_read_before_the_configuration_is_parsed() {
        const SECRET: &str = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:pii";
        let document = format!(
            r#"{{"version":1,"hash_keys":{{"pii":"{SECRET}"}},"replicas":[{{"name":"copy","sink":"dynamodb",
            "table":"Copy","attributes":{{"hash":{{"email":"pii"}}}}}}]}}"#
        );
        let config = parse(&[("REPLICATION", &document), (SECRET, "0123456789abcdef")]).unwrap();
        assert!(config.replicas[0].transform.is_some());
        let problem = |key| parse(&[("REPLICATION", &document), (SECRET, key)]).unwrap_err().to_string();
        let unread = problem("");
        assert!(
            unread.contains("/hash_keys/pii is arn:aws:secretsmanager:") && unread.contains("not read"),
            "{unread}"
        );
        let short = problem("s3cret");
        assert!(short.contains("at least 16 random bytes") && !short.contains("s3cret"), "{short}");
    }

    #[test]
    fn a_document_and_the_variables_that_it_replaces_are_not_both_set() {
        for name in REPLICA_VARIABLES {
            let said = parse(&[("REPLICATION", DOCUMENT), BUCKET, (name, "1")]).unwrap_err().to_string();
            assert!(said.contains(&format!("{name} is set in addition to REPLICATION")), "{said}");
            assert!(said.contains("1 problem:"), "{said}");
        }
    }

    #[test]
    fn all_problems_of_a_document_are_reported_with_those_of_the_variables() {
        let document = r#"{"version":1,"replicas":[{"name":"A","sink":"dynamodb"}]}"#;
        let said = parse(&[("REPLICATION", document), ("TOMBSTONE_RETENTION_DAYS", "0")]).unwrap_err().to_string();
        let parts =
            ["3 problems:", "REPLICATION /replicas/0/name is \"A\"", "REPLICATION /replicas/0/table is missing"];
        for part in parts.into_iter().chain(["TOMBSTONE_RETENTION_DAYS is \"0\""]) {
            assert!(said.contains(part), "{part} in {said}");
        }
        for malformed in ["s3://bucket", "Orders"] {
            let said = parse(&[("REPLICATION", malformed)]).unwrap_err().to_string();
            assert!(said.contains("1 problem:") && said.contains("s3://<bucket>/<key>"), "{said}");
        }
    }

    #[tokio::test]
    async fn a_document_that_cannot_be_read_names_bucket_key_and_permission() {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(aws_sdk_s3::config::BehaviorVersion::latest())
            .region(aws_sdk_s3::config::Region::from_static("eu-west-1"))
            .endpoint_url("http://127.0.0.1:1")
            .retry_config(aws_sdk_s3::config::retry::RetryConfig::disabled())
            .build();
        let s3 = aws_sdk_s3::Client::from_conf(config);
        let environment =
            |value: &str| [(REPLICATION.to_owned(), value.to_owned())].into_iter().collect::<Environment>();
        let said = load_document(environment("s3://orders-config/v1.json"), &s3).await.unwrap_err().to_string();
        for part in [
            "1 problem:",
            "REPLICATION is s3://orders-config/v1.json",
            "object v1.json of bucket orders-config",
            "s3:GetObject",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
        // Nothing is read for a document that is in the variable, and a malformed location is not a location.
        for unchanged in [DOCUMENT, "s3://bucket"] {
            let loaded = load_document(environment(unchanged), &s3).await.unwrap();
            assert_eq!(loaded.get(REPLICATION), Some(unchanged));
        }
    }
}
