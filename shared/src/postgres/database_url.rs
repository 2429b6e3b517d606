//! The location of a database: a `postgres://` URL, parsed once. [`DatabaseUrl`]
//!
//! This module alone decides on libpq's `sslmode`: a connection over a network is encrypted and the server's name is
//! verified, even if the URL requests less. The exceptions are a connection within the machine, and a URL with
//! `sslmode=disable`.

use std::fmt;
use std::path::PathBuf;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use super::tls::{CaBundle, authorities};

/// The expected format of a URL, for error messages.
const EXAMPLE: &str = "set it to postgres://<user>[:<password>]@<host>:5432/<database>";

/// The protection of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TlsMode {
    /// No encryption.
    None,
    /// Encrypted, with a verified server certificate: by the authorities of RDS and the public ones, or by those of a
    /// file.
    Verified(Option<CaBundle>),
}

/// A database, as specified by a URL.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    pub(super) config: Config,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) database: String,
    pub(super) protection: TlsMode,
}

impl DatabaseUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// A description of the problem, to be appended to the variable's name; it never shows a password.
    pub fn parse(url: &str) -> Result<Self, String> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(format!("is not a PostgreSQL URL: {EXAMPLE}"));
        }
        let (url, parameters) = own_parameters(url)?;
        // The driver's parser names options and never shows values.
        let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            format!("is not a PostgreSQL URL ({cause}): {EXAMPLE}")
        })?;
        let host = match config.get_hosts() {
            [Host::Tcp(host)] => host.clone(),
            #[cfg(unix)]
            [Host::Unix(path)] => path.display().to_string(),
            [] => return Err(format!("has no host: {EXAMPLE}")),
            _ => return Err(format!("has more than one host: {EXAMPLE}; a cluster's endpoint follows its writer")),
        };
        // An unescaped reserved character in a password shifts the host, which errors and logs show.
        if !host.starts_with('/') && !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte)) {
            return Err(
                "contains a host with invalid characters: percent-encode the user name and the password".to_owned()
            );
        }
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let user = config.get_user().unwrap_or_default().to_owned();
        if user.is_empty() {
            return Err(format!("has no user: {EXAMPLE}"));
        }
        let database = config.get_dbname().unwrap_or(&user).to_owned();
        let protection = parameters.protection(&host)?;
        config.ssl_mode(if protection == TlsMode::None { SslMode::Disable } else { SslMode::Require });
        Ok(Self { config, host, port, user, database, protection })
    }

    /// Returns the host name.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the user that logs in.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Returns the database name.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Returns whether the URL contains a password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.config.get_password().is_some()
    }
}

/// Omits the password.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.host, self.port, self.database)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({}@{self})", self.user)
    }
}

/// The URL parameters that are read here and not by the driver.
#[derive(Default)]
struct UrlParameters {
    mode: Option<String>,
    root_certificate: Option<PathBuf>,
}

impl UrlParameters {
    fn protection(self, host: &str) -> Result<TlsMode, String> {
        let own = self.root_certificate.as_deref().map(authorities).transpose()?;
        let is_own = own.is_some();
        let verified = TlsMode::Verified(own);
        match self.mode.as_deref() {
            Some("disable") => Ok(TlsMode::None),
            // Modes that require less are treated as `verify-full`: without verification of the name, any holder of any
            // certificate can pose as the server.
            Some("require" | "verify-ca" | "verify-full") => Ok(verified),
            Some(other) => Err(format!("has sslmode={other}: set it to verify-full, or to disable")),
            None if !is_own && is_this_machine(host) => Ok(TlsMode::None),
            None => Ok(verified),
        }
    }
}

fn is_this_machine(host: &str) -> bool {
    host.starts_with('/') || matches!(host, "localhost" | "127.0.0.1" | "::1")
}

/// Removes `sslmode` and `sslrootcert` from the URL: the driver accepts other values of the former, and does not know
/// the latter.
fn own_parameters(url: &str) -> Result<(String, UrlParameters), String> {
    let mut parameters = UrlParameters::default();
    let Some((base, query)) = url.split_once('?') else { return Ok((url.to_owned(), parameters)) };
    let mut rest = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let value = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().map(String::from);
        match parameter.split_once('=') {
            Some(("sslmode", mode)) => parameters.mode = value(mode).ok(),
            Some(("sslrootcert", file)) => {
                let file = value(file).map_err(|_| "has an sslrootcert that is not a valid path".to_owned())?;
                parameters.root_certificate = Some(file.into());
            }
            _ => rest.push(parameter),
        }
    }
    let query = if rest.is_empty() { String::new() } else { format!("?{}", rest.join("&")) };
    Ok((format!("{base}{query}"), parameters))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: &str = "postgres://millrace:s3cret@db.example.com:6432/users";

    #[test]
    fn a_url_is_read_and_shown_without_its_password() {
        let address = DatabaseUrl::parse(WELL).unwrap();
        assert_eq!((address.host(), address.port(), address.user()), ("db.example.com", 6432, "millrace"));
        assert_eq!(address.to_string(), "db.example.com:6432/users");
        assert!(address.has_password() && !format!("{address:?}").contains("s3cret"));
        let short = DatabaseUrl::parse("postgresql://ada@db.example.com").unwrap();
        assert_eq!((short.port(), short.database(), short.has_password()), (5432, "ada", false));
    }

    #[test]
    fn remote_connection_verifies_tls_unless_disabled() {
        let of = |url: &str| DatabaseUrl::parse(url).map(|address| address.protection);
        let verified = Ok(TlsMode::Verified(None));
        assert_eq!(of(WELL), verified);
        for mode in ["require", "verify-ca", "verify-full"] {
            assert_eq!(of(&format!("{WELL}?sslmode={mode}")), verified, "{mode}");
        }
        for local in ["localhost", "127.0.0.1"] {
            assert_eq!(of(&format!("postgres://ada@{local}/users")), Ok(TlsMode::None));
            assert_eq!(of(&format!("postgres://ada@{local}/users?sslmode=verify-full")), verified);
        }
        assert_eq!(of(&format!("{WELL}?sslmode=disable")), Ok(TlsMode::None));
        let authority = concat!(env!("CARGO_MANIFEST_DIR"), "/certificates%2Frds.pem");
        for host in ["db.example.com", "localhost"] {
            let url = format!("postgres://ada@{host}/users?sslrootcert={authority}&application_name=x");
            assert!(matches!(of(&url), Ok(TlsMode::Verified(Some(own))) if own.len() > 80), "{url}");
        }
        assert!(of(&format!("{WELL}?sslrootcert=/nowhere/ca.pem")).unwrap_err().contains("/nowhere/ca.pem"));
    }

    #[test]
    fn invalid_database_url_error_does_not_show_the_password() {
        for (url, says) in [
            ("mysql://ada:s3cret@db/users", "not a PostgreSQL URL"),
            ("postgres://ada:s3cret@db:port/users", "port"),
            ("postgres://ada:s3cret@db/users?sslmode=prefer", "verify-full"),
            ("postgres://ada:s3cret@db/users?colour=red", "colour"),
            ("postgres://ada:s3cret@one,two/users", "more than one host"),
            ("postgres://:s3cret@db/users", "no user"),
            ("postgres://db/users", "no user"),
            ("postgres://ada:pass@s3cret@db/users", "percent-encode"),
        ] {
            let message = DatabaseUrl::parse(url).unwrap_err();
            assert!(message.contains(says) && !message.contains("s3cret"), "{url}: {message}");
        }
    }
}
