//! New UUIDs, and random nonces derived from them.

use shared::clock::Clock;
use shared::http::cursor_seal::SealNonce;
use uuid::{NoContext, Timestamp, Uuid};

/// Returns a new UUID version 7 with the time of this clock.
#[must_use]
pub fn new_uuid(clock: &Clock) -> Uuid {
    let now = clock.now();
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, now.nanosecond()))
}

/// Returns the nonce of one cursor: the last 96 bits of a new UUID version 7, of which 74 are random.
#[must_use]
pub fn nonce_from_uuid(id: Uuid) -> SealNonce {
    let [_, _, _, _, salt @ ..] = id.into_bytes();
    salt
}
