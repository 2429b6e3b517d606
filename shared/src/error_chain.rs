//! An error with its sources, as one text.

use std::error::Error;

/// Returns an error and its sources as text, joined by `: `. A source whose message is in the text already is left out.
///
/// It uses `Display` only: unlike the SDK's `DisplayErrorContext`, it does not show the response's bytes, and unlike
/// `Debug`, it does not show an item.
#[must_use]
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let message = cause.to_string();
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct TestError {
        text: &'static str,
        source: Option<Box<TestError>>,
    }

    fn chain(texts: &[&'static str]) -> TestError {
        let (text, rest) = texts.split_first().unwrap();
        TestError { text, source: (!rest.is_empty()).then(|| Box::new(chain(rest))) }
    }

    #[test]
    fn each_source_is_appended_once() {
        assert_eq!(error_chain(&chain(&["query failed"])), "query failed");
        assert_eq!(
            error_chain(&chain(&["query failed", "connection closed", "reset"])),
            "query failed: connection closed: reset"
        );
        assert_eq!(error_chain(&chain(&["query failed: reset", "reset"])), "query failed: reset");
    }
}
