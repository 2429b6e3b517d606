//! How a mapping delivers: [`MappingSettings`], read from the template's mapping.

use std::time::Duration;

use crate::template::MappingResource;

/// Lambda's limit for a synchronous invocation's payload.
const PAYLOAD_BYTES: usize = 6 * 1024 * 1024;
/// `{"Records":[` and `]}`.
const FRAME_BYTES: usize = 14;

/// An event source mapping's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappingSettings {
    /// The most records in a batch; at least 1.
    pub batch_size: usize,
    /// The most bytes in a batch; a single record may exceed it.
    pub batch_bytes: usize,
    /// How long a batch that is not full waits for more records.
    pub window: Duration,
    /// How many batches of a shard are in flight at once; at least 1. The order per item holds at any number.
    pub lanes: usize,
    /// How often a batch is delivered again; `None` is for ever.
    pub max_retries: Option<u32>,
    /// Records older than this are discarded; `None` is never.
    pub max_age: Option<Duration>,
    /// Halve a failed batch instead of retrying it whole.
    pub bisect: bool,
    /// `ReportBatchItemFailures`: without it a function's answer is ignored.
    pub partial_answers: bool,
    /// The wait before the first retry; it doubles with each further one.
    pub first_back_off: Duration,
    /// The longest wait before a retry.
    pub longest_back_off: Duration,
}

impl Default for MappingSettings {
    /// Lambda's own defaults for a stream.
    fn default() -> Self {
        Self {
            batch_size: 100,
            batch_bytes: PAYLOAD_BYTES - FRAME_BYTES,
            window: Duration::ZERO,
            lanes: 1,
            max_retries: None,
            max_age: None,
            bisect: false,
            partial_answers: false,
            first_back_off: Duration::from_millis(100),
            longest_back_off: Duration::from_secs(10),
        }
    }
}

impl MappingSettings {
    /// The settings of a mapping as the template has it, its window no longer than `longest_window` if that is given.
    #[must_use]
    pub fn of(mapping: &MappingResource, longest_window: Option<Duration>) -> Self {
        let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX).max(1);
        let window = Duration::from_secs(mapping.window_s.into());
        Self {
            batch_size: count(mapping.batch_size),
            window: longest_window.map_or(window, |longest| window.min(longest)),
            lanes: count(mapping.parallelization_factor),
            // -1 is without end.
            max_retries: u32::try_from(mapping.maximum_retry_attempts).ok(),
            max_age: u64::try_from(mapping.maximum_record_age_s).ok().map(Duration::from_secs),
            bisect: mapping.bisect,
            partial_answers: mapping.report_batch_item_failures,
            ..Self::default()
        }
    }

    /// The wait before the retry that follows `retries` others.
    #[must_use]
    pub fn back_off(&self, retries: u32) -> Duration {
        let factor = 2_u32.checked_pow(retries).unwrap_or(u32::MAX);
        self.first_back_off.saturating_mul(factor).min(self.longest_back_off)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_back_off_doubles_up_to_its_longest() {
        let settings = MappingSettings::default();
        assert_eq!(settings.back_off(0), Duration::from_millis(100));
        assert_eq!(settings.back_off(3), Duration::from_millis(800));
        assert_eq!(settings.back_off(7), Duration::from_secs(10));
        assert_eq!(settings.back_off(u32::MAX), Duration::from_secs(10));
    }
}
