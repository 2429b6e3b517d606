//! Marks that this instance owes the cache: of writes whose mark did not arrive. What the cache says of such a record is
//! not believed, and the next who looks for it leaves the mark first.
//!
//! A debt lapses when what it was to take away is gone by itself. There is a limit to what is remembered: past it nothing
//! of the cache is believed until all of it has lapsed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use shared::floor::{Floor, OUTLIVED};
use tokio::time::Instant;

const LIMIT: usize = 10_000;

/// What is owed of a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Debt {
    None,
    Floor(Floor),
    /// More than is remembered.
    Everything,
}

#[derive(Default)]
pub(super) struct Owed(Mutex<Debts>);

#[derive(Default)]
struct Debts {
    marks: HashMap<String, (Floor, Instant)>,
    everything_until: Option<Instant>,
}

impl Owed {
    pub(super) fn owe(&self, name: &str, floor: Floor, now: Instant) {
        let mut debts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if debts.marks.len() >= LIMIT {
            debts.marks.retain(|_, (_, lapses)| *lapses > now);
        }
        if debts.marks.len() >= LIMIT {
            debts.marks.clear();
            debts.everything_until = Some(now + OUTLIVED);
        }
        let before = debts.marks.get(name).map_or(floor, |(before, _)| floor.max(*before));
        debts.marks.insert(name.to_owned(), (before, now + OUTLIVED));
    }

    pub(super) fn of(&self, name: &str, now: Instant) -> Debt {
        let debts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if debts.everything_until.is_some_and(|until| until > now) {
            return Debt::Everything;
        }
        let mark = debts.marks.get(name).filter(|(_, lapses)| *lapses > now);
        mark.map_or(Debt::None, |(floor, _)| Debt::Floor(*floor))
    }

    /// This floor was left; a higher one is still owed.
    pub(super) fn paid(&self, name: &str, floor: Floor) {
        let mut debts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if debts.marks.get(name).is_some_and(|(owed, _)| *owed <= floor) {
            debts.marks.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floor(version: u64) -> Floor {
        Floor::of_write(0, version)
    }

    #[tokio::test]
    async fn the_highest_is_owed_until_it_is_paid_or_lapses() {
        let (owed, now) = (Owed::default(), Instant::now());
        assert_eq!(owed.of("k", now), Debt::None);
        owed.owe("k", floor(8), now);
        owed.owe("k", floor(7), now);
        assert_eq!(owed.of("k", now), Debt::Floor(floor(8)));
        owed.paid("k", floor(7));
        assert_eq!(owed.of("k", now), Debt::Floor(floor(8)));
        assert_eq!(owed.of("k", now + OUTLIVED), Debt::None);
        owed.paid("k", floor(8));
        assert_eq!(owed.of("k", now), Debt::None);
    }

    #[tokio::test]
    async fn who_owes_more_than_is_remembered_believes_nothing_for_a_while() {
        let (owed, now) = (Owed::default(), Instant::now());
        for n in 0..=LIMIT {
            owed.owe(&format!("k{n}"), floor(8), now);
        }
        assert_eq!(owed.of("another", now), Debt::Everything);
        assert_eq!(owed.of("another", now + OUTLIVED), Debt::None);
    }
}
