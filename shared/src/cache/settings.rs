//! What the environment says of the cache: `CACHE_URL`, `CACHE_MODE`, `CACHE_AUTH`.

use std::fmt;

use crate::iam_token::AuthTarget;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

/// How the server is spoken to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum CacheMode {
    /// One server, or a replication group's primary.
    #[default]
    Single,
    /// The cluster protocol, also where the cluster is one node: a serverless cache speaks no other.
    Cluster,
}

/// Who the function is to the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum CacheAuth {
    /// The URL's user and password, if it has them.
    #[default]
    Password,
    /// The URL's user, by a token that is signed with the function's role.
    Iam,
}

/// Where a cache is and how to speak to it.
#[derive(Clone, PartialEq, Eq)]
pub struct CacheSettings {
    pub(super) url: String,
    /// How the server is spoken to.
    pub mode: CacheMode,
    /// Who the function is to it.
    pub login: CacheAuth,
}

/// A cache by the name that tokens are signed for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct IamCache {
    name: String,
    serverless: bool,
}

impl IamCache {
    pub(super) fn of(&self) -> AuthTarget<'_> {
        AuthTarget::ElastiCache { cache: &self.name, serverless: self.serverless }
    }
}

/// Without the password.
impl fmt::Debug for CacheSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("place", &self.place())
            .field("mode", &self.mode)
            .field("login", &self.login)
            .finish_non_exhaustive()
    }
}

impl CacheSettings {
    /// Reads the settings with `variable`, which gives a variable's value; nothing if there is to be no cache.
    ///
    /// # Errors
    /// All that is wrong, a line a variable, without the password.
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
                    wrong.push("CACHE_URL names no user: CACHE_AUTH=iam needs rediss://user@host:port".to_owned());
                }
                if login == CacheAuth::Iam && !is_encrypted(&info) {
                    wrong.push("CACHE_URL is not encrypted: CACHE_AUTH=iam needs rediss://".to_owned());
                }
                if mode == CacheMode::Cluster && info.redis_settings().db() != 0 {
                    wrong.push("CACHE_URL names a database: a cluster has none but 0".to_owned());
                }
            }
        }
        if wrong.is_empty() { Ok(Some(Self { url: url.to_owned(), mode, login })) } else { Err(wrong) }
    }

    /// Whether the line is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        info(&self.url).as_ref().is_some_and(is_encrypted)
    }

    /// The cache that a token opens, as its endpoint names it; none if it is no endpoint of `ElastiCache`.
    pub(super) fn iam_cache(&self) -> Option<IamCache> {
        let (host, _) = host_and_port(&info(&self.url)?);
        let labels: Vec<&str> = host.split('.').collect();
        match labels[..] {
            // `users-abc123.serverless.euw1.cache.amazonaws.com`: the name, and six characters of the service's own.
            [first, "serverless", ..] => {
                let (name, _) = first.rsplit_once('-')?;
                Some(IamCache { name: name.to_owned(), serverless: true })
            }
            // `master.users.abc123.euw1.cache.amazonaws.com`, of an encrypted replication group.
            ["master" | "replica" | "clustercfg", name, _, _, "cache", ..] => {
                Some(IamCache { name: name.to_owned(), serverless: false })
            }
            _ => None,
        }
    }

    /// The user that the URL names.
    pub(super) fn user(&self) -> Option<String> {
        info(&self.url)?.redis_settings().username().map(ToOwned::to_owned)
    }

    /// Host and port, to be shown.
    #[must_use]
    pub fn place(&self) -> String {
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
    fn all_that_is_wrong_is_said_at_once_and_no_password_with_it() {
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
    fn what_is_shown_has_no_password() {
        let settings = parse(&[("CACHE_URL", "redis://ada:secret@cache.example.com")]).unwrap().unwrap();
        assert_eq!(settings.place(), "cache.example.com:6379");
        assert!(!format!("{settings:?}").contains("secret"));
    }
}
