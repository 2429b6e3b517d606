//! The maintenance function's configuration. It is parsed before the first task, and all problems are reported at once.

use millrace_archive::config::ArchiveConfig;
use millrace_archive::store::ArchiveStore;
use millrace_shared::clock::Clock;
use millrace_shared::environment::{self, Environment, EnvironmentError};
use millrace_shared::iam_token::TokenSigner;
use millrace_shared::item::restored::{RestoreRules, SourceSchema};
use millrace_shared::table::{NonceSource, RestoreTable};
use millrace_shared::table_reader::TableReader;
use millrace_shared::telemetry;
use millrace_sinks::SINK_SETTINGS;
use millrace_sinks::config::{ReplicaClients, SinksConfig};
use millrace_sinks::document::REPLICATION;

use crate::deployment::DeployedReplicator;
use crate::failure_bucket::FailureBucket;
use crate::failure_record::FunctionNames;
use crate::handler::MaintenanceHandler;
use crate::lambda_client::LambdaClient;
use crate::mapping::ReplicatorMappings;
use crate::parquet::ColumnDefinition;

/// The function's name in logs and metrics.
pub const FUNCTION: &str = "maintenance";

/// The function's configuration: the source table, the settings of the sinks and of the archive, and the names of the
/// functions that it works for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaintenanceConfig {
    source: String,
    schema: SourceSchema,
    /// The table of email reservations, if emails are unique: a restore reserves the email of each restored item.
    unique_emails_table: Option<String>,
    sinks: SinksConfig,
    /// The archive, if the deployment has one.
    archive: Option<ArchiveConfig>,
    failure_bucket: String,
    functions: FunctionNames,
}

/// The AWS clients, built once. The clients of the replicas may use other Regions or accounts.
pub struct AwsClients {
    /// Client of the source table.
    pub source: aws_sdk_dynamodb::Client,
    /// Clients of the replica tables.
    pub replicas: ReplicaClients,
    /// Signs IAM login tokens; without it, logins use a password.
    pub signer: Option<TokenSigner>,
    /// Client of the failure bucket and the archive bucket.
    pub s3: aws_sdk_s3::Client,
    /// Client of Lambda, for the event source mappings and the replicator's configuration.
    pub lambda: LambdaClient,
}

impl MaintenanceConfig {
    /// Parses the environment variables.
    ///
    /// # Errors
    /// [`EnvironmentError`], which lists every variable that is missing or malformed.
    pub fn parse(environment: &Environment) -> Result<Self, EnvironmentError> {
        let mut read = environment.read();
        let source = read.required("SOURCE_TABLE", environment::text);
        let schema = read.optional("SOURCE_SCHEMA", SourceSchema::parse).unwrap_or_default();
        let unique_emails_table = read.required_if("UNIQUE_EMAIL", "EMAILS_TABLE", environment::text);
        let replicator_name = read.required("REPLICATOR_FUNCTION", environment::text);
        // Without an archiver, the archive is a sink of the replicator, or there is none.
        let archiver = read.optional("ARCHIVER_FUNCTION", environment::text);
        let sinks = read.collect(SinksConfig::parse(environment));
        let has_archive = ["ARCHIVE_BUCKET", "ARCHIVE_COMPRESSION", "ARCHIVER_FUNCTION"];
        let has_archive = has_archive.iter().any(|name| environment.get(name).is_some());
        let archive = has_archive.then(|| read.collect(ArchiveConfig::parse(environment))).flatten();
        if let (Some(source), Some(sinks)) = (&source, &sinks) {
            for problem in sinks.source_problems("SOURCE_TABLE", source) {
                read.add_error(problem);
            }
        }
        if let Some(sinks) = &sinks {
            let fixed = parquet_columns(schema);
            let is_fixed = |name: &str| fixed.iter().any(|column| column.name == name);
            for column in sinks.columns().definitions().iter().filter(|column| is_fixed(&column.name)) {
                read.add_error(format!(
                    "{REPLICATION} /columns/{} is the name of a column that the Parquet files of users have: choose \
                     another name",
                    column.name
                ));
            }
        }
        let failure_bucket = read.required("FAILURE_BUCKET", environment::text);
        // The telemetry uses these; it starts first and cannot report them.
        read.optional(telemetry::LOG_LEVEL, telemetry::level);
        read.optional(telemetry::STACK_NAME, telemetry::stack);
        if unique_emails_table.is_some() && schema != SourceSchema::Users {
            read.add_error(
                "UNIQUE_EMAIL is \"true\", but only users have emails: set SOURCE_SCHEMA to users".to_owned(),
            );
        }
        let problems = read.problems();
        match (source, replicator_name, sinks, failure_bucket) {
            (Some(source), Some(replicator), Some(sinks), Some(failure_bucket)) if problems.is_empty() => {
                let functions = FunctionNames { replicator, archiver };
                Ok(Self { source, schema, unique_emails_table, sinks, archive, failure_bucket, functions })
            }
            _ => Err(problems),
        }
    }

    /// Returns the Region of the source table if `SOURCE_TABLE` is an ARN, as for a table of another account; otherwise
    /// the table is in the function's Region.
    #[must_use]
    pub fn source_region(&self) -> Option<String> {
        self.source.strip_prefix("arn:")?.split(':').nth(2).map(str::to_owned)
    }

    /// Returns the settings of the sinks, which include the replica's Region and account.
    #[must_use]
    pub fn sinks(&self) -> &SinksConfig {
        &self.sinks
    }
}

/// Returns the columns of a Parquet export that depend on the kind of the source's items.
fn parquet_columns(schema: SourceSchema) -> Vec<ColumnDefinition> {
    match schema {
        SourceSchema::Users => ColumnDefinition::for_users(),
        SourceSchema::Any => Vec::new(),
    }
}

/// Builds the function from its configuration and clients. No I/O happens before the first task.
#[must_use]
pub fn connect(config: &MaintenanceConfig, clients: AwsClients) -> MaintenanceHandler {
    let AwsClients { source, replicas, signer, s3, lambda } = clients;
    let owned = config.sinks.postgres_settings().map(|settings| settings.owner_database(signer.clone()));
    let rules = RestoreRules { schema: config.schema, ..RestoreRules::users() };
    let restored = RestoreTable::new(source.clone(), config.source.clone())
        .with_rules(rules)
        .with_unique_emails(config.unique_emails_table.as_deref(), NonceSource::new(Clock::system()));
    MaintenanceHandler {
        admin_database: owned,
        postgres_schema: config.sinks.postgres_schema(),
        source: TableReader::new(source, config.source.clone()),
        restore_table: restored,
        replicas: config.sinks.replicas(&replicas, config.sinks.postgres(signer.as_ref())),
        mappings: ReplicatorMappings::new(lambda.clone(), config.functions.replicator.clone()),
        deployment: DeployedReplicator::new(lambda, config.functions.replicator.clone(), SINK_SETTINGS.to_vec())
            .with_documents(s3.clone()),
        failures: FailureBucket::new(s3.clone(), config.failure_bucket.clone()),
        archive: config.archive.as_ref().map(|archive| ArchiveStore::new(s3, archive.bucket.clone())),
        compression: config.archive.as_ref().map(|archive| archive.compression).unwrap_or_default(),
        parquet_columns: parquet_columns(config.schema),
        declared_columns: config.sinks.columns().clone(),
        functions: config.functions.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: [(&str, &str); 6] = [
        ("SOURCE_TABLE", "Users"),
        ("REPLICA_TABLE", "UsersReplica"),
        ("FAILURE_BUCKET", "failures"),
        ("ARCHIVE_BUCKET", "archive"),
        ("REPLICATOR_FUNCTION", "replicator"),
        ("ARCHIVER_FUNCTION", "archiver"),
    ];

    fn parse(variables: &[(&str, &str)]) -> Result<MaintenanceConfig, String> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        MaintenanceConfig::parse(&variables.iter().map(own).collect()).map_err(|problems| problems.to_string())
    }

    #[test]
    fn six_names_are_enough() {
        let config = parse(&WELL).unwrap();
        assert_eq!((config.source.as_str(), config.functions.archiver.as_deref()), ("Users", Some("archiver")));
    }

    #[test]
    fn archive_is_a_sink_of_the_replicator_or_absent_without_an_archiver() {
        let in_replicator = parse(&WELL[..5]).unwrap();
        assert_eq!((in_replicator.functions.archiver, in_replicator.archive.is_some()), (None, true));
        let off = parse(&[WELL[0], WELL[1], WELL[2], WELL[4]]).unwrap();
        assert_eq!((off.functions.archiver, off.archive), (None, None));
        let without_bucket = parse(&[WELL[0], WELL[1], WELL[2], WELL[4], WELL[5]]).unwrap_err();
        assert!(without_bucket.contains("ARCHIVE_BUCKET is not set"), "{without_bucket}");
    }

    #[test]
    fn source_in_another_region_is_named_by_its_arn() {
        let region = |table| parse(&[&WELL[1..], &[("SOURCE_TABLE", table)]].concat()).unwrap().source_region();
        assert_eq!(region("Users"), None);
        let arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/Users";
        assert_eq!(region(arn).as_deref(), Some("eu-west-1"));
    }

    #[test]
    fn a_renamed_variable_is_rejected_with_its_new_name() {
        for (old, new) in environment::RENAMED_VARIABLES {
            let problems = parse(&[&WELL[..], &[(old, "1")]].concat()).unwrap_err();
            assert!(problems.contains(&format!("{old} is \"1\"")) && problems.contains(new), "{problems}");
            assert!(problems.contains("1 problem:"), "{problems}");
        }
    }

    #[test]
    fn maintenance_config_reports_each_error_once() {
        let message = parse(&[
            ("TOMBSTONE_RETENTION_DAYS", "0"),
            ("ARCHIVE_COMPRESSION", "lzma"),
            ("LOG_LEVEL", "loud"),
            ("STACK_NAME", "my stack"),
        ])
        .unwrap_err();
        let wrong = WELL[..5].iter().map(|(name, _)| *name).chain([
            "TOMBSTONE_RETENTION_DAYS",
            "ARCHIVE_COMPRESSION",
            "LOG_LEVEL",
            "STACK_NAME",
        ]);
        for name in wrong {
            assert_eq!(message.matches(name).count(), 1, "{name} in: {message}");
        }
    }

    #[test]
    fn emails_are_reserved_only_if_they_are_unique() {
        let markers = |variables: &[(&str, &str)]| parse(&[&WELL[..], variables].concat());
        let table = ("EMAILS_TABLE", "Emails");
        let users = ("SOURCE_SCHEMA", "users");
        let marked = markers(&[("UNIQUE_EMAIL", "true"), table, users]).unwrap();
        assert_eq!(marked.unique_emails_table.as_deref(), Some("Emails"));
        assert_eq!(markers(&[("UNIQUE_EMAIL", "false"), table]).unwrap().unique_emails_table, None);
        assert!(markers(&[("UNIQUE_EMAIL", "true"), users]).unwrap_err().contains("EMAILS_TABLE is not set"));
        assert!(markers(&[("UNIQUE_EMAIL", "true"), table]).unwrap_err().contains("set SOURCE_SCHEMA to users"));
        assert!(markers(&[("SOURCE_SCHEMA", "orders")]).unwrap_err().contains("set it to any or users"));
    }

    #[test]
    fn column_of_the_document_is_not_one_of_users() {
        let document = |name: &str| {
            format!(
                r#"{{"version":1,"replicas":[{{"name":"copy","sink":"dynamodb","table":"Copy"}}],
                "columns":{{"{name}":{{"path":"plan","type":"text"}}}}}}"#
            )
        };
        let (users, own, plan) = (("SOURCE_SCHEMA", "users"), document("email"), document("plan"));
        let with = |document: &str, more: &[(&str, &str)]| {
            parse(&[&[WELL[0], ("REPLICATION", document)], &WELL[2..], more].concat())
        };
        let problems = with(&own, &[users]).unwrap_err();
        assert!(
            problems.contains("the environment has 1 problem:") && problems.contains("REPLICATION /columns/email is"),
            "{problems}"
        );
        assert_eq!(with(&own, &[]).unwrap().sinks.columns().definitions().len(), 1);
        assert_eq!(with(&plan, &[users]).unwrap().sinks.columns().definitions()[0].name, "plan");
    }

    #[test]
    fn a_replica_that_is_the_source_is_refused() {
        let mut variables = WELL;
        variables[1].1 = "Users";
        assert!(parse(&variables).unwrap_err().contains("REPLICA_TABLE"));
        let elsewhere = [&variables[..], &[("REPLICA_REGION", "us-east-2")]].concat();
        assert!(parse(&elsewhere).is_ok(), "a table of that name in another Region is another table");
        let document = r#"{"version":1,"replicas":[{"name":"copy","sink":"dynamodb","table":"Copy"},
            {"name":"loop","sink":"dynamodb","table":"Users"}]}"#;
        variables[1] = ("REPLICATION", document);
        let problems = parse(&variables).unwrap_err();
        assert!(problems.contains("REPLICATION /replicas/1/table is \"Users\", which is SOURCE_TABLE"), "{problems}");
    }
}
