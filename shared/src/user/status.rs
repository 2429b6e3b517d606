//! The status of a user, a word that the client assigns, such as `active`. The service attaches no meaning to it.

use super::InvalidField;

/// A status of 1 to 64 characters that is not blank and contains no control character.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UserStatus(String);

impl UserStatus {
    /// The maximum length of a status, in characters.
    pub const MAX_CHARS: usize = 64;

    /// Parses a status.
    ///
    /// # Errors
    /// The text is blank or too long, or contains a control character.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidField> {
        let text = text.into();
        let length = text.chars().count();
        if text.trim().is_empty() || length > Self::MAX_CHARS || text.chars().any(char::is_control) {
            Err(InvalidField("status must be 1 to 64 characters, not blank and without control characters"))
        } else {
            Ok(Self(text))
        }
    }

    /// Returns the status as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_a_short_word_or_two() {
        assert_eq!(UserStatus::parse("on leave").unwrap().as_str(), "on leave");
        for text in ["", " ", "a\nb", &"x".repeat(65)] {
            assert!(UserStatus::parse(text).is_err(), "{text:?}");
        }
    }
}
