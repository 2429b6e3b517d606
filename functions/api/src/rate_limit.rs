//! The rate limit: a token bucket per caller in the cache, measured by the cache's clock. If the cache does not
//! respond, the request is allowed: the limit protects the table from load, and no record depends on it.
//!
//! The response headers are those of draft-ietf-httpapi-ratelimit-headers-10.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use millrace_http::problem::Problem;
use millrace_shared::cache::{CacheConnection, QuotaDecision, RequestQuota};
use millrace_shared::http::caller::Caller;
use millrace_shared::metric;

use crate::cache::client::CacheClient;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// The longest window, one day: a longer one is more likely a mistyped unit than intended.
const MAX_SECONDS: u32 = 86_400;

/// A quota, and the cache that counts it.
#[derive(Clone, Debug)]
pub(crate) struct RateLimiter {
    pub(crate) cache: CacheClient,
    pub(crate) quota: RequestQuota,
}

impl RateLimiter {
    /// Takes one request from the caller's quota. Returns `None` if the cache does not respond.
    async fn try_acquire(&self, caller: &str) -> Option<QuotaDecision> {
        let call = async |connection: &CacheConnection| connection.try_acquire(caller, self.quota).await;
        self.cache.call(call).await.map(|(_, decision)| decision)
    }
}

/// Parses `<requests>/<seconds>s`, optionally followed by ` burst <requests>`: the number of requests that are allowed
/// at once after an idle period. Without it, the burst equals the requests of a window.
///
/// # Errors
/// The text has another format.
pub(crate) fn quota(text: &str) -> Result<RequestQuota, String> {
    let (rate, burst) = text.split_once(" burst ").map_or((text, None), |(rate, burst)| (rate, Some(burst)));
    let parsed = rate.split_once('/').and_then(|(requests, window)| {
        let requests: u32 = requests.parse().ok()?;
        let seconds: u32 = window.strip_suffix('s')?.parse().ok()?;
        let burst = burst.map_or(Some(requests), |burst| burst.parse().ok())?;
        let sound = requests >= 1 && burst >= 1 && (1..=MAX_SECONDS).contains(&seconds);
        sound.then_some(RequestQuota { requests, seconds, burst })
    });
    parsed.ok_or_else(|| {
        format!(
            "is {text:?}: set it to <requests>/<seconds>s or <requests>/<seconds>s burst <requests>, with 1–{} requests \
             in 1–{MAX_SECONDS} seconds",
            u32::MAX
        )
    })
}

/// Allows a caller's request, or responds with the time after which to retry. An unauthenticated request has no quota
/// and is allowed.
pub(crate) async fn enforce_rate_limit(
    State(limit): State<Option<RateLimiter>>,
    request: Request,
    next: Next,
) -> Response {
    let (Some(limit), Some(caller)) = (limit, request.extensions().get::<Caller>()) else {
        return next.run(request).await;
    };
    let Some(decision) = limit.try_acquire(caller.name()).await else {
        return next.run(request).await;
    };
    let (mut response, remaining, time) = match decision {
        QuotaDecision::Allowed { remaining, full_in } => (next.run(request).await, remaining, full_in),
        QuotaDecision::Limited { next_in } => {
            metric::RATE_LIMITED_REQUESTS.increment([], 1);
            (Problem::RateLimited { seconds: whole_seconds(next_in) }.into_response(), 0, next_in)
        }
    };
    set_rate_limit_headers(response.headers_mut(), limit.quota, remaining, time);
    response
}

fn set_rate_limit_headers(headers: &mut HeaderMap, quota: RequestQuota, remaining: u32, time: Duration) {
    let RequestQuota { requests, seconds, .. } = quota;
    let policy = format!("\"caller\";q={requests};w={seconds}");
    let left = format!("\"caller\";r={remaining};t={}", whole_seconds(time));
    for (name, value) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, left)] {
        headers.extend(HeaderValue::try_from(value).map(|value| (name, value)));
    }
}

/// Returns the seconds, rounded up, so that a client that waits this long does not retry too early.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_has_one_spelling() {
        assert_eq!(quota("100/1s burst 200"), Ok(RequestQuota { requests: 100, seconds: 1, burst: 200 }));
        assert_eq!(quota("600/60s"), Ok(RequestQuota { requests: 600, seconds: 60, burst: 600 }));
        for text in
            ["", "100", "100/s", "100/1", "0/1s", "1/0s", "1/1s burst 0", "1/1sburst 2", "-1/1s", "1/90000s", "1/1m"]
        {
            assert!(quota(text).unwrap_err().contains("<requests>/<seconds>s"), "{text}");
        }
    }

    #[test]
    fn seconds_are_rounded_up() {
        let seconds = [0, 1, 999, 1_000, 1_001].map(|millis| whole_seconds(Duration::from_millis(millis)));
        assert_eq!(seconds, [0, 1, 1, 1, 2]);
    }
}
