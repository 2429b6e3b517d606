//! What the calls of one request cost.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_dynamodb::types::ConsumedCapacity;

/// Adds up capacity units as DynamoDB tells them with its answers. A clone adds to the same sum. A refused condition costs
/// units, too, which no answer tells.
#[derive(Clone, Debug, Default)]
pub struct CapacityMeter(Arc<Mutex<f64>>);

impl CapacityMeter {
    pub(super) fn add<'a>(&self, told: impl IntoIterator<Item = &'a ConsumedCapacity>) {
        let units: f64 = told.into_iter().filter_map(ConsumedCapacity::capacity_units).sum();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += units;
    }

    /// Units so far.
    #[must_use]
    pub fn consumed_units(&self) -> f64 {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
