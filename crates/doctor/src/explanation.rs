//! Explanation of a rule, with a replay of the setting: [`explain`] for a terminal, [`page`] for docs/doctor/.

use std::fmt::Write as _;

use crate::replay::{ReplayOutcome, format_numbers, replay, scenario};
use crate::rule_table::{DoctorRule, RULES, RuleSeverity};

/// Returns the explanation of a rule as text.
#[must_use]
pub fn explain(rule: &DoctorRule) -> String {
    let mut text = format!("{} ({})\n{}\n\n{}\n", rule.id, rule.severity.meaning(), rule.title, rule.loss);
    if let Some(scenario) = scenario(rule.id) {
        let _ = write!(text, "\nReplayed in the simulator of the event source mapping:\n  {}\n", scenario.story);
        for (name, settings) in [("with the setting", &scenario.faulty), ("with the fix", &scenario.fixed)] {
            let ReplayOutcome { applied, recoverable, lost } = replay(settings);
            let _ = writeln!(text, "  {name}:");
            let _ = writeln!(text, "    applied:               {}", format_numbers(&applied));
            let _ = writeln!(text, "    in the failure bucket: {}", format_numbers(&recoverable));
            let _ = writeln!(text, "    lost:                  {}", format_numbers(&lost));
        }
    }
    let _ = write!(
        text,
        "\nExamined in files: {}\nExamined in an account: {}\n\nFix in a template:\n\n{}\n",
        rule.offline,
        rule.live,
        indent(rule.fix)
    );
    if rule.fix_hcl != rule.fix {
        let _ = write!(text, "\nFix in Terraform:\n\n{}\n", indent(rule.fix_hcl));
    }
    let _ = write!(text, "\nSource: {}", rule.source);
    text
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// Returns the page of a rule as Markdown.
#[must_use]
pub fn page(rule: &DoctorRule) -> String {
    let mut text = format!(
        "# {}\n\nRule `{}`, severity *{}*: {}.\n\n{}\n",
        rule.title,
        rule.id,
        rule.severity,
        rule.severity.meaning(),
        rule.loss
    );
    if let Some(scenario) = scenario(rule.id) {
        let _ = write!(
            text,
            "\n## Replay\n\n{}\nIn the [simulator of the event source \
             mapping](../../crates/event-source-mapping/README.md), \
             these records end where the table says:\n\n| | applied | in the failure bucket | lost |\n| --- | --- | \
             --- | --- |\n",
            scenario.story
        );
        for (name, settings) in [("with the setting", &scenario.faulty), ("with the fix", &scenario.fixed)] {
            let ReplayOutcome { applied, recoverable, lost } = replay(settings);
            let [applied, recoverable, lost] = [&applied, &recoverable, &lost].map(format_numbers);
            let _ = writeln!(text, "| {name} | {applied} | {recoverable} | {lost} |");
        }
    }
    let _ = write!(
        text,
        "\n## Examined settings\n\nIn files: {}\n\nIn an account: {}\n\n## Fix\n\n```yaml\n{}\n```\n",
        rule.offline, rule.live, rule.fix
    );
    if rule.fix_hcl != rule.fix {
        let _ = write!(text, "\nIn Terraform:\n\n```hcl\n{}\n```\n", rule.fix_hcl);
    }
    let _ = write!(text, "\n## Source\n\n<{}>\n", rule.source);
    text
}

/// Returns the table of the rules as Markdown, with links to their pages.
#[must_use]
pub fn table() -> String {
    let mut text = String::from("| rule | severity | finding |\n| --- | --- | --- |\n");
    for rule in RULES {
        let _ = writeln!(text, "| [`{0}`]({0}.md) | {1} | {2} |", rule.id, rule.severity, rule.title);
    }
    text
}

/// Returns the list of the rules as text.
#[must_use]
pub fn list() -> String {
    let mut text = String::new();
    for severity in RuleSeverity::ALL {
        let _ = writeln!(text, "{severity}: {}", severity.meaning());
        for rule in RULES.iter().filter(|rule| rule.severity == severity) {
            let _ = writeln!(text, "  {:<32} {}", rule.id, rule.title);
        }
    }
    text.truncate(text.trim_end().len());
    text
}
