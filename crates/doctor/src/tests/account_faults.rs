//! For each rule, the responses of an account that have its fault.

use serde_json::{Value, json};

use super::account_fixture::{
    FUNCTION, GROUPS, KEY, MAPPING, OTHER_KEY, QUEUE, TOPIC, UUID, interface_endpoint, key_simulation,
    other_bucket_key, other_key, points, simulation, statistics, stream, to_message_destination, valid,
};

const FIRST: &str = "current/a1";
/// The first start of the replicator with its rules, and a repair of both segments an hour later.
pub(super) const STARTED: (&str, &str) = (FIRST, "2026-11-20T08:00:00.000Z");
pub(super) const ONE: (&str, &str) = ("repaired/a1/2-0-1795165201", "2026-11-20T09:05:00.000Z");
pub(super) const OTHER: (&str, &str) = ("repaired/a1/2-1-1795165201", "2026-11-20T09:06:00.000Z");

/// A function with the replica `masked` in its document, and the recorded rules of the replica, each with its time.
pub(super) fn with_rules(records: &[(&str, &str)]) -> Vec<(String, Value)> {
    let document = r#"{"replicas": [{"name": "masked", "sink": "dynamodb", "table": "Copy"}]}"#;
    let object =
        |(name, time): &(&str, &str)| json!({"Key": format!("transforms/masked/{name}"), "LastModified": time});
    let objects: Vec<Value> = records.iter().map(object).collect();
    vec![
        (format!("{FUNCTION}/Environment/Variables/REPLICATION"), json!(document)),
        ("/ListObjectsV2 Bucket=failures Prefix=transforms/masked/".to_owned(), json!({"Contents": objects})),
    ]
}

/// For each rule that is evaluated in an account: changes of the responses with its fault, once for each form of it.
pub(super) fn faults() -> Vec<(&'static str, Vec<(String, Value)>)> {
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
        // The segments were repaired before the rules were in use for 20 minutes.
        ("replica-outdated", with_rules(&[(FIRST, "2026-11-20T09:00:00.000Z"), ONE, OTHER])),
        ("replica-outdated", with_rules(&[STARTED, ONE])),
        // A task wrote with other rules.
        ("replica-outdated", with_rules(&[STARTED, ONE, OTHER, ("written/b2", "2026-11-21T08:00:00.000Z")])),
        ("replica-outdated", with_rules(&[("written/b2", "2026-11-21T08:00:00.000Z")])),
        // Two starts at the same time.
        ("replica-outdated", with_rules(&[STARTED, ("current/b2", STARTED.1), ONE, OTHER])),
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
