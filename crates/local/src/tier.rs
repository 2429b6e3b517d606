//! Optional tiers on this machine: off, on a server that is started, or on an existing server.

use std::fmt;

use crate::template::ParameterOverrides;

/// The server that an optional tier uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TierServer {
    /// No server: the tier is off.
    #[default]
    Off,
    /// A temporary server, started from the installed program.
    Auto,
    /// The server at a URL; it is neither started nor stopped.
    At(String),
}

impl TierServer {
    /// Parses `auto`, `off` or a URL.
    ///
    /// # Errors
    /// Fails if the text is none of them; the message does not contain the text, since a URL may contain a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "auto" => Ok(Self::Auto),
            url if url.contains("://") => Ok(Self::At(url.to_owned())),
            _ => Err("expected auto, off or a URL".to_owned()),
        }
    }

    /// Returns the URL that the user named, if any.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        if let Self::At(url) = self { Some(url) } else { None }
    }
}

/// URLs of the servers of the tiers that are on.
#[derive(Clone, Default)]
pub struct TierUrls {
    /// PostgreSQL; the same URL is used as writer and as reader.
    pub postgres: Option<String>,
    /// The cache.
    pub cache: Option<String>,
}

impl TierUrls {
    /// Returns the parameters and nested-stack outputs with which the template is read, so that these tiers are on and
    /// these servers replace their nested stacks. A template without the stack of the database takes its URL as a
    /// parameter.
    #[must_use]
    pub fn choices(&self) -> ParameterOverrides {
        let mut choices = ParameterOverrides::default();
        if let Some(url) = &self.postgres {
            choices.parameters.insert("RelationalTier".to_owned(), "rds-postgres".to_owned());
            for output in ["WriterUrl", "ReaderUrl"] {
                choices.outputs.insert(format!("RelationalStack.Outputs.{output}"), url.clone());
            }
            // Unset, since this machine has no secret store.
            choices.outputs.insert("RelationalStack.Outputs.MasterSecretArn".to_owned(), String::new());
            let parameters = [("DatabaseUrl", url.clone()), ("DatabaseSecretArn", String::new())];
            let parameters = parameters.map(|(name, value)| (name.to_owned(), value)).into();
            choices.stack_parameters.insert("RelationalStack".to_owned(), parameters);
        }
        if let Some(url) = &self.cache {
            choices.parameters.insert("CacheTier".to_owned(), "valkey-replication-group".to_owned());
            choices.outputs.insert("CacheStack.Outputs.Url".to_owned(), url.clone());
            choices.outputs.insert("CacheStack.Outputs.Mode".to_owned(), "single".to_owned());
        }
        choices
    }
}

/// Does not print the URL.
impl fmt::Display for TierServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Auto => "a temporary server, removed on exit",
            Self::At(_) => "the server at the given URL",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_is_auto_off_or_a_url_and_no_password_is_shown() {
        assert_eq!(TierServer::parse("off"), Ok(TierServer::Off));
        assert_eq!(TierServer::parse("auto"), Ok(TierServer::Auto));
        let url = "postgres://ada:s3cret@db/users";
        let named = TierServer::parse(url).unwrap();
        assert!(named.url() == Some(url) && !named.to_string().contains("s3cret"));
        assert!(!TierServer::parse("s3cret").unwrap_err().contains("s3cret"));
    }
}
