//! Preconditions of a request on the record that it reads or writes (RFC 9110, section 13).
//!
//! The types are pure, so that the table translates them to a condition expression and the API evaluates them on a
//! record that it has read, both with the same meaning.

/// The versions in a header.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EntityTags {
    /// `*`: any existing record.
    Any,
    /// These versions; an empty list matches none.
    Versions(Vec<u64>),
}

impl EntityTags {
    /// Returns whether the record's version matches. `current` is `None` if no record exists.
    #[must_use]
    pub fn matches(&self, current: Option<u64>) -> bool {
        match (self, current) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::Versions(versions), Some(version)) => versions.contains(&version),
        }
    }
}

/// The preconditions of one request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Precondition {
    /// `If-Match`: the record must match.
    pub if_match: Option<EntityTags>,
    /// `If-None-Match`: the record must not match.
    pub if_none_match: Option<EntityTags>,
}

impl Precondition {
    /// Requires exactly this version, like an `If-Match` with its entity tag.
    #[must_use]
    pub fn exactly(version: u64) -> Self {
        Self { if_match: Some(EntityTags::Versions(vec![version])), if_none_match: None }
    }

    /// Returns whether a write may proceed. `current` is the record's version, or `None` if no record exists.
    #[must_use]
    pub fn is_satisfied_by(&self, current: Option<u64>) -> bool {
        self.if_match.as_ref().is_none_or(|tags| tags.matches(current))
            && !self.if_none_match.as_ref().is_some_and(|tags| tags.matches(current))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_rfc_9110_holds() {
        let any = || Some(EntityTags::Any);
        let tags = |versions: &[u64]| Some(EntityTags::Versions(versions.to_vec()));
        for (if_match, if_none_match, absent, present) in [
            (None, None, true, true),
            (any(), None, false, true),
            (tags(&[7]), None, false, true),
            (tags(&[6, 7]), None, false, true),
            (tags(&[6]), None, false, false),
            (tags(&[]), None, false, false),
            (None, any(), true, false),
            (None, tags(&[7]), true, false),
            (None, tags(&[6]), true, true),
            (None, tags(&[]), true, true),
            (any(), any(), false, false),
            (tags(&[7]), tags(&[6]), false, true),
            (tags(&[7]), tags(&[7]), false, false),
        ] {
            let precondition = Precondition { if_match, if_none_match };
            assert_eq!(precondition.is_satisfied_by(None), absent, "{precondition:?} and no record");
            assert_eq!(precondition.is_satisfied_by(Some(7)), present, "{precondition:?} and version 7");
        }
        assert!(
            Precondition::exactly(7).is_satisfied_by(Some(7)) && !Precondition::exactly(7).is_satisfied_by(Some(8))
        );
    }
}
