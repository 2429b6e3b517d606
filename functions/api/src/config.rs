//! What the API needs to know before its first request.

use shared::environment::{self, Environment, Problems};
use shared::http::caller::Auth;
use shared::http::seal::Keys;
use shared::telemetry;

/// The function's name, in metrics and logs.
pub const FUNCTION: &str = "api";

/// The API's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The table that holds the records.
    pub users_table: String,
    /// Its index by email.
    pub email_index: String,
    /// Who lets requests in.
    pub auth: Auth,
    /// What seals cursors.
    pub cursor_keys: Keys,
    /// The table of addresses' markers, if an address is to be one user's.
    pub unique_emails_table: Option<String>,
    /// The table of what was asked with an idempotency key; none takes no such keys.
    pub idempotency_table: Option<String>,
    /// Whether a write over a record must say which state it is over.
    pub preconditions_required: bool,
}

impl Config {
    /// Reads the configuration.
    ///
    /// # Errors
    /// All that is missing or malformed, together and by name.
    pub fn parse(environment: &Environment) -> Result<Self, Problems> {
        let mut read = environment.read();
        let users_table = read.required("USERS_TABLE", environment::text);
        let email_index = read.required("EMAIL_INDEX", environment::text);
        let auth = read.required("AUTH", Auth::parse);
        let cursor_keys = read.required("CURSOR_KEYS", Keys::parse);
        let idempotency_table = read.optional("IDEMPOTENCY_TABLE", environment::text);
        let unique_emails_table = read.only_if("UNIQUE_EMAIL", "EMAILS_TABLE", environment::text);
        let preconditions_required = read.optional("PRECONDITIONS", preconditions).unwrap_or(false);
        read.optional(telemetry::LOG_LEVEL, telemetry::level);
        let problems = read.problems();
        match (users_table, email_index, auth, cursor_keys) {
            (Some(users_table), Some(email_index), Some(auth), Some(cursor_keys)) if problems.is_empty() => Ok(Self {
                users_table,
                email_index,
                auth,
                cursor_keys,
                unique_emails_table,
                idempotency_table,
                preconditions_required,
            }),
            _ => Err(problems),
        }
    }
}

fn preconditions(text: &str) -> Result<bool, String> {
    match text {
        "required" => Ok(true),
        "optional" => Ok(false),
        _ => Err(format!("is {text:?}: set it to optional or required")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<Config, Problems> {
        Config::parse(&variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
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
        assert_eq!(config.auth, Auth::Iam);
    }

    #[test]
    fn addresses_are_unique_only_if_they_are_to_be() {
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
    fn everything_that_is_wrong_is_named_at_once() {
        let problems =
            parse(&[("AUTH", "open"), ("LOG_LEVEL", "loud"), ("CURSOR_KEYS", "one:short"), ("UNIQUE_EMAIL", "true")])
                .unwrap_err()
                .to_string();
        for name in [
            "USERS_TABLE is not set",
            "EMAIL_INDEX is not set",
            "AUTH is \"open\"",
            "CURSOR_KEYS has no key of 32 bytes in base64 under one",
            "EMAILS_TABLE is not set: UNIQUE_EMAIL needs it",
            "LOG_LEVEL is \"loud\"",
        ] {
            assert!(problems.contains(name), "{problems}");
        }
        assert!(parse(&[("USERS_TABLE", "Users"), ("EMAIL_INDEX", "EmailIndex")]).is_err(), "AUTH has no default");
    }
}
