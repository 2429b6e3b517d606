//! Recorded responses of an account in which every setting is valid, and changes of them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::account_call::{CallRefusal, CallResponse};
use crate::account_reader::read;
use crate::account_recording::{AccountRecording, AccountTarget};
use crate::diagnosis::{DeploymentDiagnosis, diagnose};

pub(super) const UUID: &str = "11111111-2222-3333-4444-555555555555";
pub(super) const MAPPING: &str = "/ListEventSourceMappings/EventSourceMappings/0";
pub(super) const FUNCTION: &str = "/GetFunctionConfiguration FunctionName=copier";
pub(super) const GROUPS: &str = "/DescribeSecurityGroups VpcId=vpc-1";
pub(super) const ROLE: &str = "arn:aws:iam::123456789012:role/copier";
pub(super) const QUEUE: &str = "arn:aws:sqs:eu-west-1:123456789012:discarded";
pub(super) const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:discarded";
pub(super) const KEY: &str = "arn:aws:kms:eu-west-1:123456789012:key/k-1";
pub(super) const OTHER_KEY: &str = "arn:aws:kms:eu-west-1:123456789012:key/k-2";

pub(super) type ScriptedResponses = BTreeMap<String, Value>;

/// The responses of an account in which every setting is valid.
pub(super) fn valid() -> ScriptedResponses {
    let recording: Value = serde_json::from_str(include_str!("account.json")).unwrap();
    serde_json::from_value(recording["responses"].clone()).unwrap()
}

pub(super) fn recording(target: AccountTarget, responses: &ScriptedResponses) -> AccountRecording {
    let read_at = OffsetDateTime::parse("2026-11-28T10:00:00Z", &Rfc3339).unwrap();
    let mut recording = AccountRecording::new(target, read_at);
    for (call, response) in responses {
        let response = match response["refused"].as_str() {
            Some(code) => refused(code),
            None => CallResponse::Response(response.clone()),
        };
        recording.add(call, response);
    }
    recording
}

pub(super) fn refused(code: &str) -> CallResponse {
    CallResponse::Refused(CallRefusal { code: Some(code.to_owned()), description: format!("{code}: no") })
}

pub(super) fn stack() -> AccountTarget {
    AccountTarget::Stack("users".to_owned())
}

/// Diagnoses recorded responses, which must be complete.
pub(super) fn diagnosis_of(target: AccountTarget, responses: &ScriptedResponses) -> (DeploymentDiagnosis, Vec<String>) {
    let reading = read(&recording(target, responses)).unwrap();
    let missing: Vec<String> = reading.missing.iter().map(ToString::to_string).collect();
    assert!(missing.is_empty(), "the recording has no response to {missing:#?}");
    (diagnose(&reading.reading.deployment), reading.reading.problems)
}

pub(super) fn rules_of(diagnosis: &DeploymentDiagnosis) -> Vec<&'static str> {
    let rules: BTreeSet<_> = diagnosis.findings.iter().map(|finding| finding.rule.id).collect();
    rules.into_iter().collect()
}

/// Replaces the values at the paths; a path of one part is a whole response.
pub(super) fn changed(changes: &[(String, Value)]) -> ScriptedResponses {
    let mut responses = valid();
    for (path, value) in changes {
        let path = path.strip_prefix('/').unwrap();
        // The name of a call may contain slashes.
        let call = responses.keys().filter(|call| path.starts_with(call.as_str())).max_by_key(|call| call.len());
        match call.cloned().filter(|call| path[call.len()..].starts_with('/')) {
            None => {
                responses.insert(path.to_owned(), value.clone());
            }
            Some(call) => {
                let (parent, member) = path[call.len()..].rsplit_once('/').unwrap();
                let parent = responses.get_mut(&call).unwrap().pointer_mut(parent).unwrap();
                match member.parse::<usize>() {
                    Ok(index) if parent.is_array() => parent[index] = value.clone(),
                    _ => parent[member] = value.clone(),
                }
            }
        }
    }
    responses
}

pub(super) fn statistics(dimension: &str, metric: &str, statistic: &str) -> String {
    let value = if dimension == "FunctionName" { "copier" } else { UUID };
    format!(
        "/GetMetricStatistics Dimensions={dimension}={value} MetricName={metric} Namespace=AWS/Lambda \
         Statistic={statistic}"
    )
}

pub(super) fn points(statistic: &str, value: &str) -> Value {
    json!({"Datapoints": [{statistic: value}]})
}

/// The changes that make a queue or a topic the destination, with a policy and a key.
pub(super) fn to_message_destination(arn: &str, policy: &Value, key: &Value) -> Vec<(String, Value)> {
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

pub(super) fn simulation(action: &str, resource: &str) -> String {
    format!(
        "/SimulatePrincipalPolicy ActionNames.member.1={action} PolicySourceArn={ROLE} \
         ResourceArns.member.1={resource}"
    )
}

/// Returns the evaluation of an action on the key that a service performs for the role.
pub(super) fn key_simulation(action: &str, service: &str, key: &str) -> String {
    format!(
        "/SimulatePrincipalPolicy ActionNames.member.1={action} ContextEntries.member.1.ContextKeyName=kms:ViaService \
         ContextEntries.member.1.ContextKeyType=string \
         ContextEntries.member.1.ContextKeyValues.member.1={service}.eu-west-1.amazonaws.com PolicySourceArn={ROLE} \
         ResourceArns.member.1={key}"
    )
}

/// The changes that encrypt something with another key, in this state, whose use is decided so.
pub(super) fn other_key(state: &str, action: &str, service: &str, decision: &str) -> Vec<(String, Value)> {
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
pub(super) fn interface_endpoint(from: &Value, port: &str) -> Vec<(String, Value)> {
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
pub(super) fn other_bucket_key(bucket: &str) -> (String, Value) {
    let default = json!({"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": OTHER_KEY});
    (format!("/GetBucketEncryption Bucket={bucket}"), json!({"Rule": {"ApplyServerSideEncryptionByDefault": default}}))
}

pub(super) fn stream() -> String {
    let valid = valid();
    valid["ListEventSourceMappings"]["EventSourceMappings"][0]["EventSourceArn"].as_str().unwrap().to_owned()
}
