//! The settings of the sinks, which the replicator and the maintenance function share: [`SinksConfig`].

use aws_config::SdkConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_sdk_dynamodb::config::{Region, SharedCredentialsProvider};
use millrace_shared::cache::{Cache, CacheSettings};
use millrace_shared::environment::{self, Environment, EnvironmentError};
use millrace_shared::iam_token::TokenSigner;
use millrace_shared::postgres::PostgresSettings;
use time::Duration;

use crate::cache::CacheSink;
use crate::dynamodb::DynamoDbSink;
use crate::postgres::{self, PostgresSink};
use crate::{Replica, Sink};

/// The default number of concurrent writes. A lower number increases latency, a higher one the memory used.
const IN_FLIGHT: usize = 128;
/// The maximum number of concurrent writes. A Lambda environment has 1,024 file descriptors, so a higher number would
/// run out of sockets.
const IN_FLIGHT_LIMIT: usize = 900;
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
    replica: ReplicaTable,
    tombstone: Duration,
    /// The cache in front of the source, if configured.
    cache: Option<CacheSettings>,
    /// The PostgreSQL replica, if configured.
    postgres: Option<PostgresSettings>,
}

/// The `DynamoDB` replica, which may be in another Region or account.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ReplicaTable {
    table: String,
    region: Option<String>,
    role_arn: Option<String>,
    in_flight: usize,
}

impl SinksConfig {
    /// Parses the environment.
    ///
    /// # Errors
    /// [`EnvironmentError`]: every variable that is missing or malformed.
    pub fn parse(environment: &Environment) -> Result<Self, EnvironmentError> {
        let mut read = environment.read();
        let table = read.required("REPLICA_TABLE", environment::text);
        let region = read.optional("REPLICA_REGION", environment::text);
        let role_arn = read.optional("REPLICA_ROLE_ARN", role_arn);
        let in_flight = read.optional("REPLICA_MAX_CONCURRENCY", within(1, IN_FLIGHT_LIMIT)).unwrap_or(IN_FLIGHT);
        let days = read
            .optional("TOMBSTONE_RETENTION_DAYS", within(TOMBSTONE_RETENTION_DAYS_MIN, TOMBSTONE_RETENTION_DAYS_LIMIT))
            .unwrap_or(TOMBSTONE_RETENTION_DAYS);
        let cache = read.collect_optional(CacheSettings::parse(|name| environment.get(name)));
        let postgres = read.collect_optional(PostgresSettings::parse(postgres::SETTING, |name| environment.get(name)));
        let problems = read.problems();
        let (Some(table), true) = (table, problems.is_empty()) else {
            return Err(problems);
        };
        let replica = ReplicaTable { table, region, role_arn, in_flight };
        Ok(Self { replica, tombstone: Duration::days(days.into()), cache, postgres })
    }

    /// Creates a client for the replica's Region and account; they differ from the function's own only if configured.
    pub async fn replica_client(&self, sdk: &SdkConfig) -> aws_sdk_dynamodb::Client {
        let mut config = aws_sdk_dynamodb::config::Builder::from(sdk);
        if let Some(region) = &self.replica.region {
            config = config.region(Region::new(region.clone()));
        }
        if let Some(role_arn) = &self.replica.role_arn {
            let role = AssumeRoleProvider::builder(role_arn).session_name("millrace-replicator").configure(sdk);
            config = config.credentials_provider(SharedCredentialsProvider::new(role.build().await));
        }
        aws_sdk_dynamodb::Client::from_conf(config.build())
    }

    /// Returns all sinks.
    #[must_use]
    pub fn sinks(
        &self,
        replica: aws_sdk_dynamodb::Client,
        postgres: Option<PostgresSink>,
        cache: Option<Cache>,
    ) -> Vec<Box<dyn Sink>> {
        let mut sinks: Vec<Box<dyn Sink>> = vec![Box::new(self.dynamodb_sink(replica))];
        sinks.extend(postgres.map(|postgres| Box::new(postgres) as Box<dyn Sink>));
        sinks.extend(cache.map(|cache| Box::new(CacheSink::new(cache)) as Box<dyn Sink>));
        sinks
    }

    /// Returns the sinks that store items, which can be read back and repaired.
    #[must_use]
    pub fn replicas(&self, replica: aws_sdk_dynamodb::Client, postgres: Option<PostgresSink>) -> Vec<Box<dyn Replica>> {
        let mut replicas: Vec<Box<dyn Replica>> = vec![Box::new(self.dynamodb_sink(replica))];
        replicas.extend(postgres.map(|postgres| Box::new(postgres) as Box<dyn Replica>));
        replicas
    }

    /// Returns the PostgreSQL replica, if configured; not yet connected. Without a signer, it logs in with a password.
    #[must_use]
    pub fn postgres(&self, signer: Option<TokenSigner>) -> Option<PostgresSink> {
        self.postgres.as_ref().map(|settings| PostgresSink::new(settings, signer, self.tombstone))
    }

    /// Returns the settings of the PostgreSQL replica, if configured. Creating its tables requires them; the replicator
    /// does not create tables.
    #[must_use]
    pub fn postgres_settings(&self) -> Option<&PostgresSettings> {
        self.postgres.as_ref()
    }

    /// Returns the cache in front of the source, if configured; not yet connected.
    #[must_use]
    pub fn cache(&self, signer: Option<TokenSigner>) -> Option<Cache> {
        self.cache.clone().map(|settings| Cache::new(settings, signer))
    }

    fn dynamodb_sink(&self, client: aws_sdk_dynamodb::Client) -> DynamoDbSink {
        let ReplicaTable { table, in_flight, .. } = &self.replica;
        DynamoDbSink::new(client, table, *in_flight, self.tombstone)
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

fn role_arn(text: &str) -> Result<String, String> {
    let is_role = text.starts_with("arn:") && text.contains(":iam::") && text.contains(":role/");
    if is_role {
        Ok(text.to_owned())
    } else {
        Err(format!("is {text:?}: set it to arn:aws:iam::<account>:role/<name>"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<SinksConfig, EnvironmentError> {
        SinksConfig::parse(&variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn the_replica_table_is_enough() {
        let config = parse(&[("REPLICA_TABLE", "UsersReplica")]).unwrap();
        assert_eq!(config.replica.in_flight, 128);
        assert_eq!(config.tombstone, Duration::days(8));
        assert_eq!((config.replica.region, config.replica.role_arn), (None, None));
    }

    #[test]
    fn a_tombstone_outlives_the_records_of_a_stream() {
        let days = |days| parse(&[("REPLICA_TABLE", "UsersReplica"), ("TOMBSTONE_RETENTION_DAYS", days)]);
        let said = days("1").unwrap_err().to_string();
        assert!(said.contains("TOMBSTONE_RETENTION_DAYS is \"1\": set it to a number from 2 to 3650"), "{said}");
        assert_eq!(days("2").unwrap().tombstone, Duration::days(2));
    }

    #[tokio::test]
    async fn the_replica_may_be_in_another_region() {
        let base = [("REPLICA_TABLE", "UsersReplica")];
        let sdk = SdkConfig::builder()
            .region(Region::from_static("eu-west-1"))
            .behavior_version(aws_config::BehaviorVersion::latest())
            .build();
        let region = |client: aws_sdk_dynamodb::Client| client.config().region().map(ToString::to_string);
        let own = parse(&base).unwrap().replica_client(&sdk).await;
        assert_eq!(region(own).as_deref(), Some("eu-west-1"));
        let other = parse(&[base[0], ("REPLICA_REGION", "us-east-2")]).unwrap().replica_client(&sdk).await;
        assert_eq!(region(other).as_deref(), Some("us-east-2"));
    }
}
