//! Retry decisions, as in the standard mode of the AWS SDKs: [`retryable_kind`], [`backoff`] and [`RetryQuota`].
//!
//! The table of retryable failures is that of the SDK for Rust (`aws-runtime`, `aws-smithy-runtime`), and one addition:
//! an expired token is retried with new credentials.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use aws_smithy_types::retry::{ErrorKind, RetryConfig};

/// Error codes of requests that the service throttles.
const THROTTLING_CODES: [&str; 14] = [
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "LimitExceededException",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "TransactionInProgressException",
];
/// Error codes of requests that arrived too slowly.
const TRANSIENT_CODES: [&str; 2] = ["RequestTimeout", "RequestTimeoutException"];
/// Error codes that the service's model declares retryable.
const MODELED_CODES: [&str; 1] = ["ReplicatedWriteConflictException"];
/// Error codes of requests whose signature is not accepted; the reason may be a clock that differs from the service's.
const SKEW_CODES: [&str; 5] = [
    "AccessDeniedException",
    "AuthFailure",
    "InvalidSignatureException",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
];
/// Error codes of requests that were signed with credentials that have expired.
const EXPIRED_CODES: [&str; 2] = ["ExpiredToken", "ExpiredTokenException"];
/// Statuses that are retryable, whatever the error code is.
const TRANSIENT_STATUSES: [u16; 4] = [500, 502, 503, 504];

/// The tokens of a full [`RetryQuota`].
const QUOTA: u32 = 500;
const RETRY_COST: u32 = 5;
const TIMEOUT_COST: u32 = 10;

/// A response with an error, as far as the retry decision depends on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ErrorResponse<'r> {
    pub(crate) status: u16,
    pub(crate) code: Option<&'r str>,
    /// Whether the service's clock differs from the time of the signature by more than the service accepts.
    pub(crate) is_skewed: bool,
}

/// Returns the kind of a failure after which the same request may succeed; `None` if it is not retryable.
pub(crate) fn retryable_kind(response: ErrorResponse<'_>) -> Option<ErrorKind> {
    let code = response.code.unwrap_or_default();
    if THROTTLING_CODES.contains(&code) {
        return Some(ErrorKind::ThrottlingError);
    }
    if TRANSIENT_CODES.contains(&code) || TRANSIENT_STATUSES.contains(&response.status) {
        return Some(ErrorKind::TransientError);
    }
    if MODELED_CODES.contains(&code) {
        return Some(ErrorKind::ClientError);
    }
    let is_corrected = is_expired_token(code) || (response.is_skewed && SKEW_CODES.contains(&code));
    is_corrected.then_some(ErrorKind::ServerError)
}

/// Returns whether the error code means that the credentials have expired.
pub(crate) fn is_expired_token(code: &str) -> bool {
    EXPIRED_CODES.contains(&code)
}

/// Returns the pause before the retry that follows `attempt` (from 1): exponential with full jitter, where `jitter` is
/// a random number from 0 to 1. The service can request another pause.
pub(crate) fn backoff(
    config: &RetryConfig,
    kind: ErrorKind,
    attempt: u32,
    requested: Option<Duration>,
    jitter: f64,
) -> Duration {
    if let Some(requested) = requested {
        return requested.min(config.max_backoff());
    }
    let initial = match config.retry_spec() {
        Some(spec) if kind != ErrorKind::ThrottlingError => spec.non_throttling_initial_backoff(),
        _ => config.initial_backoff(),
    };
    let exponential = 2_u32.checked_pow(attempt.saturating_sub(1)).and_then(|factor| initial.checked_mul(factor));
    let longest = exponential.map_or(config.max_backoff(), |pause| pause.min(config.max_backoff()));
    longest.mul_f64(jitter)
}

/// The retry quota of a client: retries take tokens, and successful requests return them. Without tokens a failure is
/// final, so that an outage does not multiply the requests.
#[derive(Debug)]
pub(crate) struct RetryQuota(Mutex<u32>);

/// The decision on retries after a failure that several requests share: one of them takes the tokens.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedCharge(Arc<OnceLock<bool>>);

impl Default for RetryQuota {
    fn default() -> Self {
        Self(Mutex::new(QUOTA))
    }
}

impl RetryQuota {
    /// Returns the tokens.
    pub(crate) fn tokens(&self) -> MutexGuard<'_, u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the tokens of a retry; returns their number, or `None` if there are not enough.
    pub(crate) fn acquire(&self, kind: ErrorKind) -> Option<u32> {
        let cost = if kind == ErrorKind::TransientError { TIMEOUT_COST } else { RETRY_COST };
        let mut tokens = self.tokens();
        *tokens = tokens.checked_sub(cost)?;
        Some(cost)
    }

    /// As [`Self::acquire`], once for all requests that share a failure: the number is 0 for all but the first.
    pub(crate) fn acquire_shared(&self, kind: ErrorKind, charge: &SharedCharge) -> Option<u32> {
        let mut taken = Some(0);
        let is_granted = *charge.0.get_or_init(|| {
            taken = self.acquire(kind);
            taken.is_some()
        });
        taken.filter(|_| is_granted)
    }

    /// Returns the tokens of the last retry of a request that succeeded, or one token if it was not retried.
    pub(crate) fn release(&self, taken: Option<u32>) {
        let mut tokens = self.tokens();
        *tokens = (*tokens + taken.unwrap_or(1)).min(QUOTA);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(status: u16, code: &str, is_skewed: bool) -> Option<ErrorKind> {
        retryable_kind(ErrorResponse { status, code: Some(code), is_skewed })
    }

    #[test]
    fn retry_table_is_that_of_the_sdk() {
        for code in THROTTLING_CODES {
            assert_eq!(kind(400, code, false), Some(ErrorKind::ThrottlingError), "{code}");
            assert_eq!(kind(500, code, false), Some(ErrorKind::ThrottlingError), "{code}");
        }
        for status in TRANSIENT_STATUSES {
            assert_eq!(kind(status, "InternalServerError", false), Some(ErrorKind::TransientError), "{status}");
        }
        assert_eq!(kind(400, "RequestTimeout", false), Some(ErrorKind::TransientError));
        assert_eq!(kind(400, "ReplicatedWriteConflictException", false), Some(ErrorKind::ClientError));
        assert_eq!(retryable_kind(ErrorResponse { status: 501, code: None, is_skewed: true }), None);
        for code in ["ConditionalCheckFailedException", "ValidationException", "TransactionConflictException"] {
            assert_eq!(kind(400, code, true), None, "{code}");
        }
    }

    #[test]
    fn retry_table_is_compared_with_the_lists_of_the_sdk() {
        // A code that a later version of the SDK adds is noticed here.
        let theirs: std::collections::BTreeSet<_> = aws_runtime_lists().into_iter().collect();
        let ours: std::collections::BTreeSet<_> = THROTTLING_CODES.into_iter().chain(TRANSIENT_CODES).collect();
        assert_eq!(ours, theirs);
    }

    fn aws_runtime_lists() -> Vec<&'static str> {
        use aws_runtime::retries::classifiers::{THROTTLING_ERRORS, TRANSIENT_ERRORS};
        [THROTTLING_ERRORS, TRANSIENT_ERRORS].concat()
    }

    #[test]
    fn rejected_signature_is_retried_only_if_the_clock_was_wrong() {
        for code in SKEW_CODES {
            assert_eq!(kind(400, code, true), Some(ErrorKind::ServerError), "{code}");
            assert_eq!(kind(400, code, false), None, "{code}");
        }
        assert_eq!(kind(400, "ExpiredTokenException", false), Some(ErrorKind::ServerError));
    }

    #[test]
    fn backoff_doubles_up_to_the_limit_with_full_jitter() {
        let config = RetryConfig::standard().with_initial_backoff(Duration::from_millis(100));
        let config = config.with_max_backoff(Duration::from_millis(500));
        let pause = |attempt, jitter| backoff(&config, ErrorKind::ThrottlingError, attempt, None, jitter).as_millis();
        assert_eq!([1, 2, 3, 4, 40].map(|attempt| pause(attempt, 1.0)), [100, 200, 400, 500, 500]);
        assert_eq!([0.0, 0.25, 0.5].map(|jitter| pause(3, jitter)), [0, 100, 200]);
        let requested =
            |millis| backoff(&config, ErrorKind::TransientError, 1, Some(Duration::from_millis(millis)), 0.0);
        assert_eq!([50, 9_000].map(|millis| requested(millis).as_millis()), [50, 500]);
    }

    #[test]
    fn quota_ends_retries_and_successes_refill_it() {
        let quota = RetryQuota::default();
        for _ in 0..50 {
            assert_eq!(quota.acquire(ErrorKind::TransientError), Some(10));
        }
        assert_eq!(quota.acquire(ErrorKind::ThrottlingError), None);
        quota.release(Some(10));
        assert_eq!(quota.acquire(ErrorKind::ThrottlingError), Some(5));
        (0..1_000).for_each(|_| quota.release(None));
        assert_eq!(*quota.0.lock().unwrap(), QUOTA);
    }

    #[test]
    fn failure_that_requests_share_takes_tokens_once() {
        let quota = RetryQuota::default();
        for _ in 0..50 {
            let charge = SharedCharge::default();
            let taken = [(); 3].map(|()| quota.acquire_shared(ErrorKind::TransientError, &charge));
            assert_eq!(taken, [Some(10), Some(0), Some(0)]);
        }
        let charge = SharedCharge::default();
        assert_eq!([(); 2].map(|()| quota.acquire_shared(ErrorKind::TransientError, &charge)), [None, None]);
        // The decision lasts, although there are tokens now.
        quota.release(Some(10));
        assert_eq!(quota.acquire_shared(ErrorKind::TransientError, &charge), None);
    }
}
