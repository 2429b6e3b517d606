//! Keeps a scan to so many capacity units a second, so that a task takes no more of a table than it was given.

use std::time::Duration;

use tokio::time::Instant;

/// So many segments are gone about at once: by the state machine, and by `local task`.
const MAX_CONCURRENT_SEGMENTS: u32 = 10;

/// A budget that fills as time passes; it may be overdrawn by one page, which is then waited for.
#[derive(Debug)]
pub struct CapacityBudget {
    units_a_second: Option<f64>,
    /// Until when the units spent so far are paid for.
    paid_until: Instant,
}

impl CapacityBudget {
    /// So many units a second, shared evenly by those of so many segments that are gone about at once; `None` is without a
    /// limit.
    #[must_use]
    pub fn new(units_a_second: Option<u32>, segments: u32, now: Instant) -> Self {
        let share =
            units_a_second.map(|units| f64::from(units) / f64::from(segments.clamp(1, MAX_CONCURRENT_SEGMENTS)));
        Self { units_a_second: share, paid_until: now }
    }

    /// Tells that units were spent.
    pub fn spend(&mut self, units: f64, now: Instant) {
        let Some(rate) = self.units_a_second else { return };
        let cost = Duration::try_from_secs_f64(units / rate).unwrap_or_default();
        self.paid_until = self.paid_until.max(now) + cost;
    }

    /// When the next page may be asked for.
    #[must_use]
    pub fn next_permit_at(&self) -> Instant {
        self.paid_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_is_waited_for_and_idleness_is_not_saved_up() {
        let start = Instant::now();
        let mut pace = CapacityBudget::new(Some(100), 2, start);
        assert_eq!(pace.next_permit_at(), start);
        pace.spend(25.0, start);
        assert_eq!(pace.next_permit_at() - start, Duration::from_millis(500));
        let later = start + Duration::from_secs(10);
        pace.spend(50.0, later);
        assert_eq!(pace.next_permit_at() - later, Duration::from_secs(1));
    }

    #[test]
    fn what_waits_for_its_turn_has_no_share() {
        let start = Instant::now();
        for (segments, seconds) in [(1, 1), (10, 10), (1_000, 10)] {
            let mut pace = CapacityBudget::new(Some(100), segments, start);
            pace.spend(100.0, start);
            assert_eq!(pace.next_permit_at() - start, Duration::from_secs(seconds));
        }
    }

    #[test]
    fn without_a_limit_nothing_is_waited_for() {
        let start = Instant::now();
        let mut pace = CapacityBudget::new(None, 1, start);
        pace.spend(1e9, start);
        assert_eq!(pace.next_permit_at(), start);
    }
}
