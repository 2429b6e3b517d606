//! Markers as they are read and written beside a record: in one transaction with it. [`Marks`]

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{ReturnConsumedCapacity, TransactWriteItem};
use time::OffsetDateTime;

use super::emails::{self, Marker};
use super::once::{Cancelled, cancelled};
use super::{Fault, Meter, WriteError};
use crate::item;
use crate::user::UserKey;
use crate::user::expiry::ExpiresAt;

#[expect(clippy::needless_pass_by_value, reason = "a function for map_err")]
pub(super) fn unbuilt(error: BuildError) -> Fault {
    Fault::refused(error.to_string())
}

/// The table of markers, and with what it is reached.
pub(super) struct Marks<'t> {
    pub(super) client: &'t Client,
    pub(super) meter: &'t Meter,
    pub(super) table: &'t str,
}

impl Marks<'_> {
    /// The marker writes of a record whose address changes from one to another.
    pub(super) async fn moved(
        &self,
        key: &UserKey,
        before: Option<String>,
        after: Option<(String, Option<ExpiresAt>)>,
        now: OffsetDateTime,
    ) -> Result<Vec<TransactWriteItem>, WriteError> {
        let mut writes = Vec::new();
        if let Some(address) = before.filter(|before| after.as_ref().is_none_or(|(after, _)| after != before)) {
            let marker = self.read(&address).await?.without(key, now);
            writes.extend(marker.write(self.table, &address).map_err(unbuilt)?);
        }
        if let Some((address, ends)) = after {
            let marker = self.read(&address).await?.with(key, ends, now);
            let marker = marker.map_err(|emails::Taken| WriteError::EmailTaken)?;
            writes.extend(marker.write(self.table, &address).map_err(unbuilt)?);
        }
        Ok(writes)
    }

    pub(super) async fn read(&self, address: &str) -> Result<Marker, Fault> {
        let call = self.client.get_item().table_name(self.table).key(emails::ADDRESS, item::text(address));
        let call = call.consistent_read(true).return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = call.send().await.map_err(Fault::of)?;
        self.meter.add(output.consumed_capacity());
        Marker::read(output.item.as_ref())
    }

    /// The SDK gives each transaction a token of its own: one that landed, unheard, is not refused by its own result.
    pub(super) async fn transact(&self, writes: Vec<TransactWriteItem>) -> Result<(), Cancelled> {
        let call = self.client.transact_write_items().set_transact_items(Some(writes));
        match call.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await {
            Ok(output) => {
                self.meter.add(output.consumed_capacity());
                Ok(())
            }
            Err(error) => Err(cancelled(error)),
        }
    }
}
