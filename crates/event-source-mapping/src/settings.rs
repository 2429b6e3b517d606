//! Delivery settings of a mapping, read from the template: [`MappingSettings`].

use std::time::Duration;

/// Lambda's limit for the payload of a synchronous invocation.
const PAYLOAD_BYTES: usize = 6 * 1024 * 1024;
/// The length of `{"Records":[` and `]}`.
const FRAME_BYTES: usize = 14;

/// Settings of an event source mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappingSettings {
    /// The maximum number of records in a batch; at least 1.
    pub batch_size: usize,
    /// The maximum number of bytes in a batch; a single record may exceed it.
    pub batch_bytes: usize,
    /// The time that a batch below the maximum size waits for more records.
    pub window: Duration,
    /// The number of batches per shard that are in flight concurrently; at least 1. The order per item is preserved
    /// with any number.
    pub lanes: usize,
    /// The number of times that a failed batch is redelivered; `None` for no limit.
    pub max_retries: Option<u32>,
    /// Records older than this are discarded; `None` for no limit.
    pub max_age: Option<Duration>,
    /// Split a failed batch in half instead of retrying all of it.
    pub bisect: bool,
    /// `ReportBatchItemFailures`: if it is not set, the content of a function's response is ignored.
    pub partial_responses: bool,
    /// The delay before the first retry; it doubles with each further retry.
    pub first_back_off: Duration,
    /// The maximum delay before a retry.
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
            partial_responses: false,
            first_back_off: Duration::from_millis(100),
            longest_back_off: Duration::from_secs(10),
        }
    }
}

impl MappingSettings {
    /// Returns the delay before the retry that follows `retries` others.
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
