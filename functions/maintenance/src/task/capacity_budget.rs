//! Limits the capacity units that a scan consumes per second, so that a task does not use more of a table than it may.

use std::time::Duration;

use tokio::time::Instant;

use super::request::{InvalidRequest, in_range};

/// Maximum number of segments that the state machine and `millrace task` process concurrently.
pub const MAX_CONCURRENT_SEGMENTS: u8 = 10;

/// A budget of capacity units per second. One page may overdraw it; the next page is then delayed. Unused capacity is
/// not saved for later.
#[derive(Debug)]
pub struct CapacityBudget {
    units_a_second: Option<f64>,
    /// The time at which the budget has refilled from the units consumed so far.
    paid_until: Instant,
}

impl CapacityBudget {
    /// Validates the field `max_read_capacity_units`.
    ///
    /// # Errors
    /// [`InvalidRequest`] if the number is out of its range.
    pub(super) fn parse(units_a_second: Option<u32>) -> Result<Option<u32>, InvalidRequest> {
        in_range("max_read_capacity_units", units_a_second, 1..=1_000_000)
    }

    /// Creates a budget of this many units per second, divided evenly among the segments that run concurrently. `None`
    /// means unlimited.
    #[must_use]
    pub fn new(units_a_second: Option<u32>, segments: u32, now: Instant) -> Self {
        let share =
            units_a_second.map(|units| f64::from(units) / f64::from(segments.clamp(1, MAX_CONCURRENT_SEGMENTS.into())));
        Self { units_a_second: share, paid_until: now }
    }

    /// Subtracts consumed units from the budget.
    pub fn spend(&mut self, units: f64, now: Instant) {
        let Some(rate) = self.units_a_second else { return };
        let cost = Duration::try_from_secs_f64(units / rate).unwrap_or_default();
        self.paid_until = self.paid_until.max(now) + cost;
    }

    /// Returns the time from which on the next page may be read.
    #[must_use]
    pub fn next_permit_at(&self) -> Instant {
        self.paid_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spent_capacity_delays_the_next_permit_and_idle_time_earns_none() {
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
    fn capacity_is_shared_only_among_concurrent_segments() {
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
