//! The archiver's configuration, parsed from the environment before the first event.

use millrace_shared::address::TableAddress;
use millrace_shared::environment::{self, Environment, EnvironmentError};
use millrace_shared::quarantine::Quarantine;
use millrace_shared::telemetry;

use crate::handler::ArchiverHandler;
use millrace_archive::config::ArchiveConfig;

/// The function's name in keys, logs and metrics.
pub const FUNCTION: &str = "archiver";

/// The archiver's configuration from environment variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiverConfig {
    archive: ArchiveConfig,
    /// `FAILURE_BUCKET`: the bucket for records that can never be archived.
    failure_bucket: String,
    /// `SOURCE_TABLE_ARN`: the only table whose batches are archived, if it is set.
    source_arn: Option<TableAddress>,
}

impl ArchiverConfig {
    /// Parses the environment.
    ///
    /// # Errors
    /// All missing and malformed variables, in one error.
    pub fn parse(environment: &Environment) -> Result<Self, EnvironmentError> {
        let mut read = environment.read();
        let archive = read.collect(ArchiveConfig::parse(environment));
        let failure_bucket = read.required("FAILURE_BUCKET", environment::text);
        let source_arn = read.optional("SOURCE_TABLE_ARN", TableAddress::parse_arn);
        // The telemetry uses these; it starts first and cannot report them.
        read.optional(telemetry::LOG_LEVEL, telemetry::level);
        read.optional(telemetry::STACK_NAME, telemetry::stack);
        let problems = read.problems();
        match (archive, failure_bucket) {
            (Some(archive), Some(failure_bucket)) if problems.is_empty() => {
                Ok(Self { archive, failure_bucket, source_arn })
            }
            _ => Err(problems),
        }
    }
}

/// Creates the archiver for this configuration; it sends no request before its first batch.
#[must_use]
pub fn connect(config: &ArchiverConfig, s3: aws_sdk_s3::Client) -> ArchiverHandler {
    ArchiverHandler::new(
        config.archive.writer(s3.clone()),
        Quarantine::new(s3, config.failure_bucket.clone(), FUNCTION),
    )
    .with_source(config.source_arn.as_ref().map(|table| table.as_str().to_owned()))
}

#[cfg(test)]
mod tests {
    use millrace_archive::Compression;

    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<ArchiverConfig, String> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        ArchiverConfig::parse(&variables.iter().map(own).collect()).map_err(|problems| problems.to_string())
    }

    const BUCKETS: [(&str, &str); 2] = [("ARCHIVE_BUCKET", "a"), ("FAILURE_BUCKET", "f")];

    #[test]
    fn two_buckets_are_enough() {
        let config = parse(&BUCKETS).unwrap();
        assert_eq!((config.archive.bucket.as_str(), config.failure_bucket.as_str()), ("a", "f"));
        assert_eq!(config.archive.compression, Compression::Zstd);
    }

    #[test]
    fn gzip_is_chosen_by_name() {
        let config = parse(&[BUCKETS[0], BUCKETS[1], ("ARCHIVE_COMPRESSION", "gzip")]).unwrap();
        assert_eq!(config.archive.compression, Compression::Gzip);
    }

    #[test]
    fn a_renamed_variable_is_rejected_with_its_new_name() {
        for (old, new) in environment::RENAMED_VARIABLES {
            let problems = parse(&[&BUCKETS[..], &[(old, "1")]].concat()).unwrap_err();
            assert!(problems.contains(&format!("{old} is \"1\"")) && problems.contains(new), "{problems}");
            assert!(problems.contains("1 problem:"), "{problems}");
        }
    }

    #[test]
    fn archiver_config_reports_all_errors_at_once() {
        let message = parse(&[
            ("ARCHIVE_COMPRESSION", "lzma"),
            ("LOG_LEVEL", "loud"),
            ("STACK_NAME", "my stack"),
            ("SOURCE_TABLE_ARN", "Orders"),
        ])
        .unwrap_err();
        for part in [
            "ARCHIVE_BUCKET",
            "FAILURE_BUCKET",
            "set it to zstd or gzip",
            "LOG_LEVEL",
            "STACK_NAME",
            "SOURCE_TABLE_ARN is \"Orders\": set it to arn:aws:dynamodb:",
        ] {
            assert!(message.contains(part), "{part} in {message}");
        }
    }
}
