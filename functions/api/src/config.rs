//! The API's configuration, parsed from the environment before the first request.

use millrace_http::base_path::BasePath;
use millrace_shared::cache::{Cache, CacheSettings, RequestQuota};
use millrace_shared::environment::{self, Environment, EnvironmentError};
use millrace_shared::http::caller::{AuthMode, ScopeMapping};
use millrace_shared::http::cursor_seal::SealKeys;
use millrace_shared::iam_token::TokenSigner;
use millrace_shared::telemetry;

use crate::cache::{CacheAside, CacheTimeouts};
use crate::rate_limit;

/// The function's name in metrics and logs.
pub const FUNCTION: &str = "api";

/// The API's configuration.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// The table of the user records.
    pub users_table: String,
    /// The table's index by email.
    pub email_index: String,
    /// The authentication mode.
    pub auth: AuthMode,
    /// The names of the scopes in tokens.
    pub scopes: ScopeMapping,
    /// The base path that precedes the routes in a request's path.
    pub base_path: BasePath,
    /// Whether the deployment has a relational replica, so that the search function serves the search routes.
    pub has_relational: bool,
    /// The keys that seal cursors.
    pub cursor_keys: SealKeys,
    /// The table of email reservations, if emails must be unique.
    pub unique_emails_table: Option<String>,
    /// The table of idempotency records; `None` if idempotency keys are not supported.
    pub idempotency_table: Option<String>,
    /// Whether a write to an existing record requires a precondition.
    pub preconditions_required: bool,
    /// The cache in front of the table, if there is one.
    pub cache: Option<CacheSettings>,
    /// The request quota of a caller, if there is a limit.
    pub rate_limit: Option<RequestQuota>,
}

impl ApiConfig {
    /// Parses the configuration.
    ///
    /// # Errors
    /// All missing and malformed variables, each by name.
    pub fn parse(environment: &Environment) -> Result<Self, EnvironmentError> {
        let mut read = environment.read();
        let users_table = read.required("USERS_TABLE", environment::text);
        let email_index = read.required("EMAIL_INDEX", environment::text);
        let auth = read.required("AUTH", AuthMode::parse);
        let claims = read.optional("SCOPE_CLAIM", ScopeMapping::parse_claims);
        let scopes = ScopeMapping::new(claims, read.optional("SCOPE_PREFIX", ScopeMapping::parse_prefix));
        let base_path = read.optional("API_BASE_PATH", BasePath::parse).unwrap_or_default();
        let has_relational = read.optional("RELATIONAL_TIER", relational).unwrap_or(false);
        let cursor_keys = read.required("CURSOR_KEYS", SealKeys::parse);
        let idempotency_table = read.optional("IDEMPOTENCY_TABLE", environment::text);
        let unique_emails_table = read.required_if("UNIQUE_EMAIL", "EMAILS_TABLE", environment::text);
        let preconditions_required = read.optional("REQUIRE_PRECONDITIONS", environment::flag).unwrap_or(false);
        let cache = read.collect_optional(CacheSettings::parse(|name| environment.get(name)));
        let rate_limit = read.optional("RATE_LIMIT", rate_limit::quota);
        if rate_limit.is_some() && environment.get("CACHE_URL").is_none() {
            read.add_error("CACHE_URL is not set: RATE_LIMIT needs it to store quotas".to_owned());
        }
        read.optional(telemetry::LOG_LEVEL, telemetry::level);
        read.optional(telemetry::STACK_NAME, telemetry::stack);
        let problems = read.problems();
        match (users_table, email_index, auth, cursor_keys) {
            (Some(users_table), Some(email_index), Some(auth), Some(cursor_keys)) if problems.is_empty() => Ok(Self {
                users_table,
                email_index,
                auth,
                scopes,
                base_path,
                has_relational,
                cursor_keys,
                unique_emails_table,
                idempotency_table,
                preconditions_required,
                cache,
                rate_limit,
            }),
            _ => Err(problems),
        }
    }
}

impl ApiConfig {
    /// Creates the cache in front of the table, if there is one, without connecting to it.
    #[must_use]
    pub fn cache(&self, signer: Option<TokenSigner>) -> Option<CacheAside> {
        let cache = Cache::new(self.cache.clone()?, signer);
        Some(CacheAside::new(cache, &self.users_table, CacheTimeouts::default()))
    }
}

/// Parses the relational tier; the API only needs to know whether there is one.
fn relational(text: &str) -> Result<bool, String> {
    match text {
        "none" => Ok(false),
        "aurora-serverless" | "rds-postgres" => Ok(true),
        _ => Err(format!("is {text:?}: set it to none, aurora-serverless or rds-postgres")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<ApiConfig, EnvironmentError> {
        ApiConfig::parse(&variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_whole_environment_is_read() {
        let variables = [
            ("USERS_TABLE", "Users"),
            ("EMAIL_INDEX", "EmailIndex"),
            ("AUTH", "iam"),
            ("CURSOR_KEYS", "one:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="),
        ];
        let config = parse(&variables).unwrap();
        assert_eq!((config.users_table.as_str(), config.email_index.as_str()), ("Users", "EmailIndex"));
        assert_eq!(config.auth, AuthMode::Iam);
    }

    #[test]
    fn emails_are_unique_only_if_configured() {
        let usual = [
            ("USERS_TABLE", "Users"),
            ("EMAIL_INDEX", "EmailIndex"),
            ("AUTH", "iam"),
            ("CURSOR_KEYS", "one:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="),
            ("EMAILS_TABLE", "Emails"),
        ];
        let markers = |flag| parse(&[&usual[..], &[("UNIQUE_EMAIL", flag)]].concat()).map(|it| it.unique_emails_table);
        assert_eq!(markers("true").unwrap().as_deref(), Some("Emails"));
        assert_eq!((markers("false").unwrap(), markers("").unwrap()), (None, None));
        assert!(markers("yes").unwrap_err().to_string().contains("set it to true or false"));
    }

    #[test]
    fn a_limit_is_kept_in_the_cache_and_refused_without_one() {
        let usual = [
            ("USERS_TABLE", "Users"),
            ("EMAIL_INDEX", "EmailIndex"),
            ("AUTH", "iam"),
            ("CURSOR_KEYS", "one:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="),
        ];
        let with = |more: &[(&str, &str)]| parse(&[&usual[..], more].concat());
        let (url, limit) = (("CACHE_URL", "redis://127.0.0.1:6379"), ("RATE_LIMIT", "100/1s burst 200"));
        assert_eq!(
            with(&[url, limit]).unwrap().rate_limit,
            Some(RequestQuota { requests: 100, seconds: 1, burst: 200 })
        );
        assert_eq!((with(&[url]).unwrap().rate_limit, with(&[]).unwrap().cache), (None, None));
        assert!(with(&[limit]).unwrap_err().to_string().contains("CACHE_URL is not set: RATE_LIMIT needs it"));
        assert!(
            with(&[("CACHE_URL", "cache")]).unwrap_err().to_string().contains("CACHE_URL is not the URL of a cache")
        );
    }

    #[test]
    fn preconditions_are_required_only_if_they_are_switched_on() {
        let usual = [
            ("USERS_TABLE", "Users"),
            ("EMAIL_INDEX", "EmailIndex"),
            ("AUTH", "iam"),
            ("CURSOR_KEYS", "one:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="),
        ];
        let required =
            |flag| parse(&[&usual[..], &[("REQUIRE_PRECONDITIONS", flag)]].concat()).unwrap().preconditions_required;
        assert_eq!((required("true"), required("false"), required("")), (true, false, false));
    }

    #[test]
    fn a_renamed_variable_is_rejected_with_its_new_name() {
        let usual = [
            ("USERS_TABLE", "Users"),
            ("EMAIL_INDEX", "EmailIndex"),
            ("AUTH", "iam"),
            ("CURSOR_KEYS", "one:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="),
        ];
        for (old, new) in environment::RENAMED_VARIABLES {
            let problems = parse(&[&usual[..], &[(old, "1")]].concat()).unwrap_err().to_string();
            assert!(problems.contains(&format!("{old} is \"1\"")) && problems.contains(new), "{problems}");
            assert!(problems.contains("1 problem:"), "{problems}");
        }
    }

    #[test]
    fn everything_that_is_wrong_is_named_at_once() {
        let problems = parse(&[
            ("AUTH", "open"),
            ("LOG_LEVEL", "loud"),
            ("STACK_NAME", "my stack"),
            ("CURSOR_KEYS", "one:short"),
            ("UNIQUE_EMAIL", "true"),
            ("RATE_LIMIT", "many"),
            ("RELATIONAL_TIER", "postgres"),
            ("API_BASE_PATH", "/users"),
            ("SCOPE_PREFIX", "a b"),
            ("REQUIRE_PRECONDITIONS", "required"),
        ])
        .unwrap_err()
        .to_string();
        for name in [
            "USERS_TABLE is not set",
            "EMAIL_INDEX is not set",
            "AUTH is \"open\"",
            "CURSOR_KEYS has no key of 32 bytes in base64 under one",
            "EMAILS_TABLE is not set: UNIQUE_EMAIL needs it",
            "RATE_LIMIT is \"many\"",
            "LOG_LEVEL is \"loud\"",
            "RELATIONAL_TIER is \"postgres\"",
            "API_BASE_PATH is \"/users\"",
            "SCOPE_PREFIX is \"a b\"",
            "REQUIRE_PRECONDITIONS is \"required\": set it to true or false",
            "STACK_NAME is \"my stack\"",
        ] {
            assert!(problems.contains(name), "{problems}");
        }
        assert!(parse(&[("USERS_TABLE", "Users"), ("EMAIL_INDEX", "EmailIndex")]).is_err(), "AUTH has no default");
    }
}
