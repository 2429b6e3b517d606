#!/usr/bin/env python3
"""Checks that the Terraform module parses, and has the mapping settings, permissions and alarms of the template.

    check_terraform.py target/templates/expanded/replication.json infra/terraform/replication

The first argument is infra/replication.yaml as scripts/expand_template.py prints it. Requires python-hcl2, which checkov
brings. No Terraform and no provider is needed: that every argument exists in the provider is not checked here.
"""

import json
import os
import re
import sys

import hcl2

# Conditions of the tiers and of the users service, which the module does not have.
ABSENT = {"HasRelational", "HasCache", "HasNetwork", "HasEmails"}
MAPPING = {
    "StartingPosition": "starting_position",
    "BatchSize": "batch_size",
    "MaximumBatchingWindowInSeconds": "maximum_batching_window_in_seconds",
    "ParallelizationFactor": "parallelization_factor",
    "MaximumRetryAttempts": "maximum_retry_attempts",
    "MaximumRecordAgeInSeconds": "maximum_record_age_in_seconds",
    "BisectBatchOnFunctionError": "bisect_batch_on_function_error",
    "FunctionResponseTypes": "function_response_types",
}
ALARM = {
    "AlarmDescription": "alarm_description",
    "Namespace": "namespace",
    "MetricName": "metric_name",
    "Statistic": "statistic",
    "Period": "period",
    "EvaluationPeriods": "evaluation_periods",
    "Threshold": "threshold",
    "ComparisonOperator": "comparison_operator",
    "TreatMissingData": "treat_missing_data",
}


class Wrong(Exception):
    pass


def snake(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def normal(node):
    """Returns what the parser gives without the list that it puts around each argument, and around a single block."""
    if isinstance(node, dict):
        inner = {key.strip('"'): value for key, value in node.items()}
        return {key: normal(value[0] if isinstance(value, list) and len(value) == 1 else value) for key, value in inner.items()}
    if isinstance(node, list):
        return [normal(each) for each in node]
    if isinstance(node, str):
        number = re.fullmatch(r"\$\{(-?\d+)\}", node)
        return int(number[1]) if number else node.replace('\\"', '"')
    return node


def many(block, name):
    """Returns the nested blocks of a name."""
    nested = block.get(name, [])
    return nested if isinstance(nested, list) else [nested]


def same(what, template, module):
    if template != module:
        raise Wrong(f"{what}: the template has {template!r}, and the module {module!r}")


def read(folder):
    """Returns the blocks of the module: the resources and data sources by type and name, and the variables by name."""
    blocks, variables = {}, {}
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".tf"):
            continue
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            content = hcl2.load(file)
        for kind in ("resource", "data"):
            for block in content.get(kind, []):
                ((of, named),) = block.items()
                ((own, body),) = named.items()
                key = (of.strip('"'), own.strip('"'))
                if key in blocks:
                    raise Wrong(f"{name}: {key} occurs twice")
                blocks[key] = normal(body)
        for block in content.get("variable", []):
            ((own, body),) = block.items()
            variables[own.strip('"')] = normal(body)
    return blocks, variables


def check_mapping(name, properties, block):
    """Compares the settings of an event source mapping."""
    for own, other in MAPPING.items():
        same(f"{name}.{own}", properties.get(own), block.get(other))
    filters = properties.get("FilterCriteria", {}).get("Filters", [])
    patterns = [each["pattern"] for each in many(block.get("filter_criteria", {}), "filter")]
    same(f"{name}.FilterCriteria", [json.loads(each["Pattern"]) for each in filters], [json.loads(each) for each in patterns])
    destination = block["destination_config"]["on_failure"]["destination_arn"]
    same(f"{name}.OnFailure", "${aws_s3_bucket.failure_bucket.arn}", destination)
    same(f"{name}.MetricsConfig", properties["MetricsConfig"]["Metrics"], block["metrics_config"]["metrics"])


def granted(block):
    """Returns the actions of a statement and the operators and variables of its conditions."""
    return (block["actions"], sorted((each["test"], each["variable"]) for each in many(block, "condition")))


def statements(document):
    """Returns what each statement of a policy document grants, by Sid."""
    dynamic = [each["statement"]["content"] for each in many(document, "dynamic")]
    return {each["sid"]: granted(each) for each in many(document, "statement") + dynamic}


def expected_statements(policies):
    """Returns the same of the inline policies of a role in the template."""
    expected = {}
    for policy in policies:
        for statement in policy["PolicyDocument"]["Statement"]:
            if "Fn::If" in statement:
                (condition, statement, _) = statement["Fn::If"]
                if condition in ABSENT:
                    continue
            actions = statement["Action"]
            conditions = [(test, variable) for test, given in statement.get("Condition", {}).items() for variable in given]
            expected[statement["Sid"]] = (actions if isinstance(actions, list) else [actions], sorted(conditions))
    return expected


def check_alarm(name, properties, block):
    """Compares an alarm: its settings, and namespace, name, dimensions and statistic of each metric."""
    for own, other in ALARM.items():
        value = properties.get(own)
        if isinstance(value, dict):
            # A period that depends on a condition.
            (_, then, otherwise) = value["Fn::If"]
            if f"? {then} : {otherwise}" not in str(block[other]):
                raise Wrong(f"{name}.{own}: {block[other]}")
            continue
        same(f"{name}.{own}", value, block.get(other))
    dimensions = sorted(each["Name"] for each in properties.get("Dimensions", []))
    same(f"{name}.Dimensions", dimensions, sorted(block.get("dimensions", {})))
    queries = {each["id"]: each for each in many(block, "metric_query")}
    same(f"{name}.Metrics", sorted(each["Id"] for each in properties.get("Metrics", [])), sorted(queries))
    for query in properties.get("Metrics", []):
        other = queries[query["Id"]]
        same(f"{name}.{query['Id']}.Expression", query.get("Expression"), other.get("expression"))
        if "MetricStat" in query:
            metric, stat = query["MetricStat"]["Metric"], query["MetricStat"]
            given = other["metric"]
            found = (given["namespace"], given["metric_name"], sorted(given["dimensions"]), given["period"], given["stat"])
            names = sorted(each["Name"] for each in metric["Dimensions"])
            same(f"{name}.{query['Id']}", (metric["Namespace"], metric["MetricName"], names, stat["Period"], stat["Stat"]), found)


def main(path, folder):
    with open(path, encoding="utf-8") as file:
        template = json.load(file)
    blocks, variables = read(folder)
    counts = {}
    for name, resource in template["Resources"].items():
        kind, properties, own = resource["Type"], resource["Properties"], snake(name)
        if kind == "AWS::Lambda::EventSourceMapping":
            block = blocks[("aws_lambda_event_source_mapping", own)]
            check_mapping(name, properties, block)
        elif kind == "AWS::IAM::Role":
            block = blocks[("aws_iam_role", own)]
            same(name, expected_statements(properties["Policies"]), statements(blocks[("aws_iam_policy_document", own)]))
        elif kind == "AWS::CloudWatch::Alarm":
            block = blocks[("aws_cloudwatch_metric_alarm", own)]
            check_alarm(name, properties, block)
        elif kind == "AWS::CloudWatch::CompositeAlarm":
            block = blocks[("aws_cloudwatch_composite_alarm", own)]
            named = re.findall(r"\$\{(\w+)\}", json.dumps(properties["AlarmRule"]))
            same(name, [snake(each) for each in named], re.findall(r"aws_cloudwatch_metric_alarm\.(\w+)", str(block["alarm_rule"])))
        else:
            continue
        counts[kind] = counts.get(kind, 0) + 1
        condition = resource.get("Condition")
        count = f"${{local.{snake(condition)} ? 1 : 0}}" if condition else None
        same(f"{name}.Condition", count, block.get("count"))
    for kind, other in (("Alarm", "metric_alarm"), ("CompositeAlarm", "composite_alarm")):
        same(f"{kind}s", counts[f"AWS::CloudWatch::{kind}"], sum(of == f"aws_cloudwatch_{other}" for of, _ in blocks))
    same("roles", counts["AWS::IAM::Role"], sum(of == "aws_iam_role" for of, _ in blocks))
    parameters = {snake(name): parameter for name, parameter in template["Parameters"].items()}
    for name, variable in variables.items():
        if name in ("name", "code_bucket", "code_prefix"):
            continue
        default = parameters[name].get("Default")
        same(f"{name}.Default", default, variable.get("default"))
    found = ", ".join(f"{count} {kind.rsplit('::', 1)[1]}" for kind, count in sorted(counts.items()))
    print(f"{folder}: {found} as in the template")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: check_terraform.py EXPANDED_TEMPLATE FOLDER")
    try:
        main(*sys.argv[1:])
    except (Wrong, KeyError) as wrong:
        sys.exit(f"{sys.argv[2]}: {wrong}")
