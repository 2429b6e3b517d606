//! What a failure looks like (RFC 9457): its JSON, and the mistakes that it tells. Which failures there are is each API's
//! own enum.

use serde::Serialize;

/// One thing that is wrong with a request, and where.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct FieldError {
    /// Where it stands.
    #[serde(flatten)]
    pub place: ErrorLocation,
    /// What is wrong, and the fix.
    pub detail: String,
}

/// Where a mistake stands.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorLocation {
    /// In the body, by JSON pointer (RFC 6901).
    Pointer(String),
    /// In the path or the query, by name.
    Parameter(String),
    /// In a header, by name.
    Header(&'static str),
}

impl FieldError {
    /// A mistake in the body.
    #[must_use]
    pub fn pointer(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { place: ErrorLocation::Pointer(pointer.into()), detail: detail.into() }
    }

    /// A mistake in the path or the query.
    #[must_use]
    pub fn parameter(name: impl Into<String>, detail: &impl ToString) -> Self {
        Self { place: ErrorLocation::Parameter(name.into()), detail: detail.to_string() }
    }
}

/// The name of a kind of problem: a URI that is no address, and never changes.
#[must_use]
pub fn type_uri(kind: &str) -> String {
    format!("urn:millrace:problem:{kind}")
}

/// A problem's details, to be written as JSON.
#[derive(Clone, Copy, Debug)]
pub struct ProblemDetails<'a> {
    /// The last part of the type's URI.
    pub kind: &'a str,
    /// The problem in a few words.
    pub title: &'a str,
    /// The answer's status.
    pub status: u16,
    /// What to do.
    pub detail: &'a str,
    /// The request's id.
    pub instance: &'a str,
    /// Line and column of malformed JSON.
    pub place: Option<(usize, usize)>,
    /// What is wrong.
    pub errors: Option<&'a [FieldError]>,
}

impl ProblemDetails<'_> {
    /// The JSON of `application/problem+json`.
    #[must_use]
    pub fn json(&self) -> String {
        /// RFC 9457, section 3.1, and three extensions.
        #[derive(Serialize)]
        struct Flat<'a> {
            r#type: String,
            title: &'a str,
            status: u16,
            detail: &'a str,
            instance: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            line: Option<usize>,
            #[serde(skip_serializing_if = "Option::is_none")]
            column: Option<usize>,
            #[serde(skip_serializing_if = "Option::is_none")]
            errors: Option<&'a [FieldError]>,
        }
        let flat = Flat {
            r#type: type_uri(self.kind),
            title: self.title,
            status: self.status,
            detail: self.detail,
            instance: self.instance,
            line: self.place.map(|(line, _)| line),
            column: self.place.map(|(_, column)| column),
            errors: self.errors,
        };
        // Texts and numbers alone: nothing here can fail to be written.
        serde_json::to_string(&flat).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_placed_by_pointer_parameter_or_header() {
        for (place, text) in [
            (ErrorLocation::Pointer("/name".into()), r#"{"pointer":"/name","detail":"x"}"#),
            (ErrorLocation::Parameter("limit".into()), r#"{"parameter":"limit","detail":"x"}"#),
            (ErrorLocation::Header("if-match"), r#"{"header":"if-match","detail":"x"}"#),
        ] {
            assert_eq!(serde_json::to_string(&FieldError { place, detail: "x".into() }).unwrap(), text);
        }
    }

    #[test]
    fn what_a_problem_lacks_is_left_out() {
        let details = ProblemDetails {
            kind: "k",
            title: "t",
            status: 400,
            detail: "d",
            instance: "i",
            place: None,
            errors: None,
        };
        let start = r#"{"type":"urn:millrace:problem:k","title":"t","status":400,"detail":"d","instance":"i""#;
        assert_eq!(details.json(), format!("{start}}}"));
        let mistakes = [FieldError::parameter("limit", &"x")];
        let whole = ProblemDetails { place: Some((1, 2)), errors: Some(&mistakes), ..details };
        let end = r#","line":1,"column":2,"errors":[{"parameter":"limit","detail":"x"}]}"#;
        assert_eq!(whole.json(), format!("{start}{end}"));
    }
}
