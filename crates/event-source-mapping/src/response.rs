//! Response of a function, interpreted as Lambda does: [`FunctionResponse`].
//!
//! The conditions are AWS's (<https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html>):
//! an empty body, `null`, `{}`, and an absent, null or empty list mean success; an empty or null identifier, a wrong
//! key name or any other shape fails the whole batch. The state machine checks whether an identifier belongs to a
//! record of the batch.

use serde_json::Value;

/// A function's parsed response to a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FunctionResponse {
    /// Every record was processed.
    Done,
    /// The sequence numbers that the function reported, unparsed; at least one.
    Failures(Vec<String>),
    /// The response is not valid: the whole batch failed.
    Malformed,
}

impl FunctionResponse {
    /// Parses the body of a function's response.
    #[must_use]
    pub fn read(body: &str) -> Self {
        if body.trim().is_empty() {
            return Self::Done;
        }
        match serde_json::from_str::<Value>(body) {
            Ok(Value::Null) => Self::Done,
            Ok(Value::Array(items)) if items.is_empty() => Self::Done,
            Ok(Value::Object(mut response)) => match response.remove("batchItemFailures") {
                None | Some(Value::Null) => Self::Done,
                Some(Value::Array(failures)) => Self::from_failures(&failures),
                Some(_) => Self::Malformed,
            },
            Ok(_) | Err(_) => Self::Malformed,
        }
    }

    fn from_failures(failures: &[Value]) -> Self {
        if failures.is_empty() {
            return Self::Done;
        }
        let identifier = |failure: &Value| match failure.get("itemIdentifier") {
            Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
            _ => None,
        };
        failures.iter().map(identifier).collect::<Option<Vec<_>>>().map_or(Self::Malformed, Self::Failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_to_report_is_success() {
        for body in ["", " ", "null", "{}", "[]", r#"{"batchItemFailures":[]}"#, r#"{"batchItemFailures":null}"#] {
            assert_eq!(FunctionResponse::read(body), FunctionResponse::Done, "{body}");
        }
    }

    #[test]
    fn reported_identifiers_are_kept_as_spelled() {
        let body = r#"{"batchItemFailures":[{"itemIdentifier":"200"},{"itemIdentifier":"0100"}]}"#;
        assert_eq!(FunctionResponse::read(body), FunctionResponse::Failures(vec!["200".to_owned(), "0100".to_owned()]));
    }

    #[test]
    fn a_malformed_answer_is_never_a_success() {
        for body in [
            r#"{"batchItemFailures":[{"itemIdentifier":""}]}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":null}]}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":123}]}"#,
            r#"{"batchItemFailures":[{"foo":"100"}]}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":"100"},{}]}"#,
            r#"{"batchItemFailures":["100"]}"#,
            r#"{"batchItemFailures":"100"}"#,
            "[1]",
            "true",
            "\"done\"",
            "{",
        ] {
            assert_eq!(FunctionResponse::read(body), FunctionResponse::Malformed, "{body}");
        }
    }
}
