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
fn a_plan_is_judged_as_a_template_with_the_same_settings_and_fixed_in_hcl() {
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
fn what_only_the_deployment_assigns_is_found_by_its_reference() {
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
