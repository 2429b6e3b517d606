//! The reader of accounts: one recording without a finding, and for each rule the answers that have its fault.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::{Just, any, prop, prop_oneof, proptest};
use proptest::sample::Index;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::fuzz_tests::{odd_value, pointers};
use crate::account_call::{CallRefusal, CallResponse, OPERATIONS, policy};
use crate::account_reader::read;
use crate::account_recording::{AccountRecording, AccountTarget};
use crate::diagnosis::{DeploymentDiagnosis, diagnose};
use crate::rule_table::RULES;

const UUID: &str = "11111111-2222-3333-4444-555555555555";
const MAPPING: &str = "/ListEventSourceMappings/EventSourceMappings/0";
const FUNCTION: &str = "/GetFunctionConfiguration FunctionName=copier";
const GROUPS: &str = "/DescribeSecurityGroups VpcId=vpc-1";
const ROLE: &str = "arn:aws:iam::123456789012:role/copier";
const QUEUE: &str = "arn:aws:sqs:eu-west-1:123456789012:discarded";
const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:discarded";
const KEY: &str = "arn:aws:kms:eu-west-1:123456789012:key/k-1";
const OTHER_KEY: &str = "arn:aws:kms:eu-west-1:123456789012:key/k-2";

type Answers = BTreeMap<String, Value>;

/// The answers of an account in which every setting is valid.
fn valid() -> Answers {
    let recording: Value = serde_json::from_str(include_str!("account.json")).unwrap();
    serde_json::from_value(recording["answers"].clone()).unwrap()
}

fn recording(target: AccountTarget, answers: &Answers) -> AccountRecording {
    let read_at = OffsetDateTime::parse("2026-11-28T10:00:00Z", &Rfc3339).unwrap();
    let mut recording = AccountRecording::new(target, read_at);
    for (call, answer) in answers {
        let answer = match answer["refused"].as_str() {
            Some(code) => refused(code),
            None => CallResponse::Response(answer.clone()),
        };
        recording.add(call, answer);
    }
    recording
}

fn refused(code: &str) -> CallResponse {
    CallResponse::Refused(CallRefusal { code: Some(code.to_owned()), description: format!("{code}: no") })
}

fn stack() -> AccountTarget {
    AccountTarget::Stack("users".to_owned())
}

/// Diagnoses recorded answers, which must be complete.
fn diagnosis_of(target: AccountTarget, answers: &Answers) -> (DeploymentDiagnosis, Vec<String>) {
    let reading = read(&recording(target, answers)).unwrap();
    let missing: Vec<String> = reading.missing.iter().map(ToString::to_string).collect();
    assert!(missing.is_empty(), "the recording has no answer to {missing:#?}");
    (diagnose(&reading.reading.deployment), reading.reading.problems)
}

fn rules_of(diagnosis: &DeploymentDiagnosis) -> Vec<&'static str> {
    let rules: BTreeSet<_> = diagnosis.findings.iter().map(|finding| finding.rule.id).collect();
    rules.into_iter().collect()
}

/// Replaces the values at the paths; a path of one part is a whole answer.
fn changed(changes: &[(String, Value)]) -> Answers {
    let mut answers = valid();
    for (path, value) in changes {
        let path = path.strip_prefix('/').unwrap();
        // The name of a call may contain slashes.
        let call = answers.keys().filter(|call| path.starts_with(call.as_str())).max_by_key(|call| call.len());
        match call.cloned().filter(|call| path[call.len()..].starts_with('/')) {
            None => {
                answers.insert(path.to_owned(), value.clone());
            }
            Some(call) => {
                let (parent, member) = path[call.len()..].rsplit_once('/').unwrap();
                let parent = answers.get_mut(&call).unwrap().pointer_mut(parent).unwrap();
                match member.parse::<usize>() {
                    Ok(index) if parent.is_array() => parent[index] = value.clone(),
                    _ => parent[member] = value.clone(),
                }
            }
        }
    }
    answers
}

fn statistics(dimension: &str, metric: &str, statistic: &str) -> String {
    let value = if dimension == "FunctionName" { "copier" } else { UUID };
    format!(
        "/GetMetricStatistics Dimensions={dimension}={value} MetricName={metric} Namespace=AWS/Lambda \
         Statistic={statistic}"
    )
}

fn points(statistic: &str, value: &str) -> Value {
    json!({"Datapoints": [{statistic: value}]})
}

/// The changes that make a queue or a topic the destination, with a policy and a key.
fn to_message_destination(arn: &str, policy: &Value, key: &Value) -> Vec<(String, Value)> {
    let allowed = || json!({"EvaluationResults": [{"EvalDecision": "allowed"}]});
    let attributes = json!({"Policy": policy, "KmsMasterKeyId": key});
    let mut changes = vec![(format!("{MAPPING}/DestinationConfig"), json!({"OnFailure": {"Destination": arn}}))];
    if arn == QUEUE {
        changes.push((format!("/GetQueueAttributes QueueArn={arn}"), json!({"Attributes": attributes})));
        changes.push((simulation("sqs:SendMessage", arn), allowed()));
    } else {
        // XML has the attributes as a list of entries.
        let attributes: Vec<Value> =
            attributes.as_object().unwrap().iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
        changes.push((format!("/GetTopicAttributes TopicArn={arn}"), json!({"Attributes": {"entry": attributes}})));
        changes.push((simulation("sns:Publish", arn), allowed()));
    }
    if !key.is_null() {
        changes.push((
            format!("/DescribeKey KeyId={}", key.as_str().unwrap()),
            valid()[&format!("DescribeKey KeyId={KEY}")].clone(),
        ));
        let service = arn.split(':').nth(2).unwrap();
        changes.extend(
            ["kms:GenerateDataKey", "kms:Decrypt"].map(|action| (key_simulation(action, service, KEY), allowed())),
        );
    }
    changes
}

fn simulation(action: &str, resource: &str) -> String {
    format!(
        "/SimulatePrincipalPolicy ActionNames.member.1={action} PolicySourceArn={ROLE} \
         ResourceArns.member.1={resource}"
    )
}

/// Returns the evaluation of an action on the key that a service performs for the role.
fn key_simulation(action: &str, service: &str, key: &str) -> String {
    format!(
        "/SimulatePrincipalPolicy ActionNames.member.1={action} ContextEntries.member.1.ContextKeyName=kms:ViaService \
         ContextEntries.member.1.ContextKeyType=string \
         ContextEntries.member.1.ContextKeyValues.member.1={service}.eu-west-1.amazonaws.com PolicySourceArn={ROLE} \
         ResourceArns.member.1={key}"
    )
}

/// The changes that encrypt something with another key, in this state, whose use is decided so.
fn other_key(state: &str, action: &str, service: &str, decision: &str) -> Vec<(String, Value)> {
    let mut key = valid()[&format!("DescribeKey KeyId={KEY}")].clone();
    key["KeyMetadata"]["Arn"] = OTHER_KEY.into();
    key["KeyMetadata"]["KeyState"] = state.into();
    let policy = valid()[&format!("GetKeyPolicy KeyId={KEY} PolicyName=default")].clone();
    vec![
        (format!("/DescribeKey KeyId={OTHER_KEY}"), key),
        (format!("/GetKeyPolicy KeyId={OTHER_KEY} PolicyName=default"), policy),
        (
            key_simulation(action, service, OTHER_KEY),
            json!({"EvaluationResults": [{"EvalDecision": decision, "MissingContextValues": ""}]}),
        ),
    ]
}

/// The changes that make the endpoint of DynamoDB an interface one, whose security group lets another end in.
fn interface_endpoint(from: &Value, port: &str) -> Vec<(String, Value)> {
    let mut allowed = from.clone();
    for (member, value) in [("ipProtocol", "tcp"), ("fromPort", port), ("toPort", port)] {
        allowed[member] = value.into();
    }
    let own = valid()["DescribeSecurityGroups VpcId=vpc-1"]["securityGroupInfo"][0].clone();
    vec![
        (
            "/DescribeVpcEndpoints VpcId=vpc-1/vpcEndpointSet/0".to_owned(),
            json!({
                "vpcEndpointType": "Interface", "serviceName": "com.amazonaws.eu-west-1.dynamodb", "state": "available",
                "groupSet": {"groupId": "sg-2"},
            }),
        ),
        (
            format!("{GROUPS}/securityGroupInfo"),
            json!([own, {"groupId": "sg-2", "ipPermissions": allowed, "ipPermissionsEgress": ""}]),
        ),
    ]
}

/// The change that encrypts a bucket with the other key.
fn other_bucket_key(bucket: &str) -> (String, Value) {
    let default = json!({"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": OTHER_KEY});
    (format!("/GetBucketEncryption Bucket={bucket}"), json!({"Rule": {"ApplyServerSideEncryptionByDefault": default}}))
}

/// For each rule that is judged in an account: changes of the answers that have its fault, once for each form of it.
fn faults() -> Vec<(&'static str, Vec<(String, Value)>)> {
    let of_mapping = |member: &str, value: Value| (format!("{MAPPING}/{member}"), value);
    let decision = |it: &str| json!({"EvaluationResults": [{"EvalDecision": it}]});
    let put = simulation("s3:PutObject", "arn:aws:s3:::failures/aws/lambda/mapping/shard/date");
    let pattern = |pattern: &str| of_mapping("FilterCriteria", json!({"Filters": [{"Pattern": pattern}]}));
    let key = KEY;
    let mut live = valid()["GetFunctionConfiguration FunctionName=copier"].clone();
    live["Environment"]["Variables"]["REPLICA_TABLE"] = "OldCopy".into();
    live["Version"] = "3".into();
    let alias = "arn:aws:lambda:eu-west-1:123456789012:function:copier:live";
    let old_copy =
        |call: &str| (format!("/{call} TableName=OldCopy"), valid()[&format!("{call} TableName=Copy")].clone());
    let copied = valid()["ListEventSourceMappings"]["EventSourceMappings"][0].clone();
    let reader = |number: usize| {
        let mut reader = copied.clone();
        reader["UUID"] = format!("reader-{number}").into();
        reader["FunctionArn"] = format!("arn:aws:lambda:eu-west-1:123456789012:function:reader{number}").into();
        reader
    };
    let reader_answers = |number: usize| {
        let name = format!("reader{number}");
        [
            (format!("/GetFunctionConfiguration FunctionName={name}"), json!({"Timeout": 60})),
            (format!("/GetFunctionConcurrency FunctionName={name}"), json!({})),
        ]
    };
    let mut crowded =
        vec![("/ListEventSourceMappings".to_owned(), json!({"EventSourceMappings": [reader(1), copied, reader(2)]}))];
    crowded.extend(reader_answers(1));
    crowded.extend(reader_answers(2));
    vec![
        ("discarded-without-destination", vec![of_mapping("DestinationConfig", json!({"OnFailure": {}}))]),
        (
            "poison-record-blocks-shard",
            vec![
                of_mapping("MaximumRecordAgeInSeconds", json!(-1)),
                of_mapping("BisectBatchOnFunctionError", json!(false)),
                of_mapping("FunctionResponseTypes", json!([])),
                // A function that is not ours, which need not report failures.
                (format!("{FUNCTION}/Environment/Variables"), json!({"REPLICA_TABLE": "Copy"})),
            ],
        ),
        (
            "batch-discarded-whole",
            vec![of_mapping("BisectBatchOnFunctionError", json!(false)), of_mapping("MaximumRetryAttempts", json!(3))],
        ),
        ("response-ignored", vec![of_mapping("FunctionResponseTypes", json!([]))]),
        ("metadata-only-destination", to_message_destination(QUEUE, &Value::Null, &Value::Null)),
        ("metadata-only-destination", to_message_destination(TOPIC, &Value::Null, &Value::Null)),
        ("destination-not-granted", vec![(put.clone(), decision("implicitDeny"))]),
        ("destination-not-granted", vec![(put, decision("explicitDeny"))]),
        (
            "destination-not-granted",
            vec![(
                "/GetBucketPolicy Bucket=failures".to_owned(),
                json!({"Statement": [{
                    "Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::failures/*",
                }]}),
            )],
        ),
        (
            "destination-not-granted",
            vec![(statistics("FunctionName", "DestinationDeliveryFailures", "Sum"), points("Sum", "2.0"))],
        ),
        (
            "failure-objects-expire",
            vec![("/GetBucketLifecycleConfiguration Bucket=failures/Rule/Filter/Prefix".to_owned(), json!(""))],
        ),
        ("failure-objects-expire", vec![("/GetBucketVersioning Bucket=failures".to_owned(), json!(""))]),
        ("starts-at-latest", vec![of_mapping("StartingPosition", json!("LATEST"))]),
        (
            "mapping-disabled",
            vec![of_mapping("State", json!("Disabled")), of_mapping("StateTransitionReason", json!("User action"))],
        ),
        ("mapping-disabled", vec![of_mapping("LastProcessingResult", json!("PROBLEM: Cannot access stream"))]),
        (
            "literal-stream-arn",
            vec![(
                "/DescribeTable TableName=Users/Table/LatestStreamArn".to_owned(),
                json!("arn:aws:dynamodb:eu-west-1:123456789012:table/Users/stream/2026-06-01T00:00:00.000"),
            )],
        ),
        (
            "literal-stream-arn",
            vec![("/DescribeTable TableName=Users/Table/StreamSpecification".to_owned(), Value::Null)],
        ),
        (
            "image-missing",
            vec![(
                "/DescribeTable TableName=Users/Table/StreamSpecification/StreamViewType".to_owned(),
                json!("KEYS_ONLY"),
            )],
        ),
        ("age-exceeds-retention", vec![of_mapping("MaximumRecordAgeInSeconds", json!(604_800))]),
        (
            "age-exceeds-retention",
            vec![(statistics("FunctionName", "IteratorAge", "Maximum"), points("Maximum", "86399000.0"))],
        ),
        ("filter-never-matches", vec![pattern(r#"{"dynamodb":{"Keys":{"id":{"N":[{"numeric":[">",3]}]}}}}"#)]),
        (
            "filter-never-matches",
            vec![(statistics("EventSourceMappingUUID", "FilteredOutEventCount", "Sum"), points("Sum", "150.0"))],
        ),
        (
            "replica-does-not-fit",
            vec![("/DescribeTable TableName=Copy/Table/AttributeDefinitions/0/AttributeType".to_owned(), json!("N"))],
        ),
        (
            "alias-misses-parameters",
            vec![
                of_mapping("FunctionArn", json!(alias)),
                (format!("{FUNCTION} Qualifier=live"), live),
                old_copy("DescribeTable"),
                old_copy("DescribeTimeToLive"),
                old_copy("DescribeContinuousBackups"),
                ("/Scan Attribute=_tombstone_expires_at TableName=OldCopy".to_owned(), json!({"Items": []})),
            ],
        ),
        ("too-many-readers", crowded),
        (
            "too-many-readers",
            vec![(
                format!("/ListPipes SourcePrefix={}", stream()),
                json!({"Pipes": [
                    {"Name": "a", "Source": stream(), "DesiredState": "RUNNING", "CurrentState": "CREATING"},
                    {"Name": "b", "Source": stream(), "DesiredState": "STOPPED"},
                    {"Name": "c", "Source": stream()},
                ]}),
            )],
        ),
        (
            "concurrency-too-low",
            vec![("/GetFunctionConcurrency FunctionName=copier/ReservedConcurrentExecutions".to_owned(), json!(0))],
        ),
        (
            "concurrency-too-low",
            vec![
                ("/GetFunctionConcurrency FunctionName=copier/ReservedConcurrentExecutions".to_owned(), json!(4)),
                of_mapping("ParallelizationFactor", json!(4)),
                (
                    format!("/DescribeStream StreamArn={}/StreamDescription/Shards", stream()),
                    json!([{"ShardId": "a"}, {"ShardId": "b"}]),
                ),
            ],
        ),
        ("key-not-usable", vec![(format!("/DescribeKey KeyId={key}/KeyMetadata/KeyState"), json!("PendingDeletion"))]),
        ("key-not-usable", vec![(key_simulation("kms:Decrypt", "dynamodb", key), decision("implicitDeny"))]),
        (
            "key-not-usable",
            vec![(format!("/GetKeyPolicy KeyId={key} PolicyName=default"), json!({"Policy": "{\"Statement\": []}"}))],
        ),
        (
            "key-not-usable",
            [
                other_key("Enabled", "kms:Decrypt", "dynamodb", "implicitDeny"),
                vec![(
                    "/DescribeTable TableName=Copy/Table/SSEDescription".to_owned(),
                    json!({"Status": "ENABLED", "SSEType": "KMS", "KMSMasterKeyArn": OTHER_KEY}),
                )],
            ]
            .concat(),
        ),
        (
            "key-not-usable",
            [other_key("PendingDeletion", "kms:GenerateDataKey", "s3", "allowed"), vec![other_bucket_key("failures")]]
                .concat(),
        ),
        (
            "key-not-usable",
            [
                other_key("Enabled", "kms:GenerateDataKey", "s3", "explicitDeny"),
                vec![(format!("{FUNCTION}/Environment/Variables/ARCHIVE_BUCKET"), json!("archive"))],
                vec![other_bucket_key("archive")],
            ]
            .concat(),
        ),
        (
            "key-not-usable",
            [
                other_key("Enabled", "kms:GenerateDataKey", "s3", "implicitDeny"),
                vec![(format!("{FUNCTION}/Environment/Variables/FAILURE_BUCKET"), json!("quarantine"))],
                vec![other_bucket_key("quarantine")],
                vec![("/ListObjectsV2 Bucket=quarantine Prefix=quarantine/replicator/".to_owned(), json!({}))],
            ]
            .concat(),
        ),
        (
            "network-without-route",
            vec![("/DescribeVpcEndpoints VpcId=vpc-1".to_owned(), json!({"vpcEndpointSet": ""}))],
        ),
        (
            "network-without-route",
            vec![("/DescribeVpcEndpoints VpcId=vpc-1/vpcEndpointSet/1/routeTableIdSet".to_owned(), json!(["rtb-2"]))],
        ),
        ("network-without-route", vec![(format!("{GROUPS}/securityGroupInfo/0/ipPermissionsEgress"), json!(""))]),
        (
            "network-without-route",
            vec![(
                format!("{GROUPS}/securityGroupInfo/0/ipPermissionsEgress"),
                json!([
                    {"ipProtocol": "tcp", "fromPort": "5432", "toPort": "5432", "ipRanges": {"cidrIp": "10.0.0.0/16"}},
                    {"ipProtocol": "tcp", "fromPort": "443", "toPort": "443", "groups": {"groupId": "sg-2"}},
                ]),
            )],
        ),
        ("network-without-route", interface_endpoint(&json!({"groups": {"groupId": "sg-3"}}), "443")),
        ("network-without-route", interface_endpoint(&json!({"groups": {"groupId": "sg-1"}}), "80")),
        (
            "mapping-behind",
            vec![(
                statistics("FunctionName", "IteratorAge", "Maximum").replace(" Metric", " Hours=1 Metric")
                    + "/Datapoints/0/Maximum",
                json!("3600000.0"),
            )],
        ),
        ("replicator-filters-images", vec![pattern(r#"{"dynamodb":{"NewImage":{"status":{"S":["open"]}}}}"#)]),
        ("ttl-filter-incomplete", vec![pattern(r#"{"eventName":["REMOVE"],"userIdentity":{"type":["Service"]}}"#)]),
        (
            "replica-expires-items",
            vec![
                (
                    "/DescribeTimeToLive TableName=Copy/TimeToLiveDescription/AttributeName".to_owned(),
                    json!("expires_at"),
                ),
                ("/Scan Attribute=expires_at TableName=Copy".to_owned(), json!({"Items": []})),
            ],
        ),
        (
            "failures-not-redriven",
            vec![(
                format!("/ListObjectsV2 Bucket=failures Prefix=aws/lambda/{UUID}//Contents/LastModified"),
                json!("2026-11-20T00:00:00.000Z"),
            )],
        ),
        (
            "failures-not-redriven",
            vec![(
                "/ListObjectsV2 Bucket=failures Prefix=quarantine/replicator/".to_owned(),
                json!({"Contents": {
                    "Key": "quarantine/replicator/x", "LastModified": "2026-11-28T09:00:00.000Z", "Size": "1",
                }}),
            )],
        ),
        ("open-route", vec![("/GetRoutes ApiId=a1b2c3/items/0/authorizationType".to_owned(), json!("NONE"))]),
        (
            "ttl-value-invalid",
            vec![(
                "/Scan Attribute=expires_at TableName=Users/Items/0/expires_at".to_owned(),
                json!({"N": "1800000000000"}),
            )],
        ),
        (
            "ttl-value-invalid",
            vec![(
                "/Scan Attribute=expires_at TableName=Users/Items/0/expires_at".to_owned(),
                json!({"S": "2027-01-01"}),
            )],
        ),
        ("timeout-too-short", vec![of_mapping("BatchSize", json!(10_000)), (format!("{FUNCTION}/Timeout"), json!(3))]),
        (
            "timeout-too-short",
            vec![(
                statistics("FunctionName", "Duration", "p99") + "/Datapoints/1/ExtendedStatistics/entry/value",
                json!("48000.0"),
            )],
        ),
        ("log-filter-drops-metrics", vec![(format!("{FUNCTION}/LoggingConfig/ApplicationLogLevel"), json!("ERROR"))]),
        (
            "mapping-not-watched",
            vec![(
                "/DescribeAlarms AlarmTypes.member.1=MetricAlarm/MetricAlarms/1/MetricName".to_owned(),
                json!("Errors"),
            )],
        ),
        (
            "table-not-protected",
            vec![(
                "/DescribeContinuousBackups TableName=Users/ContinuousBackupsDescription/\
                 PointInTimeRecoveryDescription/PointInTimeRecoveryStatus"
                    .to_owned(),
                json!("DISABLED"),
            )],
        ),
        (
            "table-not-protected",
            vec![("/DescribeTable TableName=Copy/Table/DeletionProtectionEnabled".to_owned(), json!(false))],
        ),
    ]
}

fn stream() -> String {
    let valid = valid();
    valid["ListEventSourceMappings"]["EventSourceMappings"][0]["EventSourceArn"].as_str().unwrap().to_owned()
}

#[test]
fn the_valid_account_has_no_finding_and_every_rule_is_judged() {
    let (diagnosis, problems) = diagnosis_of(stack(), &valid());
    assert_eq!(rules_of(&diagnosis), Vec::<&str>::new(), "{:#?}", diagnosis.findings);
    assert_eq!((problems, diagnosis.mappings), (Vec::<String>::new(), 1));
    let unchecked: Vec<_> = diagnosis.unchecked.iter().map(|it| (it.rule.id, &it.reason)).collect();
    assert!(unchecked.is_empty() && diagnosis.unread.is_empty(), "{unchecked:?} {:?}", diagnosis.unread);
}

#[test]
fn every_rule_finds_its_fault_in_an_account_and_nothing_else() {
    let mut tested = BTreeSet::new();
    for (rule, changes) in faults() {
        let (diagnosis, _) = diagnosis_of(stack(), &changed(&changes));
        assert_eq!(rules_of(&diagnosis), [rule], "{changes:#?}: {:#?}", diagnosis.findings);
        tested.insert(rule);
    }
    let expected: BTreeSet<_> = RULES.iter().map(|rule| rule.id).collect();
    assert_eq!(tested, expected);
}

#[test]
fn the_code_of_a_function_that_is_not_ours_is_known_only_from_the_template_of_a_stack() {
    let path = "GetTemplate StackName=users TemplateStage=Original";
    let template = valid()[path]["TemplateBody"].as_str().unwrap().to_owned();
    let found = |code: &str, target| {
        let template = template.replace("      Events:", &format!("      InlineCode: {code}\n      Events:"));
        let (diagnosis, _) = diagnosis_of(
            target,
            &changed(&[
                (format!("{MAPPING}/FunctionResponseTypes"), json!([])),
                (format!("{FUNCTION}/Environment/Variables"), json!({"REPLICA_TABLE": "Copy"})),
                (format!("/{path}/TemplateBody"), template.into()),
            ]),
        );
        let unchecked: Vec<_> = diagnosis.unchecked.iter().map(|it| (it.rule.id, it.reason.clone())).collect();
        (rules_of(&diagnosis), unchecked)
    };
    assert_eq!(found("'return {\"batchItemFailures\": failed}'", stack()).0, ["response-ignored"]);
    assert_eq!(found("return None", stack()), (Vec::new(), Vec::new()));
    let not_checked = ("response-ignored", "the code of a function is not read".to_owned());
    let (rules, unchecked) = found("return None", AccountTarget::Function("copier".to_owned()));
    assert!(rules.is_empty() && unchecked.contains(&not_checked), "{rules:?} {unchecked:?}");
}

#[test]
fn the_policy_and_the_key_of_a_queue_or_a_topic_are_evaluated() {
    let denied = json!(r#"{"Statement": [{"Effect": "Deny", "Principal": "*", "Action": "*", "Resource": "*"}]}"#);
    let open = json!(r#"{"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}]}"#);
    let no_key = json!(r#"{"Statement": []}"#);
    for (arn, action) in [(QUEUE, "sqs:SendMessage"), (TOPIC, "sns:Publish")] {
        let with_key = to_message_destination(arn, &Value::Null, &json!(KEY));
        assert_eq!(rules_of(&diagnosis_of(stack(), &changed(&with_key)).0), ["metadata-only-destination"]);
        let problem_of = |changes: &[(String, Value)]| {
            let (diagnosis, _) = diagnosis_of(stack(), &changed(changes));
            let mut findings = diagnosis.findings.into_iter().filter(|it| it.rule.id == "destination-not-granted");
            findings.next().map(|finding| finding.problem).unwrap_or_default()
        };
        let found = problem_of(&to_message_destination(arn, &denied, &Value::Null));
        assert_eq!(found, format!("a statement denies {action} on {arn} to the function's role"));
        let not_of_role = (simulation(action, arn), json!({"EvaluationResults": [{"EvalDecision": "implicitDeny"}]}));
        let by_policy = [to_message_destination(arn, &open, &Value::Null), vec![not_of_role.clone()]].concat();
        assert_eq!(problem_of(&by_policy), "", "the policy of the destination itself allows the role");
        let by_none = [to_message_destination(arn, &Value::Null, &Value::Null), vec![not_of_role]].concat();
        assert_eq!(problem_of(&by_none), format!("the function's role does not allow {action} on {arn}"));
        let policy = (format!("/GetKeyPolicy KeyId={KEY} PolicyName=default"), json!({"Policy": no_key}));
        let found = problem_of(&[with_key, vec![policy]].concat());
        assert!(found.starts_with("the function's role does not allow kms:GenerateDataKey and kms:Decrypt"), "{found}");
    }
    // A queue of another Region is not read.
    let elsewhere = QUEUE.replace("eu-west-1", "us-east-1");
    let answers = changed(&[
        (format!("{MAPPING}/DestinationConfig"), json!({"OnFailure": {"Destination": elsewhere}})),
        (simulation("sqs:SendMessage", &elsewhere), json!({"EvaluationResults": [{"EvalDecision": "allowed"}]})),
    ]);
    let (diagnosis, _) = diagnosis_of(stack(), &answers);
    let unchecked: Vec<_> = diagnosis.unchecked.iter().map(|it| (it.rule.id, it.reason.as_str())).collect();
    let reason = format!("{elsewhere} is in another Region, which is not read");
    assert_eq!(unchecked, [("destination-not-granted", reason.as_str())]);
}

#[test]
fn each_replica_is_judged_and_one_of_another_region_or_account_is_not_checked() {
    let of = |document: Value| {
        let variables = json!({
            "SOURCE_TABLE_ARN": "arn:aws:dynamodb:eu-west-1:123456789012:table/Users",
            "FAILURE_BUCKET": "failures", "STACK_NAME": "users", "REPLICATION": document.to_string(),
        });
        let mut other = valid()["DescribeTable TableName=Copy"].clone();
        other["Table"]["AttributeDefinitions"][0]["AttributeType"] = "N".into();
        let mut changes = vec![
            (format!("{FUNCTION}/Environment/Variables"), variables),
            ("/DescribeTable TableName=Other".to_owned(), other),
            ("/Scan Attribute=_tombstone_expires_at TableName=Other".to_owned(), json!({"Items": []})),
        ];
        for call in ["DescribeTimeToLive", "DescribeContinuousBackups"] {
            changes.push((format!("/{call} TableName=Other"), valid()[&format!("{call} TableName=Copy")].clone()));
        }
        let (diagnosis, _) = diagnosis_of(stack(), &changed(&changes));
        let unchecked: Vec<&str> = diagnosis.unchecked.iter().map(|it| it.rule.id).collect();
        (rules_of(&diagnosis), unchecked.join(" "))
    };
    let replica = |table: &str, region: Option<&str>| json!({"sink": "dynamodb", "table": table, "region": region});
    let document = |replicas: &[Value]| json!({"replicas": replicas});
    let (here, other) = (replica("Copy", Some("eu-west-1")), replica("Other", None));
    assert_eq!(of(document(std::slice::from_ref(&here))), (Vec::new(), String::new()));
    assert_eq!(of(document(&[here.clone(), other.clone()])), (vec!["replica-does-not-fit"], String::new()));
    let not_checked = "replica-does-not-fit key-not-usable replica-expires-items table-not-protected";
    let elsewhere = replica("Copy", Some("us-east-1"));
    assert_eq!(of(document(std::slice::from_ref(&elsewhere))), (Vec::new(), not_checked.to_owned()));
    assert_eq!(of(document(&[elsewhere, here])), (Vec::new(), not_checked.to_owned()));
}

#[test]
fn a_bucket_in_another_partition_is_judged() {
    let elsewhere = "arn:aws-us-gov:s3:::failures";
    let allowed = json!({"EvaluationResults": [{"EvalDecision": "allowed"}]});
    let mut changes = vec![
        (format!("{MAPPING}/DestinationConfig"), json!({"OnFailure": {"Destination": elsewhere}})),
        (simulation("s3:PutObject", &format!("{elsewhere}/aws/lambda/mapping/shard/date")), allowed.clone()),
        (simulation("s3:ListBucket", elsewhere), allowed),
    ];
    let (diagnosis, _) = diagnosis_of(stack(), &changed(&changes));
    assert_eq!(rules_of(&diagnosis), Vec::<&str>::new(), "{:#?}", diagnosis.findings);
    assert!(diagnosis.unchecked.is_empty(), "{:?}", diagnosis.unchecked);
    changes.push(("/GetBucketVersioning Bucket=failures".to_owned(), json!("")));
    let denied = json!({"EvaluationResults": [{"EvalDecision": "implicitDeny"}]});
    changes.push((simulation("s3:ListBucket", elsewhere), denied));
    let (diagnosis, _) = diagnosis_of(stack(), &changed(&changes));
    assert_eq!(rules_of(&diagnosis), ["destination-not-granted", "failure-objects-expire"]);
}

#[test]
fn an_interface_endpoint_is_reached_if_its_security_group_lets_the_function_in() {
    for from in [
        json!({"groups": {"groupId": "sg-1"}}),
        json!({"ipRanges": [{"cidrIp": "10.0.0.0/16"}]}),
        json!({"prefixListIds": {"prefixListId": "pl-1"}}),
    ] {
        let (diagnosis, _) = diagnosis_of(stack(), &changed(&interface_endpoint(&from, "443")));
        assert_eq!(rules_of(&diagnosis), Vec::<&str>::new(), "{from}: {:#?}", diagnosis.findings);
        assert!(diagnosis.unchecked.is_empty(), "{from}: {:?}", diagnosis.unchecked);
    }
    // A group of another VPC is not read.
    let mut elsewhere = interface_endpoint(&json!({"groups": {"groupId": "sg-1"}}), "443");
    elsewhere[0].1["groupSet"]["groupId"] = "sg-9".into();
    let (diagnosis, _) = diagnosis_of(stack(), &changed(&elsewhere));
    let unchecked: Vec<_> = diagnosis.unchecked.iter().map(|it| (it.rule.id, it.reason.as_str())).collect();
    assert_eq!(unchecked, [("network-without-route", "the security group sg-9 is not part of this deployment")]);
}

#[test]
fn findings_name_the_resource_as_the_template_does() {
    let (diagnosis, _) = diagnosis_of(stack(), &changed(&[(format!("{MAPPING}/StartingPosition"), json!("LATEST"))]));
    let location = &diagnosis.findings[0].location;
    assert_eq!((location.file.as_str(), location.resource.as_str()), ("stack/users", "Copier.Changes"));
    let problem = &diagnosis.findings[0].problem;
    assert_eq!(problem, "StartingPosition is LATEST; the mapping was last created or updated at 2026-01-01T00:00:00Z");
    for target in [AccountTarget::Function("copier".to_owned()), AccountTarget::Table("Users".to_owned())] {
        let answers = changed(&[(format!("{MAPPING}/StartingPosition"), json!("LATEST"))]);
        let (diagnosis, _) = diagnosis_of(target.clone(), &answers);
        assert_eq!(rules_of(&diagnosis), ["starts-at-latest"], "{target}: {:#?}", diagnosis.findings);
        assert_eq!(diagnosis.findings[0].location.resource, format!("copier.{UUID}"));
    }
}

#[test]
fn the_template_of_a_stack_declares_findings_as_intended() {
    let path = "GetTemplate StackName=users TemplateStage=Original";
    let template = valid()[path]["TemplateBody"]
        .as_str()
        .unwrap()
        .replace("purpose: replicator", "purpose: replicator, ignore: [{rule: starts-at-latest, reason: a cache}]");
    let answers = changed(&[
        (format!("/{path}/TemplateBody"), template.clone().into()),
        (format!("{MAPPING}/StartingPosition"), json!("LATEST")),
    ]);
    let (diagnosis, problems) = diagnosis_of(stack(), &answers);
    assert_eq!((rules_of(&diagnosis), problems), (Vec::new(), Vec::new()));
    assert_eq!(diagnosis.ignored.len(), 1);
    // An entry of a rule that is not checked may have a finding.
    let unused = |metric: CallResponse| {
        let template = template.replace("starts-at-latest", "mapping-not-watched");
        let mut recording = recording(stack(), &changed(&[(format!("/{path}/TemplateBody"), template.into())]));
        recording.add("DescribeAlarms AlarmTypes.member.1=MetricAlarm", metric);
        diagnose(&read(&recording).unwrap().reading.deployment).unused_ignores.len()
    };
    let alarms = valid()["DescribeAlarms AlarmTypes.member.1=MetricAlarm"].clone();
    assert_eq!((unused(CallResponse::Response(alarms)), unused(refused("AccessDenied"))), (1, 0));
}

#[test]
fn a_stack_is_judged_with_its_nested_stacks() {
    let mut answers = valid();
    let nested = "arn:aws:cloudformation:eu-west-1:123456789012:stack/users-Inner-1/1";
    let resources = answers.remove("ListStackResources StackName=users").unwrap();
    let template = answers.remove("GetTemplate StackName=users TemplateStage=Original").unwrap();
    answers.insert(format!("ListStackResources StackName={nested}"), resources);
    answers.insert(format!("GetTemplate StackName={nested} TemplateStage=Original"), template);
    answers.insert(
        "ListStackResources StackName=users".to_owned(),
        json!({"StackResourceSummaries": [{
            "LogicalResourceId": "Inner", "ResourceType": "AWS::CloudFormation::Stack", "PhysicalResourceId": nested,
        }]}),
    );
    answers.insert(
        "GetTemplate StackName=users TemplateStage=Original".to_owned(),
        json!({"TemplateBody": "Metadata: {millrace: {ignore: [{rule: open-route, reason: public}]}}\nResources: {}"}),
    );
    answers.get_mut("GetRoutes ApiId=a1b2c3").unwrap()["items"][0]["authorizationType"] = "NONE".into();
    answers.get_mut("ListEventSourceMappings").unwrap()["EventSourceMappings"][0]["StartingPosition"] = "LATEST".into();
    let (diagnosis, _) = diagnosis_of(stack(), &answers);
    assert_eq!(rules_of(&diagnosis), ["starts-at-latest"]);
    assert_eq!(diagnosis.findings[0].location.resource, "Inner.Copier.Changes");
    assert_eq!(diagnosis.ignored.len(), 1);
}

/// The valid account, and the same with a queue and with a topic as the destination; each with its findings.
fn recordings() -> Vec<(Answers, &'static [&'static str])> {
    let policy = json!(r#"{"Statement": []}"#);
    let mut recordings: Vec<(Answers, &[&str])> = vec![(valid(), &[])];
    for arn in [QUEUE, TOPIC] {
        recordings.push((changed(&to_message_destination(arn, &policy, &json!(KEY))), &["metadata-only-destination"]));
    }
    recordings
}

/// Returns whether the answer to a call is used.
fn is_asked(recording: &AccountRecording, call: &str) -> bool {
    read(&recording.without(call)).is_ok_and(|reading| !reading.missing.is_empty())
}

#[test]
fn a_refused_call_makes_the_rules_that_need_it_not_checked_and_never_finds_anything() {
    let of_destination = recordings().into_iter().flat_map(|(answers, findings)| {
        let calls: Vec<String> = answers.keys().cloned().collect();
        calls.into_iter().map(move |call| (call, answers.clone(), findings))
    });
    for (call, answers, findings) in of_destination.filter(|(call, ..)| !call.starts_with("ListStackResources")) {
        let call = &call;
        let mut recording = recording(stack(), &answers);
        if !is_asked(&recording, call) {
            continue;
        }
        recording.add(call, refused("AccessDeniedException"));
        let mut reading = read(&recording).unwrap();
        // A refused call leaves others unasked, never asks for more.
        assert!(reading.missing.is_empty(), "{call}: {:?}", reading.missing);
        let diagnosis = diagnose(&reading.reading.deployment);
        let found = rules_of(&diagnosis);
        assert!(found.iter().all(|rule| findings.contains(rule)), "{call}: {:#?}", diagnosis.findings);
        let mut reasons: Vec<String> = diagnosis.unchecked.iter().map(|it| it.reason.clone()).collect();
        reasons.extend(diagnosis.unread.iter().map(|(_, reason)| reason.clone()));
        reasons.append(&mut reading.reading.problems);
        let (name, _) = call.split_once(' ').unwrap_or((call, ""));
        let action = OPERATIONS.iter().find(|operation| operation.name == name).unwrap().action;
        let said = format!("{name} was denied: allow {action}");
        assert!(reasons.iter().any(|reason| reason.contains(&said)), "{call}: {reasons:#?}");
    }
}

#[test]
fn a_target_that_does_not_exist_or_is_refused_is_an_error_of_one_line() {
    let error = |target: AccountTarget, call: &str, code: &str| {
        let mut recording = recording(target, &Answers::new());
        recording.add(call, refused(code));
        read(&recording).unwrap_err()
    };
    let table = || AccountTarget::Table("Users".to_owned());
    assert_eq!(
        error(table(), "DescribeTable TableName=Users", "ResourceNotFoundException"),
        "table/Users does not exist"
    );
    assert_eq!(
        error(table(), "DescribeTable TableName=Users", "AccessDeniedException"),
        "table/Users: DescribeTable was denied: allow dynamodb:DescribeTable"
    );
    let said = error(stack(), "ListStackResources StackName=users", "ValidationError");
    assert_eq!(said, "stack/users: ListStackResources failed: ValidationError: no");
}

#[test]
fn the_calls_are_made_in_turns_until_none_is_missing() {
    let answers = valid();
    let mut recording = recording(stack(), &Answers::new());
    let mut turns = 0;
    loop {
        let missing = read(&recording).unwrap().missing;
        if missing.is_empty() {
            break;
        }
        turns += 1;
        for call in missing {
            let answer = answers.get(&call.to_string()).unwrap_or_else(|| panic!("the recording has no {call}"));
            let code = answer["refused"].as_str();
            recording.add(&call, code.map_or_else(|| CallResponse::Response(answer.clone()), refused));
        }
    }
    assert_eq!((recording.count(), turns), (answers.len(), 5), "each answer is needed");
}

#[test]
fn the_policy_allows_each_operation_and_nothing_that_writes() {
    let policy: Value = serde_json::from_str(&policy()).unwrap();
    let statements = policy["Statement"].as_array().unwrap();
    let actions: BTreeSet<&str> = statements
        .iter()
        .flat_map(|statement| statement["Action"].as_array().unwrap())
        .map(|action| action.as_str().unwrap())
        .collect();
    assert_eq!(actions, OPERATIONS.iter().map(|operation| operation.action).collect());
    let reads = ["Describe", "Get", "List", "Scan", "Simulate", "GET"];
    for action in actions {
        let (_, verb) = action.split_once(':').unwrap();
        assert!(reads.iter().any(|read| verb.starts_with(read)), "{action}");
    }
    let names: BTreeSet<&str> = OPERATIONS.iter().map(|operation| operation.name).collect();
    let recorded = recordings();
    let calls = recorded.iter().flat_map(|(answers, _)| answers.keys());
    let called: BTreeSet<&str> = calls.map(|call| call.split(' ').next().unwrap()).collect();
    assert_eq!(called, names, "the recording calls each operation");
}

proptest! {
    #[test]
    fn no_answer_makes_the_reader_panic(
        changes in prop::collection::vec((any::<Index>(), any::<Index>(), odd_value()), 1..5),
        target in prop_oneof![
            Just(stack()),
            Just(AccountTarget::Function("copier".to_owned())),
            Just(AccountTarget::Table("Users".to_owned())),
        ],
    ) {
        let mut answers = valid();
        for (call, at, value) in changes {
            let calls: Vec<String> = answers.keys().cloned().collect();
            let call: &String = call.get(&calls);
            let answer = answers.get_mut(call).unwrap();
            let mut found = Vec::new();
            pointers(answer, "", &mut found);
            let pointer: &String = at.get(&found);
            *answer.pointer_mut(pointer).unwrap() = value;
        }
        match read(&recording(target, &answers)) {
            Ok(reading) => {
                let _ = diagnose(&reading.reading.deployment);
            }
            Err(line) => assert!(!line.contains('\n'), "{line}"),
        }
    }
}
