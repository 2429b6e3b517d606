//! The query parameters of a request. Each must be known and must not be repeated. An unknown parameter is rejected,
//! because a request with a misspelled filter would otherwise list everything.
//!
//! Queries are form-encoded, as browsers, curl and HTTP libraries write them (WHATWG URL,
//! application/x-www-form-urlencoded): a `+` is a space, and a plus sign is `%2B`.

use std::borrow::Cow;

use super::percent::{decode, encode};
use super::problem::FieldError;

/// The parameters of a query, and the errors found while reading them.
#[derive(Debug)]
pub struct QueryParameters {
    given: Vec<QueryParameter>,
    mistakes: Vec<FieldError>,
}

/// A decoded parameter.
#[derive(Debug)]
struct QueryParameter {
    name: String,
    value: String,
    /// Whether the encoded value contains a `+`, which is decoded as a space.
    has_plus: bool,
}

impl QueryParameters {
    /// Reads the parameters with these names.
    #[must_use]
    pub fn parse(query: Option<&str>, known: &[&str]) -> Self {
        Self::read(query, known, None)
    }

    /// Reads the parameters with these names and those whose names begin with `family`.
    #[must_use]
    pub fn with_family(query: Option<&str>, known: &[&str], family: &str) -> Self {
        Self::read(query, known, Some(family))
    }

    fn read(query: Option<&str>, known: &[&str], family: Option<&str>) -> Self {
        let is_known = |name: &str| known.contains(&name) || family.is_some_and(|family| name.starts_with(family));
        let mut read = Self { given: Vec::new(), mistakes: Vec::new() };
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (raw_name, raw_value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(name) = form_decode(raw_name) else {
                read.mistakes.push(FieldError::parameter(raw_name, &MALFORMED));
                continue;
            };
            if !is_known(&name) {
                let family = family.map_or(String::new(), |family| format!(", {family}…"));
                let detail = format!("is unknown: expected one of {}{family}", known.join(", "));
                read.mistakes.push(FieldError::parameter(name, &detail));
            } else if read.given.iter().any(|given| given.name == name) {
                read.mistakes.push(FieldError::parameter(name, &"is repeated"));
            } else if let Some(value) = form_decode(raw_value) {
                read.given.push(QueryParameter { name, value, has_plus: raw_value.contains('+') });
            } else {
                read.mistakes.push(FieldError::parameter(name, &MALFORMED));
            }
        }
        read
    }

    /// Parses a parameter if it is given. An error is recorded.
    pub fn take<T, E: ToString>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let given = self.given.iter().find(|given| given.name == name)?;
        match parse(&given.value) {
            Ok(value) => Some(value),
            Err(error) => {
                let hint = if given.has_plus { "; a + is decoded as a space: encode a plus sign as %2B" } else { "" };
                self.mistakes.push(FieldError::parameter(name, &format!("{}{hint}", error.to_string())));
                None
            }
        }
    }

    /// Returns whether a parameter is given, with a valid value or not.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.given.iter().any(|given| given.name == name)
    }

    /// Returns the names of the given parameters that begin with `start`.
    #[must_use]
    pub fn with_prefix(&self, start: &str) -> Vec<String> {
        self.given.iter().map(|given| &given.name).filter(|name| name.starts_with(start)).cloned().collect()
    }

    /// Returns the encoded query without this parameter.
    #[must_use]
    pub fn without(&self, name: &str) -> String {
        let others = self.given.iter().filter(|given| given.name != name);
        let pair = |given: &QueryParameter| format!("{}={}", encode(&given.name), encode(&given.value));
        others.map(pair).collect::<Vec<_>>().join("&")
    }

    /// Returns whether no error has been recorded so far.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.mistakes.is_empty()
    }

    /// Records an error that is detected from several parameters together.
    pub fn refuse(&mut self, name: &str, detail: &str) {
        self.mistakes.push(FieldError::parameter(name, &detail));
    }

    /// Finishes reading.
    ///
    /// # Errors
    /// All recorded errors.
    pub fn finish(self) -> Result<(), Vec<FieldError>> {
        if self.mistakes.is_empty() { Ok(()) } else { Err(self.mistakes) }
    }
}

const MALFORMED: &str = "is not percent-encoded UTF-8: write a byte as % and two hex digits";

fn form_decode(text: &str) -> Option<String> {
    let spaced = if text.contains('+') { Cow::Owned(text.replace('+', " ")) } else { Cow::Borrowed(text) };
    decode(&spaced).map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Result<u8, std::num::ParseIntError> {
        text.parse()
    }

    #[expect(clippy::unnecessary_wraps, reason = "the signature of a parameter parser")]
    fn text(text: &str) -> Result<String, String> {
        Ok(text.to_owned())
    }

    #[test]
    fn a_parameter_is_form_decoded() {
        let mut query = QueryParameters::parse(Some("email=a%2Bb%40d.e&status=on+leave&na%6De+x=%20&limit=7&"), &KNOWN);
        assert_eq!(query.take("email", text).unwrap(), "a+b@d.e");
        assert_eq!(query.take("status", text).unwrap(), "on leave");
        assert_eq!(query.take("name x", text).unwrap(), " ");
        assert_eq!(query.take("limit", whole), Some(7));
        assert!(query.finish().is_ok());
        assert!(QueryParameters::parse(None, &[]).finish().is_ok());
    }

    const KNOWN: [&str; 5] = ["email", "status", "name x", "limit", "cursor"];

    #[test]
    fn a_plus_that_was_meant_as_one_is_explained() {
        let mut query = QueryParameters::parse(Some("email=a+b@c.de"), &KNOWN);
        assert_eq!(query.take("email", |text| Err::<(), _>(format!("{text:?} is not an email"))), None);
        let json = serde_json::to_string(&query.finish().unwrap_err()).unwrap();
        assert!(json.contains("a b@c.de") && json.contains("%2B"), "{json}");
    }

    #[test]
    fn the_rest_of_a_query_is_encoded_again() {
        let query = QueryParameters::parse(Some("email=a%2Bb@c.de&status=on+leave%3E%26&%63ursor=x&limit=7"), &KNOWN);
        assert_eq!(query.without("cursor"), "email=a%2Bb%40c.de&status=on%20leave%3E%26&limit=7");
        assert!(query.has("cursor") && !query.has("fields"));
    }

    #[test]
    fn malformed_escape_error_names_the_parameter() {
        for (query, name) in [
            ("limit=%zz", "limit"),
            ("limit=%", "limit"),
            ("%6Cimit=%4", "limit"),
            ("limit=%ff", "limit"),
            ("%zz=1", "%zz"),
        ] {
            let mistakes = QueryParameters::parse(Some(query), &KNOWN).finish().unwrap_err();
            assert_eq!(mistakes, [FieldError::parameter(name, &MALFORMED)], "{query}");
        }
    }

    proptest::proptest! {
        #[test]
        fn form_encoded_value_is_decoded_unchanged(value: String) {
            let written = encode(&value).replace("%20", "+");
            let mut query = QueryParameters::parse(Some(&format!("status={written}")), &KNOWN);
            proptest::prop_assert_eq!(query.take("status", text), Some(value.clone()));
            let mut again = QueryParameters::parse(Some(&query.without("cursor")), &KNOWN);
            proptest::prop_assert_eq!(again.take("status", text), Some(value));
        }
    }

    #[test]
    fn all_query_parameter_errors_are_returned_at_once() {
        let mut query = QueryParameters::parse(Some("emial=x&limit=1&limit=2&from=%ff&to=x"), &["limit", "from", "to"]);
        assert_eq!(query.take("to", whole), None);
        let Err(mistakes) = query.finish() else { panic!("accepted") };
        let json = serde_json::to_string(&mistakes).unwrap();
        for name in ["emial", "limit", "from", "to"] {
            assert!(json.contains(&format!("{{\"parameter\":\"{name}\"")), "{json}");
        }
    }
}
