//! One template without a finding, and for each rule the change that makes it have exactly this finding.

use std::collections::BTreeMap;

use crate::diagnosis::{DeploymentDiagnosis, diagnose};
use crate::rule_table::RULES;
use crate::template_reader;

mod account_call_tests;
mod account_faults;
mod account_fixture;
mod account_target_tests;
mod account_tests;
mod fuzz_tests;
mod key_tests;
mod network_tests;
mod own_templates;
mod page_tests;
mod plan_tests;
mod reader_tests;
mod replay_tests;
mod report_tests;

/// A template in which every setting is valid.
pub(crate) const VALID: &str = include_str!("tests/valid.yaml");

/// A second mapping of the stream, which a table that is not global serves.
const TWICE: (&str, &str) = (
    "      Events:\n        Changes:\n          Type: DynamoDB\n",
    "      Events:\n        Other:\n          Type: DynamoDB\n          Properties:\n            Stream: !GetAtt \
     Users.StreamArn\n            StartingPosition: TRIM_HORIZON\n            MaximumRecordAgeInSeconds: \
     21600\n            BisectBatchOnFunctionError: true\n            FunctionResponseTypes: \
     [ReportBatchItemFailures]\n            DestinationConfig: {OnFailure: {Type: S3, Destination: !GetAtt \
     Failures.Arn}}\n            MetricsConfig: {Metrics: [EventCount]}\n        Changes:\n          Type: DynamoDB\n",
);

/// For each rule that is evaluated offline: texts to replace in the valid template.
pub(crate) const FAULTS: &[(&str, &[(&str, &str)])] = &[
    (
        "discarded-without-destination",
        &[("            DestinationConfig: {OnFailure: {Type: S3, Destination: !GetAtt Failures.Arn}}\n", "")],
    ),
    (
        "poison-record-blocks-shard",
        &[(
            "            MaximumRecordAgeInSeconds: 21600\n            BisectBatchOnFunctionError: true\n            \
             FunctionResponseTypes: [ReportBatchItemFailures]\n",
            "",
        )],
    ),
    (
        "response-ignored",
        &[
            ("            FunctionResponseTypes: [ReportBatchItemFailures]\n", ""),
            (
                "Handler: index.handler",
                "Handler: index.handler\n      InlineCode: 'return {\"batchItemFailures\": failed}'",
            ),
        ],
    ),
    (
        "batch-discarded-whole",
        &[("            BisectBatchOnFunctionError: true\n", "            MaximumRetryAttempts: 3\n")],
    ),
    (
        "metadata-only-destination",
        &[("Type: S3, Destination: !GetAtt Failures.Arn", "Type: SQS, Destination: !GetAtt Queue.Arn")],
    ),
    ("destination-not-granted", &[("OnFailure: {Type: S3, ", "OnFailure: {")]),
    ("failure-objects-expire", &[("Prefix: redriven/", "Prefix: aws/")]),
    ("starts-at-latest", &[("TRIM_HORIZON", "LATEST")]),
    (
        "mapping-disabled",
        &[("            BatchSize: 100\n", "            Enabled: false\n            BatchSize: 100\n")],
    ),
    (
        "literal-stream-arn",
        &[(
            "Stream: !GetAtt Users.StreamArn",
            "Stream: arn:aws:dynamodb:eu-west-1:123456789012:table/Users/stream/2026-01-01T00:00:00.000",
        )],
    ),
    ("image-missing", &[("NEW_AND_OLD_IMAGES", "KEYS_ONLY")]),
    ("age-exceeds-retention", &[("MaximumRecordAgeInSeconds: 21600", "MaximumRecordAgeInSeconds: 86400")]),
    (
        "filter-never-matches",
        &[(
            "{\"dynamodb\":{\"Keys\":{\"id\":{\"S\":[{\"prefix\":\"user#\"}]}}}}",
            "{\"dynamodb\":{\"Keys\":{\"id\":{\"N\":[{\"numeric\":[\">\",3]}]}}}}",
        )],
    ),
    ("replica-does-not-fit", &[("AttributeType: S, Replica: true", "AttributeType: N, Replica: true")]),
    ("alias-misses-parameters", &[("      Timeout: 60\n", "      Timeout: 60\n      AutoPublishAlias: live\n")]),
    (
        "too-many-readers",
        &[
            ("  Users:\n    Type: AWS::DynamoDB::Table", "  Users:\n    Type: AWS::DynamoDB::GlobalTable"),
            TWICE,
            ("!Ref CopierChanges", "!ImportValue MappingId"),
        ],
    ),
    ("concurrency-too-low", &[("      Timeout: 60\n", "      Timeout: 60\n      ReservedConcurrentExecutions: 0\n")]),
    ("key-not-usable", &[("EnableKeyRotation: true", "Enabled: false")]),
    (
        "network-without-route",
        &[
            (
                "      Timeout: 60\n",
                "      Timeout: 60\n      VpcConfig: {SubnetIds: [!Ref Subnet], SecurityGroupIds: [sg-1]}\n",
            ),
            ("  Queue:", "  Subnet: {Type: AWS::EC2::Subnet, Properties: {CidrBlock: 10.0.0.0/24}}\n  Queue:"),
        ],
    ),
    (
        "replicator-filters-images",
        &[("{\"Keys\":{\"id\":{\"S\":[{\"prefix\":\"user#\"}]}}}", "{\"NewImage\":{\"status\":{\"S\":[\"open\"]}}}")],
    ),
    (
        "ttl-filter-incomplete",
        &[(
            "{\"dynamodb\":{\"Keys\":{\"id\":{\"S\":[{\"prefix\":\"user#\"}]}}}}",
            "{\"eventName\":[\"REMOVE\"],\"userIdentity\":{\"type\":[\"Service\"]}}",
        )],
    ),
    ("replica-expires-items", &[("AttributeName: _tombstone_expires_at", "AttributeName: expires_at")]),
    ("open-route", &[("AuthorizationType: AWS_IAM", "AuthorizationType: NONE")]),
    (
        "timeout-too-short",
        &[("            BatchSize: 100\n", "            BatchSize: 10000\n"), ("Timeout: 60", "Timeout: 10")],
    ),
    ("log-filter-drops-metrics", &[("ApplicationLogLevel: INFO", "ApplicationLogLevel: WARN")]),
    ("mapping-not-watched", &[("MetricName: DroppedEventCount", "MetricName: Errors")]),
    ("table-not-protected", &[("PointInTimeRecoveryEnabled: true", "PointInTimeRecoveryEnabled: false")]),
];

/// Diagnoses a template.
pub(crate) fn diagnosis_of(template: &str) -> DeploymentDiagnosis {
    let reading = template_reader::read(template, "t.yaml", None, &BTreeMap::new()).unwrap();
    assert!(reading.problems.is_empty(), "{:?}", reading.problems);
    diagnose(&reading.deployment)
}

/// Returns the valid template with the fault of a rule.
pub(crate) fn faulty(rule: &str) -> String {
    let (_, changes) = FAULTS.iter().find(|(id, _)| *id == rule).unwrap();
    changes.iter().fold(VALID.to_owned(), |template, (from, to)| {
        assert!(template.contains(from), "{rule}: the valid template has no {from}");
        template.replace(from, to)
    })
}

fn rules_of(diagnosis: &DeploymentDiagnosis) -> Vec<&'static str> {
    let mut rules: Vec<_> = diagnosis.findings.iter().map(|finding| finding.rule.id).collect();
    rules.sort_unstable();
    rules.dedup();
    rules
}

#[test]
fn the_sound_template_has_no_finding_and_is_evaluated_completely() {
    let diagnosis = diagnosis_of(VALID);
    assert_eq!(rules_of(&diagnosis), Vec::<&str>::new(), "{:?}", diagnosis.findings);
    let unchecked: Vec<_> = diagnosis
        .unchecked
        .iter()
        .filter(|unchecked| unchecked.location.is_some())
        .map(|it| (it.rule.id, &it.reason))
        .collect();
    assert!(unchecked.iter().all(|(id, _)| *id == "response-ignored"), "{unchecked:?}");
    assert_eq!(diagnosis.mappings, 1);
}

#[test]
fn every_rule_finds_its_fault_and_nothing_else() {
    let evaluated: Vec<_> = RULES.iter().filter(|rule| !rule.needs_account).map(|rule| rule.id).collect();
    let mut tested: Vec<_> = FAULTS.iter().map(|(id, _)| *id).collect();
    tested.sort_unstable();
    let mut expected = evaluated.clone();
    expected.sort_unstable();
    assert_eq!(tested, expected, "each rule that is evaluated offline has a fault, and no other");
    for id in evaluated {
        let diagnosis = diagnosis_of(&faulty(id));
        let found = rules_of(&diagnosis);
        assert_eq!(found, [id], "{:#?}", diagnosis.findings);
    }
}

#[test]
fn the_table_is_sorted_by_severity_and_complete() {
    assert!(RULES.is_sorted_by_key(|rule| rule.severity));
    for rule in RULES {
        assert!(rule.id.chars().all(|letter| letter.is_ascii_lowercase() || letter == '-'), "{}", rule.id);
        assert!(rule.source.starts_with("https://"), "{}", rule.id);
        for text in [rule.loss, rule.offline, rule.live] {
            assert!(text.ends_with('.') && !text.contains("  "), "{}: {text}", rule.id);
        }
        assert!(!rule.fix.is_empty() && !rule.fix_hcl.is_empty());
    }
}
