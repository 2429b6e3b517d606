//! Problem details of error responses (RFC 9457): their JSON and its field errors. Each API defines its problems in an
//! enum of its own.

use serde::Serialize;

/// An error in one part of a request.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct FieldError {
    /// The part of the request.
    #[serde(flatten)]
    pub location: ErrorLocation,
    /// The error, with the fix.
    pub detail: String,
}

/// The part of a request that an error refers to.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorLocation {
    /// A value in the body, by JSON pointer (RFC 6901).
    Pointer(String),
    /// A parameter of the path or the query, by name.
    Parameter(String),
    /// A header, by name.
    Header(&'static str),
}

impl FieldError {
    /// Creates an error in the body.
    #[must_use]
    pub fn pointer(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { location: ErrorLocation::Pointer(pointer.into()), detail: detail.into() }
    }

    /// Creates an error in a parameter of the path or the query.
    #[must_use]
    pub fn parameter(name: impl Into<String>, detail: &impl ToString) -> Self {
        Self { location: ErrorLocation::Parameter(name.into()), detail: detail.to_string() }
    }
}

/// Returns the type URI of a problem. It is stable and cannot be dereferenced.
#[must_use]
pub fn type_uri(kind: &str) -> String {
    format!("urn:millrace:problem:{kind}")
}

/// The details of a problem, to be serialized as JSON.
#[derive(Clone, Copy, Debug)]
pub struct ProblemDetails<'a> {
    /// The last part of the type's URI.
    pub kind: &'a str,
    /// A short summary of the problem.
    pub title: &'a str,
    /// The status code of the response.
    pub status: u16,
    /// An explanation that says how to fix the problem.
    pub detail: &'a str,
    /// The id of the request.
    pub instance: &'a str,
    /// The line and the column of malformed JSON.
    pub position: Option<(usize, usize)>,
    /// The errors in the request.
    pub errors: Option<&'a [FieldError]>,
}

impl ProblemDetails<'_> {
    /// Returns the JSON of an `application/problem+json` response.
    #[must_use]
    pub fn json(&self) -> String {
        /// The members of RFC 9457, section 3.1, and three extension members.
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
            line: self.position.map(|(line, _)| line),
            column: self.position.map(|(_, column)| column),
            errors: self.errors,
        };
        // Serialization cannot fail, because there are only texts and numbers.
        serde_json::to_string(&flat).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_placed_by_pointer_parameter_or_header() {
        for (location, text) in [
            (ErrorLocation::Pointer("/name".into()), r#"{"pointer":"/name","detail":"x"}"#),
            (ErrorLocation::Parameter("limit".into()), r#"{"parameter":"limit","detail":"x"}"#),
            (ErrorLocation::Header("if-match"), r#"{"header":"if-match","detail":"x"}"#),
        ] {
            assert_eq!(serde_json::to_string(&FieldError { location, detail: "x".into() }).unwrap(), text);
        }
    }

    #[test]
    fn absent_problem_members_are_omitted() {
        let details = ProblemDetails {
            kind: "k",
            title: "t",
            status: 400,
            detail: "d",
            instance: "i",
            position: None,
            errors: None,
        };
        let start = r#"{"type":"urn:millrace:problem:k","title":"t","status":400,"detail":"d","instance":"i""#;
        assert_eq!(details.json(), format!("{start}}}"));
        let mistakes = [FieldError::parameter("limit", &"x")];
        let whole = ProblemDetails { position: Some((1, 2)), errors: Some(&mistakes), ..details };
        let end = r#","line":1,"column":2,"errors":[{"parameter":"limit","detail":"x"}]}"#;
        assert_eq!(whole.json(), format!("{start}{end}"));
    }
}
