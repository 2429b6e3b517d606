//! New UUIDs, and random nonces derived from them.

use millrace_shared::clock::{self, Clock};
use millrace_shared::http::cursor_seal::SealNonce;
use uuid::Uuid;

/// Returns a new UUID version 7 with the time of this clock.
#[must_use]
pub fn new_uuid(clock: &Clock) -> Uuid {
    clock::new_uuid(clock.now())
}

/// Returns the nonce of one cursor: the last 96 bits of a new UUID version 7, of which 74 are random.
#[must_use]
pub fn nonce_from_uuid(id: Uuid) -> SealNonce {
    let [_, _, _, _, salt @ ..] = id.into_bytes();
    salt
}
