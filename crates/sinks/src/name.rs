//! The name of a replica: [`SinkName`].

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// The maximum number of characters of a name.
const MAX_CHARACTERS: usize = 32;

/// The name of a sink in metrics, logs, quarantine keys, reports and task requests: a lowercase letter, followed by up
/// to 31 lowercase letters, digits or hyphens. A clone shares the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SinkName(Arc<str>);

/// A text that is not a valid name of a sink.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid name {0:?}: use a lowercase letter, then up to 31 lowercase letters, digits or hyphens, such as \
     \"staging\""
)]
pub struct SinkNameError(String);

impl SinkName {
    /// Parses a name.
    ///
    /// # Errors
    /// [`SinkNameError`] if the text does not have the format.
    pub fn parse(text: &str) -> Result<Self, SinkNameError> {
        let is_letter = |byte: u8| byte.is_ascii_lowercase();
        let is_valid = text.bytes().next().is_some_and(is_letter)
            && text.len() <= MAX_CHARACTERS
            && text.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit() || byte == b'-');
        if is_valid { Ok(Self(Arc::from(text))) } else { Err(SinkNameError(text.to_owned())) }
    }

    /// Creates the name of a sink that no document names.
    pub(crate) fn from_static(name: &'static str) -> Self {
        Self(Arc::from(name))
    }

    /// Returns the text of the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for SinkName {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for SinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl Serialize for SinkName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_the_format_is_accepted() {
        for name in ["a", "dynamodb", "eu-west-1", "a2345678901234567890123456789012"] {
            assert_eq!(SinkName::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn other_text_is_rejected_and_quoted() {
        for name in ["", "1a", "-a", "Staging", "a_b", "a b", "a/b", "é", "a23456789012345678901234567890123"] {
            let error = SinkName::parse(name).unwrap_err().to_string();
            assert!(error.contains(&format!("{name:?}")) && error.contains("lowercase"), "{error}");
        }
    }
}
