//! The formats of a diagnosis.

use serde_json::Value;

use super::{diagnosis_of, faulty};
use crate::report;
use crate::rule_table::RULES;

#[test]
fn people_read_the_place_the_problem_the_fix_and_what_was_not_checked() {
    let text = report::human(&diagnosis_of(&faulty("starts-at-latest")));
    for part in [
        "LOSES: records are lost without a trace",
        "Copier.Changes: StartingPosition is LATEST",
        "      StartingPosition: TRIM_HORIZON",
        "source: https://docs.aws.amazon.com/",
        "NOT CHECKED",
        "ttl-value-invalid",
        "1 mapping of a DynamoDB stream: 1 loses;",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn json_contains_findings_and_what_was_not_checked() {
    let document: Value = serde_json::from_str(&report::json(&diagnosis_of(&faulty("mapping-disabled")), &[])).unwrap();
    assert_eq!(document["findings"][0]["rule"], "mapping-disabled");
    assert_eq!(document["findings"][0]["resource"], "Copier.Changes");
    assert!(document["findings"][0]["line"].as_u64().is_some_and(|line| line > 1));
    assert!(!document["not_checked"].as_array().unwrap().is_empty());
}

#[test]
fn sarif_has_every_rule_and_a_result_with_its_place() {
    let problems = ["t.yaml:3: broken".to_owned()];
    let document: Value =
        serde_json::from_str(&report::sarif(&diagnosis_of(&faulty("open-route")), &problems)).unwrap();
    let run = &document["runs"][0];
    assert_eq!(run["tool"]["driver"]["rules"].as_array().unwrap().len(), RULES.len());
    assert_eq!(run["results"][0]["ruleId"], "open-route");
    let location = &run["results"][0]["locations"][0]["physicalLocation"];
    assert_eq!(location["artifactLocation"]["uri"], "t.yaml");
    assert!(location["region"]["startLine"].as_u64().is_some());
    assert_eq!(run["invocations"][0]["executionSuccessful"], false);
}

#[test]
fn junit_counts_its_cases_and_escapes_text() {
    let text = report::junit(&diagnosis_of(&faulty("filter-never-matches")), &["a <b> & \"c\"\u{1}".to_owned()]);
    assert!(text.contains("a &lt;b&gt; &amp; &quot;c&quot;\u{fffd}"), "{text}");
    let count = |name: &str| text.matches(name).count();
    assert!(text.contains(&format!("tests=\"{}\" failures=\"1\" errors=\"1\"", count("<testcase "))), "{text}");
    assert_eq!((count("<failure "), count("<error ")), (1, 1));
}
