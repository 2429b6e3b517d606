//! Every failure that is answered, as RFC 9457 problem details: one enum, one match.
//!
//! What the client reads and what the log says are two: a cause stays in the log. docs/problems.md has a section for
//! each type, which are names and never change.

use std::borrow::Cow;
use std::error::Error;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use shared::http::caller::{Auth, Scope, ScopeMapping};
use shared::http::path::PathError;
use shared::http::problem::{Details, type_uri};
pub use shared::http::problem::{Mistake, Place};
use shared::table::{Fault, WriteError};

/// More than a record of 400 KB takes as JSON, unless every character of it is escaped.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// The media type of a patch (RFC 7396).
pub const MERGE_PATCH: &str = "application/merge-patch+json";

/// A failure, by what the client does next.
#[derive(Clone, Debug)]
pub enum Problem {
    /// Nothing has this path.
    UnknownRoute,
    /// What has this path is answered by the relational tier, which is off.
    RelationalTierOff,
    /// What has this path has other methods.
    MethodNotAllowed {
        /// Those that it has.
        allow: &'static str,
    },
    /// Nobody is known to call.
    Unauthenticated {
        /// Who would have let it in.
        auth: Auth,
    },
    /// The caller's token lacks a scope.
    InsufficientScope {
        /// The one that is needed.
        scope: Scope,
        /// How tokens spell it.
        scopes: ScopeMapping,
    },
    /// The body would write for another user.
    ForeignUser {
        /// Where the body names the other user.
        pointer: &'static str,
    },
    /// The path is not in canonical form.
    InvalidPath {
        /// Why not.
        error: PathError,
    },
    /// The path, the query or a header is wrong.
    Request(Vec<Mistake>),
    /// The body did not arrive whole.
    BodyLost,
    /// The body is no JSON.
    MalformedJson {
        /// Where it stops being JSON, from 1.
        line: usize,
        /// Where in the line, from 1.
        column: usize,
        /// Why.
        reason: String,
    },
    /// The body's JSON is no user.
    Body(Vec<Mistake>),
    /// The body is too large to read.
    BodyTooLarge,
    /// The record is too large to store, or to replicate.
    RecordTooLarge {
        /// What is too large, and what is allowed.
        cause: String,
    },
    /// The body says that it is no JSON.
    NotJson,
    /// The body says that it is no merge patch.
    NotAMergePatch,
    /// The body is compressed.
    Encoded,
    /// No such record, or an expired one.
    NotFound,
    /// A record is there already.
    Exists,
    /// Another user has the address.
    EmailTaken,
    /// An earlier request with this idempotency key is under way, for this many seconds at most.
    IdempotencyKeyInUse {
        /// The time left to it.
        seconds: i64,
    },
    /// This idempotency key came with another request.
    IdempotencyKeyReused,
    /// The record is not in the state that a header demands.
    PreconditionFailed,
    /// This deployment takes no write that does not say which state it is over (RFC 6585, section 3).
    PreconditionRequired,
    /// The caller's quota is spent (RFC 6585, section 4).
    RateLimited {
        /// Until one more request may pass.
        seconds: u64,
    },
    /// The table is throttled, out of reach or contended: come again.
    Busy {
        /// For the log alone.
        cause: String,
    },
    /// What was asked takes longer than it may.
    TooSlow {
        /// The longest that it may take.
        seconds: u64,
        /// For the log alone.
        cause: String,
    },
    /// More expired records than are read for one request are newer than the newest live one.
    TooManyExpired,
    /// What is stored is no user.
    Unreadable {
        /// For the log alone.
        cause: String,
    },
    /// The table refuses what only an operator can mend.
    Internal {
        /// For the log alone.
        cause: String,
    },
}

impl Problem {
    /// One parameter of the path or the query is wrong.
    #[must_use]
    pub fn parameter(name: &str, detail: &impl ToString) -> Self {
        Self::Request(vec![Mistake::parameter(name, detail)])
    }

    /// Status, the last part of the type's URI, title, and what to do.
    #[expect(clippy::too_many_lines, reason = "one match, of which each problem has its line")]
    fn parts(&self) -> (StatusCode, &'static str, &'static str, Cow<'static, str>) {
        let (status, kind, title, detail) = match self {
            Self::UnknownRoute => (404, "unknown-route", "unknown route", "no resource has this path".into()),
            Self::RelationalTierOff => (
                404,
                "relational-tier-off",
                "relational tier off",
                "this deployment has no relational replica: deploy it with the parameter RelationalTier, or start local \
                 with --postgres"
                    .into(),
            ),
            Self::MethodNotAllowed { allow } => {
                (405, "method-not-allowed", "method not allowed", format!("this resource has {allow}").into())
            }
            Self::Unauthenticated { auth } => (
                401,
                "unauthenticated",
                "unauthenticated",
                match auth {
                    Auth::Iam => "sign the request (AWS Signature Version 4)".into(),
                    Auth::Jwt | Auth::None => "send authorization: Bearer with a valid token that has a sub".into(),
                },
            ),
            Self::InsufficientScope { scope, scopes } => {
                let [scope, admin] = [*scope, Scope::Admin].map(|scope| scopes.spell(scope));
                let detail = format!("this needs a token with the scope {scope}, or {admin}");
                (403, "insufficient-scope", "insufficient scope", detail.into())
            }
            Self::ForeignUser { .. } => {
                (403, "foreign-user", "another user's record", "a record is written by its own user alone".into())
            }
            Self::InvalidPath { error } => (400, "invalid-path", "invalid path", error.to_string().into()),
            Self::Request(_) => (400, "invalid-request", "invalid request", "correct what `errors` names".into()),
            Self::BodyLost => {
                (400, "body-lost", "incomplete body", "the body did not arrive whole: send it again".into())
            }
            Self::MalformedJson { line, column, reason } => (
                400,
                "malformed-json",
                "malformed JSON",
                format!("the body is no JSON at line {line}, column {column}: {reason}").into(),
            ),
            Self::Body(_) => (422, "invalid-user", "invalid user", "correct what `errors` names".into()),
            Self::BodyTooLarge => {
                (413, "body-too-large", "body too large", format!("send at most {MAX_BODY_BYTES} bytes").into())
            }
            Self::RecordTooLarge { cause } => {
                (413, "record-too-large", "record too large", format!("{cause}: shorten `attributes`").into())
            }
            Self::NotJson => (415, "not-json", "unsupported media type", "send content-type application/json".into()),
            Self::NotAMergePatch => {
                (415, "not-a-merge-patch", "unsupported media type", format!("send content-type {MERGE_PATCH}").into())
            }
            Self::Encoded => (415, "encoded", "unsupported content encoding", "send the body uncompressed".into()),
            Self::NotFound => (404, "not-found", "no such record", "no live record has this key".into()),
            Self::Exists => (
                409,
                "exists",
                "the record exists",
                "a live record has this user_id and timestamp: choose another, or PUT over it".into(),
            ),
            Self::EmailTaken => (
                409,
                "email-taken",
                "the address is taken",
                "another user has this address: correct what `errors` names".into(),
            ),
            Self::IdempotencyKeyInUse { .. } => (
                409,
                "idempotency-key-in-use",
                "request in progress",
                "an earlier request with this idempotency-key is under way: come again for its answer".into(),
            ),
            Self::IdempotencyKeyReused => (
                422,
                "idempotency-key-reused",
                "idempotency key reused",
                "this idempotency-key came with another body: take a new key for a new request".into(),
            ),
            Self::PreconditionFailed => (
                412,
                "precondition-failed",
                "precondition failed",
                "the record is not in the state that if-match or if-none-match demands: read it again (a weak tag, W/\"…\", \
                 never matches if-match: send it without W/)"
                    .into(),
            ),
            Self::PreconditionRequired => (
                428,
                "precondition-required",
                "precondition required",
                "send if-match with the etag of the record as you read it, or if-none-match: * to create it".into(),
            ),
            Self::RateLimited { .. } => {
                (429, "rate-limited", "too many requests", "your quota is spent: wait as retry-after says".into())
            }
            Self::Busy { .. } => (503, "busy", "busy", "the table cannot answer at the moment: come again".into()),
            Self::TooSlow { seconds, .. } => (
                504,
                "too-slow",
                "the question takes too long",
                format!("it took more than {seconds} s: narrow it by status, name, domain or time").into(),
            ),
            Self::TooManyExpired => (
                503,
                "too-many-expired",
                "too many expired records",
                "expired records hide the newest live one until TTL removes them: list the user's records by their cursors".into(),
            ),
            Self::Unreadable { .. } => (
                500,
                "unreadable-record",
                "unreadable record",
                "what is stored under this key is no user: an operator must mend it".into(),
            ),
            Self::Internal { .. } => (500, "internal", "internal error", "an operator must look into it".into()),
        };
        (StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), kind, title, detail)
    }

    /// The answer's status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.parts().0.as_u16()
    }

    /// The problem in a few words.
    #[must_use]
    pub fn title(&self) -> &'static str {
        self.parts().2
    }

    /// The problem's name, which never changes.
    #[must_use]
    pub fn type_uri(&self) -> String {
        type_uri(self.parts().1)
    }

    /// The problem's JSON.
    #[must_use]
    pub fn body(&self, request_id: &str) -> String {
        let (status, kind, title, detail) = self.parts();
        let one = |pointer: &str, detail: &str| vec![Mistake::pointer(pointer, detail)];
        let errors = match self {
            Self::Request(errors) | Self::Body(errors) => Some(Cow::Borrowed(errors)),
            Self::ForeignUser { pointer } => Some(Cow::Owned(one(pointer, "must be the token's sub: leave it out"))),
            Self::EmailTaken => Some(Cow::Owned(one("/email", "is another user's: choose another, or leave it out"))),
            _ => None,
        };
        let place = match self {
            Self::MalformedJson { line, column, .. } => Some((*line, *column)),
            _ => None,
        };
        let errors = errors.as_ref().map(|errors| errors.as_slice());
        Details { kind, title, status: status.as_u16(), detail: &detail, instance: request_id, place, errors }.json()
    }

    /// What the log says beyond the status.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        match self {
            Self::Busy { cause }
            | Self::TooSlow { cause, .. }
            | Self::Unreadable { cause }
            | Self::Internal { cause } => Some(cause),
            _ => None,
        }
    }
}

/// One of each kind, for whoever tells of them all.
#[must_use]
pub fn every() -> Vec<Problem> {
    let cause = || "the cause".to_owned();
    vec![
        Problem::UnknownRoute,
        Problem::RelationalTierOff,
        Problem::MethodNotAllowed { allow: "GET" },
        Problem::Unauthenticated { auth: Auth::Jwt },
        Problem::InsufficientScope { scope: Scope::Read, scopes: ScopeMapping::default() },
        Problem::ForeignUser { pointer: "/user_id" },
        Problem::InvalidPath { error: PathError::EmptySegment },
        Problem::Request(vec![]),
        Problem::BodyLost,
        Problem::MalformedJson { line: 1, column: 2, reason: "x".into() },
        Problem::Body(vec![]),
        Problem::BodyTooLarge,
        Problem::RecordTooLarge { cause: "x".into() },
        Problem::NotJson,
        Problem::NotAMergePatch,
        Problem::Encoded,
        Problem::NotFound,
        Problem::Exists,
        Problem::EmailTaken,
        Problem::IdempotencyKeyInUse { seconds: 7 },
        Problem::IdempotencyKeyReused,
        Problem::PreconditionFailed,
        Problem::PreconditionRequired,
        Problem::RateLimited { seconds: 7 },
        Problem::Busy { cause: cause() },
        Problem::TooSlow { seconds: 5, cause: cause() },
        Problem::TooManyExpired,
        Problem::Unreadable { cause: cause() },
        Problem::Internal { cause: cause() },
    ]
}

/// The body is written by [`crate::observe`], which knows the request's id.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.parts().0.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        let cause = chain(&fault);
        match fault {
            Fault::Throttled(_) | Fault::Unavailable(_) => Self::Busy { cause },
            Fault::TooLarge(_) | Fault::AttributesTooLarge(_) => Self::RecordTooLarge { cause: fault.to_string() },
            Fault::Unreadable(_) => Self::Unreadable { cause },
            Fault::Refused(_) => Self::Internal { cause },
        }
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Absent => Self::NotFound,
            WriteError::Exists => Self::Exists,
            WriteError::EmailTaken => Self::EmailTaken,
            WriteError::PreconditionFailed => Self::PreconditionFailed,
            WriteError::Contended => Self::Busy { cause: error.to_string() },
            WriteError::Fault(fault) => fault.into(),
        }
    }
}

/// An error with its sources. Their `Debug` may hold an item; their `Display` does not.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
