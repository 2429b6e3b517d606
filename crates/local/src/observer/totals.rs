//! Counters and lag of a sink over the last minute and the last hour: [`SinkTotals`].

use std::collections::VecDeque;
use std::sync::Arc;

use time::OffsetDateTime;

use super::ChangeVerdict;

/// The number of points of each plot.
const POINTS: usize = 60;
const MINUTE: i64 = 60;

/// The changes of one second or one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LagPoint {
    /// The start of the interval, in seconds since 1970.
    pub second: i64,
    /// The number of changes.
    pub changes: u64,
    /// The largest lag of a written change, in milliseconds.
    pub lag_ms: u64,
}

/// The counters of a sink since the start.
#[derive(Debug, Clone)]
pub struct SinkTotals {
    /// The sink's name.
    pub sink: Arc<str>,
    /// The lag of the last written change, in milliseconds.
    pub lag_ms: Option<u64>,
    /// One point per second with changes, of the last minute.
    pub last_minute: VecDeque<LagPoint>,
    /// One point per minute with changes, of the last hour.
    pub last_hour: VecDeque<LagPoint>,
    counts: [u64; ChangeVerdict::ALL.len()],
}

impl SinkTotals {
    pub(super) fn new(sink: Arc<str>) -> Self {
        Self {
            sink,
            lag_ms: None,
            last_minute: VecDeque::new(),
            last_hour: VecDeque::new(),
            counts: [0; ChangeVerdict::ALL.len()],
        }
    }

    /// Returns the number of changes with this verdict.
    #[must_use]
    pub fn count_of(&self, verdict: ChangeVerdict) -> u64 {
        self.counts[verdict as usize]
    }

    pub(super) fn count(&mut self, verdict: ChangeVerdict, lag_ms: Option<u64>, now: OffsetDateTime) {
        self.counts[verdict as usize] += 1;
        // Only a written change shows how far behind the sink was: a late redelivery of an old record is old.
        let is_written = matches!(verdict, ChangeVerdict::Applied | ChangeVerdict::Tombstone);
        let lag = lag_ms.filter(|_| is_written);
        if lag.is_some() {
            self.lag_ms = lag;
        }
        let second = now.unix_timestamp();
        add(&mut self.last_minute, second, 1, lag.unwrap_or(0));
        add(&mut self.last_hour, second - second.rem_euclid(MINUTE), MINUTE, lag.unwrap_or(0));
    }
}

fn add(points: &mut VecDeque<LagPoint>, second: i64, step: i64, lag_ms: u64) {
    let oldest = second - step * i64::try_from(POINTS).unwrap_or(i64::MAX);
    while points.front().is_some_and(|point| point.second <= oldest) || points.len() > POINTS {
        points.pop_front();
    }
    match points.back_mut() {
        Some(point) if point.second == second => {
            point.changes += 1;
            point.lag_ms = point.lag_ms.max(lag_ms);
        }
        _ => points.push_back(LagPoint { second, changes: 1, lag_ms }),
    }
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;

    #[test]
    fn points_are_bounded_and_only_written_changes_have_a_lag() {
        let mut totals = SinkTotals::new("copy".into());
        let mut now = OffsetDateTime::UNIX_EPOCH;
        for second in 0..10_000_u64 {
            totals.count(ChangeVerdict::Applied, Some(second), now);
            totals.count(ChangeVerdict::Stale, Some(1_000_000), now);
            now += Duration::SECOND;
        }
        assert_eq!(totals.last_minute.len(), POINTS);
        assert!(totals.last_hour.len() <= POINTS + 1);
        assert_eq!(totals.last_minute.back(), Some(&LagPoint { second: 9_999, changes: 2, lag_ms: 9_999 }));
        assert_eq!((totals.lag_ms, totals.count_of(ChangeVerdict::Stale)), (Some(9_999), 10_000));
    }
}
