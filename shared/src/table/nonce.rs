//! Unique strings from an injected source: [`NonceSource`].

use std::fmt;
use std::sync::Arc;

use crate::clock::{self, Clock};

/// A source of strings that never repeat. Clones share it.
#[derive(Clone)]
pub struct NonceSource(Arc<dyn Fn() -> String + Send + Sync>);

impl NonceSource {
    /// Creates a source of UUIDs (version 7) that takes the time from this clock.
    #[must_use]
    pub fn of(clock: Clock) -> Self {
        Self(Arc::new(move || clock::new_uuid(clock.now()).to_string()))
    }

    pub(super) fn draw(&self) -> String {
        (self.0)()
    }
}

impl fmt::Debug for NonceSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonces")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn nonces_of_one_moment_differ() {
        let nonces = NonceSource::of(Clock::fixed(OffsetDateTime::UNIX_EPOCH));
        let drawn: HashSet<String> = (0..1_000).map(|_| nonces.clone().draw()).collect();
        assert_eq!(drawn.len(), 1_000);
    }
}
