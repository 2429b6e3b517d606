//! What a user is called.

use super::InvalidField;

/// 1 to 256 characters, not all of them blank, none of them a control character (PostgreSQL's text cannot hold `\0`,
/// and a line break in a name is a forged log line or mail header somewhere else). Kept as it was given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UserName(String);

impl UserName {
    /// The longest name, in characters.
    pub const MAX_CHARS: usize = 256;

    /// Reads a name.
    ///
    /// # Errors
    /// The text is blank, too long, or has a control character.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidField> {
        let text = text.into();
        if text.trim().is_empty() {
            Err(InvalidField("name must not be blank"))
        } else if text.chars().count() > Self::MAX_CHARS {
            Err(InvalidField("name must have at most 256 characters"))
        } else if text.chars().any(char::is_control) {
            Err(InvalidField("name must not have control characters such as line breaks"))
        } else {
            Ok(Self(text))
        }
    }

    /// The name's text.
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
