//! The identifier of a user: the partition key of the table, and the value that authorization compares.

use std::fmt;

use super::InvalidFieldError;

/// A user identifier: 1 to 128 characters of `A-Za-z0-9._~:|@+-`. Identity providers use these in a token's `sub`, and
/// a path, a log line or a shell needs no second escaping for any of them. `.` and `..` are rejected: clients and
/// proxies remove them from a path, percent-encoded or not (RFC 3986, section 5.2.4), so no path could address the
/// record.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct UserId(String);

impl UserId {
    /// The maximum length of an identifier, in characters.
    pub const MAX_CHARS: usize = 128;

    /// Parses an identifier.
    ///
    /// # Errors
    /// The text is empty or too long, contains another character, or is `.` or `..`.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidFieldError> {
        let text = text.into();
        let fits = (1..=Self::MAX_CHARS).contains(&text.len()) && text != "." && text != "..";
        if fits && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~:|@+-".contains(&byte)) {
            Ok(Self(text))
        } else {
            Err(InvalidFieldError(
                "user_id must be 1 to 128 characters of A-Z a-z 0-9 . _ ~ : | @ + -, and not . or ..",
            ))
        }
    }

    /// Returns the identifier as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_of_every_allowed_character_is_kept_as_it_is() {
        let every = "ABCXYZabcxyz0189._~:|@+-";
        assert_eq!(UserId::parse(every).unwrap().as_str(), every);
        for text in ["...", ".a", "a."] {
            assert!(UserId::parse(text).is_ok(), "{text:?}");
        }
        assert!(UserId::parse("a".repeat(128)).is_ok());
    }

    #[test]
    fn an_empty_a_long_or_a_strange_identifier_cannot_be_built() {
        for text in ["", ".", "..", " ", "a b", "a/b", "a%20", "ä", "a\n", "a\0", "a#b", "a?b"] {
            assert!(UserId::parse(text).is_err(), "{text:?}");
        }
        assert!(UserId::parse("a".repeat(129)).is_err());
    }
}
