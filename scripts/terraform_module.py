#!/usr/bin/env python3
"""Writes the Terraform module for the replication of one table, with native resources, from infra/replication.yaml.

    terraform_module.py [--check] infra/replication.yaml infra/terraform/replication

With --check, it fails if the folder has other files.
The template is the only definition: the module has its parameters, conditions, rules, mappings, permissions, alarms and
outputs, so a change of the template is a change of the module. The tiers and the users service are not part of it: their
parameters are left out, and their conditions are false. The functions take their code from a bucket, the zips of
scripts/release. scripts/check_terraform.py compares the result with the template.
"""

import json
import os
import re
import sys

from samtranslator.yaml_helper import yaml_parse

# The conditions of what is not part of the module, and the parameters that nothing reads then.
ABSENT = {"HasRelational", "HasCache", "HasNetwork", "HasEmails"}
LEFT_OUT = {
    "EmailsTableArn", "UniqueEmail", "RelationalTier", "CacheTier", "FirstSubnet", "SecondSubnet", "ReplicatorGroup",
    "MaintenanceGroup", "NetworkPolicyArn", "DatabaseUrl", "DatabasePolicyArn", "DatabaseSecretArn",
    "DatabaseSecretPolicyArn", "CacheUrl", "CacheMode", "CachePolicyArn",
}
RULES_LEFT_OUT = {"NetworkReachesReplicas", "NetworkIsComplete", "DatabaseIsComplete", "CacheIsComplete", "TablesAreDeclared", "CacheHoldsUsers", "EmailsHaveTable"}
# The parameters that a module has in the place of the stack's name and of the path to the code.
OWN = {
    "name": ("Name of the deployment: the prefix of the names of its resources.", None, r"^[A-Za-z][A-Za-z0-9-]{0,39}$"),
    "code_bucket": ("Bucket with the released code of the functions, in the Region of the table.", None, r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$"),
    "code_prefix": ("Prefix of the keys of the code, which ends with a slash and differs for each release, such as millrace/0.1.0/. With none, the keys have no prefix.", "none", r"^(none|[A-Za-z0-9][^\s?#]*/)$"),
}
TYPES = {
    "AWS::KMS::Key": "aws_kms_key",
    "AWS::DynamoDB::Table": "aws_dynamodb_table",
    "AWS::S3::Bucket": "aws_s3_bucket",
    "AWS::S3::BucketPolicy": "aws_s3_bucket_policy",
    "AWS::Glue::Database": "aws_glue_catalog_database",
    "AWS::Glue::Table": "aws_glue_catalog_table",
    "AWS::Logs::LogGroup": "aws_cloudwatch_log_group",
    "AWS::IAM::Role": "aws_iam_role",
    "AWS::Serverless::Function": "aws_lambda_function",
    "AWS::Serverless::StateMachine": "aws_sfn_state_machine",
    "AWS::Scheduler::Schedule": "aws_scheduler_schedule",
    "AWS::CloudWatch::Alarm": "aws_cloudwatch_metric_alarm",
    "AWS::CloudWatch::CompositeAlarm": "aws_cloudwatch_composite_alarm",
    "AWS::CloudWatch::Dashboard": "aws_cloudwatch_dashboard",
    "Mapping": "aws_lambda_event_source_mapping",
}
# The attribute that Ref returns.
REF = {
    "aws_dynamodb_table": "name", "aws_s3_bucket": "bucket", "aws_glue_catalog_database": "name",
    "aws_lambda_function": "function_name", "aws_sfn_state_machine": "arn", "aws_cloudwatch_metric_alarm": "alarm_name",
    "aws_cloudwatch_composite_alarm": "alarm_name", "aws_lambda_event_source_mapping": "uuid", "aws_kms_key": "key_id",
    "aws_iam_role": "name", "aws_cloudwatch_log_group": "name",
}
PSEUDO = {
    "AWS::Partition": "data.aws_partition.current.partition",
    "AWS::Region": "data.aws_region.current.region",
    "AWS::AccountId": "data.aws_caller_identity.current.account_id",
    "AWS::StackName": "var.name",
    "AWS::NoValue": "null",
}


def snake(name):
    """Returns a name of CloudFormation as one of Terraform."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def quoted(text):
    """Returns a text as a quoted template of HCL."""
    escaped = json.dumps(str(text), ensure_ascii=False)
    return escaped.replace("${", "$${").replace("%{", "%%{")


class Raw(str):
    """An expression of HCL."""


class Module:
    """The translation of one template."""

    def __init__(self, template):
        self.template = template
        self.parameters = {n: p for n, p in template["Parameters"].items() if n not in LEFT_OUT}
        self.resources = dict(template["Resources"])
        for name, resource in template["Resources"].items():
            if resource["Type"] == "AWS::Serverless::Function":
                for event, definition in resource["Properties"].get("Events", {}).items():
                    self.resources[name + event] = {
                        "Type": "Mapping",
                        "Condition": resource.get("Condition"),
                        "Function": name,
                        "Properties": definition["Properties"],
                    }
        self.out = []

    # ---- expressions ----

    def address(self, name, attribute):
        """Returns the reference to an attribute of a resource."""
        resource = self.resources[name]
        index = "[0]" if resource.get("Condition") else ""
        return f"{TYPES[resource['Type']]}.{snake(name)}{index}.{attribute}"

    def reference(self, name, variables=None):
        """Returns the expression of a name in Ref or Sub."""
        if variables and name in variables:
            return self.expression(variables[name])
        if name in PSEUDO:
            return PSEUDO[name]
        if name in self.parameters:
            return f"var.{snake(name)}"
        if name in LEFT_OUT:
            return quoted(self.template["Parameters"][name]["Default"])
        if "." in name:
            name, attribute = name.split(".", 1)
            return self.address(name, snake(attribute))
        return self.address(name, REF[TYPES[self.resources[name]["Type"]]])

    def condition(self, node):
        """Returns a condition as an expression."""
        if isinstance(node, str):
            return "false" if node in ABSENT else f"local.{snake(node)}"
        (kind, value), = node.items()
        if kind == "Condition":
            return self.condition(value)
        if kind == "Fn::Equals":
            return f"{self.expression(value[0])} == {self.expression(value[1])}"
        if kind == "Fn::Not":
            return f"!({self.condition(value[0])})"
        return f" {'&&' if kind == 'Fn::And' else '||'} ".join(f"({self.condition(each)})" for each in value)

    def expression(self, node, indent=1):
        """Returns a value as an expression."""
        pad = "  " * indent
        if isinstance(node, Raw):
            return node
        if isinstance(node, bool):
            return str(node).lower()
        if node is None:
            return "null"
        if isinstance(node, (int, float)):
            return str(node)
        if isinstance(node, str):
            return quoted(node)
        if isinstance(node, list):
            entries = [self.expression(each, indent + 1) for each in node]
            plain = "[" + ", ".join(entries) + "]"
            if len(plain) > 100 or "\n" in plain:
                plain = "[\n" + "".join(f"{pad}  {each},\n" for each in entries) + pad + "]"
            if any(isinstance(each, dict) and "Fn::If" in each and {"Ref": "AWS::NoValue"} in each["Fn::If"] for each in node):
                return f"[for each_value in {plain} : each_value if each_value != null]"
            return plain
        if len(node) == 1:
            (kind, value), = node.items()
            if kind == "Ref":
                return self.reference(value)
            if kind == "Fn::GetAtt":
                name, attribute = value if isinstance(value, list) else value.split(".", 1)
                return self.address(name, snake(attribute))
            if kind == "Fn::If":
                if value[0] in ABSENT:
                    return self.expression(value[2], indent)
                return f"({self.condition(value[0])} ? {self.expression(value[1], indent)} : {self.expression(value[2], indent)})"
            if kind == "Fn::Sub":
                return self.substituted(value)
            if kind == "Fn::Join":
                return f"join({quoted(value[0])}, {self.expression(value[1], indent)})"
            if kind == "Fn::Split":
                return f"split({quoted(value[0])}, {self.expression(value[1], indent)})"
            if kind == "Fn::Select":
                return f"{self.expression(value[1], indent)}[{value[0]}]"
            if kind == "Condition" or kind.startswith("Fn::"):
                raise ValueError(f"{kind} has no translation: adapt scripts/terraform_module.py")
        entries = "".join(f"{pad}  {quoted(key)} = {self.expression(value, indent + 1)}\n" for key, value in node.items())
        return "{\n" + entries + pad + "}" if entries else "{}"

    def substituted(self, value):
        """Returns a Sub as a template of HCL, line by line if it has several."""
        text, variables = (value, {}) if isinstance(value, str) else value
        lines = [self.line(each, variables) for each in text.split("\n")]
        if len(lines) == 1:
            return lines[0]
        return 'join("\\n", [\n' + "".join(f"    {each},\n" for each in lines) + "  ])"

    def line(self, text, variables):
        """Returns a line of a Sub. Texts inside an expression are not nested in the template."""
        parts = re.split(r"\$\{([^}]+)\}", text)
        pieces = []
        for position, part in enumerate(parts):
            if position % 2 == 0:
                pieces.append(quoted(part))
            elif part.startswith("!"):
                pieces.append('"$${' + part[1:] + '}"')
            else:
                pieces.append(self.reference(part, variables))
        pieces = [piece for piece in pieces if piece != '""'] or ['""']
        if any('"' in piece for piece in pieces if not piece.startswith('"')):
            return 'join("", [' + ", ".join(pieces) + "])" if len(pieces) > 1 else pieces[0]
        return '"' + "".join(piece[1:-1] if piece.startswith('"') else "${" + piece + "}" for piece in pieces) + '"'

    # ---- blocks ----

    def block(self, head, entries, nested=()):
        """Prints a block: its arguments without those that are None, then its nested blocks, which are texts."""
        self.out.append(head + " {")
        for name, value in entries.items():
            if value is not None:
                self.out.append(f"  {name} = {self.expression(value)}")
        for text in nested:
            self.out.append("\n".join("  " + line if line else "" for line in text.split("\n")))
        self.out.append("}\n")

    def inner(self, head, entries, nested=()):
        """Returns a nested block as a text."""
        lines = [head + " {"]
        lines += [f"  {name} = {self.expression(value)}" for name, value in entries.items() if value is not None]
        for text in nested:
            lines.append("\n".join("  " + line if line else "" for line in text.split("\n")))
        return "\n".join([*lines, "}"])

    def resource(self, name, entries, nested=(), kind=None, suffix=""):
        """Prints a resource, which exists under the condition of the template's."""
        resource = self.resources[name]
        condition = resource.get("Condition")
        count = {"count": Raw(f"{self.condition(condition)} ? 1 : 0")} if condition else {}
        kind = kind or TYPES[resource["Type"]]
        self.block(f'resource "{kind}" "{snake(name)}{suffix}"', count | entries, nested)

    def kept(self):
        return self.inner("lifecycle", {"prevent_destroy": True})

    def statement(self, statement, principals=True):
        """Returns a statement of a policy as a nested block of a policy document."""
        condition = None
        if "Fn::If" in statement:
            condition, statement, _ = statement["Fn::If"]
            if condition in ABSENT:
                return None
        resources = statement.get("Resource")
        actions = statement["Action"]
        entries = {
            "sid": statement.get("Sid"),
            "effect": None if statement["Effect"] == "Allow" else statement["Effect"],
            "actions": actions if isinstance(actions, list) else [actions],
            "resources": self.listed(resources) if resources is not None else None,
        }
        nested = []
        principal = statement.get("Principal")
        if principal == "*":
            nested.append(self.inner("principals", {"type": "*", "identifiers": ["*"]}))
        elif principal:
            (kind, value), = principal.items()
            nested.append(self.inner("principals", {"type": kind, "identifiers": [value]}))
        for test, variables in statement.get("Condition", {}).items():
            for variable, value in variables.items():
                text = str(value).lower() if isinstance(value, bool) else value
                nested.append(self.inner("condition", {"test": test, "variable": variable, "values": [text]}))
        if condition is None:
            return self.inner("statement", entries, nested)
        content = self.inner("content", entries, nested)
        return self.inner('dynamic "statement"', {"for_each": Raw(f"{self.condition(condition)} ? [1] : []")}, [content])

    def listed(self, resources):
        """Returns the resources of a statement as a list; both results of a condition are lists, too."""
        if isinstance(resources, list):
            return resources
        if isinstance(resources, dict) and "Fn::If" in resources:
            (condition, then, otherwise) = resources["Fn::If"]
            return Raw(f"({self.condition(condition)} ? {self.expression(self.listed(then))} : {self.expression(self.listed(otherwise))})")
        if isinstance(resources, dict) and "Fn::Split" in resources:
            return Raw(self.expression(resources))
        return [resources]

    def policy(self, name, document):
        """Prints a policy document and returns the expression of its JSON."""
        nested = [self.statement(each) for each in document["Statement"]]
        condition = self.resources[name.split("#")[0]].get("Condition")
        count = {"count": Raw(f"{self.condition(condition)} ? 1 : 0")} if condition else {}
        address = snake(name.replace("#", "_"))
        self.block(f'data "aws_iam_policy_document" "{address}"', count, [each for each in nested if each])
        return Raw(f"data.aws_iam_policy_document.{address}{'[0]' if condition else ''}.json")

    # ---- resources ----

    def kms_key(self, name, own):
        document = self.policy(name, own["KeyPolicy"])
        self.resource(name, {"description": own["Description"], "enable_key_rotation": own["EnableKeyRotation"], "policy": document}, [self.kept()])

    def table(self, name, own):
        attributes = own["AttributeDefinitions"]
        blocks = []
        for attribute in attributes:
            condition = None
            if "Fn::If" in attribute:
                condition, attribute, _ = attribute["Fn::If"]
            entries = {"name": attribute["AttributeName"], "type": attribute["AttributeType"]}
            if condition:
                content = self.inner("content", entries)
                blocks.append(self.inner('dynamic "attribute"', {"for_each": Raw(f"{self.condition(condition)} ? [1] : []")}, [content]))
            else:
                blocks.append(self.inner("attribute", entries))
        (hash_key, range_key) = own["KeySchema"]
        condition, range_key, _ = range_key["Fn::If"]
        ttl, sse = own["TimeToLiveSpecification"], own["SSESpecification"]
        blocks += [
            self.inner("ttl", {"attribute_name": ttl["AttributeName"], "enabled": ttl["Enabled"]}),
            self.inner("point_in_time_recovery", {"enabled": own["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"]}),
            self.inner("server_side_encryption", {"enabled": sse["SSEEnabled"], "kms_key_arn": sse["KMSMasterKeyId"]}),
            self.kept(),
        ]
        self.resource(name, {
            "name": Raw('"${var.name}-replica"'),
            "billing_mode": own["BillingMode"],
            "deletion_protection_enabled": own["DeletionProtectionEnabled"],
            "hash_key": hash_key["AttributeName"],
            "range_key": {"Fn::If": [condition, range_key["AttributeName"], {"Ref": "AWS::NoValue"}]},
        }, blocks)

    def bucket(self, name, own):
        self.resource(name, {"bucket_prefix": Raw(f'"${{lower(substr(var.name, 0, 20))}}-{snake(name).split("_")[0]}-"')}, [self.kept()])
        bucket = {"bucket": Raw(self.address(name, "id"))}
        (rule,) = own["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        default = rule["ServerSideEncryptionByDefault"]
        applied = self.inner("apply_server_side_encryption_by_default", {"sse_algorithm": default["SSEAlgorithm"], "kms_master_key_id": default["KMSMasterKeyID"]})
        self.resource(name, bucket, [self.inner("rule", {"bucket_key_enabled": rule["BucketKeyEnabled"]}, [applied])], "aws_s3_bucket_server_side_encryption_configuration")
        (ownership,) = own["OwnershipControls"]["Rules"]
        self.resource(name, bucket, [self.inner("rule", {"object_ownership": ownership["ObjectOwnership"]})], "aws_s3_bucket_ownership_controls")
        public = {snake(key): value for key, value in own["PublicAccessBlockConfiguration"].items()}
        self.resource(name, bucket | public, [], "aws_s3_bucket_public_access_block")
        self.resource(name, bucket, [self.inner("versioning_configuration", {"status": own["VersioningConfiguration"]["Status"]})], "aws_s3_bucket_versioning")
        rules = []
        for rule in own["LifecycleConfiguration"]["Rules"]:
            parts = [self.inner("filter", {"prefix": rule.get("Prefix", "")})]
            if "ExpirationInDays" in rule or "ExpiredObjectDeleteMarker" in rule:
                parts.append(self.inner("expiration", {"days": rule.get("ExpirationInDays"), "expired_object_delete_marker": rule.get("ExpiredObjectDeleteMarker")}))
            parts.append(self.inner("noncurrent_version_expiration", {"noncurrent_days": rule["NoncurrentVersionExpiration"]["NoncurrentDays"]}))
            if "AbortIncompleteMultipartUpload" in rule:
                parts.append(self.inner("abort_incomplete_multipart_upload", {"days_after_initiation": rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"]}))
            rules.append(self.inner("rule", {"id": rule["Id"], "status": rule["Status"]}, parts))
        self.resource(name, bucket, rules, "aws_s3_bucket_lifecycle_configuration")

    def bucket_policy(self, name, own):
        document = self.policy(name, own["PolicyDocument"])
        self.resource(name, {"bucket": own["Bucket"], "policy": document})

    def glue_database(self, name, own):
        given = own["DatabaseInput"]
        self.resource(name, {"name": Raw(f"lower({self.expression(given['Name'])})"), "description": given["Description"]})

    def glue_table(self, name, own):
        given = own["TableInput"]
        storage = given["StorageDescriptor"]
        serde = storage["SerdeInfo"]
        columns = []
        for column in storage["Columns"]:
            condition = None
            if "Fn::If" in column:
                condition, column, _ = column["Fn::If"]
            if condition in ABSENT:
                continue
            entries = {key.lower(): value for key, value in column.items()}
            if condition:
                content = self.inner("content", entries)
                columns.append(self.inner('dynamic "columns"', {"for_each": Raw(f"{self.condition(condition)} ? [1] : []")}, [content]))
            else:
                columns.append(self.inner("columns", entries))
        info = self.inner("ser_de_info", {"serialization_library": serde["SerializationLibrary"], "parameters": serde.get("Parameters")})
        descriptor = self.inner("storage_descriptor", {"location": storage["Location"], "input_format": storage["InputFormat"], "output_format": storage["OutputFormat"]}, [info, *columns])
        keys = [self.inner("partition_keys", {key.lower(): value for key, value in each.items()}) for each in given["PartitionKeys"]]
        self.resource(name, {"name": given["Name"], "database_name": own["DatabaseName"], "description": given["Description"], "table_type": given["TableType"], "parameters": given["Parameters"]}, [*keys, descriptor])

    def log_group(self, name, own):
        self.resource(name, {"name": own["LogGroupName"], "retention_in_days": own["RetentionInDays"]})

    def role(self, name, own):
        trust = self.policy(name + "#Trust", own["AssumeRolePolicyDocument"])
        self.resource(name, {"name_prefix": Raw(f'"${{substr(var.name, 0, 18)}}-{snake(name).replace("_role", "")[:18].replace("_", "-")}-"'), "assume_role_policy": trust})
        for policy in own["Policies"]:
            document = self.policy(name, policy["PolicyDocument"])
            self.resource(name, {"name": policy["PolicyName"], "role": Raw(self.address(name, "id")), "policy": document}, [], "aws_iam_role_policy")

    def function(self, name, own):
        shared = self.template["Globals"]["Function"]
        logging = shared["LoggingConfig"] | own["LoggingConfig"]
        variables = shared["Environment"]["Variables"] | own["Environment"]["Variables"]
        variables = {key: value for key, value in variables.items() if not self.is_absent(value)}
        if "UNIQUE_EMAIL" in variables:
            variables["UNIQUE_EMAIL"] = "false"
        entries = ",\n".join(f"      {key} = {self.expression(value, 3)}" for key, value in variables.items())
        merged = Raw("{ for key, value in {\n" + entries + "\n    } : key => value if value != null }")
        nested = [
            self.inner("logging_config", {
                "log_format": logging["LogFormat"],
                "application_log_level": logging["ApplicationLogLevel"],
                "system_log_level": logging["SystemLogLevel"],
                "log_group": logging["LogGroup"],
            }),
            self.inner("tracing_config", {"mode": shared["Tracing"]}),
            self.inner("environment", {"variables": merged}),
        ]
        binary = name.removesuffix("Function").lower()
        if binary == "replicator":
            nested.append(self.preconditions())
        self.resource(name, {
            "function_name": Raw(f'"${{var.name}}-{binary}"'),
            "description": own["Description"],
            "role": own["Role"],
            "runtime": shared["Runtime"],
            "handler": shared["Handler"],
            "architectures": shared["Architectures"],
            "memory_size": shared["MemorySize"],
            "timeout": own["Timeout"],
            "s3_bucket": Raw("var.code_bucket"),
            "s3_key": Raw(f'"${{local.code_prefix}}{binary}-${{var.architecture}}.zip"'),
        }, nested)

    def is_absent(self, value):
        return isinstance(value, dict) and "Fn::If" in value and value["Fn::If"][0] in ABSENT and value["Fn::If"][2] == {"Ref": "AWS::NoValue"}

    def preconditions(self):
        """Returns the rules of the template, which CloudFormation checks before it creates anything."""
        checks = []
        for name, rule in self.template["Rules"].items():
            if name in RULES_LEFT_OUT:
                continue
            unless = f"!({self.condition(rule['RuleCondition'])}) || " if "RuleCondition" in rule else ""
            for each in rule["Assertions"]:
                checks.append(self.inner("precondition", {
                    "condition": Raw(f"{unless}({self.condition(each['Assert'])})"),
                    "error_message": each["AssertDescription"] + ".",
                }))
        return self.inner("lifecycle", {}, checks)

    def mapping(self, name, own):
        nested = [
            self.inner("destination_config", {}, [self.inner("on_failure", {"destination_arn": own["DestinationConfig"]["OnFailure"]["Destination"]})]),
            self.inner("metrics_config", {"metrics": own["MetricsConfig"]["Metrics"]}),
        ]
        filters = own.get("FilterCriteria", {}).get("Filters", [])
        if filters:
            nested.append(self.inner("filter_criteria", {}, [self.inner("filter", {"pattern": each["Pattern"]}) for each in filters]))
        function = self.resources[name]["Function"]
        policy = function.replace("Function", "Role")
        index = "[0]" if self.resources[policy].get("Condition") else ""
        self.resource(name, {
            "event_source_arn": own["Stream"],
            "function_name": Raw(self.address(function, "arn")),
            "starting_position": own["StartingPosition"],
            "batch_size": own["BatchSize"],
            "maximum_batching_window_in_seconds": own["MaximumBatchingWindowInSeconds"],
            "parallelization_factor": own.get("ParallelizationFactor"),
            "maximum_retry_attempts": own["MaximumRetryAttempts"],
            "maximum_record_age_in_seconds": own["MaximumRecordAgeInSeconds"],
            "bisect_batch_on_function_error": own["BisectBatchOnFunctionError"],
            "function_response_types": own["FunctionResponseTypes"],
            # Lambda checks the permissions of the role when the mapping is created.
            "depends_on": [Raw(f"aws_iam_role_policy.{snake(policy)}")],
        }, nested)

    def machine(self, name, own):
        (destination,) = own["Logging"]["Destinations"]
        group = self.expression(destination["CloudWatchLogsLogGroup"]["LogGroupArn"])
        nested = [
            self.inner("logging_configuration", {
                "level": own["Logging"]["Level"],
                "include_execution_data": own["Logging"]["IncludeExecutionData"],
                "log_destination": Raw(f'"${{{group}}}:*"'),
            }),
            self.inner("tracing_configuration", {"enabled": own["Tracing"]["Enabled"]}),
        ]
        self.resource(name, {
            "name": Raw('"${var.name}-maintenance"'),
            "type": own["Type"],
            "role_arn": own["Role"],
            "definition": Raw(f"jsonencode({self.expression(own['Definition'])})"),
        }, nested)

    def schedule(self, name, own):
        target, window = own["Target"], own["FlexibleTimeWindow"]
        retry = {snake(key): value for key, value in target["RetryPolicy"].items()}
        nested = [
            self.inner("flexible_time_window", {"mode": window["Mode"], "maximum_window_in_minutes": window["MaximumWindowInMinutes"]}),
            self.inner("target", {"arn": target["Arn"], "role_arn": target["RoleArn"], "input": target["Input"]}, [self.inner("retry_policy", retry)]),
        ]
        self.resource(name, {"name_prefix": Raw('"${var.name}-verify-"'), "description": own["Description"], "schedule_expression": own["ScheduleExpression"]}, nested)

    def actions(self, own):
        (condition, then, _) = own["AlarmActions"]["Fn::If"]
        return Raw(f"{self.condition(condition)} ? {self.expression(then)} : []")

    def alarm(self, name, own):
        queries = []
        for query in own.get("Metrics", []):
            parts = []
            if "MetricStat" in query:
                stat, metric = query["MetricStat"], query["MetricStat"]["Metric"]
                parts.append(self.inner("metric", {
                    "namespace": metric["Namespace"],
                    "metric_name": metric["MetricName"],
                    "dimensions": {each["Name"]: each["Value"] for each in metric["Dimensions"]},
                    "period": stat["Period"],
                    "stat": stat["Stat"],
                }))
            entries = {"id": query["Id"], "label": query.get("Label"), "expression": query.get("Expression"), "return_data": query.get("ReturnData", True)}
            queries.append(self.inner("metric_query", entries, parts))
        dimensions = {each["Name"]: each["Value"] for each in own.get("Dimensions", [])} or None
        self.resource(name, {
            "alarm_name": Raw(f'"${{var.name}}-{name}"'),
            "alarm_description": own["AlarmDescription"],
            "namespace": own.get("Namespace"),
            "metric_name": own.get("MetricName"),
            "dimensions": dimensions,
            "statistic": own.get("Statistic"),
            "period": own.get("Period"),
            "evaluation_periods": own["EvaluationPeriods"],
            "threshold": own["Threshold"],
            "comparison_operator": own["ComparisonOperator"],
            "treat_missing_data": own["TreatMissingData"],
            "alarm_actions": self.actions(own),
        }, queries)

    def composite(self, name, own):
        self.resource(name, {
            "alarm_name": Raw(f'"${{var.name}}-{name}"'),
            "alarm_description": own["AlarmDescription"],
            "alarm_rule": own["AlarmRule"],
            "alarm_actions": self.actions(own),
        })

    def dashboard(self, name, own):
        self.resource(name, {"dashboard_name": Raw(f'"${{var.name}}-{name}"'), "dashboard_body": own["DashboardBody"]})

    def main(self):
        """Returns main.tf."""
        for kind in ("aws_caller_identity", "aws_partition", "aws_region"):
            self.out.append(f'data "{kind}" "current" {{}}\n')
        conditions = {snake(name): Raw(self.condition(node)) for name, node in self.template["Conditions"].items() if name not in ABSENT}
        self.block("locals", {"code_prefix": Raw('var.code_prefix == "none" ? "" : var.code_prefix')} | conditions)
        writers = {
            "AWS::KMS::Key": self.kms_key, "AWS::DynamoDB::Table": self.table, "AWS::S3::Bucket": self.bucket,
            "AWS::S3::BucketPolicy": self.bucket_policy, "AWS::Glue::Database": self.glue_database,
            "AWS::Glue::Table": self.glue_table, "AWS::Logs::LogGroup": self.log_group, "AWS::IAM::Role": self.role,
            "AWS::Serverless::Function": self.function, "Mapping": self.mapping,
            "AWS::Serverless::StateMachine": self.machine, "AWS::Scheduler::Schedule": self.schedule,
            "AWS::CloudWatch::Alarm": self.alarm, "AWS::CloudWatch::CompositeAlarm": self.composite,
            "AWS::CloudWatch::Dashboard": self.dashboard,
        }
        for name, resource in self.resources.items():
            if resource["Type"] not in writers:
                raise ValueError(f"{name}: {resource['Type']} has no translation: adapt scripts/terraform_module.py")
            writers[resource["Type"]](name, resource["Properties"])
        return "\n".join(self.out)

    def variables(self):
        """Returns variables.tf."""
        self.out = []
        for name, (description, default, pattern) in OWN.items():
            check = self.inner("validation", {"condition": Raw(f"can(regex({quoted(pattern)}, var.{name}))"), "error_message": f"{name} must match {pattern}."})
            self.block(f'variable "{name}"', {"type": Raw("string"), "description": description, "default": default}, [check])
        for name, parameter in self.parameters.items():
            variable = snake(name)
            number = parameter["Type"] == "Number"
            checks = []
            if "AllowedValues" in parameter:
                values = parameter["AllowedValues"]
                checks.append((f"contains({self.expression(values)}, var.{variable})", f"must be one of {', '.join(map(str, values))}"))
            if "MinValue" in parameter:
                low, high = parameter["MinValue"], parameter["MaxValue"]
                checks.append((f"var.{variable} >= {low} && var.{variable} <= {high}", f"must be {low} to {high}"))
            if "AllowedPattern" in parameter:
                checks.append((f"can(regex({quoted(parameter['AllowedPattern'])}, var.{variable}))", f"must match {parameter['AllowedPattern']}"))
            blocks = [self.inner("validation", {"condition": Raw(check), "error_message": f"{variable} {text}."}) for check, text in checks]
            self.block(f'variable "{variable}"', {"type": Raw("number" if number else "string"), "description": parameter["Description"], "default": parameter.get("Default")}, blocks)
        return "\n".join(self.out)

    def outputs(self):
        """Returns outputs.tf."""
        self.out = []
        for name, output in self.template["Outputs"].items():
            value = self.expression(output["Value"])
            if "Condition" in output:
                value = f"{self.condition(output['Condition'])} ? {value} : null"
            self.block(f'output "{snake(name)}"', {"description": output["Description"], "value": Raw(value)})
        return "\n".join(self.out)


VERSIONS = """\
terraform {
  # Validations and preconditions read several variables.
  required_version = ">= 1.9"
  required_providers {
    aws = {
      source = "hashicorp/aws"
      # The attribute `region` of the data source.
      version = ">= 6.0"
    }
  }
}
"""
HEAD = "# Generated by scripts/terraform_module.py from infra/replication.yaml, which explains the values. Do not edit.\n\n"


def module(path):
    """Returns the files of the module by name."""
    with open(path, encoding="utf-8") as file:
        template = yaml_parse(file)
    made = Module(template)
    return {
        "main.tf": HEAD + made.main(),
        "variables.tf": HEAD + made.variables(),
        "outputs.tf": HEAD + made.outputs(),
        "versions.tf": HEAD + VERSIONS,
    }


def main(arguments):
    check = arguments[:1] == ["--check"]
    if check:
        del arguments[0]
    if len(arguments) != 2:
        sys.exit("usage: terraform_module.py [--check] infra/replication.yaml FOLDER")
    path, folder = arguments
    files = module(path)
    if not check:
        os.makedirs(folder, exist_ok=True)
        for name, text in files.items():
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write(text)
        return
    for name, text in files.items():
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            if file.read() != text:
                sys.exit(f"{folder}/{name} is not that of {path}: run scripts/terraform_module.py {path} {folder}")


if __name__ == "__main__":
    main(sys.argv[1:])
