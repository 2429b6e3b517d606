//! The search function's configuration, parsed from the environment before the first request.

use millrace_http::base_path::BasePath;
use millrace_shared::environment::{Environment, EnvironmentError};
use millrace_shared::http::caller::{AuthMode, ScopeMapping};
use millrace_shared::http::cursor_seal::SealKeys;
use millrace_shared::postgres::PostgresSettings;
use millrace_shared::telemetry;

/// The function's name in metrics and logs.
pub const FUNCTION: &str = "search";
/// The variable with the URL of the primary database, which serves queries if the reader is unavailable.
const WRITER: &str = "POSTGRES_URL";
/// The variable with the URL of the database that serves queries by default.
const READER: &str = "POSTGRES_READER_URL";

/// The search function's configuration.
#[derive(Clone, Debug)]
pub struct SearchConfig {
    /// The authentication mode.
    pub auth: AuthMode,
    /// The names of the scopes in tokens.
    pub scopes: ScopeMapping,
    /// The base path that precedes the routes in a request's path.
    pub base_path: BasePath,
    /// The keys that seal cursors.
    pub cursor_keys: SealKeys,
    /// The database that the replicator writes to.
    pub writer: PostgresSettings,
    /// Its read replica, which is queried first; if `None`, only the writer is queried.
    pub reader: Option<PostgresSettings>,
}

impl SearchConfig {
    /// Parses the configuration.
    ///
    /// # Errors
    /// All missing and malformed variables, each by name.
    pub fn parse(environment: &Environment) -> Result<Self, EnvironmentError> {
        let mut read = environment.read();
        let auth = read.required("AUTH", AuthMode::parse);
        let claims = read.optional("SCOPE_CLAIM", ScopeMapping::parse_claims);
        let scopes = ScopeMapping::new(claims, read.optional("SCOPE_PREFIX", ScopeMapping::parse_prefix));
        let base_path = read.optional("API_BASE_PATH", BasePath::parse).unwrap_or_default();
        let cursor_keys = read.required("CURSOR_KEYS", SealKeys::parse);
        let mut database = |setting| match PostgresSettings::parse(setting, |name| environment.get(name)) {
            Ok(settings) => settings,
            Err(problems) => {
                for problem in problems {
                    read.add_error(problem);
                }
                None
            }
        };
        let (writer, reader) = (database(WRITER), database(READER));
        if environment.get(WRITER).is_none() {
            read.add_error(format!("{WRITER} is not set"));
        }
        read.optional(telemetry::LOG_LEVEL, telemetry::level);
        read.optional(telemetry::STACK_NAME, telemetry::stack);
        let problems = read.problems();
        match (auth, cursor_keys, writer) {
            (Some(auth), Some(cursor_keys), Some(writer)) if problems.is_empty() => {
                Ok(Self { auth, scopes, base_path, cursor_keys, writer, reader })
            }
            _ => Err(problems),
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_shared::environment::RENAMED_VARIABLES;

    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<SearchConfig, EnvironmentError> {
        SearchConfig::parse(&variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    const USUAL: [(&str, &str); 3] = [
        ("AUTH", "iam"),
        ("CURSOR_KEYS", "one:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="),
        ("POSTGRES_URL", "postgres://millrace@127.0.0.1/users"),
    ];

    #[test]
    fn a_reader_may_be_absent() {
        assert!(parse(&USUAL).unwrap().reader.is_none());
        let with = [&USUAL[..], &[("POSTGRES_READER_URL", "postgres://millrace@127.0.0.1/copy")]].concat();
        assert!(parse(&with).unwrap().reader.is_some());
    }

    #[test]
    fn a_renamed_variable_is_rejected_with_its_new_name() {
        for (old, new) in RENAMED_VARIABLES {
            let problems = parse(&[&USUAL[..], &[(old, "1")]].concat()).unwrap_err().to_string();
            assert!(problems.contains(&format!("{old} is \"1\"")) && problems.contains(new), "{problems}");
            assert!(problems.contains("1 problem:"), "{problems}");
        }
    }

    #[test]
    fn everything_that_is_wrong_is_named_at_once_without_its_secrets() {
        let wrong = [
            ("SCOPE_PREFIX", "a b"),
            ("SCOPE_CLAIM", "scope scp"),
            ("API_BASE_PATH", "v1"),
            ("AUTH", "open"),
            ("POSTGRES_READER_URL", "mysql://ada:s3cret@db/users"),
            ("LOG_LEVEL", "loud"),
            ("STACK_NAME", "my stack"),
        ];
        let problems = parse(&wrong).unwrap_err().to_string();
        for name in [
            "AUTH is",
            "CURSOR_KEYS is not set",
            "POSTGRES_URL is not set",
            "POSTGRES_READER_URL is not a PostgreSQL URL",
            "LOG_LEVEL is",
            "SCOPE_PREFIX is",
            "SCOPE_CLAIM is",
            "API_BASE_PATH is",
            "STACK_NAME is",
        ] {
            assert!(problems.contains(name), "{name}: {problems}");
        }
        assert!(!problems.contains("s3cret"));
    }
}
