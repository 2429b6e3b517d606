//! The name of a user.

use super::InvalidField;

/// A name of 1 to 256 characters that is not blank and contains no control character. PostgreSQL text cannot store
/// `\0`, and a line break could forge a log line or a mail header elsewhere. White space is preserved.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UserName(String);

impl UserName {
    /// The maximum length of a name, in characters.
    pub const MAX_CHARS: usize = 256;

    /// Parses a name.
    ///
    /// # Errors
    /// The text is blank or too long, or contains a control character.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidField> {
        let text = text.into();
        if text.trim().is_empty() {
            Err(InvalidField("name must not be blank"))
        } else if text.chars().count() > Self::MAX_CHARS {
            Err(InvalidField("name must have at most 256 characters"))
        } else if text.chars().any(char::is_control) {
            Err(InvalidField("name must not contain control characters such as line breaks"))
        } else {
            Ok(Self(text))
        }
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_as_it_was_given() {
        for name in ["Ada", "  Ada ", "李 小龙", "O'Brien-Smith, Jr.", "é"] {
            assert_eq!(UserName::parse(name).unwrap().as_str(), name);
        }
        assert!(UserName::parse("é".repeat(256)).is_ok());
    }

    #[test]
    fn a_blank_a_long_or_a_broken_name_cannot_be_built() {
        for name in ["", " ", "\t\n", "\u{2003}", "a\nb", "a\0", "\u{7f}a"] {
            assert!(UserName::parse(name).is_err(), "{name:?}");
        }
        assert!(UserName::parse("é".repeat(257)).is_err());
    }
}
