//! No input makes the reader or a rule panic, or run without end.

use std::collections::BTreeMap;

use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use proptest::sample::{Index, select};
use serde_json::Value;

use super::SOUND;
use super::plan_tests::PLAN;
use crate::diagnosis::diagnose;
use crate::filter_pattern::FilterPattern;
use crate::template_reader::read;
use crate::terraform_plan;

/// Texts that mean something in a template.
const WORDS: [&str; 24] = [
    "!Ref ", "!Sub ", "!GetAtt ", "!If ", "!Join ", "!Select ", "!Split ", "[", "]", "{", "}", ": ", "- ", "\n", "  ",
    "'", "\"", "${", "|", "&a ", "*a", "null", "Fn::If", "Users",
];

fn judge(text: &str) {
    if let Ok(reading) = read(text, "t.yaml", None, &BTreeMap::new()) {
        let _ = diagnose(&reading.deployment);
        assert!(reading.problems.iter().all(|problem| !problem.contains('\n')));
    } else if let Err(error) = read(text, "t.yaml", None, &BTreeMap::new()) {
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

fn replacement() -> impl Strategy<Value = String> {
    prop_oneof![select(&WORDS[..]).prop_map(str::to_owned), ".{0,8}", "[ \\n\\t-]{0,6}"]
}

/// A value of JSON that a service or another program might write.
pub(crate) fn odd_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
        prop_oneof![
            Just("arn:aws:dynamodb:eu-west-1:1:table/Users/stream/"),
            Just("arn:aws:lambda:::function::"),
            Just("arn:aws:s3:::"),
            Just("module.a.module.b[\"c.d\"]."),
            Just("var.stream_arn"),
            Just("each.key"),
            Just("PROBLEM"),
            Just("1e400"),
            Just("{\"Statement\": [{}]}"),
        ]
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map("[A-Za-z]{0,8}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Returns the JSON pointers of a value and of all within it.
pub(crate) fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| pointers(item, &format!("{at}/{index}"), found));
        }
        Value::Object(members) => {
            members.iter().for_each(|(name, item)| pointers(item, &format!("{at}/{name}"), found));
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn a_template_with_changed_parts_is_read_or_rejected(
        changes in prop::collection::vec((any::<Index>(), 0_usize..20, replacement()), 1..6),
    ) {
        let mut text: Vec<char> = SOUND.chars().collect();
        for (at, length, with) in changes {
            let at = at.index(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, with.chars());
        }
        judge(&text.into_iter().collect::<String>());
    }

    #[test]
    fn any_text_is_read_or_rejected(text in prop::collection::vec(replacement(), 0..40)) {
        judge(&text.concat());
    }

    #[test]
    fn a_plan_with_changed_parts_is_read(
        changes in prop::collection::vec((any::<Index>(), odd_value()), 1..6),
    ) {
        let mut plan: Value = serde_json::from_str(PLAN).unwrap();
        for (at, value) in changes {
            let mut found = Vec::new();
            pointers(&plan, "", &mut found);
            let pointer: &String = at.get(&found);
            *plan.pointer_mut(pointer).unwrap() = value;
        }
        let reading = terraform_plan::read(&plan, "plan.json");
        let _ = diagnose(&reading.deployment);
        assert!(reading.problems.iter().all(|problem| !problem.contains('\n')));
    }

    #[test]
    fn any_pattern_is_analyzed(pattern in prop::collection::vec(replacement(), 0..20)) {
        let _ = FilterPattern::parse(&pattern.concat());
    }
}

#[test]
fn names_that_double_from_one_to_the_next_end() {
    use std::fmt::Write as _;
    let mut conditions = String::from("Conditions:\n");
    let mut applications = String::new();
    for index in 0..50 {
        let next = index + 1;
        let _ = writeln!(conditions, "  C{index}: !And [!Condition C{next}, !Condition C{next}]");
        let _ = writeln!(
            applications,
            "  T{index}: {{Type: AWS::DynamoDB::Table, Properties: {{TableName: !Sub '${{T{next}}}${{T{next}}}'}}}}"
        );
    }
    judge(&format!(
        "{conditions}  C50: !Equals [a, a]\nResources:\n  A: {{Type: AWS::S3::Bucket, Condition: C0}}\n{applications}"
    ));
}

#[test]
fn a_file_of_five_megabytes_is_rejected_by_its_size() {
    let text = "a: b\n".repeat(1_000_001);
    let error = read(&text, "t.yaml", None, &BTreeMap::new()).unwrap_err();
    assert_eq!(error.to_string(), "t.yaml: the template has 5000005 bytes: at most 4000000 are read");
}
