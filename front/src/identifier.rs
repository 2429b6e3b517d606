//! New identifiers, and randomness that comes with them.

use shared::clock::Clock;
use shared::http::cursor_seal::SealNonce;
use uuid::{NoContext, Timestamp, Uuid};

/// A new identifier, by the time of this clock.
#[must_use]
pub fn new_uuid(clock: &Clock) -> Uuid {
    let now = clock.now();
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, now.nanosecond()))
}

/// The random bytes of one cursor, from a new identifier of version 7: 74 of its last 96 bits are random.
#[must_use]
pub fn nonce_from_uuid(id: Uuid) -> SealNonce {
    let [_, _, _, _, salt @ ..] = id.into_bytes();
    salt
}
