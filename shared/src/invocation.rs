//! The parameters of an invocation: the current time and the deadline for its work; and the time budget of an HTTP
//! request.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;

/// Subtracted from the deadline, so that the response still reaches Lambda: the response of a timed-out invocation is
/// lost, and the whole batch is redelivered.
pub const RESPONSE_MARGIN: Duration = Duration::from_millis(1_500);

/// The parameters of an invocation.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The time at the start of the invocation.
    pub now: OffsetDateTime,
    /// The time at which to stop working and to respond with the unfinished part.
    pub deadline: Instant,
    /// Lambda's request ID, for the log.
    pub request_id: String,
}

impl Invocation {
    /// Creates an invocation that has `remaining` time until its caller times out.
    ///
    /// The margin for the response is subtracted here; it is at most half of `remaining`.
    #[must_use]
    pub fn new(now: OffsetDateTime, started: Instant, remaining: Duration, request_id: String) -> Self {
        let margin = RESPONSE_MARGIN.min(remaining / 2);
        Self { now, deadline: started + remaining.saturating_sub(margin), request_id }
    }
}

/// Subtracted from a request's time for its work, so that the result can still be delivered: to the cache, and in a
/// response of several megabytes.
const WORK_MARGIN: Duration = Duration::from_secs(1);
/// Subtracted for a response that only reports a timeout.
const TIMEOUT_RESPONSE_MARGIN: Duration = Duration::from_millis(500);

/// The time budget of an HTTP request, which is shorter than the function's timeout: a request that Lambda terminates
/// gets no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestBudget {
    work_until: Instant,
    respond_by: Instant,
}

impl RequestBudget {
    /// The time budget of a request without a given limit: API Gateway waits no longer.
    pub const DEFAULT: Duration = Duration::from_secs(30);

    /// Creates the budget of a request that has `remaining` time until its caller times out. The margins take at most
    /// half of `remaining`.
    #[must_use]
    pub fn new(started: Instant, remaining: Duration) -> Self {
        let before = |margin: Duration, part| started + remaining.saturating_sub(margin.min(remaining / part));
        Self { work_until: before(WORK_MARGIN, 2), respond_by: before(TIMEOUT_RESPONSE_MARGIN, 4) }
    }

    /// Returns the time at which to stop calling tables and databases.
    #[must_use]
    pub fn work_until(&self) -> Instant {
        self.work_until
    }

    /// Returns the time at which to respond, whatever is still in progress.
    #[must_use]
    pub fn respond_by(&self) -> Instant {
        self.respond_by
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_has_time_to_reach_lambda() {
        let started = Instant::now();
        let of = |remaining| {
            Invocation::new(OffsetDateTime::UNIX_EPOCH, started, remaining, String::new()).deadline - started
        };
        assert_eq!(of(Duration::from_mins(1)), Duration::from_millis(58_500));
        assert_eq!(of(Duration::from_secs(1)), Duration::from_millis(500));
        assert_eq!(of(Duration::ZERO), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_request_ends_before_its_function() {
        let started = Instant::now();
        let of = |millis| {
            let budget = RequestBudget::new(started, Duration::from_millis(millis));
            [budget.work_until() - started, budget.respond_by() - started].map(|time| time.as_millis())
        };
        assert_eq!(of(10_000), [9_000, 9_500]);
        assert_eq!(of(1_000), [500, 750]);
        assert_eq!(of(0), [0, 0]);
        for millis in (0..20_000).step_by(37) {
            let [work, respond_by] = of(millis);
            assert!(work <= respond_by && (respond_by < millis.into() || millis == 0), "{millis}");
        }
    }
}
