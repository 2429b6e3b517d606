//! The replicator's configuration: parsed before the first event, with all problems reported at once.

use millrace_shared::cache::Cache;
use millrace_shared::environment::{self, Environment, EnvironmentError};
use millrace_shared::quarantine::Quarantine;
use millrace_shared::s3::S3Bucket;
use millrace_shared::telemetry;
use millrace_sinks::Sink;
use millrace_sinks::config::{ReplicaClients, SinksConfig};
use millrace_sinks::postgres::PostgresSink;
use millrace_sinks::transform_history::TransformHistory;

use crate::handler::ReplicatorHandler;

/// The function's name in logs, metrics and quarantine keys.
pub const FUNCTION: &str = "replicator";

/// The configuration from the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicatorConfig {
    /// The settings of the sinks.
    pub sinks: SinksConfig,
    failure_bucket: String,
}

impl ReplicatorConfig {
    /// Parses the environment.
    ///
    /// # Errors
    /// [`EnvironmentError`]: every variable that is missing or malformed.
    pub fn parse(environment: &Environment) -> Result<Self, EnvironmentError> {
        let mut read = environment.read();
        let sinks = read.collect(SinksConfig::parse(environment));
        let failure_bucket = read.required("FAILURE_BUCKET", environment::text);
        // The telemetry uses these; it starts first and cannot report them.
        read.optional(telemetry::LOG_LEVEL, telemetry::level);
        read.optional(telemetry::STACK_NAME, telemetry::stack);
        let problems = read.problems();
        match (sinks, failure_bucket) {
            (Some(sinks), Some(failure_bucket)) if problems.is_empty() => Ok(Self { sinks, failure_bucket }),
            _ => Err(problems),
        }
    }
}

/// Builds the function from its configuration and clients; no I/O happens before [`ReplicatorHandler::check`].
#[must_use]
pub fn connect(
    config: &ReplicatorConfig,
    replicas: impl Into<ReplicaClients>,
    postgres: impl IntoIterator<Item = PostgresSink>,
    cache: Option<Cache>,
    s3: aws_sdk_s3::Client,
) -> ReplicatorHandler {
    connect_decorated(config, replicas, postgres, cache, s3, |sink| sink)
}

/// Same as [`connect`], with each sink as `decorate` returns it.
#[must_use]
pub fn connect_decorated(
    config: &ReplicatorConfig,
    replicas: impl Into<ReplicaClients>,
    postgres: impl IntoIterator<Item = PostgresSink>,
    cache: Option<Cache>,
    s3: aws_sdk_s3::Client,
    decorate: impl FnMut(Box<dyn Sink>) -> Box<dyn Sink>,
) -> ReplicatorHandler {
    let mut sinks = config.sinks.sinks(&replicas.into(), postgres, cache);
    sinks.extend(config.sinks.archive(s3.clone()).map(|archive| Box::new(archive) as Box<dyn Sink>));
    let sinks = sinks.into_iter().map(decorate).collect();
    let history = TransformHistory::new(S3Bucket::new(s3.clone(), config.failure_bucket.clone()));
    ReplicatorHandler::new(sinks, Quarantine::new(s3, config.failure_bucket.clone(), FUNCTION))
        .with_rules(history, config.sinks.transform_digests())
        .with_source(config.sinks.source_arn().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<ReplicatorConfig, EnvironmentError> {
        ReplicatorConfig::parse(
            &variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        )
    }

    #[test]
    fn the_two_required_variables_suffice() {
        let config = parse(&[("REPLICA_TABLE", "UsersReplica"), ("FAILURE_BUCKET", "users-failures")]).unwrap();
        assert_eq!(config.failure_bucket, "users-failures");
    }

    #[test]
    fn an_archive_in_the_document_requires_its_bucket() {
        let document = r#"{"version":1,"replicas":[{"name":"copy","sink":"dynamodb","table":"Copy"},
            {"name":"archive","sink":"archive","records":"expired"}]}"#;
        let usual = [("REPLICATION", document), ("FAILURE_BUCKET", "failures")];
        let problems = parse(&usual).unwrap_err().to_string();
        assert!(problems.contains("REPLICATION /replicas/1/sink is \"archive\""), "{problems}");
        assert!(problems.contains("ARCHIVE_BUCKET is not set"), "{problems}");
        assert!(parse(&[&usual[..], &[("ARCHIVE_BUCKET", "archive")]].concat()).is_ok());
    }

    #[test]
    fn a_renamed_variable_is_rejected_with_its_new_name() {
        let usual = [("REPLICA_TABLE", "UsersReplica"), ("FAILURE_BUCKET", "users-failures")];
        for (old, new) in environment::RENAMED_VARIABLES {
            let problems = parse(&[&usual[..], &[(old, "1")]].concat()).unwrap_err().to_string();
            assert!(problems.contains(&format!("{old} is \"1\"")) && problems.contains(new), "{problems}");
            assert!(problems.contains("1 problem:"), "{problems}");
        }
    }

    #[test]
    fn replicator_config_reports_all_errors_at_once() {
        let message = parse(&[
            ("REPLICA_MAX_CONCURRENCY", "0"),
            ("TOMBSTONE_RETENTION_DAYS", "-8"),
            ("REPLICA_ROLE_ARN", "replicator"),
            ("CACHE_URL", "cache"),
            ("POSTGRES_URL", "db"),
            ("POSTGRES_AUTH", "kerberos"),
            ("LOG_LEVEL", "loud"),
            ("STACK_NAME", "my stack"),
        ]);
        let message = message.unwrap_err().to_string();
        for name in [
            "REPLICA_TABLE",
            "FAILURE_BUCKET",
            "REPLICA_MAX_CONCURRENCY",
            "TOMBSTONE_RETENTION_DAYS",
            "REPLICA_ROLE_ARN",
            "CACHE_URL",
            "POSTGRES_URL",
            "POSTGRES_AUTH",
            "LOG_LEVEL",
            "STACK_NAME",
        ] {
            assert!(message.contains(name), "{name} is missing in: {message}");
        }
    }
}
