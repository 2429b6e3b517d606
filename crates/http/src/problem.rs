//! The failures of the HTTP API as RFC 9457 problem details: one enum, one match.
//!
//! The client receives status, type, title and detail; the cause is only logged. docs/problems.md has a section for
//! each type. The name of a type never changes.

use std::borrow::Cow;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use millrace_shared::error_chain::error_chain;
use millrace_shared::http::caller::{AuthMode, Scope, ScopeMapping};
use millrace_shared::http::path::PathError;
pub use millrace_shared::http::problem::{ErrorLocation, FieldError};
use millrace_shared::http::problem::{ProblemDetails, type_uri};
use millrace_shared::table::{TableError, WriteError};

/// The maximum size of a request body. A record of 400 KB is smaller as JSON unless all of its characters are escaped.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// The media type of a record and of a batch.
pub const JSON: &str = "application/json";
/// The media type of a patch (RFC 7396).
pub const MERGE_PATCH: &str = "application/merge-patch+json";

/// A failure of a request, classified by the action that the client must take next.
#[derive(Clone, Debug)]
pub enum Problem {
    /// No resource has this path.
    UnknownRoute,
    /// The relational tier serves this path, and the deployment has none.
    RelationalTierOff,
    /// The resource does not have this method.
    MethodNotAllowed {
        /// The methods that it supports.
        allow: &'static str,
    },
    /// The request has no valid credentials.
    Unauthenticated {
        /// The deployment's authentication mode.
        auth: AuthMode,
    },
    /// The caller's token lacks a scope.
    InsufficientScope {
        /// The required scope.
        scope: Scope,
        /// The names of scopes in tokens.
        scopes: ScopeMapping,
    },
    /// The body's user is not the token's subject.
    UserIdMismatch {
        /// The body's member with the other user.
        pointer: &'static str,
    },
    /// The path is not in canonical form.
    InvalidPath {
        /// The violated rule.
        error: PathError,
    },
    /// The path, the query or a header is invalid.
    Request(Vec<FieldError>),
    /// The body was truncated.
    IncompleteBody,
    /// The body is not valid JSON.
    MalformedJson {
        /// The line of the first error, from 1.
        line: usize,
        /// The column of the first error, from 1.
        column: usize,
        /// The parser's message.
        reason: String,
    },
    /// The body is valid JSON with invalid members.
    Body(Vec<FieldError>),
    /// The body exceeds [`MAX_BODY_BYTES`].
    BodyTooLarge,
    /// The record is too large to store or to replicate.
    RecordTooLarge {
        /// The part that is too large, and the limit.
        cause: String,
    },
    /// The body's `Content-Type` is not the one that the operation accepts.
    UnsupportedMediaType {
        /// The media type to send.
        expected: &'static str,
    },
    /// The body is compressed.
    UnsupportedContentEncoding,
    /// No live record has this key.
    NotFound,
    /// A live record has this key already.
    AlreadyExists,
    /// Another user has this email.
    EmailTaken,
    /// An earlier request with this idempotency key is in progress, for this many seconds at most.
    IdempotencyKeyInUse {
        /// The seconds after which to retry.
        seconds: i64,
    },
    /// This idempotency key was used for another request.
    IdempotencyKeyReused,
    /// The record's state does not satisfy a conditional header.
    PreconditionFailed,
    /// This deployment requires a precondition of every write (RFC 6585, section 3).
    PreconditionRequired,
    /// The caller's quota is exhausted (RFC 6585, section 4).
    RateLimited {
        /// The seconds until one more request is allowed.
        seconds: u64,
    },
    /// The table or the database is throttled, unreachable or contended: the client retries.
    ServiceUnavailable {
        /// For the log only.
        cause: String,
    },
    /// The query exceeded its time limit.
    QueryTimeout {
        /// The limit.
        seconds: u64,
        /// For the log only.
        cause: String,
    },
    /// More expired records precede the latest live one than one request reads.
    TooManyExpired,
    /// The stored item is not a valid user record.
    CorruptRecord {
        /// For the log only.
        cause: String,
    },
    /// A failure that only an operator can fix.
    Internal {
        /// For the log only.
        cause: String,
    },
}

impl Problem {
    /// One parameter of the path or the query is invalid.
    #[must_use]
    pub fn parameter(name: &str, detail: &impl ToString) -> Self {
        Self::Request(vec![FieldError::parameter(name, detail)])
    }

    /// Returns status, the last part of the type's URI, title and detail.
    #[expect(clippy::too_many_lines, reason = "one match, of which each problem has its line")]
    fn parts(&self) -> (StatusCode, &'static str, &'static str, Cow<'static, str>) {
        let (status, kind, title, detail) = match self {
            Self::UnknownRoute => (404, "unknown-route", "unknown route", "no resource has this path".into()),
            Self::RelationalTierOff => (
                404,
                "relational-tier-off",
                "relational tier off",
                "this deployment has no relational replica: deploy it with the parameter RelationalTier, or start \
                 millrace with --postgres"
                    .into(),
            ),
            Self::MethodNotAllowed { allow } => {
                let detail = format!("the resource does not have this method: use one of {allow}");
                (405, "method-not-allowed", "method not allowed", detail.into())
            }
            Self::Unauthenticated { auth } => (
                401,
                "unauthenticated",
                "unauthenticated",
                match auth {
                    AuthMode::Iam => "the request is not signed: sign it with AWS Signature Version 4".into(),
                    AuthMode::Jwt | AuthMode::None => {
                        "the request has no valid token: send Authorization: Bearer with a token that has a sub and \
                         has not expired"
                            .into()
                    }
                },
            ),
            Self::InsufficientScope { scope, scopes } => {
                let [scope, admin] = [*scope, Scope::Admin].map(|scope| scopes.scope_name(scope));
                let detail = format!("the token lacks the required scope: expected {scope} or {admin}");
                (403, "insufficient-scope", "insufficient scope", detail.into())
            }
            Self::UserIdMismatch { .. } => (
                403,
                "user-id-mismatch",
                "user id mismatch",
                "the body's user_id is not the token's sub: omit user_id to use the sub".into(),
            ),
            Self::InvalidPath { error } => (400, "invalid-path", "invalid path", error.to_string().into()),
            Self::Request(_) => (
                400,
                "invalid-request",
                "invalid request",
                "the path, the query or a header is invalid: correct the parts listed in `errors`".into(),
            ),
            Self::IncompleteBody => {
                (400, "incomplete-body", "incomplete body", "the body was truncated: send the request again".into())
            }
            Self::MalformedJson { line, column, reason } => (
                400,
                "malformed-json",
                "malformed JSON",
                format!("the body is not valid JSON at line {line}, column {column}: {reason}").into(),
            ),
            Self::Body(_) => (
                422,
                "invalid-user",
                "invalid user",
                "the body has invalid members: correct the members listed in `errors`".into(),
            ),
            Self::BodyTooLarge => {
                let detail = format!("the body is too large: send at most {MAX_BODY_BYTES} bytes");
                (413, "body-too-large", "body too large", detail.into())
            }
            Self::RecordTooLarge { cause } => {
                (413, "record-too-large", "record too large", format!("{cause}: shorten `attributes`").into())
            }
            Self::UnsupportedMediaType { expected } => (
                415,
                "unsupported-media-type",
                "unsupported media type",
                format!("the Content-Type is missing or not supported: expected {expected}").into(),
            ),
            Self::UnsupportedContentEncoding => (
                415,
                "unsupported-content-encoding",
                "unsupported content encoding",
                "the Content-Encoding is not supported: send the body uncompressed".into(),
            ),
            Self::NotFound => (404, "not-found", "record not found", "no live record has this key".into()),
            Self::AlreadyExists => (
                409,
                "already-exists",
                "record already exists",
                "a live record has this user_id and timestamp: choose another timestamp, or replace the record with PUT"
                    .into(),
            ),
            Self::EmailTaken => (
                409,
                "email-taken",
                "email taken",
                "another user has this email: correct the member listed in `errors`".into(),
            ),
            Self::IdempotencyKeyInUse { .. } => (
                409,
                "idempotency-key-in-use",
                "request in progress",
                "a request with this Idempotency-Key is still in progress: retry after the time in Retry-After".into(),
            ),
            Self::IdempotencyKeyReused => (
                422,
                "idempotency-key-reused",
                "idempotency key reused",
                "this Idempotency-Key was used with a different body: use a new key for a new request".into(),
            ),
            Self::PreconditionFailed => (
                412,
                "precondition-failed",
                "precondition failed",
                "the record's state does not satisfy If-Match or If-None-Match: read the record again (a weak tag, \
                 W/\"…\", never matches If-Match: send it without W/)"
                    .into(),
            ),
            Self::PreconditionRequired => (
                428,
                "precondition-required",
                "precondition required",
                "this deployment requires a precondition: send If-Match with the ETag from your last read of the \
                 record, or If-None-Match: * to create it"
                    .into(),
            ),
            Self::RateLimited { .. } => (
                429,
                "rate-limited",
                "too many requests",
                "the caller's quota is exhausted: retry after the time in Retry-After".into(),
            ),
            Self::ServiceUnavailable { .. } => (
                503,
                "service-unavailable",
                "service unavailable",
                "the table or the database is temporarily unavailable: retry after the time in Retry-After".into(),
            ),
            Self::QueryTimeout { seconds, .. } => (
                504,
                "query-timeout",
                "query timeout",
                format!("the query took longer than {seconds} s: narrow it by status, name, domain or time").into(),
            ),
            Self::TooManyExpired => (
                503,
                "too-many-expired",
                "too many expired records",
                "too many expired records precede the latest live one, and TTL has not deleted them yet: list the \
                 user's records page by page"
                    .into(),
            ),
            Self::CorruptRecord { .. } => (
                500,
                "corrupt-record",
                "corrupt record",
                "the stored item is not a valid user record; contact the operator and quote the request id".into(),
            ),
            Self::Internal { .. } => (
                500,
                "internal",
                "internal error",
                "the request failed for an internal reason; contact the operator and quote the request id".into(),
            ),
        };
        (StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), kind, title, detail)
    }

    /// Returns the response's status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.parts().0.as_u16()
    }

    /// Returns the problem's title.
    #[must_use]
    pub fn title(&self) -> &'static str {
        self.parts().2
    }

    /// Returns the last part of the problem's type URI, which never changes.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.parts().1
    }

    /// Returns the problem's type, a URI that never changes.
    #[must_use]
    pub fn type_uri(&self) -> String {
        type_uri(self.parts().1)
    }

    /// Returns the problem as JSON.
    #[must_use]
    pub fn body(&self, request_id: &str) -> String {
        let (status, kind, title, detail) = self.parts();
        let one = |pointer: &str, detail: &str| vec![FieldError::pointer(pointer, detail)];
        let errors = match self {
            Self::Request(errors) | Self::Body(errors) => Some(Cow::Borrowed(errors)),
            Self::UserIdMismatch { pointer } => Some(Cow::Owned(one(pointer, "must be the token's sub: omit it"))),
            Self::EmailTaken => Some(Cow::Owned(one("/email", "belongs to another user: choose another, or omit it"))),
            _ => None,
        };
        let position = match self {
            Self::MalformedJson { line, column, .. } => Some((*line, *column)),
            _ => None,
        };
        let errors = errors.as_ref().map(|errors| errors.as_slice());
        ProblemDetails { kind, title, status: status.as_u16(), detail: &detail, instance: request_id, position, errors }
            .json()
    }

    /// Returns the cause, for the log.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        match self {
            Self::ServiceUnavailable { cause }
            | Self::QueryTimeout { cause, .. }
            | Self::CorruptRecord { cause }
            | Self::Internal { cause } => Some(cause),
            _ => None,
        }
    }
}

/// Returns one problem of each type, for the documentation and its tests.
#[must_use]
pub fn all_variants() -> Vec<Problem> {
    let cause = || "the cause".to_owned();
    vec![
        Problem::UnknownRoute,
        Problem::RelationalTierOff,
        Problem::MethodNotAllowed { allow: "GET" },
        Problem::Unauthenticated { auth: AuthMode::Jwt },
        Problem::InsufficientScope { scope: Scope::Read, scopes: ScopeMapping::default() },
        Problem::UserIdMismatch { pointer: "/user_id" },
        Problem::InvalidPath { error: PathError::EmptySegment },
        Problem::Request(vec![]),
        Problem::IncompleteBody,
        Problem::MalformedJson { line: 1, column: 2, reason: "x".into() },
        Problem::Body(vec![]),
        Problem::BodyTooLarge,
        Problem::RecordTooLarge { cause: "x".into() },
        Problem::UnsupportedMediaType { expected: JSON },
        Problem::UnsupportedContentEncoding,
        Problem::NotFound,
        Problem::AlreadyExists,
        Problem::EmailTaken,
        Problem::IdempotencyKeyInUse { seconds: 7 },
        Problem::IdempotencyKeyReused,
        Problem::PreconditionFailed,
        Problem::PreconditionRequired,
        Problem::RateLimited { seconds: 7 },
        Problem::ServiceUnavailable { cause: cause() },
        Problem::QueryTimeout { seconds: 5, cause: cause() },
        Problem::TooManyExpired,
        Problem::CorruptRecord { cause: cause() },
        Problem::Internal { cause: cause() },
    ]
}

/// [`crate::request_telemetry`] writes the body, because it knows the request's id.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.parts().0.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<TableError> for Problem {
    fn from(fault: TableError) -> Self {
        (&fault).into()
    }
}

impl From<&TableError> for Problem {
    fn from(fault: &TableError) -> Self {
        let cause = error_chain(fault);
        match fault {
            TableError::Throttled(_) | TableError::Unavailable(_) => Self::ServiceUnavailable { cause },
            TableError::TooLarge(_) | TableError::AttributesTooLarge(_) => {
                Self::RecordTooLarge { cause: fault.to_string() }
            }
            TableError::Unreadable(_) => Self::CorruptRecord { cause },
            TableError::Refused(_) => Self::Internal { cause },
        }
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::NotFound => Self::NotFound,
            WriteError::Exists => Self::AlreadyExists,
            WriteError::EmailTaken => Self::EmailTaken,
            WriteError::PreconditionFailed => Self::PreconditionFailed,
            WriteError::Contended => Self::ServiceUnavailable { cause: error.to_string() },
            WriteError::Fault(fault) => fault.into(),
        }
    }
}

#[cfg(test)]
mod tests;
