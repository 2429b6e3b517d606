//! Extractors for a request's path: a record's key, and the prefix that precedes the route.
//!
//! A key of another user is rejected here, after the check for malformed keys and before anything else is read, so no
//! handler ever receives one.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use millrace_shared::user::id::UserId;
use millrace_shared::user::{Timestamp, UserKey};

use crate::auth::require_owner;
use crate::problem::{FieldError, Problem};

/// The prefix that was removed from the request's path before routing; the paths in a response start with it, too.
#[derive(Clone, Debug, Default)]
pub struct StagePrefix(pub String);

impl<S: Send + Sync> FromRequestParts<S> for StagePrefix {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// `/users/{user_id}`
pub struct UserIdPath(pub UserId);

/// `/users/{user_id}/{timestamp}`
pub struct UserKeyPath(pub UserKey);

impl<S: Send + Sync> FromRequestParts<S> for UserIdPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = params(parts, state).await?;
        let id = UserId::parse(param(&params, "user_id")).map_err(|error| Problem::parameter("user_id", &error))?;
        require_owner(parts, &id).map(|()| Self(id))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for UserKeyPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = params(parts, state).await?;
        let id = UserId::parse(param(&params, "user_id")).map_err(|error| FieldError::parameter("user_id", &error));
        let timestamp = parse_epoch_seconds(param(&params, "timestamp"))
            .map_err(|error| FieldError::parameter("timestamp", &error));
        match (id, timestamp) {
            (Ok(id), Ok(timestamp)) => require_owner(parts, &id).map(|()| Self(UserKey { id, timestamp })),
            (id, timestamp) => Err(Problem::Request([id.err(), timestamp.err()].into_iter().flatten().collect())),
        }
    }
}

/// Axum has decoded the percent-encoding; a path that is not valid UTF-8 afterwards contains no valid identifier.
async fn params<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<RawPathParams, Problem> {
    RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|_| Problem::parameter("user_id", &"the path is not percent-encoded UTF-8"))
}

fn param<'a>(params: &'a RawPathParams, name: &str) -> &'a str {
    params.iter().find(|(param, _)| *param == name).map_or("", |(_, value)| value)
}

/// Parses seconds in canonical decimal format: a resource has exactly one path, so `007` and `+7` are not accepted for
/// `7`.
///
/// # Errors
/// The text has another format.
pub fn parse_epoch_seconds(text: &str) -> Result<Timestamp, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    match text.parse() {
        Ok(seconds) if digits => Timestamp::parse(seconds).map_err(|error| error.to_string()),
        _ => Err("must be whole seconds since 1970, in decimal without leading zeros".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_one_spelling() {
        assert_eq!(parse_epoch_seconds("0").unwrap().seconds(), 0);
        assert_eq!(parse_epoch_seconds("1700000000").unwrap().seconds(), 1_700_000_000);
        for text in ["", "-1", "+1", "007", "1.0", "1e3", " 1", "latest", "99999999999999999999", "1700000000000"] {
            assert!(parse_epoch_seconds(text).is_err(), "{text:?}");
        }
    }
}
