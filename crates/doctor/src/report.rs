//! Formats of a diagnosis: text for people ([`human`]), [`json()`], [`sarif`] and [`junit`].

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::deployment::SourceLocation;
use crate::diagnosis::{DeploymentDiagnosis, RuleFinding};
use crate::rule_table::{DoctorRule, RULES, RuleSeverity};

/// Formats a diagnosis for people, grouped by severity and rule, with the fix.
#[must_use]
pub fn human(diagnosis: &DeploymentDiagnosis) -> String {
    let mut text = String::new();
    for severity in RuleSeverity::ALL {
        let of_severity: Vec<_> = diagnosis.findings.iter().filter(|it| it.rule.severity == severity).collect();
        if of_severity.is_empty() {
            continue;
        }
        let _ = writeln!(text, "{}: {}\n", severity.name().to_uppercase(), severity.meaning());
        for rule in RULES {
            let findings: Vec<_> = of_severity.iter().filter(|it| it.rule.id == rule.id).collect();
            if let Some(first) = findings.first() {
                let _ = writeln!(text, "  {} ({})", rule.title, rule.id);
                for finding in &findings {
                    let _ = writeln!(text, "    {}: {}", format_location(&finding.location), finding.problem);
                }
                let _ = writeln!(text, "    fix:");
                for line in first.fix().lines() {
                    let _ = writeln!(text, "      {line}");
                }
                let _ = writeln!(text, "    source: {}\n", rule.source);
            }
        }
    }
    if !diagnosis.ignored.is_empty() {
        let _ = writeln!(text, "IGNORED, with a reason in the deployment\n");
        for (finding, reason) in &diagnosis.ignored {
            let _ = writeln!(text, "  {} {}: {reason}", finding.rule.id, format_location(&finding.location));
        }
        text.push('\n');
    }
    not_checked(&mut text, diagnosis);
    for unused in &diagnosis.unused_ignores {
        let resource = unused.resource.as_deref().unwrap_or("the template");
        let _ = writeln!(text, "note: {resource} ignores {}, which finds nothing there: remove the entry", unused.rule);
    }
    let counts = RuleSeverity::ALL.iter().filter_map(|severity| {
        let count = diagnosis.findings.iter().filter(|finding| finding.rule.severity == *severity).count();
        (count > 0).then(|| format!("{count} {severity}"))
    });
    let counts: Vec<String> = counts.collect();
    let counts = if counts.is_empty() { "no finding".to_owned() } else { counts.join(", ") };
    let mappings = match diagnosis.mappings {
        1 => "1 mapping of a DynamoDB stream".to_owned(),
        count => format!("{count} mappings of DynamoDB streams"),
    };
    let _ = write!(text, "{mappings}: {counts}; {} not checked", diagnosis.unchecked.len());
    text
}

/// Writes what was not evaluated, grouped by reason: the same reason often concerns several rules.
fn not_checked(text: &mut String, diagnosis: &DeploymentDiagnosis) {
    let mut by_reason: BTreeMap<(String, &str), Vec<&str>> = BTreeMap::new();
    for unchecked in &diagnosis.unchecked {
        let at = unchecked.location.as_ref().map_or_else(|| "the account".to_owned(), format_location);
        by_reason.entry((at, &unchecked.reason)).or_default().push(unchecked.rule.id);
    }
    if by_reason.is_empty() && diagnosis.unread.is_empty() {
        return;
    }
    let _ = writeln!(text, "NOT CHECKED, which does not mean that nothing is wrong\n");
    for ((at, reason), rules) in by_reason {
        let _ = writeln!(text, "  {at}: {reason}\n    {}", rules.join(", "));
    }
    for (location, reason) in &diagnosis.unread {
        let _ = writeln!(text, "  {}: {reason}", format_location(location));
    }
    text.push('\n');
}

fn format_location(location: &SourceLocation) -> String {
    let SourceLocation { file, line, resource } = location;
    match line {
        0 => format!("{file} {resource}"),
        line => format!("{file}:{line} {resource}"),
    }
}

fn finding_json(finding: &RuleFinding) -> Value {
    json!({
        "rule": finding.rule.id,
        "severity": finding.rule.severity.name(),
        "title": finding.rule.title,
        "file": finding.location.file,
        "line": finding.location.line,
        "resource": finding.location.resource,
        "problem": finding.problem,
        "loss": finding.rule.loss,
        "fix": finding.fix(),
        "source": finding.rule.source,
    })
}

/// Formats a diagnosis as one JSON document; `problems` are the parts that could not be read.
#[must_use]
pub fn json(diagnosis: &DeploymentDiagnosis, problems: &[String]) -> String {
    let ignored = diagnosis.ignored.iter().map(|(finding, reason)| {
        let mut value = finding_json(finding);
        value["reason"] = reason.as_str().into();
        value
    });
    let unchecked = diagnosis.unchecked.iter().map(|unchecked| {
        let location = unchecked.location.as_ref();
        json!({
            "rule": unchecked.rule.id,
            "file": location.map(|location| location.file.as_str()),
            "line": location.map(|location| location.line),
            "resource": location.map(|location| location.resource.as_str()),
            "reason": unchecked.reason,
        })
    });
    let unread = diagnosis.unread.iter().map(|(location, reason)| {
        json!({"file": location.file, "line": location.line, "resource": location.resource, "reason": reason})
    });
    let unused = diagnosis.unused_ignores.iter().map(|it| json!({"rule": it.rule, "resource": it.resource}));
    let document = json!({
        "mappings": diagnosis.mappings,
        "findings": diagnosis.findings.iter().map(finding_json).collect::<Vec<_>>(),
        "ignored": ignored.collect::<Vec<_>>(),
        "not_checked": unchecked.collect::<Vec<_>>(),
        "not_read": unread.collect::<Vec<_>>(),
        "unused_ignores": unused.collect::<Vec<_>>(),
        "problems": problems,
    });
    format!("{document:#}")
}

/// Formats a diagnosis as SARIF 2.1.0.
#[must_use]
pub fn sarif(diagnosis: &DeploymentDiagnosis, problems: &[String]) -> String {
    let rules: Vec<Value> = RULES.iter().map(sarif_rule).collect();
    let findings = diagnosis.findings.iter().map(|finding| sarif_result(finding, None));
    let ignored = diagnosis.ignored.iter().map(|(finding, reason)| sarif_result(finding, Some(reason)));
    let results: Vec<Value> = findings.chain(ignored).collect();
    let unchecked = diagnosis.unchecked.iter().map(|unchecked| {
        let location =
            unchecked.location.as_ref().map_or_else(String::new, |location| format!("{}: ", format_location(location)));
        let text = format!("{} not checked: {location}{}", unchecked.rule.id, unchecked.reason);
        json!({"level": "note", "message": {"text": text}})
    });
    let problems_json = problems.iter().map(|problem| json!({"level": "error", "message": {"text": problem}}));
    let notifications: Vec<Value> = problems_json.chain(unchecked).collect();
    let document = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "millrace doctor",
                "informationUri": "https://github.com/millrace/millrace",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "invocations": [{"executionSuccessful": problems.is_empty(), "toolExecutionNotifications": notifications}],
            "results": results,
        }],
    });
    format!("{document:#}")
}

fn sarif_level(severity: RuleSeverity) -> &'static str {
    match severity {
        RuleSeverity::Loses | RuleSeverity::Blocks => "error",
        RuleSeverity::Diverges | RuleSeverity::Exposes => "warning",
        RuleSeverity::Weakens => "note",
    }
}

fn sarif_rule(rule: &DoctorRule) -> Value {
    let (loss, fix) = (rule.loss, rule.fix);
    json!({
        "id": rule.id,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.loss},
        "helpUri": rule.source,
        "help": {"text": format!("{loss}\n\n{fix}"), "markdown": format!("{loss}\n\n```yaml\n{fix}\n```")},
        "defaultConfiguration": {"level": sarif_level(rule.severity)},
        "properties": {"severity": rule.severity.name()},
    })
}

fn sarif_result(finding: &RuleFinding, reason: Option<&str>) -> Value {
    let mut location = json!({"artifactLocation": {"uri": finding.location.file}});
    if finding.location.line > 0 {
        location["region"] = json!({"startLine": finding.location.line});
    }
    let logical = json!([{"fullyQualifiedName": finding.location.resource}]);
    let mut result = json!({
        "ruleId": finding.rule.id,
        "level": sarif_level(finding.rule.severity),
        "message": {"text": finding.problem},
        "locations": [{"physicalLocation": location, "logicalLocations": logical}],
    });
    if let Some(reason) = reason {
        result["suppressions"] = json!([{"kind": "inSource", "justification": reason}]);
    }
    result
}

/// Formats a diagnosis as XML of `JUnit`: each location is a test case of its rule. Rules without a finding pass.
#[must_use]
pub fn junit(diagnosis: &DeploymentDiagnosis, problems: &[String]) -> String {
    let mut cases = String::new();
    let mut case = |name: &str, rule: &str, content: &str| {
        let _ = writeln!(
            cases,
            "    <testcase classname=\"{}\" name=\"{}\">{content}</testcase>",
            escape(rule),
            escape(name)
        );
    };
    for finding in &diagnosis.findings {
        let problem = escape(&finding.problem);
        let fix = escape(finding.fix());
        let content = format!("<failure message=\"{problem}\" type=\"{}\">{fix}</failure>", finding.rule.severity);
        case(&format_location(&finding.location), finding.rule.id, &content);
    }
    for unchecked in &diagnosis.unchecked {
        let at = unchecked.location.as_ref().map_or_else(|| "the account".to_owned(), format_location);
        case(&at, unchecked.rule.id, &format!("<skipped message=\"{}\"/>", escape(&unchecked.reason)));
    }
    for (finding, reason) in &diagnosis.ignored {
        let content = format!("<skipped message=\"ignored: {}\"/>", escape(reason));
        case(&format_location(&finding.location), finding.rule.id, &content);
    }
    let has_case = |rule: &DoctorRule| {
        diagnosis.findings.iter().any(|finding| finding.rule.id == rule.id)
            || diagnosis.unchecked.iter().any(|unchecked| unchecked.rule.id == rule.id)
    };
    let passed: Vec<_> = RULES.iter().filter(|rule| !has_case(rule)).collect();
    for rule in &passed {
        case(rule.title, rule.id, "");
    }
    for problem in problems {
        case("input", "input", &format!("<error message=\"{}\"/>", escape(problem)));
    }
    let skipped = diagnosis.unchecked.len() + diagnosis.ignored.len();
    let (failures, errors) = (diagnosis.findings.len(), problems.len());
    let tests = failures + skipped + passed.len() + errors;
    let counts = format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\"");
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"millrace doctor\" \
         {counts}>\n{cases}  \
         </testsuite>\n</testsuites>"
    )
}

/// Escapes a text for XML, which has no control characters.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(letter),
            letter if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}
