//! The target of a diagnosis: a stack with its template and nested stacks, a function, or a table.

use serde_json::json;

use super::account_fixture::{
    MAPPING, ScriptedResponses, UUID, changed, diagnosis_of, recording, refused, rules_of, stack, valid,
};
use crate::account_call::CallResponse;
use crate::account_reader::read;
use crate::account_recording::AccountTarget;
use crate::diagnosis::diagnose;

#[test]
fn findings_name_the_resource_as_the_template_does() {
    let (diagnosis, _) = diagnosis_of(stack(), &changed(&[(format!("{MAPPING}/StartingPosition"), json!("LATEST"))]));
    let location = &diagnosis.findings[0].location;
    assert_eq!((location.file.as_str(), location.resource.as_str()), ("stack/users", "Copier.Changes"));
    let problem = &diagnosis.findings[0].problem;
    assert_eq!(problem, "StartingPosition is LATEST; the mapping was last created or updated at 2026-01-01T00:00:00Z");
    for target in [AccountTarget::Function("copier".to_owned()), AccountTarget::Table("Users".to_owned())] {
        let responses = changed(&[(format!("{MAPPING}/StartingPosition"), json!("LATEST"))]);
        let (diagnosis, _) = diagnosis_of(target.clone(), &responses);
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
    let responses = changed(&[
        (format!("/{path}/TemplateBody"), template.clone().into()),
        (format!("{MAPPING}/StartingPosition"), json!("LATEST")),
    ]);
    let (diagnosis, problems) = diagnosis_of(stack(), &responses);
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
fn a_stack_is_evaluated_with_its_nested_stacks() {
    let mut responses = valid();
    let nested = "arn:aws:cloudformation:eu-west-1:123456789012:stack/users-Inner-1/1";
    let resources = responses.remove("ListStackResources StackName=users").unwrap();
    let template = responses.remove("GetTemplate StackName=users TemplateStage=Original").unwrap();
    responses.insert(format!("ListStackResources StackName={nested}"), resources);
    responses.insert(format!("GetTemplate StackName={nested} TemplateStage=Original"), template);
    responses.insert(
        "ListStackResources StackName=users".to_owned(),
        json!({"StackResourceSummaries": [{
            "LogicalResourceId": "Inner", "ResourceType": "AWS::CloudFormation::Stack", "PhysicalResourceId": nested,
        }]}),
    );
    responses.insert(
        "GetTemplate StackName=users TemplateStage=Original".to_owned(),
        json!({"TemplateBody": "Metadata: {millrace: {ignore: [{rule: open-route, reason: public}]}}\nResources: {}"}),
    );
    responses.get_mut("GetRoutes ApiId=a1b2c3").unwrap()["items"][0]["authorizationType"] = "NONE".into();
    responses.get_mut("ListEventSourceMappings").unwrap()["EventSourceMappings"][0]["StartingPosition"] =
        "LATEST".into();
    let (diagnosis, _) = diagnosis_of(stack(), &responses);
    assert_eq!(rules_of(&diagnosis), ["starts-at-latest"]);
    assert_eq!(diagnosis.findings[0].location.resource, "Inner.Copier.Changes");
    assert_eq!(diagnosis.ignored.len(), 1);
}

#[test]
fn a_target_that_does_not_exist_or_is_refused_is_an_error_of_one_line() {
    let error = |target: AccountTarget, call: &str, code: &str| {
        let mut recording = recording(target, &ScriptedResponses::new());
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
    let message = error(stack(), "ListStackResources StackName=users", "ValidationError");
    assert_eq!(message, "stack/users: ListStackResources failed: ValidationError: no");
}
