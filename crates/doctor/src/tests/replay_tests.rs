//! Each rule that loses records loses some in its replay, and none with the fix.

use crate::explanation::explain;
use crate::replay::{needs_scenario, replay, scenario};
use crate::rule_table::RULES;

#[test]
fn the_setting_of_each_rule_that_loses_records_loses_some_and_the_fix_none() {
    for rule in RULES {
        let Some(scenario) = scenario(rule.id) else {
            assert!(!needs_scenario(rule.severity), "{} loses records and has no replay", rule.id);
            continue;
        };
        let (faulty, fixed) = (replay(&scenario.faulty), replay(&scenario.fixed));
        assert!(!faulty.lost.is_empty(), "{}: {faulty:?}", rule.id);
        assert!(fixed.lost.is_empty(), "{}: {fixed:?}", rule.id);
        assert_eq!(fixed.applied.len() + fixed.recoverable.len(), 10, "{}", rule.id);
    }
}

#[test]
fn the_lost_records_are_those_that_the_documentation_predicts() {
    let lost = |rule: &str| replay(&scenario(rule).unwrap().faulty).lost.into_iter().collect::<Vec<_>>();
    // Only the poison record, since the batch is bisected.
    assert_eq!(lost("discarded-without-destination"), [4]);
    // The whole batch, of which only one record is bad.
    assert_eq!(lost("batch-discarded-whole"), (1..=10).collect::<Vec<_>>());
    // All are older than the stream's retention before the outage ends.
    assert_eq!(lost("age-exceeds-retention"), (1..=10).collect::<Vec<_>>());
    assert_eq!(lost("starts-at-latest"), [1, 2, 3]);
    assert_eq!(lost("filter-never-matches"), (1..=10).collect::<Vec<_>>());
}

#[test]
fn an_explanation_prints_the_lost_records_the_fix_and_the_source() {
    for rule in RULES {
        let text = explain(rule);
        assert!(text.contains(rule.loss) && text.contains(rule.source), "{text}");
        assert_eq!(text.contains("lost:                  none"), scenario(rule.id).is_some(), "{text}");
    }
}
