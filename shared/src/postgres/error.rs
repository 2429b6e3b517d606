//! What went wrong with a database, in words that name the setting and the fix. [`PostgresError`]
//!
//! No text here holds a value of a row: the server's own messages about values quote them, so of those only the code is
//! told.

use std::error::Error as _;

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

use super::database_url::DatabaseUrl;

/// What a fault asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostgresErrorKind {
    /// The server is not there, or not any more, or did not answer in time: another try may succeed.
    Unreachable,
    /// The server, as it is set up or as it is named, serves nobody: someone has to mend it.
    Misconfigured,
    /// It lacks a table or a column: the maintenance task `migrate` makes them.
    NotMigrated,
    /// It takes no writes: a replica, or a writer that was demoted a moment ago.
    ReadOnly,
    /// It refused this statement, with this code.
    Refused(SqlState),
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct PostgresError {
    /// What it asks for.
    pub kind: PostgresErrorKind,
    /// Why, with the setting's name and the fix.
    pub reason: String,
}

impl PostgresError {
    /// Whether the next statement needs a connection of its own: this one is lost, or leads to the wrong server.
    #[must_use]
    pub fn is_connection_fatal(&self) -> bool {
        !matches!(self.kind, PostgresErrorKind::Refused(_) | PostgresErrorKind::NotMigrated)
    }

    /// Whether the server says that a value is one that it cannot hold: SQLSTATE classes 22 (data exception) and 23
    /// (integrity constraint).
    #[must_use]
    pub fn is_data_error(&self) -> bool {
        matches!(&self.kind, PostgresErrorKind::Refused(code) if is_about_a_value(code))
    }
}

fn is_about_a_value(code: &SqlState) -> bool {
    code.code().starts_with("22") || code.code().starts_with("23")
}

/// Says what is wrong with the database that `setting` names.
#[derive(Debug, Clone, Copy)]
pub(super) struct ErrorClassifier<'a> {
    pub(super) setting: &'static str,
    pub(super) address: &'a DatabaseUrl,
}

impl ErrorClassifier<'_> {
    pub(super) fn fault(self, kind: PostgresErrorKind, what: &str) -> PostgresError {
        PostgresError { kind, reason: format!("{} {} {what}", self.setting, self.address) }
    }

    /// The time was up.
    pub(super) fn query_timeout(self) -> PostgresError {
        self.fault(
            PostgresErrorKind::Unreachable,
            "did not answer in time: it is busy, paused, or not reachable from here",
        )
    }

    /// What the driver could not do.
    pub(super) fn classify(self, error: &Error) -> PostgresError {
        match error.as_db_error() {
            Some(said) => self.classify_server_error(said),
            None => self.classify_connection_error(error),
        }
    }

    fn classify_server_error(self, said: &DbError) -> PostgresError {
        let (code, message) = (said.code(), said.message());
        let user = self.address.user();
        let (kind, what) = match code.code() {
            "25006" => {
                let what = "is read-only: it is a replica, or was the writer until now; name the writer's endpoint";
                (PostgresErrorKind::ReadOnly, what.to_owned())
            }
            "28P01" | "28000" => (
                PostgresErrorKind::Misconfigured,
                format!(
                    "refuses the login of {user} ({message}): correct the password; for POSTGRES_AUTH=iam grant {user} \
                     rds_iam in the database and rds-db:connect to the function's role"
                ),
            ),
            "3D000" => (
                PostgresErrorKind::Misconfigured,
                "does not exist on that server: create it, or name another".to_owned(),
            ),
            "42501" => (PostgresErrorKind::Misconfigured, format!("refuses {user} ({message}): grant it that")),
            "42P01" | "42703" | "42P10" | "42883" | "3F000" => (
                PostgresErrorKind::NotMigrated,
                format!("is not migrated ({message}): run the maintenance task migrate"),
            ),
            "53100" => (PostgresErrorKind::Unreachable, "has no disk space left: enlarge its storage".to_owned()),
            "53300" => {
                let what = "has no connection left: raise max_connections, or invoke fewer functions at once";
                (PostgresErrorKind::Unreachable, what.to_owned())
            }
            "57014" => return self.query_timeout(),
            "57P01" | "57P02" | "57P03" => {
                (PostgresErrorKind::Unreachable, format!("is stopping or starting ({message})"))
            }
            code if code.starts_with("08") => (PostgresErrorKind::Unreachable, format!("lost the line ({message})")),
            _ if is_about_a_value(code) => {
                (PostgresErrorKind::Refused(code.clone()), format!("cannot hold a value (SQLSTATE {})", code.code()))
            }
            _ => (
                PostgresErrorKind::Refused(code.clone()),
                format!("refuses a statement (SQLSTATE {}: {message})", code.code()),
            ),
        };
        self.fault(kind, &what)
    }

    fn classify_connection_error(self, error: &Error) -> PostgresError {
        let causes = causes(error);
        let certificate = error.source().is_some_and(is_about_the_certificate);
        if certificate {
            let what = format!(
                "proves its name with a certificate that is not trusted ({causes}): name the host as its certificate \
                 does, or its authority's file with sslrootcert="
            );
            return self.fault(PostgresErrorKind::Misconfigured, &what);
        }
        if causes.contains("server does not support TLS") {
            let what = "offers no TLS: switch it on there, or say sslmode=disable in the URL";
            return self.fault(PostgresErrorKind::Misconfigured, what);
        }
        if causes.contains("password missing") {
            let what = "asks for a password, and there is none: put it into the URL, name it by POSTGRES_SECRET, or set POSTGRES_AUTH=iam";
            return self.fault(PostgresErrorKind::Misconfigured, what);
        }
        let what =
            format!("is not reached ({causes}): look whether it runs, and whether the function may reach that port");
        self.fault(PostgresErrorKind::Unreachable, &what)
    }
}

fn is_about_the_certificate(source: &(dyn std::error::Error + 'static)) -> bool {
    let mut source = Some(source);
    while let Some(error) = source {
        // rustls comes wrapped into the line's own error, which shows it only from inside.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let found = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if matches!(found, Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        source = error.source();
    }
    false
}

/// The error and what is behind it. A failure to read a row shows no row.
fn causes(error: &Error) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !said.contains(&more) {
            said.push_str(": ");
            said.push_str(&more);
        }
        source = cause.source();
    }
    said
}
