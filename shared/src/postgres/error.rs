//! Database errors, with messages that name the setting and the fix. [`PostgresError`]
//!
//! The messages contain no value of a row: the server's own messages about values quote them, so only the code of such
//! an error is reported.

use std::error::Error as _;

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

use super::database_url::DatabaseUrl;
use crate::error_chain::error_chain;

/// The kind of a database error, which determines the reaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostgresErrorKind {
    /// The server is unreachable, has become so, or did not respond in time: a retry may succeed.
    Unreachable,
    /// The server is misconfigured, or the URL leads to the wrong server: no request succeeds until an operator
    /// corrects this.
    Misconfigured,
    /// A table or a column is missing: the maintenance task `migrate` creates it.
    NotMigrated,
    /// The server accepts no writes: it is a replica, or a writer that was demoted a moment ago.
    ReadOnly,
    /// The server rejected this statement, with this code.
    Refused(SqlState),
}

/// A database error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct PostgresError {
    /// The kind of the error.
    pub kind: PostgresErrorKind,
    /// The description, with the setting's name and the fix.
    pub reason: String,
    /// The part of the table that rejected a row, if the server names it.
    pub rejected_by: RejectedBy,
}

/// The part of a table that rejected a row, as the server names it: names of the schema, and no value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RejectedBy {
    /// The column that must not be null.
    pub column: Option<String>,
    /// The constraint or the unique index.
    pub constraint: Option<String>,
}

impl PostgresError {
    /// Returns whether the next statement needs a new connection: this one is lost, or leads to the wrong server.
    #[must_use]
    pub fn is_connection_fatal(&self) -> bool {
        !matches!(self.kind, PostgresErrorKind::Refused(_) | PostgresErrorKind::NotMigrated)
    }

    /// Returns whether the server reports a value that it cannot store: SQLSTATE classes 22 (data exception) and 23
    /// (integrity constraint), 44000 (check option of a view), and P0001 and P0004, the errors that a trigger raises. Its
    /// message is not part of the reason, because it may contain values of the row.
    #[must_use]
    pub fn is_data_error(&self) -> bool {
        matches!(&self.kind, PostgresErrorKind::Refused(code) if is_data_error(code))
    }
}

fn is_data_error(code: &SqlState) -> bool {
    matches!(code.code(), "44000" | "P0001" | "P0004") || code.code().starts_with("22") || code.code().starts_with("23")
}

/// Converts errors of the database that `setting` names.
#[derive(Debug, Clone, Copy)]
pub(super) struct ErrorClassifier<'a> {
    pub(super) setting: &'static str,
    pub(super) address: &'a DatabaseUrl,
}

impl ErrorClassifier<'_> {
    pub(super) fn fault(self, kind: PostgresErrorKind, what: &str) -> PostgresError {
        let reason = format!("{} {} {what}", self.setting, self.address);
        PostgresError { kind, reason, rejected_by: RejectedBy::default() }
    }

    /// Returns the error for a passed deadline.
    pub(super) fn query_timeout(self) -> PostgresError {
        self.fault(
            PostgresErrorKind::Unreachable,
            "did not respond in time: it is busy, paused, or not reachable from here",
        )
    }

    /// Classifies an error of the driver.
    pub(super) fn classify(self, error: &Error) -> PostgresError {
        match error.as_db_error() {
            Some(error) => self.classify_server_error(error),
            None => self.classify_connection_error(error),
        }
    }

    fn classify_server_error(self, error: &DbError) -> PostgresError {
        let (code, message) = (error.code(), error.message());
        let user = self.address.user();
        let (kind, what) = match code.code() {
            "25006" => {
                let what = "is read-only: it is a replica or a former writer; set the URL to the writer's endpoint";
                (PostgresErrorKind::ReadOnly, what.to_owned())
            }
            "28P01" | "28000" => (
                PostgresErrorKind::Misconfigured,
                format!(
                    "rejects the login of {user} ({message}): correct the password; for POSTGRES_AUTH=iam grant {user} \
                     rds_iam in the database and rds-db:connect to the function's role"
                ),
            ),
            "3D000" => (
                PostgresErrorKind::Misconfigured,
                "does not exist on that server: create it, or specify another".to_owned(),
            ),
            "42501" => (PostgresErrorKind::Misconfigured, format!("denies {user} access ({message}): grant it")),
            "42P01" | "42703" | "42P10" | "42883" | "3F000" => (
                PostgresErrorKind::NotMigrated,
                format!("is not migrated ({message}): run the maintenance task migrate"),
            ),
            "53100" => (PostgresErrorKind::Unreachable, "has no disk space left: increase its storage".to_owned()),
            "53300" => {
                let what = "has no free connection: increase max_connections or reduce the functions' concurrency";
                (PostgresErrorKind::Unreachable, what.to_owned())
            }
            "57014" => return self.query_timeout(),
            "57P01" | "57P02" | "57P03" => {
                (PostgresErrorKind::Unreachable, format!("is stopping or starting ({message})"))
            }
            code if code.starts_with("08") => (PostgresErrorKind::Unreachable, format!("disconnected ({message})")),
            _ if is_data_error(code) => {
                let kind = PostgresErrorKind::Refused(code.clone());
                let named = |name: Option<&str>| name.map(str::to_owned);
                let rejected_by = RejectedBy { column: named(error.column()), constraint: named(error.constraint()) };
                let fault = self.fault(kind, &format!("cannot store a value (SQLSTATE {})", code.code()));
                return PostgresError { rejected_by, ..fault };
            }
            _ => (
                PostgresErrorKind::Refused(code.clone()),
                format!("rejects a statement (SQLSTATE {}: {message})", code.code()),
            ),
        };
        self.fault(kind, &what)
    }

    fn classify_connection_error(self, error: &Error) -> PostgresError {
        // An error about reading a row contains no value of the row.
        let causes = error_chain(error);
        let certificate = error.source().is_some_and(is_about_the_certificate);
        if certificate {
            let what = format!(
                "presents a certificate that is not trusted ({causes}): set the URL to a host name in the certificate, \
                 or set sslrootcert=<file of its authority>"
            );
            return self.fault(PostgresErrorKind::Misconfigured, &what);
        }
        if causes.contains("server does not support TLS") {
            let what = "does not support TLS: enable it on the server, or set sslmode=disable in the URL";
            return self.fault(PostgresErrorKind::Misconfigured, what);
        }
        if causes.contains("password missing") {
            let what = "needs a password: add it to the URL, set POSTGRES_SECRET, or set POSTGRES_AUTH=iam";
            return self.fault(PostgresErrorKind::Misconfigured, what);
        }
        let what =
            format!("is unreachable ({causes}): check whether it is running and the function can reach its port");
        self.fault(PostgresErrorKind::Unreachable, &what)
    }
}

fn is_about_the_certificate(source: &(dyn std::error::Error + 'static)) -> bool {
    let mut source = Some(source);
    while let Some(error) = source {
        // A rustls error is wrapped in an I/O error, which exposes it only through `get_ref`.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let found = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if matches!(found, Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        source = error.source();
    }
    false
}
