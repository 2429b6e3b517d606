//! docs/logging.md describes every field that the functions log, with its type.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::LazyLock;

use serde_json::Value;

use super::{FUNCTIONS, STREAM_FUNCTIONS, is_own, names, printed, table};
use crate::architecture::{self, code};

/// The fields that the subscriber and the Lambda runtime add to a line.
const ADDED: [&str; 5] = ["timestamp", "level", "target", "message", "span"];
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

fn document() -> String {
    fs::read_to_string(architecture::root().join("docs/logging.md")).unwrap()
}

/// The documented types by field.
static TYPES: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    let rows = table(&document(), "## Fields");
    let fields = rows.iter().map(|row| (row[0].trim_matches('`').to_owned(), row[1].clone()));
    let types: BTreeMap<String, String> = fields.collect();
    assert_eq!(types.len(), rows.len(), "a field is documented once");
    types
});

/// Fails if a function's log line has a field that is not documented, or with another type.
pub(crate) fn assert_documented(line: &Value) {
    for (field, value) in line.as_object().unwrap() {
        let documented = TYPES.get(field).unwrap_or_else(|| panic!("docs/logging.md lacks {field}: {line}"));
        let is_of_type = match documented.as_str() {
            "string" => value.is_string(),
            "integer" => value.is_u64() || value.is_i64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "object" => value.is_object(),
            other => panic!("docs/logging.md: {field} has the type {other:?}"),
        };
        assert!(is_of_type, "{field} is not of type {documented}: {line}");
    }
}

/// The arguments of every log call in a text.
fn log_calls(code: &str) -> Vec<Vec<&str>> {
    let calls = LEVELS.iter().flat_map(|level| {
        let call = format!("tracing::{level}!(");
        code.match_indices(&call).map(|(at, _)| &code[at + call.len()..]).collect::<Vec<_>>()
    });
    calls.map(arguments).collect()
}

/// The parts of the text that are separated by commas at the outermost level, up to the closing parenthesis.
fn arguments(text: &str) -> Vec<&str> {
    let (mut arguments, mut start, mut depth) = (Vec::new(), 0, 0);
    let mut quoted = false;
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => {
                arguments.push(text[start..at].trim());
                break;
            }
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                arguments.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    arguments
}

/// The name of the field that an argument of a log call sets; `None` for the message.
fn field(argument: &str) -> Option<&str> {
    if argument.is_empty() || argument.starts_with('"') {
        return None;
    }
    let name = argument.split_once(" = ").map_or(argument, |(name, _)| name);
    Some(name.trim_start_matches(['%', '?']))
}

#[test]
fn documented_fields_are_those_of_the_log_calls() {
    let mut logged: BTreeSet<String> = ADDED.map(str::to_owned).into();
    let mut calls = 0;
    for source in architecture::sources() {
        if !source.is_deployed() || architecture::is_test(&source) {
            continue;
        }
        let code = code(&source);
        assert!(!code.contains("use tracing::{"), "{}: write tracing::info!", source.path.display());
        for call in log_calls(&code) {
            calls += 1;
            logged.extend(call.into_iter().filter_map(field).map(str::to_owned));
        }
    }
    assert!(calls > 20, "log calls are found: {calls}");
    let documented: BTreeSet<String> = TYPES.keys().cloned().collect();
    let missing: Vec<_> = logged.difference(&documented).collect();
    let obsolete: Vec<_> = documented.difference(&logged).collect();
    assert!(missing.is_empty() && obsolete.is_empty(), "not in docs/logging.md: {missing:?}; only there: {obsolete:?}");
}

#[test]
fn log_calls_are_found_with_their_fields() {
    let code =
        r#"x(); tracing::warn!(sink = NAME, error = %fault, task.sinks = ?f(a, b), %problems, key, "a, b {x}"); y()"#;
    let fields: Vec<_> = log_calls(code).concat().into_iter().filter_map(field).collect();
    assert_eq!(fields, ["sink", "error", "task.sinks", "problems", "key"]);
}

#[test]
fn printed_lines_and_samples_are_as_documented() {
    for function in FUNCTIONS {
        for line in &printed(function).logs {
            assert_documented(line);
            assert!(ADDED[..4].iter().all(|field| !line[*field].is_null()), "{line}");
        }
    }
    let document = document();
    let samples: Vec<Value> = document
        .split("```json\n")
        .skip(1)
        .map(|block| serde_json::from_str(block.split("\n```").next().unwrap()).unwrap())
        .collect();
    assert!(samples.len() >= 3, "{samples:?}");
    for sample in &samples {
        assert!(is_own(sample), "{sample}");
        assert_documented(sample);
    }
}

#[test]
fn documented_messages_are_printed() {
    let document = document();
    let prints = |function: &str, level: &str, message: &str| {
        let found = printed(function).logs.iter().any(|line| line["message"] == message && line["level"] == level);
        assert!(found, "{function} does not print {message:?} at {level}: {:?}", printed(function).logs);
    };
    for row in table(&document, "## Summary lines") {
        let message = row[1].trim_matches('`');
        for function in names(&row[0]) {
            prints(&function, "INFO", message);
        }
    }
    let others = [
        ("request failed", "ERROR", &["api", "search"][..]),
        ("batch not fully processed", "WARN", &STREAM_FUNCTIONS[..]),
        ("batch failed", "ERROR", &STREAM_FUNCTIONS[..]),
        ("task failed", "ERROR", &["maintenance"][..]),
    ];
    for (message, level, functions) in others {
        assert!(document.contains(&format!("`{message}`")), "docs/logging.md lacks {message}");
        for function in functions {
            prints(function, level, message);
        }
    }
}

/// The replicator and the archiver report a batch that is redelivered in the same way.
#[test]
fn stream_functions_use_the_same_keys_for_a_batch_that_is_redelivered() {
    for function in STREAM_FUNCTIONS {
        let lines = |message: &str| -> Vec<&Value> {
            printed(function).logs.iter().filter(|line| line["message"] == message).collect()
        };
        let partial = lines("batch not fully processed");
        assert!(!partial.is_empty(), "{function}");
        for line in partial {
            assert_eq!(line["level"], "WARN", "{line}");
            assert!(line["batch.failed"].as_u64().unwrap() > 0 && line["error"].is_string(), "{line}");
            // The batch is redelivered from a sequence number, or completely.
            let sequence = line["batch.retry_from_sequence"].as_str();
            assert_eq!(line["batch.retry_all"], sequence.is_none(), "{line}");
            assert!(sequence.is_none_or(|digits| digits.bytes().all(|digit| digit.is_ascii_digit())), "{line}");
        }
        let failed = lines("batch failed");
        assert!(!failed.is_empty(), "{function}");
        for line in failed {
            assert_eq!((&line["level"], &line["error.kind"]), (&"ERROR".into(), &"QuarantineUnavailable".into()));
            assert!(line["error"].is_string() && line["request_id"].is_string(), "{line}");
            assert_eq!(line["batch.retry_all"], true, "{line}");
        }
        let quarantine_failed = |line: &&Value| line["batch.quarantine_failed"].as_u64().is_some_and(|count| count > 0);
        assert!(printed(function).logs.iter().any(|line| quarantine_failed(&line)), "{function}");
    }
}
