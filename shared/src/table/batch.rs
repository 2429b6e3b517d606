//! Many records by their keys, in one call and as few more as the table's business asks for.

use std::time::Duration;

use aws_sdk_dynamodb::types::{KeysAndAttributes, ReturnConsumedCapacity};
use time::OffsetDateTime;

use super::{TableError, UserTable};
use crate::item::{self, AttributeMap};
use crate::user::id::UserId;
use crate::user::timestamp::Timestamp;
use crate::user::{User, UserKey};

/// Keys that one call takes.
pub const MAX_KEYS: usize = 100;
/// Calls for one batch: an answer has at most 16 MB, and a busy table leaves keys for later.
const CALLS: u32 = 5;
/// The wait before the second call, if the first brought nothing; it doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// What became of the keys. A key that is nowhere here has no live record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserBatch {
    /// Live records, in no order.
    pub users: Vec<User>,
    /// Keys of live items that are no users.
    pub unreadable: Vec<UserKey>,
    /// Keys that the table had no time for.
    pub unprocessed: Vec<UserKey>,
}

impl UserTable {
    /// Reads at most [`MAX_KEYS`] distinct keys, consistently.
    ///
    /// # Errors
    /// The table failed.
    pub async fn read_batch(&self, keys: &[UserKey], now: OffsetDateTime) -> Result<UserBatch, TableError> {
        let mut batch = UserBatch::default();
        let mut left: Vec<AttributeMap> = keys.iter().map(item::key).collect();
        let mut wait = FIRST_WAIT;
        for call in 0..CALLS {
            if left.is_empty() {
                break;
            }
            let asked = left.len();
            let wanted = KeysAndAttributes::builder().consistent_read(true).set_keys(Some(left)).build();
            let request = self.client.batch_get_item().request_items(&*self.name, wanted.map_err(TableError::refused)?);
            let answer = request.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await;
            let answer = answer.map_err(TableError::of)?;
            self.meter.add(answer.consumed_capacity());
            let items = answer.responses.and_then(|mut tables| tables.remove(&*self.name)).unwrap_or_default();
            for item in items.into_iter().filter(|item| item::is_live(item, now)) {
                let key = key(&item);
                match (item::decode(item, now), key) {
                    (Ok(user), _) => batch.users.push(user),
                    (Err(_), Some(key)) => batch.unreadable.push(key),
                    // Its key was asked for, so it is one of ours.
                    (Err(unreadable), None) => return Err(unreadable.into()),
                }
            }
            let unprocessed = answer.unprocessed_keys.and_then(|mut tables| tables.remove(&*self.name));
            left = unprocessed.map(|table| table.keys).unwrap_or_default();
            // A table that is busy wants a rest; an answer that was full does not.
            if left.len() == asked && call + 1 < CALLS {
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
