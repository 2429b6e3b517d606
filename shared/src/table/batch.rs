//! Batch reads: many records by their keys, with follow-up calls for keys that the table did not process.

use std::time::Duration;

use aws_sdk_dynamodb::types::{KeysAndAttributes, ReturnConsumedCapacity};
use time::OffsetDateTime;

use super::{TableError, UserTable};
use crate::item::{self, AttributeMap};
use crate::user::Timestamp;
use crate::user::id::UserId;
use crate::user::{User, UserKey};

/// The maximum number of keys in one call.
pub const MAX_KEYS: usize = 100;
/// The maximum number of calls for one batch. A response is limited to 16 MB, and a busy table returns keys
/// unprocessed.
const CALLS: u32 = 5;
/// The wait before the second call if the first returned nothing. It doubles with each further call.
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// The result of a batch read. A requested key that is in none of the lists has no live record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserBatch {
    /// The live records, in no particular order.
    pub users: Vec<User>,
    /// The keys of live items that are not valid user records.
    pub corrupt: Vec<UserKey>,
    /// The keys that the table did not process within the maximum number of calls.
    pub unprocessed: Vec<UserKey>,
}

impl UserTable {
    /// Reads up to [`MAX_KEYS`] distinct keys with strong consistency.
    ///
    /// # Errors
    /// The call failed.
    pub async fn read_batch(&self, keys: &[UserKey], now: OffsetDateTime) -> Result<UserBatch, TableError> {
        let mut batch = UserBatch::default();
        let mut left: Vec<AttributeMap> = keys.iter().map(item::key).collect();
        let mut wait = FIRST_WAIT;
        for call in 0..CALLS {
            if left.is_empty() {
                break;
            }
            let requested = left.len();
            let wanted = KeysAndAttributes::builder().consistent_read(true).set_keys(Some(left)).build();
            let request = self.client.batch_get_item().request_items(&*self.name, wanted.map_err(TableError::refused)?);
            let response = request.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await;
            let response = response.map_err(TableError::from_sdk)?;
            self.meter.add(response.consumed_capacity());
            let items = response.responses.and_then(|mut tables| tables.remove(&*self.name)).unwrap_or_default();
            for item in items.into_iter().filter(|item| item::is_live(item, now)) {
                let key = key(&item);
                match (item::decode(item, now), key) {
                    (Ok(user), _) => batch.users.push(user),
                    (Err(_), Some(key)) => batch.corrupt.push(key),
                    // Does not occur: the item has one of the requested keys, all of which are valid.
                    (Err(corrupt), None) => return Err(corrupt.into()),
                }
            }
            let unprocessed = response.unprocessed_keys.and_then(|mut tables| tables.remove(&*self.name));
            left = unprocessed.map(|table| table.keys).unwrap_or_default();
            // The table processed none of the keys, so it is throttled. No wait is needed after a full response.
            if left.len() == requested && call + 1 < CALLS {
                tokio::time::sleep(wait).await;
                wait *= 2;
            }
        }
        batch.unprocessed = left.iter().filter_map(key).collect();
        Ok(batch)
    }
}

fn key(item: &AttributeMap) -> Option<UserKey> {
    let id = UserId::parse(item.get(item::USER_ID)?.as_s().ok()?).ok()?;
    let timestamp = Timestamp::parse(item.get(item::TIMESTAMP)?.as_n().ok()?.parse().ok()?).ok()?;
    Some(UserKey { id, timestamp })
}
