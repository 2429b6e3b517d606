//! The cache settings in the environment: `CACHE_URL`, `CACHE_MODE`, `CACHE_AUTH`.

use std::fmt;

use crate::iam_token::AuthTarget;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

/// The protocol of the cache server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum CacheMode {
    /// A single server, or the primary of a replication group.
    #[default]
    Single,
    /// The cluster protocol, also for a cluster of one node: a serverless cache supports no other protocol.
    Cluster,
}

/// The login method of the cache.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum CacheAuth {
    /// The user and password in the URL, if it contains them.
    #[default]
    Password,
    /// The user in the URL, with a token that is signed with the credentials of the function's role.
    Iam,
}

/// The location of a cache, and how to connect to it.
#[derive(Clone, PartialEq, Eq)]
pub struct CacheSettings {
    pub(super) url: String,
    /// The protocol of the server.
    pub mode: CacheMode,
    /// The login method.
    pub login: CacheAuth,
}

/// The cache name for which tokens are signed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct IamCache {
    name: String,
    serverless: bool,
}

impl IamCache {
    pub(super) fn auth_target(&self) -> AuthTarget<'_> {
        AuthTarget::ElastiCache { cache: &self.name, serverless: self.serverless }
    }
}

/// Omits the password.
impl fmt::Debug for CacheSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("endpoint", &self.endpoint())
            .field("mode", &self.mode)
            .field("login", &self.login)
            .finish_non_exhaustive()
    }
}

impl CacheSettings {
    /// Parses the settings; `variable` returns a variable's value. Returns `None` if no cache is configured.
    ///
    /// # Errors
    /// All problems, one line per variable, without the password.
    pub fn parse<'e>(variable: impl Fn(&str) -> Option<&'e str>) -> Result<Option<Self>, Vec<String>> {
        let mut wrong = Vec::new();
        let mut choice = |name: &str, first: &str, second: &str| match variable(name) {
            None => false,
            Some(text) if text == first => false,
            Some(text) if text == second => true,
            Some(text) => {
                wrong.push(format!("{name} is {text:?}: set it to {first} or {second}"));
                false
            }
        };
        let mode = if choice("CACHE_MODE", "single", "cluster") { CacheMode::Cluster } else { CacheMode::Single };
        let login = if choice("CACHE_AUTH", "password", "iam") { CacheAuth::Iam } else { CacheAuth::Password };
        let Some(url) = variable("CACHE_URL") else {
            let stray = ["CACHE_MODE", "CACHE_AUTH"].into_iter().filter(|name| variable(name).is_some());
            wrong.extend(stray.map(|name| format!("{name} is set and CACHE_URL is not: set both or neither")));
            return if wrong.is_empty() { Ok(None) } else { Err(wrong) };
        };
        match info(url) {
            None => {
                wrong.push(
                    "CACHE_URL is not the URL of a cache: set it to redis://host:port or rediss://user@host:port"
                        .to_owned(),
                );
            }
            Some(info) => {
                let user = info.redis_settings().username();
                if login == CacheAuth::Iam && user.is_none_or(|user| user == "default") {
                    wrong.push("CACHE_URL has no user: CACHE_AUTH=iam needs rediss://user@host:port".to_owned());
                }
                if login == CacheAuth::Iam && !is_encrypted(&info) {
                    wrong.push("CACHE_URL is not encrypted: CACHE_AUTH=iam needs rediss://".to_owned());
                }
                if mode == CacheMode::Cluster && info.redis_settings().db() != 0 {
                    wrong.push("CACHE_URL selects a database: a cluster supports only database 0".to_owned());
                }
            }
        }
        if wrong.is_empty() { Ok(Some(Self { url: url.to_owned(), mode, login })) } else { Err(wrong) }
    }

    /// Returns whether the connection is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        info(&self.url).as_ref().is_some_and(is_encrypted)
    }

    /// Returns the cache for which a token has to be signed, taken from the endpoint's name; `None` if the host is not
    /// an `ElastiCache` endpoint.
    pub(super) fn iam_cache(&self) -> Option<IamCache> {
        let (host, _) = host_and_port(&info(&self.url)?);
        let labels: Vec<&str> = host.split('.').collect();
        match labels[..] {
            // `users-abc123.serverless.euw1.cache.amazonaws.com`: the cache name, and six characters that the service
            // adds.
            [first, "serverless", ..] => {
                let (name, _) = first.rsplit_once('-')?;
                Some(IamCache { name: name.to_owned(), serverless: true })
            }
            // `master.users.abc123.euw1.cache.amazonaws.com`: an encrypted replication group.
            ["master" | "replica" | "clustercfg", name, _, _, "cache", ..] => {
                Some(IamCache { name: name.to_owned(), serverless: false })
            }
            _ => None,
        }
    }

    /// Returns the user in the URL.
    pub(super) fn user(&self) -> Option<String> {
        info(&self.url)?.redis_settings().username().map(ToOwned::to_owned)
    }

    /// Returns host and port, for messages.
    #[must_use]
    pub fn endpoint(&self) -> String {
        info(&self.url).map_or_else(String::new, |info| {
            let (host, port) = host_and_port(&info);
            format!("{host}:{port}")
        })
    }
}

fn info(url: &str) -> Option<ConnectionInfo> {
    let is_network = url.starts_with("redis://") || url.starts_with("rediss://");
    url.into_connection_info().ok().filter(|info| is_network && !host_and_port(info).0.is_empty())
}

fn is_encrypted(info: &ConnectionInfo) -> bool {
    matches!(info.addr(), ConnectionAddr::TcpTls { .. })
}

fn host_and_port(info: &ConnectionInfo) -> (String, u16) {
    match info.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => (host.clone(), *port),
        _ => (String::new(), 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(variables: &[(&str, &'static str)]) -> Result<Option<CacheSettings>, Vec<String>> {
        CacheSettings::parse(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| *value))
    }

    #[test]
    fn without_a_url_there_is_no_cache() {
        assert_eq!(parse(&[]), Ok(None));
        assert_eq!(parse(&[("CACHE_MODE", "cluster"), ("CACHE_AUTH", "iam")]).unwrap_err().len(), 2);
    }

    #[test]
    fn a_whole_environment_is_read() {
        let settings = parse(&[("CACHE_URL", "redis://127.0.0.1:6379/3")]).unwrap().unwrap();
        assert_eq!(
            (settings.mode, settings.login, settings.is_encrypted()),
            (CacheMode::Single, CacheAuth::Password, false)
        );
        let url = ("CACHE_URL", "rediss://millrace@cache.example.com:6380");
        let settings = parse(&[url, ("CACHE_MODE", "cluster"), ("CACHE_AUTH", "iam")]).unwrap().unwrap();
        assert_eq!(
            (settings.mode, settings.login, settings.is_encrypted()),
            (CacheMode::Cluster, CacheAuth::Iam, true)
        );
        assert_eq!((settings.user().as_deref(), settings.iam_cache()), (Some("millrace"), None));
    }

    #[test]
    fn a_token_is_for_the_cache_that_the_endpoint_names() {
        let door = |host: &'static str| {
            let url: &'static str = format!("rediss://millrace@{host}:6379").leak();
            let settings = parse(&[("CACHE_URL", url), ("CACHE_AUTH", "iam")]).unwrap().unwrap();
            settings.iam_cache().map(|door| (door.name, door.serverless))
        };
        let named = |name: &str, serverless| Some((name.to_owned(), serverless));
        assert_eq!(door("my-users-abc123.serverless.euw1.cache.amazonaws.com"), named("my-users", true));
        assert_eq!(door("master.my-users.abc123.euw1.cache.amazonaws.com"), named("my-users", false));
        assert_eq!(door("clustercfg.users.abc123.euw1.cache.amazonaws.com"), named("users", false));
        for other in ["cache.example.com", "127.0.0.1", "users.abc123.ng.0001.euw1.cache.amazonaws.com"] {
            assert_eq!(door(other), None, "{other}");
        }
    }

    #[test]
    fn cache_settings_report_all_errors_without_the_password() {
        let wrong = parse(&[("CACHE_URL", "http://ada:secret@x"), ("CACHE_MODE", "many"), ("CACHE_AUTH", "key")]);
        let wrong = wrong.unwrap_err().join("\n");
        for part in ["CACHE_URL is not the URL of a cache", "CACHE_MODE is \"many\"", "CACHE_AUTH is \"key\""] {
            assert!(wrong.contains(part), "{wrong}");
        }
        assert!(!wrong.contains("secret"));
        let wrong = parse(&[("CACHE_URL", "redis://x:1/2"), ("CACHE_MODE", "cluster"), ("CACHE_AUTH", "iam")]);
        assert_eq!(wrong.unwrap_err().len(), 3);
        for url in ["", "redis://", "cache:6379", "unix:///tmp/x", "redis://x:port"] {
            let variables = [("CACHE_URL", url)];
            assert!(parse(&variables).is_err(), "{url}");
        }
    }

    #[test]
    fn debug_output_of_cache_settings_has_no_password() {
        let settings = parse(&[("CACHE_URL", "redis://ada:secret@cache.example.com")]).unwrap().unwrap();
        assert_eq!(settings.endpoint(), "cache.example.com:6379");
        assert!(!format!("{settings:?}").contains("secret"));
    }
}
