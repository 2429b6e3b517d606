//! The keys of the source, the replicas and the buckets.

use serde_json::json;

use super::{VALID, diagnosis_of};
use crate::diagnosis::diagnose;
use crate::setting::SettingValue;
use crate::terraform_plan;

/// A second key, and a bucket that it encrypts.
const SECOND: &str = "  OtherKey: {Type: AWS::KMS::Key}\n  OtherAlias: {Type: AWS::KMS::Alias, Properties: {AliasName: \
                      alias/own, TargetKeyId: !Ref OtherKey}}\n  Archive:\n    Type: AWS::S3::Bucket\n    \
                      Properties:\n      BucketEncryption:\n        ServerSideEncryptionConfiguration:\n          - \
                      ServerSideEncryptionByDefault: {SSEAlgorithm: aws:kms, KMSMasterKeyID: KEY}\n  Queue:";
const REPLICA: &str = "AttributeName: _tombstone_expires_at}\n";
const VARIABLES: &str = "{REPLICA_TABLE: !Ref Copy}";
const GRANT: &str = "            - {Effect: Allow, Action: kms:Decrypt, Resource: !GetAtt DataKey.Arn}\n";

/// Returns the findings and the reasons why the rule is not checked for the valid template with these changes.
fn evaluated(changes: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
    let template = changes.iter().fold(VALID.to_owned(), |template, (from, to)| {
        assert!(template.contains(from), "the template has no {from}");
        template.replace(from, to)
    });
    let diagnosis = diagnosis_of(&template);
    let findings = diagnosis.findings.iter().map(|it| {
        assert_eq!(it.rule.id, "key-not-usable");
        it.problem.clone()
    });
    let unchecked = diagnosis.unchecked.iter().filter(|it| it.rule.id == "key-not-usable");
    (findings.collect(), unchecked.map(|it| it.reason.clone()).collect())
}

#[test]
fn the_key_of_a_replica_must_be_granted_to_the_function() {
    let missing = "the function's role and the key's policy do not both allow kms:Decrypt on the key \
                   arn:aws:kms:${AWS.Region}:${AWS.AccountId}:key/${OtherKey} of the replica ${Copy}";
    for key in ["!GetAtt OtherKey.Arn", "!Ref OtherKey", "alias/own", "!Ref OtherAlias"] {
        let encrypted = format!("{REPLICA}      SSESpecification: {{SSEEnabled: true, KMSMasterKeyId: {key}}}\n");
        let with_key = [("  Queue:", SECOND), ("KEY}", "alias/aws/s3}"), (REPLICA, encrypted.as_str())];
        assert_eq!(evaluated(&with_key), (vec![missing.to_owned()], Vec::new()), "{key}");
        let granted =
            format!("{GRANT}            - {{Effect: Allow, Action: kms:*, Resource: !GetAtt OtherKey.Arn}}\n");
        let granted = [&with_key[..], &[(GRANT, granted.as_str())]].concat();
        assert_eq!(evaluated(&granted), (Vec::new(), Vec::new()), "{key}");
    }
    for (key, unchecked) in [
        ("alias/aws/dynamodb", Vec::new()),
        ("alias/other", vec!["the key alias/other of the replica ${Copy} is not part of this deployment".to_owned()]),
        (
            "arn:aws:kms:eu-west-1:1:key/k",
            vec![
                "the key arn:aws:kms:eu-west-1:1:key/k of the replica ${Copy} is not part of this deployment"
                    .to_owned(),
            ],
        ),
    ] {
        let encrypted = format!("{REPLICA}      SSESpecification: {{SSEEnabled: true, KMSMasterKeyId: {key}}}\n");
        assert_eq!(evaluated(&[(REPLICA, &encrypted)]), (Vec::new(), unchecked), "{key}");
    }
}

#[test]
fn the_keys_of_the_buckets_of_a_function_of_millrace_must_be_granted() {
    let own = "{SOURCE_TABLE_ARN: !GetAtt Users.Arn, REPLICA_TABLE: !Ref Copy, FAILURE_BUCKET: !Ref Failures, \
               ARCHIVE_BUCKET: !Ref Archive}";
    let with_key = [("  Queue:", SECOND), ("KEY}", "!GetAtt OtherKey.Arn}")];
    let archives = [&with_key[..], &[(VARIABLES, own)]].concat();
    let missing = "the function's role and the key's policy do not both allow kms:GenerateDataKey on the key \
                   arn:aws:kms:${AWS.Region}:${AWS.AccountId}:key/${OtherKey} of the archive's bucket ${Archive}";
    assert_eq!(evaluated(&archives), (vec![missing.to_owned()], Vec::new()));
    let granted = format!("{GRANT}            - {{Effect: Allow, Action: kms:G*, Resource: !GetAtt OtherKey.Arn}}\n");
    assert_eq!(evaluated(&[&archives[..], &[(GRANT, granted.as_str())]].concat()), (Vec::new(), Vec::new()));
    let denied = format!("{GRANT}            - {{Effect: Deny, Action: kms:G*, Resource: \"*\"}}\n");
    let (problems, _) = evaluated(&[&archives[..], &[(GRANT, denied.as_str())]].concat());
    assert!(problems[0].starts_with("a statement denies kms:GenerateDataKey"), "{problems:?}");
    // Another bucket than the destination is the quarantine.
    let quarantine = own.replace("!Ref Failures", "!Ref Archive").replace(", ARCHIVE_BUCKET: !Ref Archive", "");
    let (problems, _) = evaluated(&[&with_key[..], &[(VARIABLES, &quarantine)]].concat());
    assert!(problems[0].ends_with("of the quarantine's bucket ${Archive}"), "{problems:?}");
    let elsewhere = own.replace("!Ref Archive", "archive");
    let reason = "the archive's bucket archive is not part of this deployment".to_owned();
    assert_eq!(evaluated(&[(VARIABLES, &elsewhere)]), (Vec::new(), vec![reason]));
    let imported = own.replace("!Ref Archive", "!ImportValue archive");
    assert_eq!(evaluated(&[(VARIABLES, &imported)]).1.len(), 1);
}

#[test]
fn the_key_of_a_bucket_is_a_resource_of_its_own_in_a_plan() {
    let resource = |address: &str, values: serde_json::Value| {
        let kind = address.split('.').next().unwrap();
        json!({"address": address, "mode": "managed", "type": kind, "values": values})
    };
    let of_key = |attribute: &str| json!({"references": [format!("aws_kms_{attribute}")]});
    for (attribute, expected) in [
        ("key.own.arn", "arn:aws:kms:${AWS.Region}:${AWS.AccountId}:key/${aws_kms_key.own}"),
        ("key.own.key_id", "${aws_kms_key.own}"),
        ("alias.own.arn", "alias/own"),
    ] {
        let default = [json!({"kms_master_key_id": of_key(attribute)})];
        let plan = json!({
            "planned_values": {"root_module": {"resources": [
                resource("aws_s3_bucket.archive", json!({"bucket": "archive"})),
                resource("aws_s3_bucket_server_side_encryption_configuration.archive", json!({
                    "rule": [{"apply_server_side_encryption_by_default": [{"sse_algorithm": "aws:kms"}]}],
                })),
                resource("aws_kms_key.own", json!({"is_enabled": false})),
                resource("aws_kms_alias.own", json!({"name": "alias/own"})),
            ]}},
            "configuration": {"root_module": {"resources": [
                {
                    "address": "aws_s3_bucket_server_side_encryption_configuration.archive",
                    "expressions": {
                        "bucket": {"references": ["aws_s3_bucket.archive.id", "aws_s3_bucket.archive"]},
                        "rule": [{"apply_server_side_encryption_by_default": default}],
                    },
                },
                {"address": "aws_kms_alias.own", "expressions": {"target_key_id": of_key("key.own.key_id")}},
            ]}},
        });
        let deployment = terraform_plan::read(&plan, "plan.json").deployment;
        assert_eq!(deployment.buckets[0].key, SettingValue::Known(expected.to_owned()));
        assert_eq!(deployment.key(expected).unwrap().location.resource, "aws_kms_key.own");
        assert_eq!(diagnose(&deployment).findings[0].problem, "the key is disabled");
    }
}
