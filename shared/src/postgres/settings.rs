//! What a function's environment says of a database. [`Settings`]

use crate::token::TokenSigner;

use super::address::Address;
use super::{Database, Login};

/// How connections log in: `password` or `iam`.
const LOGIN: &str = "POSTGRES_LOGIN";

/// A database, as the environment describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    setting: &'static str,
    address: Address,
    by_token: bool,
}

impl Settings {
    /// Reads the variable `setting`, a URL, and with it how to log in; nothing if it is unset.
    ///
    /// # Errors
    /// All that is wrong, each with its variable's name.
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
        let address = environment(setting).map(Address::parse);
        let address = match address {
            Some(Ok(address)) => Some(address),
            Some(Err(problem)) => {
                problems.push(format!("{setting} {problem}"));
                None
            }
            None => None,
        };
        if by_token && address.as_ref().is_some_and(Address::has_password) {
            problems.push(format!("{setting} holds a password, and {LOGIN} is iam: leave one of them out"));
        }
        if problems.is_empty() { Ok(address.map(|address| Self { setting, address, by_token })) } else { Err(problems) }
    }

    /// Where the database is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The database, whose connections begin with the SQL `setup`; no I/O. Without a signer logins are by password,
    /// whatever the environment says: on a machine that is nobody's but the caller's.
    #[must_use]
    pub fn database(&self, signer: Option<TokenSigner>, setup: &'static str) -> Database {
        let login = match signer {
            Some(signer) if self.by_token => Login::Iam(signer),
            _ => Login::Password,
        };
        Database::new(self.setting, self.address.clone(), login, setup)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(variables: &[(&str, &'static str)]) -> Result<Option<Settings>, Vec<String>> {
        let get = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        Settings::parse("POSTGRES_URL", get)
    }

    #[test]
    fn an_unset_url_is_an_absent_tier() {
        assert_eq!(parse(&[]), Ok(None));
        assert_eq!(parse(&[("POSTGRES_LOGIN", "iam")]), Ok(None));
    }

    #[test]
    fn all_that_is_wrong_is_said_by_name_and_no_password_is_shown() {
        let said = parse(&[("POSTGRES_URL", "db:s3cret"), ("POSTGRES_LOGIN", "kerberos")]).unwrap_err().join("\n");
        assert!(said.contains("POSTGRES_URL") && said.contains("POSTGRES_LOGIN"), "{said}");
        let both = [("POSTGRES_URL", "postgres://ada:s3cret@db/users"), ("POSTGRES_LOGIN", "iam")];
        let said = parse(&both).unwrap_err().join("\n");
        assert!(said.contains("leave one of them out") && !said.contains("s3cret"), "{said}");
    }

    #[test]
    fn logins_are_by_password_unless_the_environment_says_otherwise() {
        let by_token = |login| parse(&[("POSTGRES_URL", "postgres://ada@db/users"), ("POSTGRES_LOGIN", login)]);
        assert!(by_token("iam").unwrap().unwrap().by_token);
        assert!(!by_token("password").unwrap().unwrap().by_token);
    }
}
