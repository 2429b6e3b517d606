//! The settings of the sinks, which the replicator and the maintenance function share: [`SinksConfig`].

mod configured_replicas;

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_config::SdkConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_sdk_dynamodb::config::{Region, SharedCredentialsProvider};
use millrace_archive::config::ArchiveConfig;
use millrace_shared::aws;
use millrace_shared::cache::{Cache, CacheSettings};
use millrace_shared::environment::{self, Environment, EnvironmentError};
use millrace_shared::iam_token::TokenSigner;
use millrace_shared::item::restored::SourceSchema;
use millrace_shared::postgres::PostgresSettings;
use millrace_shared::replica_item::ReservedNames;
use millrace_shared::secrets::SecretsClient;
use millrace_transform::ItemTransform;
use millrace_transform::columns::TableColumns;
use time::Duration;

use crate::archive::{self, ArchiveSink};
use crate::cache::CacheSink;
use crate::document::{DocumentLocation, PostgresTable, REPLICATION, TableAddress, USERS_TABLE, users_table};
use crate::document_object::read_document;
use crate::dynamodb::{AssumedRole, DynamoDbSink};
use crate::hash_keys::{load_hash_keys, needs_hash_keys};
use crate::postgres::{self, PostgresSchema, PostgresSink};
use crate::{Replica, Sink, SinkName, TransformedSink};
use configured_replicas::{
    ConfiguredReplicas, REPLICA_TABLE, RelationalTable, ReplicaTable, replica_of_variables, replicas_of_document,
};

/// The default retention of tombstones. A stream retains records for one day; the other week is for records that wait
/// in the failure bucket.
const TOMBSTONE_RETENTION_DAYS: u16 = 8;
/// The minimum retention of tombstones. A stream delivers a record for one day, and a tombstone must outlive every record
/// of its item, with a margin for clocks.
const TOMBSTONE_RETENTION_DAYS_MIN: u16 = 2;
/// The maximum retention of tombstones: ten years. A longer time is more likely a mistyped unit than an intention.
const TOMBSTONE_RETENTION_DAYS_LIMIT: u16 = 3_650;

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

/// The transformation of a sink, and the setting that contains its rules, for errors.
struct SinkRules {
    transform: Arc<ItemTransform>,
    setting: String,
    /// The digest of the rules and of the table.
    digest: String,
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
            Some(text) => replicas_of_document(text, environment, &reserved, &mut read),
            None => replica_of_variables(&mut read)
                .map(|dynamodb| ConfiguredReplicas { dynamodb, ..ConfiguredReplicas::default() }),
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
            clients.by_replica.insert(name.clone(), ReplicaClient { client, role });
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
            sink().with_table(name.clone(), setting.clone(), table.clone())
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

    /// Returns the replicas of the document, each with the digest of its rules and of its table; `None` if it stores items as they are.
    #[must_use]
    pub fn transform_digests(&self) -> Vec<(SinkName, Option<String>)> {
        let tables = self.replicas.iter().filter(|replica| replica.setting != REPLICA_TABLE);
        let tables = tables.map(|replica| (replica.name.clone(), replica.digest()));
        tables.chain(self.tables.iter().map(|replica| (replica.name.clone(), replica.digest()))).collect()
    }

    /// Returns the transformation of a PostgreSQL sink.
    fn rules_of(&self, sink: &PostgresSink) -> Option<SinkRules> {
        let table = self.tables.iter().find(|table| table.name.as_str() == sink.name())?;
        let setting = format!("{}/attributes", table.setting);
        Some(SinkRules { transform: table.transform.clone()?, setting, digest: table.digest()? })
    }

    /// Returns the `DynamoDB` sinks, each with its transformation.
    fn dynamodb_sinks(&self, clients: &ReplicaClients) -> impl Iterator<Item = (DynamoDbSink, Option<SinkRules>)> {
        self.replicas.iter().map(|replica| {
            let ReplicaTable { name, setting, table, transform } = replica;
            let ReplicaClient { client, role } = clients.replica_client(name);
            let rules = transform.clone().zip(replica.digest()).map(|(transform, digest)| SinkRules {
                transform,
                setting: setting.trim_end_matches("/table").to_owned() + "/attributes",
                digest,
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
    by_replica: BTreeMap<SinkName, ReplicaClient>,
}

/// A client of a replica.
#[derive(Debug, Clone)]
struct ReplicaClient {
    client: aws_sdk_dynamodb::Client,
    role: Option<AssumedRole>,
}

impl ReplicaClients {
    fn replica_client(&self, name: &SinkName) -> ReplicaClient {
        let own = self.by_replica.get(name).cloned();
        own.unwrap_or_else(|| ReplicaClient { client: self.default.clone(), role: None })
    }
}

/// The same client for every replica.
impl From<aws_sdk_dynamodb::Client> for ReplicaClients {
    fn from(default: aws_sdk_dynamodb::Client) -> Self {
        Self { default, by_replica: BTreeMap::new() }
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
        return load_hash_keys(environment, &SecretsClient::new(&aws::load().await)).await;
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

fn as_sink(sink: impl Sink + 'static, rules: Option<SinkRules>) -> Box<dyn Sink> {
    match rules {
        Some(SinkRules { transform, setting, digest }) => {
            Box::new(TransformedSink::new(sink, transform, setting).with_digest(digest))
        }
        None => Box::new(sink),
    }
}

fn as_replica(sink: impl Replica + 'static, rules: Option<SinkRules>) -> Box<dyn Replica> {
    match rules {
        Some(SinkRules { transform, setting, digest }) => {
            Box::new(TransformedSink::new(sink, transform, setting).with_digest(digest))
        }
        None => Box::new(sink),
    }
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
mod tests;
