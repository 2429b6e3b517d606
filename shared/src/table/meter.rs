//! The consumed capacity of the calls of one request.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_dynamodb::types::ConsumedCapacity;

/// Adds up the capacity units that DynamoDB reports in its responses. Clones share one sum. A failed condition also
/// consumes units, but its response does not report them.
#[derive(Clone, Debug, Default)]
pub struct CapacityMeter(Arc<Mutex<f64>>);

impl CapacityMeter {
    pub(super) fn add<'a>(&self, told: impl IntoIterator<Item = &'a ConsumedCapacity>) {
        let units: f64 = told.into_iter().filter_map(ConsumedCapacity::capacity_units).sum();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += units;
    }

    /// Returns the units consumed so far.
    #[must_use]
    pub fn consumed_units(&self) -> f64 {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
