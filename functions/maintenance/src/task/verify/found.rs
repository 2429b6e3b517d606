//! What two sides make of a key: pure.

use shared::change::CanonicalKey;
use shared::held::Held;
use shared::raw_item::RawItem;
use shared::revision::{Revision, RevisionError};

/// How a key differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Missing,
    Different,
    Resurrected,
    Extra,
    Quarantined,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Different => "different",
            Self::Resurrected => "resurrected",
            Self::Extra => "extra",
            Self::Quarantined => "quarantined",
        }
    }
}

/// A difference that has lasted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) key: CanonicalKey,
    pub(super) kind: Kind,
    /// The names of the attributes, if both sides have the item.
    pub(super) attributes: Vec<String>,
}

/// A key that differed once, and what both sides held then.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) key: CanonicalKey,
    source: Option<RawItem>,
    stamp: Option<Result<Revision, RevisionError>>,
}

impl Candidate {
    /// The key as a candidate, if it differs.
    pub(super) fn of(key: CanonicalKey, held: Option<&Held>, source: Option<RawItem>) -> Option<Self> {
        let differs = difference(held, source.as_ref()).is_some();
        differs.then(|| Self { key, source, stamp: held.and_then(|held| held.revision.clone()) })
    }

    /// What is real of it, by what both sides hold now; nothing if it is gone, or something has moved.
    pub(super) fn again(self, held: Option<&Held>, source: Option<&RawItem>) -> Option<Finding> {
        let (kind, attributes) = difference(held, source)?;
        let still = match (&self.source, source) {
            (Some(then), Some(now)) => then.is(now),
            (None, None) => true,
            _ => false,
        };
        let stands = self.stamp == held.and_then(|held| held.revision.clone());
        (still && stands).then_some(Finding { key: self.key, kind, attributes })
    }
}

fn difference(held: Option<&Held>, source: Option<&RawItem>) -> Option<(Kind, Vec<String>)> {
    match (held.and_then(Held::item), source) {
        (None, None) => None,
        (None, Some(_)) => Some((Kind::Missing, Vec::new())),
        (Some(_), None) => {
            let ours = held.is_some_and(|held| held.revision.is_some());
            Some((if ours { Kind::Resurrected } else { Kind::Extra }, Vec::new()))
        }
        (Some(item), Some(source)) if item.is(source) => None,
        (Some(item), Some(source)) => Some((Kind::Different, item.differing(source))),
    }
}

#[cfg(test)]
mod tests {
    use shared::held::State;

    use super::*;

    fn key() -> CanonicalKey {
        CanonicalKey::parse(r#"{"k":{"S":"a"}}"#).unwrap()
    }

    fn item(name: &str) -> RawItem {
        RawItem::parse(&format!(r#"{{"k":{{"S":"a"}},"name":{{"S":"{name}"}}}}"#)).unwrap()
    }

    fn held(number: Option<u8>, name: Option<&str>) -> Held {
        let revision = number.map(|number| Ok(Revision::parse(&format!("2026-01-01T00:00:00.000#{number}")).unwrap()));
        Held { revision, state: name.map_or(State::Gone { expired: false }, |name| State::Item(item(name))) }
    }

    fn found(held: Option<&Held>, source: Option<&RawItem>) -> Option<Kind> {
        let candidate = Candidate::of(key(), held, source.cloned())?;
        Some(candidate.again(held, source).unwrap().kind)
    }

    #[test]
    fn a_difference_has_its_name() {
        assert_eq!(found(None, Some(&item("Ada"))), Some(Kind::Missing));
        assert_eq!(found(Some(&held(Some(1), None)), Some(&item("Ada"))), Some(Kind::Missing));
        assert_eq!(found(Some(&held(Some(1), Some("Bob"))), Some(&item("Ada"))), Some(Kind::Different));
        assert_eq!(found(Some(&held(Some(1), Some("Ada"))), None), Some(Kind::Resurrected));
        assert_eq!(found(Some(&held(None, Some("Ada"))), None), Some(Kind::Extra));
        for (held, source) in
            [(None, None), (Some(held(Some(1), None)), None), (Some(held(Some(1), Some("Ada"))), Some(item("Ada")))]
        {
            assert_eq!(found(held.as_ref(), source.as_ref()), None);
        }
    }

    #[test]
    fn what_moves_is_not_real() {
        let then = held(Some(1), Some("Bob"));
        let again = |held: &Held, source: &RawItem| {
            Candidate::of(key(), Some(&then), Some(item("Ada"))).unwrap().again(Some(held), Some(source))
        };
        assert_eq!(again(&then, &item("Ada")).unwrap().attributes, ["name"]);
        assert_eq!(again(&held(Some(2), Some("Bob")), &item("Ada")), None, "the replica has moved");
        assert_eq!(again(&then, &item("Eve")), None, "the source has moved");
        assert_eq!(again(&held(Some(2), Some("Ada")), &item("Ada")), None, "it has been replicated");
    }
}
