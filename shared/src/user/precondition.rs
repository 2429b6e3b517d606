//! What a client demands of the record that it reads or writes over (RFC 9110, section 13): pure, so that the table can
//! say it as a condition and the API can say it about a record at hand, and both mean the same.

/// Which versions a header names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EntityTags {
    /// `*`: any record at all.
    Any,
    /// These versions; an empty list names none.
    Versions(Vec<u64>),
}

impl EntityTags {
    /// Whether the record's version is named; `None` is no record.
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
    /// `If-Match`: the record must be one of these.
    pub if_match: Option<EntityTags>,
    /// `If-None-Match`: the record must be none of these.
    pub if_none_match: Option<EntityTags>,
}

impl Precondition {
    /// Exactly this version, as `If-Match` would demand it.
    #[must_use]
    pub fn exactly(version: u64) -> Self {
        Self { if_match: Some(EntityTags::Versions(vec![version])), if_none_match: None }
    }

    /// Whether a write over the record of this version may go on; `None` is no record.
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
