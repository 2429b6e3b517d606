//! The retention of the objects that the functions write: each prefix is retained on purpose or expires by a lifecycle
//! rule.

use std::collections::{BTreeMap, BTreeSet};

use saphyr::{LoadableYamlNode, Yaml};
use serde_json::Value;

use super::state_machine::json_of;
use super::tiers::section;
use super::{TEMPLATES, source};

/// Retained indefinitely: the archive itself, and the failures and the rules of replicas that are recorded nowhere else.
const KEPT: [(&str, &str); 6] = [
    ("ArchiveBucket", "archive/"),
    ("ArchiveBucket", "compacted/"),
    ("ArchiveBucket", "parquet/"),
    ("FailureBucket", "aws/"),
    ("FailureBucket", "quarantine/"),
    ("FailureBucket", "transforms/"),
];

/// The first segments of all keys that a function's role may put, by bucket.
fn written() -> BTreeMap<String, BTreeSet<String>> {
    let mut written: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let resources = TEMPLATES.into_iter().flat_map(|path| section(path, "Resources").into_values());
    for role in resources.filter(|of| of["Type"] == "AWS::IAM::Role") {
        let policies = role["Properties"]["Policies"].as_array().cloned().unwrap_or_default();
        let statements = policies.iter().flat_map(|policy| policy["PolicyDocument"]["Statement"].as_array().unwrap());
        // A statement with a condition is the first choice of an `If`.
        let statements = statements.map(|of| of.get(1).unwrap_or(of));
        for statement in statements.filter(|statement| texts(&statement["Action"]).contains(&"s3:PutObject")) {
            for resource in texts(&statement["Resource"]) {
                let (bucket, key) = resource.split_once(".Arn}/").unwrap_or_else(|| panic!("{resource} has no prefix"));
                let (first, _) = key.split_once('/').unwrap_or_else(|| panic!("{resource} has no prefix"));
                let bucket = bucket.trim_start_matches("!Sub ${").to_owned();
                written.entry(bucket).or_default().insert(format!("{first}/"));
            }
        }
    }
    written
}

fn texts(node: &Value) -> Vec<&str> {
    node.as_array()
        .map_or_else(|| node.as_str().into_iter().collect(), |list| list.iter().filter_map(Value::as_str).collect())
}

/// The days of a rule: a number, or the default of a parameter that has a minimum of at least one day.
fn days(node: &Value) -> i64 {
    let Some(text) = node.as_str() else {
        return node.as_i64().unwrap_or_else(|| panic!("{node} is no number of days"));
    };
    let name = text.strip_prefix("!Ref ").unwrap_or_else(|| panic!("{text} is no parameter"));
    let text = source("infra/replication.yaml");
    let documents = Yaml::load_from_str(&text).unwrap();
    let parameter = json_of(&documents[0]["Parameters"][name]);
    // The summary of a run reads the results of its segments below `reports/`, and a run may take days.
    let least = if name == "ReportRetentionDays" { 7 } else { 1 };
    assert_eq!((&parameter["Type"], &parameter["MinValue"]), (&"Number".into(), &least.into()), "{name}");
    parameter["Default"].as_i64().unwrap()
}

#[test]
fn every_prefix_that_functions_write_expires_or_is_kept_on_purpose() {
    let resources = section("infra/replication.yaml", "Resources");
    let mut kept = BTreeSet::new();
    for (bucket, prefixes) in written() {
        let properties = &resources[&bucket]["Properties"];
        assert_eq!(properties["VersioningConfiguration"]["Status"], "Enabled", "{bucket}");
        let rules = properties["LifecycleConfiguration"]["Rules"].as_array().unwrap();
        assert!(rules.iter().all(|rule| rule["Status"] == "Enabled"), "{bucket}");
        let former = |rule: &Value| rule["NoncurrentVersionExpiration"]["NoncurrentDays"].as_i64();
        let of_all = rules.iter().find(|rule| rule["Prefix"].is_null()).unwrap();
        assert!(of_all["ExpirationInDays"].is_null() && former(of_all) == Some(30), "{bucket}: {of_all}");
        for prefix in prefixes {
            let Some(rule) = rules.iter().find(|rule| rule["Prefix"] == prefix.as_str()) else {
                kept.insert((bucket.clone(), prefix));
                continue;
            };
            assert_eq!(days(&rule["ExpirationInDays"]), 30, "{bucket} {prefix}");
            // The bucket is versioned: an expired object remains as a noncurrent version until that version expires.
            assert_eq!(former(rule), Some(1), "{bucket} {prefix}");
        }
    }
    let on_purpose = KEPT.map(|(bucket, prefix)| (bucket.to_owned(), prefix.to_owned()));
    assert_eq!(kept, on_purpose.into(), "nobody removes what is written there");
}

#[test]
fn manual_says_how_long_everything_is_kept() {
    let manual = source("docs/operations.md");
    for name in
        written().into_values().flatten().chain(["`ReportRetentionDays`", "`ExportRetentionDays`"].map(str::to_owned))
    {
        assert!(manual.contains(&name), "{name} is not in the manual");
    }
    assert!(source("docs/archive.md").contains("`ExportRetentionDays`"));
}
