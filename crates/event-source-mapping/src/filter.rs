//! Filter of a mapping, from its `FilterCriteria`: [`RecordFilter`].
//!
//! The crate `quamina` matches the patterns. It supports most of `EventBridge`'s pattern language but rejects `$or` and
//! `anything-but` with a prefix. A pattern that it rejects prevents the start: an unsupported filter must never become
//! one that accepts every record.

use quamina::Quamina;

/// A filter pattern that is not supported.
#[derive(Debug, thiserror::Error)]
#[error("filter pattern {pattern} of mapping {mapping} is not supported: {reason}")]
pub struct FilterError {
    /// The name of the mapping.
    pub mapping: String,
    /// The pattern as it is in the template.
    pub pattern: String,
    /// The reason why the pattern is rejected.
    pub reason: String,
}

/// Selects the records that match any of the mapping's patterns, or all records if there are no patterns.
pub struct RecordFilter(Option<Quamina<()>>);

impl RecordFilter {
    /// Parses the patterns of a mapping.
    ///
    /// # Errors
    /// [`FilterError`] for the first pattern that is malformed or not supported.
    pub fn parse(mapping: &str, patterns: &[String]) -> Result<Self, FilterError> {
        if patterns.is_empty() {
            return Ok(Self(None));
        }
        let mut matcher = Quamina::new();
        for pattern in patterns {
            matcher.add_pattern((), pattern).map_err(|error| FilterError {
                mapping: mapping.to_owned(),
                pattern: pattern.clone(),
                reason: error.to_string(),
            })?;
        }
        Ok(Self(Some(matcher)))
    }

    /// Returns whether the filter selects the record, which is an element of `Records`. A record that cannot be matched
    /// is selected, so that the function receives it and can report it.
    #[must_use]
    pub fn matches(&self, record: &str) -> bool {
        self.0.as_ref().is_none_or(|matcher| matcher.has_matches(record.as_bytes()).unwrap_or(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRED: &str =
        r#"{"eventName":["REMOVE"],"userIdentity":{"type":["Service"],"principalId":["dynamodb.amazonaws.com"]}}"#;

    fn filter(patterns: &[&str]) -> Result<RecordFilter, FilterError> {
        let patterns: Vec<_> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        RecordFilter::parse("Expired", &patterns)
    }

    #[test]
    fn only_removals_by_ttl_pass_the_archiver_s_filter() {
        let filter = filter(&[EXPIRED]).unwrap();
        assert!(filter.matches(
            r#"{"eventName":"REMOVE","userIdentity":{"type":"Service","principalId":"dynamodb.amazonaws.com"}}"#
        ));
        assert!(!filter.matches(r#"{"eventName":"REMOVE"}"#));
        assert!(!filter.matches(r#"{"eventName":"REMOVE","userIdentity":{"type":"User","principalId":"me"}}"#));
        assert!(!filter.matches(
            r#"{"eventName":"INSERT","userIdentity":{"type":"Service","principalId":"dynamodb.amazonaws.com"}}"#
        ));
    }

    #[test]
    fn without_a_pattern_every_record_passes() {
        assert!(filter(&[]).unwrap().matches(r#"{"eventName":"INSERT"}"#));
    }

    #[test]
    fn any_of_several_patterns_is_enough() {
        let filter = filter(&[r#"{"eventName":["INSERT"]}"#, r#"{"eventName":["MODIFY"]}"#]).unwrap();
        assert!(filter.matches(r#"{"eventName":"MODIFY"}"#) && !filter.matches(r#"{"eventName":"REMOVE"}"#));
    }

    #[test]
    fn an_unsupported_pattern_is_an_error_that_names_the_mapping() {
        for pattern in [r#"{"$or":[{"a":["1"]},{"b":["2"]}]}"#, r#"{"a":[{"anything-but":{"prefix":"x"}}]}"#, "{", "[]"]
        {
            let Err(error) = filter(&[pattern]) else { panic!("{pattern} was taken") };
            assert!(error.to_string().contains("mapping Expired"), "{error}");
        }
    }
}
