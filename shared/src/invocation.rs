//! What an invocation is told by whoever invokes it: the time, and until when it may work; and what one HTTP request has of
//! it.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;

/// Taken off the deadline, so that the answer still reaches Lambda: a timed-out invocation's answer is lost and the
/// whole batch comes again.
pub const RESPONSE_MARGIN: Duration = Duration::from_millis(1_500);

/// One invocation's circumstances.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The time at its start.
    pub now: OffsetDateTime,
    /// When to stop working and answer with what was not finished.
    pub deadline: Instant,
    /// Lambda's request id, for the log.
    pub request_id: String,
}

impl Invocation {
    /// An invocation that has `remaining` time until its caller gives up.
    ///
    /// The margin for the answer is taken off here; of a very short time, half.
    #[must_use]
    pub fn new(now: OffsetDateTime, started: Instant, remaining: Duration, request_id: String) -> Self {
        let margin = RESPONSE_MARGIN.min(remaining / 2);
        Self { now, deadline: started + remaining.saturating_sub(margin), request_id }
    }
}

/// Taken off a request's time for the work, so that what came of it can still be said: to the cache, and in an answer of
/// megabytes.
const WORK_MARGIN: Duration = Duration::from_secs(1);
/// Taken off for an answer that says no more than that the time was up.
const ANSWER_MARGIN: Duration = Duration::from_millis(500);

/// The time of one HTTP request, which is less than the function's: one that Lambda kills answers nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestBudget {
    work_until: Instant,
    answer_by: Instant,
}

impl RequestBudget {
    /// The time of a request of which nobody says how long it may take: API Gateway waits no longer.
    pub const DEFAULT: Duration = Duration::from_secs(30);

    /// A request that has `remaining` time until its caller gives up. Of a very short time the margins take a half at most.
    #[must_use]
    pub fn new(started: Instant, remaining: Duration) -> Self {
        let before = |margin: Duration, part| started + remaining.saturating_sub(margin.min(remaining / part));
        Self { work_until: before(WORK_MARGIN, 2), answer_by: before(ANSWER_MARGIN, 4) }
    }

    /// When to stop calling tables and databases.
    #[must_use]
    pub fn work_until(&self) -> Instant {
        self.work_until
    }

    /// When to answer, whatever is under way.
    #[must_use]
    pub fn answer_by(&self) -> Instant {
        self.answer_by
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
            [budget.work_until() - started, budget.answer_by() - started].map(|time| time.as_millis())
        };
        assert_eq!(of(10_000), [9_000, 9_500]);
        assert_eq!(of(1_000), [500, 750]);
        assert_eq!(of(0), [0, 0]);
        for millis in (0..20_000).step_by(37) {
            let [work, answer] = of(millis);
            assert!(work <= answer && (answer < millis.into() || millis == 0), "{millis}");
        }
    }
}
