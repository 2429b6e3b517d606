//! What an invocation is told by whoever invokes it: the time, and until when it may work.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;

/// Taken off the deadline, so that the answer still reaches Lambda: a timed-out invocation's answer is lost and the
/// whole batch comes again.
pub const ANSWERING_MARGIN: Duration = Duration::from_millis(1_500);

/// One invocation's circumstances.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The time at its start.
    pub now: OffsetDateTime,
    /// When to stop working and answer with what was not finished.
    pub stop_at: Instant,
    /// Lambda's request id, for the log.
    pub request_id: String,
}

impl Invocation {
    /// An invocation that has `remaining` time until its caller gives up.
    ///
    /// The margin for the answer is taken off here; of a very short time, half.
    #[must_use]
    pub fn new(now: OffsetDateTime, started: Instant, remaining: Duration, request_id: String) -> Self {
        let margin = ANSWERING_MARGIN.min(remaining / 2);
        Self { now, stop_at: started + remaining.saturating_sub(margin), request_id }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_has_time_to_reach_lambda() {
        let started = Instant::now();
        let of = |remaining| {
            Invocation::new(OffsetDateTime::UNIX_EPOCH, started, remaining, String::new()).stop_at - started
        };
        assert_eq!(of(Duration::from_mins(1)), Duration::from_millis(58_500));
        assert_eq!(of(Duration::from_secs(1)), Duration::from_millis(500));
        assert_eq!(of(Duration::ZERO), Duration::ZERO);
    }
}
