//! The name of a table or a column in PostgreSQL: [`SqlIdentifier`].

use std::fmt;

use serde::{Serialize, Serializer};

/// The maximum length of an identifier in bytes. PostgreSQL cuts off a longer one without an error.
pub(super) const IDENTIFIER_BYTES: usize = 63;

/// A name of 1 to 63 bytes without control characters. Any other text is valid, because statements contain it only
/// quoted: letters of any alphabet, spaces, quotes, and the words that SQL reserves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SqlIdentifier(String);

impl SqlIdentifier {
    /// Parses a name of at most `limit` bytes.
    ///
    /// # Errors
    /// The problem and the fix if the text is not such a name.
    pub fn parse(text: &str, limit: usize) -> Result<Self, String> {
        if text.is_empty() {
            return Err(format!("is empty: set it to a name of 1 to {limit} bytes"));
        }
        if let Some(character) = text.chars().find(|character| character.is_control()) {
            return Err(format!("is {text:?}, which contains the control character {character:?}: remove it"));
        }
        if text.len() > limit {
            let bytes = text.len();
            return Err(format!("is {text:?}, which has {bytes} bytes in UTF-8: set it to a name of at most {limit}"));
        }
        Ok(Self(text.to_owned()))
    }

    /// Creates a name that is part of the program.
    pub(crate) fn constant(name: &'static str) -> Self {
        Self(name.to_owned())
    }

    /// Returns this name with a prefix and a suffix. The caller limits the length of the result.
    pub(crate) fn derived(&self, prefix: &str, suffix: &str) -> Self {
        Self(format!("{prefix}{}{suffix}", self.0))
    }

    /// Returns the name without quotes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name as a statement contains it: in quotes, with each quote in it doubled.
    #[must_use]
    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.0.replace('"', "\"\""))
    }
}

impl fmt::Display for SqlIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for SqlIdentifier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_a_name_in_quotes() {
        for (name, quoted) in [
            ("orders", "\"orders\""),
            ("select", "\"select\""),
            ("placed at", "\"placed at\""),
            ("a\"; drop table x; --", "\"a\"\"; drop table x; --\""),
            ("größe", "\"größe\""),
            ("注文", "\"注文\""),
            ("$1", "\"$1\""),
        ] {
            assert_eq!(SqlIdentifier::parse(name, IDENTIFIER_BYTES).unwrap().quoted(), quoted);
        }
    }

    #[test]
    fn other_text_is_refused_with_its_length_or_character() {
        for (text, part) in [
            (String::new(), "is empty"),
            ("a\0b".to_owned(), "control character '\\0'"),
            ("a\nb".to_owned(), "control character '\\n'"),
            ("x".repeat(64), "has 64 bytes in UTF-8: set it to a name of at most 63"),
            ("é".repeat(32), "has 64 bytes in UTF-8"),
        ] {
            assert!(SqlIdentifier::parse(&text, IDENTIFIER_BYTES).unwrap_err().contains(part), "{text:?}");
        }
        assert!(SqlIdentifier::parse(&"é".repeat(31), IDENTIFIER_BYTES).is_ok());
    }
}
