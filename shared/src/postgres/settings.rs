//! The database settings in a function's environment. [`PostgresSettings`]

use crate::iam_token::TokenSigner;

use super::PostgresDatabase;
use super::auth::{PostgresAuth, SECRET};
use super::database_url::DatabaseUrl;

/// The variable for the login method: `password` or `iam`.
const LOGIN: &str = "POSTGRES_AUTH";

/// A database, as configured in the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresSettings {
    setting: &'static str,
    address: DatabaseUrl,
    by_token: bool,
    /// The ARN or the name of a Secrets Manager secret.
    secret: Option<String>,
}

impl PostgresSettings {
    /// Parses the variable `setting`, a URL, and the variables for the login; returns `None` if `setting` is unset.
    ///
    /// # Errors
    /// All problems, each with the name of its variable.
    pub fn parse<'e>(
        setting: &'static str,
        environment: impl Fn(&str) -> Option<&'e str>,
    ) -> Result<Option<Self>, Vec<String>> {
        let mut problems = Vec::new();
        let by_token = match environment(LOGIN) {
            None | Some("password") => false,
            Some("iam") => true,
            Some(other) => {
                problems.push(format!("{LOGIN} is {other:?}: set it to password or iam"));
                false
            }
        };
        let address = environment(setting).map(DatabaseUrl::parse);
        let address = match address {
            Some(Ok(address)) => Some(address),
            Some(Err(problem)) => {
                problems.push(format!("{setting} {problem}"));
                None
            }
            None => None,
        };
        if by_token && address.as_ref().is_some_and(DatabaseUrl::has_password) {
            problems.push(format!("{setting} contains a password, but {LOGIN} is iam: remove one of them"));
        }
        let secret = environment(SECRET).map(str::to_owned);
        if secret.is_some() && address.as_ref().is_some_and(DatabaseUrl::has_password) {
            problems.push(format!("{setting} contains a password, and {SECRET} is also set: remove one of them"));
        }
        if problems.is_empty() {
            Ok(address.map(|address| Self { setting, address, by_token, secret }))
        } else {
            Err(problems)
        }
    }

    /// Returns the database's location.
    #[must_use]
    pub fn address(&self) -> &DatabaseUrl {
        &self.address
    }

    /// Creates the database client, whose connections start with the SQL `setup`; no I/O. Without a signer, the login
    /// is by password, whatever the environment says: this is the case on a developer's own machine.
    #[must_use]
    pub fn database(&self, signer: Option<TokenSigner>, setup: &'static str) -> PostgresDatabase {
        let login = match (signer, &self.secret) {
            (Some(signer), _) if self.by_token => PostgresAuth::Iam(signer),
            (Some(signer), Some(secret)) => PostgresAuth::from_secret_arn(&signer, secret),
            _ => PostgresAuth::Password,
        };
        PostgresDatabase::new(self.setting, self.address.clone(), login, setup)
    }

    /// Same as [`Self::database`], but logs in as the owner, who creates tables: with the secret, if there is one, even
    /// if all other connections log in with a token.
    #[must_use]
    pub fn owner_database(&self, signer: Option<TokenSigner>) -> PostgresDatabase {
        Self { by_token: self.by_token && self.secret.is_none(), ..self.clone() }.database(signer, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(variables: &[(&str, &'static str)]) -> Result<Option<PostgresSettings>, Vec<String>> {
        let get = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        PostgresSettings::parse("POSTGRES_URL", get)
    }

    #[test]
    fn an_unset_url_is_an_absent_tier() {
        assert_eq!(parse(&[]), Ok(None));
        assert_eq!(parse(&[("POSTGRES_AUTH", "iam")]), Ok(None));
    }

    #[test]
    fn postgres_settings_errors_name_the_variable_without_the_password() {
        let message = parse(&[("POSTGRES_URL", "db:s3cret"), ("POSTGRES_AUTH", "kerberos")]).unwrap_err().join("\n");
        assert!(message.contains("POSTGRES_URL") && message.contains("POSTGRES_AUTH"), "{message}");
        let both = [("POSTGRES_URL", "postgres://ada:s3cret@db/users"), ("POSTGRES_AUTH", "iam")];
        let message = parse(&both).unwrap_err().join("\n");
        assert!(message.contains("remove one of them") && !message.contains("s3cret"), "{message}");
    }

    #[test]
    fn a_secret_and_a_password_are_rejected() {
        let both = [("POSTGRES_URL", "postgres://ada:s3cret@db/users"), ("POSTGRES_SECRET", "arn:of:it")];
        let message = parse(&both).unwrap_err().join("\n");
        assert!(message.contains("POSTGRES_SECRET") && !message.contains("s3cret"), "{message}");
        assert!(parse(&[("POSTGRES_URL", "postgres://ada@db/users"), both[1]]).is_ok());
    }

    #[test]
    fn authentication_uses_a_token_only_if_postgres_auth_is_iam() {
        let by_token = |login| parse(&[("POSTGRES_URL", "postgres://ada@db/users"), ("POSTGRES_AUTH", login)]);
        assert!(by_token("iam").unwrap().unwrap().by_token);
        assert!(!by_token("password").unwrap().unwrap().by_token);
    }
}
