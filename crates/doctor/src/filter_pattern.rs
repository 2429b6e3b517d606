//! Analysis of a mapping's filter pattern: which records it can never match, and which parts of a record it reads
//! ([`FilterPattern`]).
//!
//! A record that no pattern matches is discarded without a trace, so a pattern that matches nothing loses everything.

use millrace_event_source_mapping::filter::RecordFilter;
use serde_json::{Map, Value};

/// The members of a record of a DynamoDB stream.
const RECORD_MEMBERS: [&str; 8] =
    ["eventID", "eventName", "eventVersion", "eventSource", "awsRegion", "dynamodb", "userIdentity", "eventSourceARN"];
/// The members of its `dynamodb`.
const CHANGE_MEMBERS: [&str; 7] =
    ["ApproximateCreationDateTime", "Keys", "NewImage", "OldImage", "SequenceNumber", "SizeBytes", "StreamViewType"];
const EVENT_NAMES: [&str; 3] = ["INSERT", "MODIFY", "REMOVE"];
/// The types of an attribute value.
const ATTRIBUTE_TYPES: [&str; 10] = ["B", "BOOL", "BS", "L", "M", "N", "NS", "NULL", "S", "SS"];

/// A filter pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about a pattern")]
pub struct FilterPattern {
    /// Why it matches no record, if it does not.
    pub never_matches: Option<String>,
    /// Whether it reads the image before or after the change.
    pub reads_old_image: bool,
    /// Whether it reads the image after the change.
    pub reads_new_image: bool,
    /// Whether it selects removals only.
    pub only_removals: bool,
    /// Whether it requires the service as the type of the identity.
    pub requires_service: bool,
    /// Whether it requires DynamoDB as the principal of the identity.
    pub requires_dynamodb: bool,
}

impl FilterPattern {
    /// Analyzes a pattern.
    #[must_use]
    pub fn parse(pattern: &str) -> Self {
        let mut result = Self {
            never_matches: None,
            reads_old_image: false,
            reads_new_image: false,
            only_removals: false,
            requires_service: false,
            requires_dynamodb: false,
        };
        let record = match serde_json::from_str::<Value>(pattern) {
            Ok(Value::Object(record)) => record,
            Ok(_) => return result.never("it is not a JSON object"),
            Err(error) => return result.never(&format!("it is not JSON: {error}")),
        };
        if let Some(Value::Array(names)) = record.get("eventName") {
            result.only_removals = !names.is_empty() && names.iter().all(|name| name == "REMOVE");
        }
        if let Some(Value::Object(identity)) = record.get("userIdentity") {
            let requires = |name: &str, value: &str| {
                identity.get(name).is_some_and(|allowed| *allowed == Value::from(vec![value]))
            };
            result.requires_service = requires("type", "Service");
            result.requires_dynamodb = requires("principalId", "dynamodb.amazonaws.com");
        }
        if let Some(Value::Object(change)) = record.get("dynamodb") {
            result.reads_old_image = change.contains_key("OldImage");
            result.reads_new_image = change.contains_key("NewImage");
        }
        result.never_matches = record_problem(&record).or_else(|| malformed(pattern, &record));
        result
    }

    fn never(mut self, reason: &str) -> Self {
        self.never_matches = Some(reason.to_owned());
        self
    }

    /// Returns whether the pattern reads an image.
    #[must_use]
    pub fn reads_image(&self) -> bool {
        self.reads_old_image || self.reads_new_image
    }
}

/// Returns why the matcher of the simulator rejects a pattern, if it supports all of its operators.
fn malformed(pattern: &str, record: &Map<String, Value>) -> Option<String> {
    if record.is_empty() || record.iter().any(|(name, value)| is_not_supported(name, value)) {
        return None;
    }
    let error = RecordFilter::parse("", &[pattern.to_owned()]).err()?;
    Some(format!("it is malformed: {}", error.reason))
}

/// Returns whether a member of a pattern contains an operator that the matcher of the simulator lacks.
fn is_not_supported(name: &str, value: &Value) -> bool {
    let is_lacking = matches!(name, "$or" | "cidr" | "wildcard") || (name == "anything-but" && value.is_object());
    is_lacking
        || match value {
            Value::Array(items) => items.iter().any(|item| is_not_supported("", item)),
            Value::Object(members) => members.iter().any(|(name, value)| is_not_supported(name, value)),
            _ => false,
        }
}

fn record_problem(record: &Map<String, Value>) -> Option<String> {
    for (name, value) in record {
        // An alternative is not examined: it does not decide alone.
        if name == "$or" {
            continue;
        }
        if !RECORD_MEMBERS.contains(&name.as_str()) && requires_presence(value) {
            return Some(format!("a record of a DynamoDB stream has no member {name}"));
        }
        let problem = match (name.as_str(), value) {
            ("dynamodb", Value::Object(change)) => change_problem(change),
            ("eventName", Value::Array(names)) if !names.is_empty() => names.iter().find_map(|name| match name {
                Value::String(name) if names.len() == 1 && !EVENT_NAMES.contains(&name.as_str()) => {
                    Some(format!("eventName is never {name:?}: expected INSERT, MODIFY or REMOVE"))
                }
                _ => None,
            }),
            ("userIdentity", Value::Object(identity)) => {
                identity.iter().find_map(|(name, value)| leaf_problem(&format!("userIdentity.{name}"), value))
            }
            _ => leaf_problem(name, value),
        };
        if problem.is_some() {
            return problem;
        }
    }
    None
}

fn change_problem(change: &Map<String, Value>) -> Option<String> {
    for (name, value) in change {
        if name == "$or" {
            continue;
        }
        if !CHANGE_MEMBERS.contains(&name.as_str()) && requires_presence(value) {
            return Some(format!("the member dynamodb of a record has no member {name}"));
        }
        let path = format!("dynamodb.{name}");
        let problem = match (name.as_str(), value) {
            ("Keys" | "NewImage" | "OldImage", Value::Object(image)) => {
                image.iter().find_map(|(name, value)| attribute_problem(&format!("{path}.{name}"), value))
            }
            _ => leaf_problem(&path, value),
        };
        if problem.is_some() {
            return problem;
        }
    }
    None
}

/// Examines the pattern of an attribute value, an object with its type.
fn attribute_problem(path: &str, value: &Value) -> Option<String> {
    if path.ends_with(".$or") {
        return None;
    }
    let types = match value {
        Value::Object(types) => types,
        // The existence of an attribute is not visible at its own level.
        Value::Array(tests) if !tests.iter().any(requires_presence) => return None,
        Value::Array(_) => {
            return Some(format!(
                "{path} is an object with the attribute's type: write {{\"S\": […]}} or {{\"N\": […]}}"
            ));
        }
        _ => return leaf_problem(path, value),
    };
    for (kind, tests) in types {
        let path = format!("{path}.{kind}");
        if !ATTRIBUTE_TYPES.contains(&kind.as_str()) && kind != "$or" {
            return Some(format!("{path}: {kind} is not the type of an attribute: expected S, N, BOOL, …"));
        }
        let problem = match (kind.as_str(), tests) {
            ("N", Value::Array(tests)) => tests.iter().find_map(|test| match test {
                Value::Number(number) => Some(format!("{path} is a string in a record: write \"{number}\" in quotes")),
                Value::Object(test) if test.contains_key("numeric") => {
                    Some(format!("{path} is a string in a record, which numeric never matches"))
                }
                _ => None,
            }),
            ("M", Value::Object(map)) => {
                map.iter().find_map(|(name, value)| attribute_problem(&format!("{path}.{name}"), value))
            }
            _ => leaf_problem(&path, tests),
        };
        if problem.is_some() {
            return problem;
        }
    }
    None
}

/// A leaf of a pattern is a list with at least one value.
fn leaf_problem(path: &str, value: &Value) -> Option<String> {
    match value {
        Value::Array(tests) if tests.is_empty() => Some(format!("{path}: an empty list matches nothing")),
        Value::Array(_) => None,
        Value::Object(members) => {
            members.iter().find_map(|(name, value)| leaf_problem(&format!("{path}.{name}"), value))
        }
        _ => Some(format!("{path} is not a list: a pattern lists the accepted values")),
    }
}

/// Returns whether a pattern can match only a member that exists.
fn requires_presence(value: &Value) -> bool {
    match value {
        Value::Array(tests) => !tests.iter().any(|test| test.get("exists") == Some(&Value::Bool(false))),
        Value::Object(test) => test.get("exists") != Some(&Value::Bool(false)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_match_no_record_are_found() {
        for (pattern, expected) in [
            ("{", "is not JSON"),
            ("[]", "not a JSON object"),
            (r#"{"body":{"a":["b"]}}"#, "no member body"),
            (r#"{"eventName":["CREATE"]}"#, "never \"CREATE\""),
            (r#"{"eventName":"INSERT"}"#, "is not a list"),
            (r#"{"eventName":[]}"#, "empty list"),
            (r#"{"dynamodb":{"NewImage":{"age":{"N":[{"numeric":[">",3]}]}}}}"#, "numeric never matches"),
            (r#"{"dynamodb":{"NewImage":{"age":{"N":[3]}}}}"#, "in quotes"),
            (r#"{"dynamodb":{"NewImage":{"a":{"M":{"b":{"N":[3]}}}}}}"#, "in quotes"),
            (r#"{"dynamodb":{"NewImage":{"status":["open"]}}}"#, "attribute's type"),
            (r#"{"dynamodb":{"NewImage":{"status":{"String":["open"]}}}}"#, "not the type"),
            (r#"{"dynamodb":{"newImage":{"status":{"S":["open"]}}}}"#, "no member newImage"),
            (r#"{"dynamodb":{"NewImage":{"status":{"S":"open"}}}}"#, "is not a list"),
            (r#"{"dynamodb":{"Keys":{"id":{"S":[{"prefx":"user#"}]}}}}"#, "malformed"),
            (r#"{"dynamodb":{"SizeBytes":[{"numeric":["~",3]}]}}"#, "malformed"),
        ] {
            let problem = FilterPattern::parse(pattern).never_matches.unwrap_or_else(|| panic!("{pattern} passed"));
            assert!(problem.contains(expected), "{pattern}: {problem}");
        }
    }

    #[test]
    fn patterns_that_match_some_record_pass() {
        for pattern in [
            "{}",
            r#"{"eventName":["INSERT","MODIFY"]}"#,
            r#"{"eventName":["REMOVE"],"userIdentity":{"type":["Service"],"principalId":["dynamodb.amazonaws.com"]}}"#,
            r#"{"dynamodb":{"Keys":{"pk":{"S":[{"prefix":"user#"}]}}}}"#,
            r#"{"dynamodb":{"NewImage":{"age":{"N":["3",{"anything-but":["4"]}]}}}}"#,
            r#"{"dynamodb":{"OldImage":[{"exists":false}]}}"#,
            r#"{"dynamodb":{"NewImage":{"a":{"S":[{"exists":false}]}}}}"#,
            r#"{"$or":[{"eventName":["INSERT"]},{"eventName":["REMOVE"]}]}"#,
            r#"{"dynamodb":{"SizeBytes":[{"numeric":[">",0,"<=",100]}]}}"#,
            r#"{"dynamodb":{"Keys":{"id":{"S":[{"suffix":"a"},{"equals-ignore-case":"B"},{"anything-but":["c"]}]}}}}"#,
            r#"{"dynamodb":{"Keys":{"id":{"S":[{"anything-but":{"prefix":"c"}}]}}}}"#,
        ] {
            assert_eq!(FilterPattern::parse(pattern).never_matches, None, "{pattern}");
        }
    }

    #[test]
    fn the_parts_that_a_pattern_reads_are_found() {
        let ttl =
            r#"{"eventName":["REMOVE"],"userIdentity":{"type":["Service"],"principalId":["dynamodb.amazonaws.com"]}}"#;
        let ttl = FilterPattern::parse(ttl);
        assert!(ttl.only_removals && ttl.requires_service && ttl.requires_dynamodb && !ttl.reads_image());
        let half = FilterPattern::parse(r#"{"userIdentity":{"type":["Service"]}}"#);
        assert!(half.requires_service && !half.requires_dynamodb && !half.only_removals);
        assert!(FilterPattern::parse(r#"{"dynamodb":{"OldImage":{"a":{"S":["b"]}}}}"#).reads_image());
    }
}
