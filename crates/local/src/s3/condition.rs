//! Conditional requests with S3's order of precedence (RFC 9110, section 13.2.2). Pure.

use s3s::dto::{ETag, ETagCondition, Timestamp};
use s3s::{S3Error, S3ErrorCode, S3Result};
use time::OffsetDateTime;

/// Conditions of a read on the object.
#[derive(Debug, Default)]
pub(super) struct ReadCondition {
    pub(super) matching: Option<ETagCondition>,
    pub(super) none_matching: Option<ETagCondition>,
    pub(super) modified_since: Option<Timestamp>,
    pub(super) unmodified_since: Option<Timestamp>,
}

/// Conditions of a write on the object that it replaces.
#[derive(Debug, Default)]
pub(super) struct WriteCondition {
    pub(super) matching: Option<ETagCondition>,
    pub(super) none_matching: Option<ETagCondition>,
}

impl ReadCondition {
    /// Fails with 412 or 304 if the object does not meet the conditions.
    pub(super) fn check(self, etag: &str, modified: OffsetDateTime) -> S3Result<()> {
        self.outcome(etag, modified).map_or(Ok(()), |code| Err(S3Error::new(code)))
    }

    /// Checks the source object of a copy, for which an unmodified object is also 412.
    pub(super) fn check_source(self, etag: &str, modified: OffsetDateTime) -> S3Result<()> {
        self.outcome(etag, modified).map_or(Ok(()), |_| Err(S3Error::new(S3ErrorCode::PreconditionFailed)))
    }

    fn outcome(self, etag: &str, modified: OffsetDateTime) -> Option<S3ErrorCode> {
        // HTTP dates have a resolution of one second.
        let is_newer = |since: Timestamp| modified.unix_timestamp() > OffsetDateTime::from(since).unix_timestamp();
        let is_another = match (self.matching, self.unmodified_since) {
            (Some(condition), _) => !matches(&condition, etag),
            (None, Some(since)) => is_newer(since),
            (None, None) => false,
        };
        let is_known = match (self.none_matching, self.modified_since) {
            (Some(condition), _) => matches(&condition, etag),
            (None, Some(since)) => !is_newer(since),
            (None, None) => false,
        };
        if is_another { Some(S3ErrorCode::PreconditionFailed) } else { is_known.then_some(S3ErrorCode::NotModified) }
    }
}

impl WriteCondition {
    /// Fails unless the object with this tag, or the absence of an object, meets the conditions of the write.
    pub(super) fn check(&self, there: Option<&str>) -> S3Result<()> {
        match (&self.matching, &self.none_matching, there) {
            (Some(_), _, None) => Err(S3Error::new(S3ErrorCode::NoSuchKey)),
            (Some(condition), _, Some(etag)) if !matches(condition, etag) => {
                Err(S3Error::new(S3ErrorCode::PreconditionFailed))
            }
            (_, Some(condition), Some(etag)) if matches(condition, etag) => {
                Err(S3Error::new(S3ErrorCode::PreconditionFailed))
            }
            _ => Ok(()),
        }
    }
}

fn matches(condition: &ETagCondition, etag: &str) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(ETag::Strong(wanted) | ETag::Weak(wanted)) => wanted == etag,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(condition: ReadCondition) -> u16 {
        let checked = condition.check("one", OffsetDateTime::from_unix_timestamp(1_000).unwrap());
        checked.map_or_else(|error| error.code().status_code().map_or(0, |code| code.as_u16()), |()| 200)
    }

    fn tag(text: &str) -> ETagCondition {
        ETagCondition::ETag(ETag::Strong(text.to_owned()))
    }

    fn at(second: i64) -> Timestamp {
        OffsetDateTime::from_unix_timestamp(second).unwrap().into()
    }

    #[test]
    fn a_read_is_conditional_and_tags_come_before_dates() {
        let read = ReadCondition::default;
        for (condition, expected) in [
            (read(), 200),
            (ReadCondition { matching: Some(tag("one")), ..read() }, 200),
            (ReadCondition { matching: Some(ETagCondition::Any), ..read() }, 200),
            (ReadCondition { matching: Some(tag("two")), ..read() }, 412),
            (ReadCondition { matching: Some(tag("one")), unmodified_since: Some(at(999)), ..read() }, 200),
            (ReadCondition { unmodified_since: Some(at(999)), ..read() }, 412),
            (ReadCondition { unmodified_since: Some(at(1_000)), ..read() }, 200),
            (ReadCondition { none_matching: Some(tag("one")), ..read() }, 304),
            (ReadCondition { none_matching: Some(tag("two")), modified_since: Some(at(1_000)), ..read() }, 200),
            (ReadCondition { modified_since: Some(at(1_000)), ..read() }, 304),
            (ReadCondition { modified_since: Some(at(999)), ..read() }, 200),
            (ReadCondition { matching: Some(tag("two")), none_matching: Some(tag("one")), ..read() }, 412),
        ] {
            let shown = format!("{condition:?}");
            assert_eq!(status(condition), expected, "{shown}");
        }
    }

    #[test]
    fn a_write_is_conditional() {
        let code = |condition: WriteCondition, there| condition.check(there).map_err(|error| error.code().clone());
        let write = WriteCondition::default;
        let exists = || WriteCondition { none_matching: Some(ETagCondition::Any), ..write() };
        assert_eq!(code(write(), Some("one")), Ok(()));
        assert_eq!(code(exists(), None), Ok(()));
        assert_eq!(code(exists(), Some("one")), Err(S3ErrorCode::PreconditionFailed));
        assert_eq!(code(WriteCondition { matching: Some(tag("one")), ..write() }, Some("one")), Ok(()));
        assert_eq!(
            code(WriteCondition { matching: Some(tag("two")), ..write() }, Some("one")),
            Err(S3ErrorCode::PreconditionFailed)
        );
        assert_eq!(code(WriteCondition { matching: Some(tag("two")), ..write() }, None), Err(S3ErrorCode::NoSuchKey));
    }
}
