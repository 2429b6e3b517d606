//! The optional tiers on this machine: off, on a server that is started, or on one that is there.

use std::fmt;

use crate::template::ParameterOverrides;

/// Which server an optional tier runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TierServer {
    /// None: the tier is off.
    #[default]
    Off,
    /// A throwaway one, started from what is installed.
    Auto,
    /// The one at a URL, which is neither started nor stopped.
    At(String),
}

impl TierServer {
    /// Reads `auto`, `off` or a URL.
    ///
    /// # Errors
    /// It is none of them; the text is not shown, since a URL may have a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "auto" => Ok(Self::Auto),
            url if url.contains("://") => Ok(Self::At(url.to_owned())),
            _ => Err("must be auto, off or a URL".to_owned()),
        }
    }

    /// The URL that was named, if one was.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        if let Self::At(url) = self { Some(url) } else { None }
    }
}

/// Where the servers of the tiers are that are on.
#[derive(Clone, Default)]
pub struct TierUrls {
    /// PostgreSQL's: it is writer and reader.
    pub postgres: Option<String>,
    /// The cache's.
    pub cache: Option<String>,
}

impl TierUrls {
    /// What a template is read with, so that these tiers are on and their nested stacks have these servers in their place.
    #[must_use]
    pub fn choices(&self) -> ParameterOverrides {
        let mut choices = ParameterOverrides::default();
        if let Some(url) = &self.postgres {
            choices.parameters.insert("RelationalTier".to_owned(), "rds-postgres".to_owned());
            for output in ["WriterUrl", "ReaderUrl"] {
                choices.outputs.insert(format!("RelationalStack.Outputs.{output}"), url.clone());
            }
            // Nobody keeps a secret here: unset.
            choices.outputs.insert("RelationalStack.Outputs.MasterSecretArn".to_owned(), String::new());
        }
        if let Some(url) = &self.cache {
            choices.parameters.insert("CacheTier".to_owned(), "valkey-replication-group".to_owned());
            choices.outputs.insert("CacheStack.Outputs.Url".to_owned(), url.clone());
            choices.outputs.insert("CacheStack.Outputs.Mode".to_owned(), "single".to_owned());
        }
        choices
    }
}

/// Without what a URL says.
impl fmt::Display for TierServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Auto => "a throwaway server, gone when this ends",
            Self::At(_) => "the server that was named",
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
