//! Strict percent-encoding (RFC 3986, section 2.1): a `%` that does not begin a valid escape is an error.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// The characters to escape: all but the unreserved ones, so that every decoder of paths, queries and forms returns the
/// same text.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The characters that a query must not contain (RFC 3986, section 3.4). Escapes and the delimiters of parameters are
/// left unchanged.
const NOT_OF_A_QUERY: &AsciiSet = &RESERVED
    .remove(b'!')
    .remove(b'$')
    .remove(b'%')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b'/')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'?')
    .remove(b'@');

/// Decodes percent-encoded UTF-8. Returns `None` if an escape is malformed, or if the bytes are not valid UTF-8.
#[must_use]
pub fn decode(text: &str) -> Option<Cow<'_, str>> {
    let bytes = text.as_bytes();
    let is_escape = |at: usize| bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    if !text.match_indices('%').all(|(at, _)| is_escape(at)) {
        return None;
    }
    percent_decode_str(text).decode_utf8().ok()
}

/// Escapes everything except letters, digits and `-._~`.
#[must_use]
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Escapes the characters that a query must not contain. Existing escapes are left unchanged.
#[must_use]
pub fn encode_query(query: &str) -> String {
    utf8_percent_encode(query, NOT_OF_A_QUERY).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_malformed_escape_is_an_error() {
        for text in ["%", "a%", "%4", "%zz", "%4g", "%%41", "%ff", "%c3", "a%é"] {
            assert_eq!(decode(text), None, "{text}");
        }
        assert_eq!(decode("a%20b%C3%a9+").as_deref(), Some("a bé+"));
        assert_eq!(decode("%2541").as_deref(), Some("%41"), "decoded once");
    }

    #[test]
    fn a_query_keeps_its_escapes_and_delimiters() {
        assert_eq!(encode_query("a=b+c%2B&d=e,f:g/?@"), "a=b+c%2B&d=e,f:g/?@");
        assert_eq!(encode_query("a= \"<>#é\n"), "a=%20%22%3C%3E%23%C3%A9%0A");
    }

    proptest! {
        #[test]
        fn percent_encoded_text_is_decoded_unchanged(text: String) {
            let encoded = encode(&text);
            let decoded = decode(&encoded);
            prop_assert_eq!(decoded.as_deref(), Some(text.as_str()));
        }
    }
}
