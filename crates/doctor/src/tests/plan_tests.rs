//! Terraform plans.

use serde_json::{Value, json};

use crate::diagnosis::diagnose;
use crate::setting::SettingValue;
use crate::terraform_plan::{is_plan, read};

fn plan(mapping: &Value, expressions: &Value) -> Value {
    let resource = |address: &str, values: Value| {
        let kind = address.split('.').next().unwrap();
        json!({"address": address, "mode": "managed", "type": kind, "values": values})
    };
    json!({
        "format_version": "1.2",
        "planned_values": {"root_module": {"resources": [
            resource("aws_dynamodb_table.users", json!({
                "name": "Users", "hash_key": "id", "attribute": [{"name": "id", "type": "S"}],
                "stream_view_type": "NEW_IMAGE", "ttl": [{"enabled": true, "attribute_name": "expires"}],
                "point_in_time_recovery": [{"enabled": true}], "deletion_protection_enabled": true,
            })),
            resource("aws_lambda_function.copier", json!({"function_name": "copier", "timeout": 60})),
            resource("aws_s3_bucket.failures", json!({})),
            resource("aws_lambda_event_source_mapping.changes", mapping.clone()),
        ]}},
        "configuration": {"root_module": {"resources": [
            {"address": "aws_lambda_event_source_mapping.changes", "expressions": expressions},
        ]}},
    })
}

fn expressions() -> Value {
    json!({
        "event_source_arn": {"references": ["aws_dynamodb_table.users.stream_arn", "aws_dynamodb_table.users"]},
        "function_name": {"references": ["aws_lambda_function.copier.arn", "aws_lambda_function.copier"]},
        "destination_config": [{"on_failure": [{
            "destination_arn": {"references": ["aws_s3_bucket.failures.arn", "aws_s3_bucket.failures"]},
        }]}],
    })
}

#[test]
fn a_plan_is_evaluated_as_a_template_with_the_same_settings_and_fixed_in_hcl() {
    let mapping = json!({"starting_position": "LATEST", "maximum_retry_attempts": 3, "batch_size": 10});
    let mut expressions = expressions();
    expressions["destination_config"] = Value::Null;
    let plan = plan(&mapping, &expressions);
    assert!(is_plan(&plan));
    let reading = read(&plan, "plan.json");
    assert_eq!(reading.problems, Vec::<String>::new());
    let diagnosis = diagnose(&reading.deployment);
    let found: Vec<_> = diagnosis.findings.iter().map(|finding| finding.rule.id).collect();
    let expected =
        ["discarded-without-destination", "batch-discarded-whole", "starts-at-latest", "mapping-not-watched"];
    assert_eq!(found, expected);
    assert!(diagnosis.findings[2].fix().contains("starting_position = "), "{}", diagnosis.findings[2].fix());
}

#[test]
fn attributes_known_after_apply_are_resolved_by_reference() {
    let reading = read(&plan(&json!({"bisect_batch_on_function_error": true}), &expressions()), "plan.json");
    let deployment = &reading.deployment;
    let mapping = &deployment.mappings[0];
    assert_eq!(deployment.table_of(mapping).unwrap().name, "Users");
    assert_eq!(deployment.function_of(mapping).unwrap().name, "copier");
    assert!(deployment.bucket(mapping.on_failure.known().unwrap()).is_some());
    assert_eq!(
        (mapping.bisect.clone(), mapping.max_retries.clone()),
        (SettingValue::Known(true), SettingValue::Absent)
    );
}

#[test]
fn a_reference_to_a_variable_is_not_resolved() {
    let mut expressions = expressions();
    expressions["maximum_retry_attempts"] = json!({"references": ["var.retries"]});
    let reading = read(&plan(&json!({}), &expressions), "plan.json");
    let SettingValue::Unresolved(reason) = &reading.deployment.mappings[0].max_retries else { panic!("resolved") };
    assert!(reason.contains("var.retries"), "{reason}");
}

#[test]
fn a_plan_without_values_is_a_problem_and_no_json_makes_the_reader_panic() {
    assert_eq!(read(&json!({"planned_values": {}}), "plan.json").problems.len(), 1);
    for odd in
        [json!({"planned_values": []}), json!({"planned_values": {"root_module": {"resources": [1, {"address": 2}]}}})]
    {
        assert_eq!(read(&odd, "plan.json").deployment.mappings.len(), 0);
    }
}

/// A plan with a module for the table and one with `for_each` for its consumers, whose mapping has `count`.
pub(crate) const PLAN: &str = include_str!("plan.json");

#[test]
fn a_plan_with_modules_counts_and_unknown_values_is_evaluated() {
    let document = serde_json::from_str(PLAN).unwrap();
    let reading = read(&document, "plan.json");
    let deployment = &reading.deployment;
    assert_eq!((reading.problems.len(), deployment.mappings.len()), (0, 2));
    for mapping in &deployment.mappings {
        assert_eq!(deployment.table_of(mapping).unwrap().name, "Orders");
        let function = deployment.function_of(mapping).unwrap();
        let key = mapping.location.resource.split('"').nth(1).unwrap();
        assert!(function.location.resource.contains(key), "{key}: {function:?}");
        assert!(deployment.role_of(function).is_ok_and(|role| role.name == format!("consumer-{key}")));
        let bucket = deployment.bucket(mapping.on_failure.known().unwrap()).unwrap();
        assert_eq!(bucket.versioned, SettingValue::Known(true));
    }
    let diagnosis = diagnose(deployment);
    let of = |key: &str| {
        let of_key = diagnosis.findings.iter().filter(|it| it.location.resource.contains(key));
        of_key.map(|it| it.rule.id).collect::<Vec<_>>()
    };
    assert_eq!(of("billing"), ["batch-discarded-whole", "mapping-not-watched"]);
    assert_eq!(of("search"), ["starts-at-latest", "mapping-not-watched"]);
    assert_eq!(diagnosis.findings.len(), 4, "{:#?}", diagnosis.findings);
    // The age of the first consumer is a member of `each.value`, which a plan does not resolve.
    let unknown = &deployment.mappings[0].max_age_s;
    assert_eq!(*unknown, SettingValue::Unresolved("each.value.age is not resolved".to_owned()));
}

#[test]
fn a_reference_to_one_of_several_instances_is_that_of_the_same_key_or_none() {
    let resource = |address: &str, values: Value| {
        let kind = address.split('.').next().unwrap();
        json!({"address": address, "mode": "managed", "type": kind, "values": values})
    };
    let plan = |references: Value| {
        json!({
            "planned_values": {"root_module": {"resources": [
                resource("aws_dynamodb_table.t[\"a.b\"]", json!({"name": "A"})),
                resource("aws_dynamodb_table.t[\"c\"]", json!({"name": "C"})),
                resource("aws_lambda_event_source_mapping.m[\"a.b\"]", json!({"starting_position": "LATEST"})),
            ]}},
            "configuration": {"root_module": {"resources": [{
                "address": "aws_lambda_event_source_mapping.m",
                "expressions": {"event_source_arn": {"references": references}},
            }]}},
        })
    };
    let read = |references: Value| read(&plan(references), "plan.json").deployment;
    let own = read(json!(["aws_dynamodb_table.t", "each.key"]));
    assert_eq!(own.table_of(&own.mappings[0]).unwrap().name, "A");
    let named = read(json!(["aws_dynamodb_table.t[\"c\"].stream_arn", "aws_dynamodb_table.t[\"c\"]"]));
    assert_eq!(named.table_of(&named.mappings[0]).unwrap().name, "C");
    let other = read(json!(["aws_dynamodb_table.t", "local.key"]));
    assert_eq!((other.mappings.len(), other.unresolved_mappings.len()), (0, 1));
}

#[test]
fn a_table_is_protected_by_the_service_and_else_may_be_by_the_configuration() {
    let with = |name: &str, value: Value| {
        let mut plan = plan(&json!({"starting_position": "TRIM_HORIZON"}), &expressions());
        plan["planned_values"]["root_module"]["resources"][0]["values"][name] = value;
        let diagnosis = diagnose(&read(&plan, "plan.json").deployment);
        let is_protection = |id: &str| id == "table-not-protected";
        let finding = diagnosis.findings.iter().find(|it| is_protection(it.rule.id)).map(|it| it.problem.clone());
        (finding, diagnosis.unchecked.iter().any(|it| is_protection(it.rule.id)))
    };
    assert_eq!(with("deletion_protection_enabled", json!(true)), (None, false));
    let off = Some("deletion protection is off".to_owned());
    assert_eq!(with("deletion_protection_enabled", json!(false)), (off, false));
}

#[test]
fn the_key_and_the_policy_of_a_queue_are_those_of_the_plan() {
    let queue = ["aws_sqs_queue.discarded.arn", "aws_sqs_queue.discarded"];
    let mut expressions = expressions();
    expressions["destination_config"][0]["on_failure"][0]["destination_arn"]["references"] = json!(queue);
    let mut plan = plan(&json!({}), &expressions);
    let denies = json!({"Statement": [{"Effect": "Deny", "Principal": "*", "Action": "*", "Resource": "*"}]});
    let mut add = |address: &str, values: Value, expressions: Value| {
        let kind = address.split('.').next().unwrap();
        let resources = plan["planned_values"]["root_module"]["resources"].as_array_mut().unwrap();
        resources.push(json!({"address": address, "mode": "managed", "type": kind, "values": values}));
        let configured = plan["configuration"]["root_module"]["resources"].as_array_mut().unwrap();
        configured.push(json!({"address": address, "expressions": expressions}));
    };
    add("aws_sqs_queue.discarded", json!({"kms_master_key_id": "arn:aws:kms:eu-west-1:1:key/k"}), json!({}));
    add(
        "aws_sqs_queue_policy.discarded",
        json!({"policy": denies.to_string()}),
        json!({"queue_url": {"references": ["aws_sqs_queue.discarded.id", "aws_sqs_queue.discarded"]}}),
    );
    let deployment = read(&plan, "plan.json").deployment;
    let arn = deployment.mappings[0].on_failure.known().unwrap();
    let destination = deployment.message_destinations.iter().find(|destination| destination.arn == *arn).unwrap();
    assert_eq!(destination.key, SettingValue::Known("arn:aws:kms:eu-west-1:1:key/k".to_owned()));
    let (of, policy) = &deployment.resource_policies[0];
    assert_eq!(of, &SettingValue::Known(arn.clone()));
    let decision = policy.decide("arn:aws:iam::1:role/r", "sqs:SendMessage", arn);
    assert_eq!(decision, crate::access_policy::PolicyDecision::Denied);
}
