#!/usr/bin/env python3
"""Resolves the templates for each choice of their parameters: template.yaml and infra/replication.yaml, expanded in the
same way as AWS SAM does, and the templates nested in them, each with its conditions evaluated.

    resolve_templates.py template.yaml infra/replication.yaml PACKAGED target/templates

PACKAGED is infra/replication.yaml as scripts/packaged_template.py prints it.
The result is nine folders of template.yaml, one for each pair of RelationalTier and CacheTier, three more for the other
choices of authentication and CORS, and two more for the other choices of Archive; and some of infra/replication.yaml
deployed by itself (ALONE), once with the code of a release (RELEASED). cfn-lint reads them, so it also finds errors in parts that depend on a condition. This script checks rules that no linter covers, for every
choice:

- everything that Ref, GetAtt, Sub or DependsOn refers to is created, across the nested stacks too;
- a nested stack receives only parameters that it has, with values that they allow;
- the network exists if and only if a tier is on, and contains a function if and only if the function uses a tier;
- each route of the API has an authorizer and leads to a function, and only this API may invoke that function;
- a role grants the use of the source's key, of the replicas' tables, keys and roles, and of the replication document
  only if they are given;
- the archiver, its mapping, its alarms, the archive bucket and the tables over it exist only in the choices of Archive
  that need them, and a function receives the settings of exactly those;
- the schedule of verify, its role and its alarm exist only in the choices of VerifySchedule that need them, and a
  composite alarm combines exactly the alarms that exist.
"""

import copy
import itertools
import json
import os
import re
import sys

from expand_template import expand, expand_nested

PSEUDO = re.compile(r"^AWS::")
TOKENS = {"JwtIssuer": "https://issuer.example", "JwtAudience": "users", "ScopePrefix": "millrace/"}
CORS = {"CorsOrigins": "https://app.example,https://admin.example", "ApiBasePath": "v1"}
ACCESS = {"": {}, "+jwt": TOKENS, "+cors": CORS, "+jwt+cors": TOKENS | CORS}
NO_VALUE = {"Ref": "AWS::NoValue"}
# The account of the stack.
ACCOUNT = "123456789012"
# A foreign table, as infra/replication.yaml is deployed for it, and the choices for it.
TABLE = f"arn:aws:dynamodb:eu-west-1:{ACCOUNT}:table/"
# A table of another account.
FOREIGN_TABLE = "arn:aws:dynamodb:eu-west-1:999999999999:table/"
SOURCE = {
    "SourceTableName": "Orders",
    "SourceTableArn": f"{TABLE}Orders",
    "SourceStreamArn": f"{TABLE}Orders/stream/2026-11-27T00:00:00.000",
    "PartitionKey": "pk:S",
}
KEY = "arn:aws:kms:eu-west-1:123456789012:key/11111111-2222-3333-4444-555555555555"
NETWORK = {
    "FirstSubnet": "subnet-0123456789abcdef0",
    "SecondSubnet": "subnet-0123456789abcdef1",
    "ReplicatorGroup": "sg-0123456789abcdef0",
    "NetworkPolicyArn": "arn:aws:iam::123456789012:policy/interfaces",
}
DOCUMENT = {
    "Replication": "s3://millrace-config/orders/replication.json",
    "ReplicaTableArns": f"{TABLE}OrdersStaging,{TABLE}OrdersReporting",
    "ReplicaRoleArns": "arn:aws:iam::999999999999:role/replica,arn:aws:iam::888888888888:role/replica",
    "ReplicaKeyArns": KEY,
    "HashKeySecretArns": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:pii-AbCdEf",
}
INLINE = '{"version":1,"replicas":[{"name":"staging","sink":"dynamodb","table":"OrdersStaging"},{"name":"archive","sink":"archive","records":"expired"}]}'
ALONE = {
    "alone": {},
    "alone+in-replicator": {"Archive": "in-replicator"},
    "alone+off": {"Archive": "off", "ReplicaTableArn": f"{TABLE}OrdersReplica"},
    "alone+document": DOCUMENT,
    "alone+prefix": {"ReservedPrefix": "mr_"},
    "alone+inline": {"Replication": INLINE, "ReplicaTableArns": f"{TABLE}OrdersStaging", "Archive": "in-replicator"},
    "alone+roles": {"Replication": INLINE, "ReplicaRoleArns": DOCUMENT["ReplicaRoleArns"], "Archive": "off"},
    "alone+foreign": {
        "SourceTableArn": f"{FOREIGN_TABLE}Orders",
        "SourceStreamArn": f"{FOREIGN_TABLE}Orders/stream/2026-11-27T00:00:00.000",
        "SourceKeyArn": KEY.replace(ACCOUNT, "999999999999"),
    },
    "alone+sort+keys": {"SortKey": "sk:N", "SourceKeyArn": KEY, "KeyArn": KEY, "DeploymentName": "orders"},
    "alone+colons": {"PartitionKey": "urn%3Aorder%3A100%25:S", "SortKey": "%253A:B"},
    "alone+replica": {"PartitionKey": "_id:B", "ReplicaTableArn": f"{TABLE}OrdersReplica", "ReplicaKeyArn": KEY},
    "alone+elsewhere": {
        "PartitionKey": "Größe:N",
        "SortKey": "sort key:B",
        "ReplicaTableArn": "arn:aws:dynamodb:us-east-1:999999999999:table/Orders",
        "ReplicaRegion": "us-east-1",
        "ReplicaRoleArn": "arn:aws:iam::999999999999:role/replica",
    },
    "alone+hourly": {"VerifySchedule": "hourly"},
    "alone+weekly": {"VerifySchedule": "weekly", "Archive": "off"},
    "alone+tiers": NETWORK
    | {
        "EmailsTableArn": f"{TABLE}Emails",
        "RelationalTier": "rds-postgres",
        "CacheTier": "valkey-serverless",
        "MaintenanceGroup": "sg-0123456789abcdef1",
        "DatabaseUrl": "postgres://millrace@database.example:5432/millrace",
        "DatabasePolicyArn": "arn:aws:iam::123456789012:policy/database",
        "DatabaseSecretArn": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:master",
        "DatabaseSecretPolicyArn": "arn:aws:iam::123456789012:policy/secret",
        "CacheUrl": "rediss://millrace@cache.example:6379",
        "CacheMode": "cluster",
        "CachePolicyArn": "arn:aws:iam::123456789012:policy/cache",
    },
}
SQL = '{"version":1,"replicas":[{"name":"sql","sink":"postgres","table":"orders"}]}'
USERS_ONLY = ("EmailsTableArn", "CacheTier", "CacheUrl", "CacheMode", "CachePolicyArn")
ALONE["alone+sql"] = {
    name: value for name, value in ALONE["alone+tiers"].items() if name not in USERS_ONLY
} | {"Replication": SQL}
# The code of a release: the parameters, and the prefix of its keys.
RELEASED = [
    ({"CodeBucket": "millrace-code", "CodePrefix": "millrace/0.1.0/", "Architecture": "x86_64"}, "millrace/0.1.0/"),
    ({"CodeBucket": "millrace-code"}, ""),
]
# Combinations that the template's rules refuse.
REFUSED = [
    {"ReplicaTableArn": SOURCE["SourceTableArn"]},
    {"ReplicaRegion": "us-east-1"},
    {"ReplicaRoleArn": ALONE["alone+elsewhere"]["ReplicaRoleArn"]},
    {"ReplicaKeyArn": KEY},
    {"UniqueEmail": "true"},
    {"CacheTier": "valkey-serverless"},
    {"ReplicaTableArns": f"{TABLE}OrdersStaging"},
    {"ReplicaRoleArns": DOCUMENT["ReplicaRoleArns"]},
    {"ReplicaKeyArns": KEY},
    {"HashKeySecretArns": DOCUMENT["HashKeySecretArns"]},
    {"Replication": DOCUMENT["Replication"]},
    {"Replication": INLINE, "Archive": "off"},
    DOCUMENT | {"ReplicaTableArn": f"{TABLE}OrdersReplica"},
    DOCUMENT | {"ReplicaRegion": "us-east-1"},
    DOCUMENT | {"ReplicaTableArns": "none"},
    ALONE["alone+tiers"] | {"ReplicaTableArn": f"{TABLE}OrdersReplica", "ReplicaRegion": "us-east-1"},
    ALONE["alone+tiers"] | {"ReplicaTableArn": f"{TABLE}OrdersReplica", "ReplicaRoleArn": "arn:aws:iam::999999999999:role/replica"},
    ALONE["alone+tiers"] | DOCUMENT,
    NETWORK | {"CacheTier": "valkey-serverless"},
    NETWORK | {"RelationalTier": "rds-postgres"},
    *(
        {name: value for name, value in ALONE["alone+tiers"].items() if name != missing}
        for missing in [*NETWORK, "EmailsTableArn"]
    ),
]
# The values that the pattern of a parameter refuses.
MALFORMED = [
    {"Archive": "on"},
    # Its name would end at the first colon.
    {"PartitionKey": "urn:order:S"},
    {"SortKey": "urn:order:S"},
    {"PartitionKey": "pk"},
    {"PartitionKey": "pk:X"},
    {"ReservedPrefix": "my rev"},
    {"ReservedPrefix": "none_" * 7},
    {"VerifySchedule": "rate(1 day)"},
    {"Replication": "orders.json"},
    {"Replication": "s3://millrace-config"},
    # The grant of the object would be a grant of every object.
    {"Replication": "s3://millrace-config/*"},
    {"Replication": DOCUMENT["Replication"], "ReplicaTableArns": "OrdersStaging"},
    {"Replication": DOCUMENT["Replication"], "ReplicaTableArns": f"{TABLE}OrdersStaging, {TABLE}OrdersReporting"},
    {"Replication": DOCUMENT["Replication"], "ReplicaRoleArns": "arn:aws:iam::999999999999:user/replica"},
]
# The statements of each role that depend on a parameter.
REPLICAS = {"HashKeys", "Replica", "ReplicaKey", "ReplicaKeys", "ReplicaRole", "ReplicaRoles", "Replication"}
OPTIONAL = {
    "ReplicatorRole": {"SourceKey", "Archive"} | REPLICAS,
    "ArchiverRole": {"SourceKey", "Archive"},
    "MaintenanceRole": {
        "SourceKey",
        "Emails",
        "Archive",
        "ArchiveSuperseded",
        "ArchiveParquet",
        "ArchiveExport",
        "ArchiveBucket",
    }
    | REPLICAS,
}
TIERS = {"RelationalTier": {"POSTGRES_URL", "POSTGRES_READER_URL"}, "CacheTier": {"CACHE_URL"}}


class Wrong(Exception):
    pass


class Refused(Wrong):
    """A rule of the template refuses the values of the parameters."""


class Later(str):
    """A value that is known only after the deployment. It differs from every value that a condition compares it with."""


class Template:
    """A template, the values of its parameters, and the templates that are nested in it."""

    def __init__(self, name, body, values, checked=True):
        self.name = name
        # Of a nested template: the template that contains it, and the expressions of the parameters' values there.
        self.parent, self.given = None, {}
        # Of each nested stack, by its logical ID: the path of the template, and the template.
        self.stacks = {}
        self.body = copy.deepcopy(body)
        self.parameters = self.body.get("Parameters", {})
        self.values = {}
        for parameter, declared in self.parameters.items():
            if parameter not in values and "Default" not in declared:
                raise Wrong(f"{name}: parameter {parameter} has no default and is not given")
            self.values[parameter] = values.get(parameter, declared.get("Default"))
        for parameter in values:
            if parameter not in self.parameters:
                raise Wrong(f"{name}: there is no parameter {parameter}")
        for parameter, value in self.values.items():
            if not checked or isinstance(value, Later):
                continue
            allowed = self.parameters[parameter].get("AllowedValues")
            if allowed and str(value) not in map(str, allowed):
                raise Wrong(f"{name}: parameter {parameter} does not allow {value}")
            if not re.search(self.parameters[parameter].get("AllowedPattern", ""), str(value)):
                raise Wrong(f"{name}: parameter {parameter} does not allow {value}")
        self.rules = self.body.pop("Rules", {})
        for rule in self.rules.values() if checked else []:
            if "RuleCondition" in rule and not self.boolean(rule["RuleCondition"]):
                continue
            for assertion in rule["Assertions"]:
                if not self.boolean(assertion["Assert"]):
                    raise Refused(f"{name}: {assertion['AssertDescription']}")
        self.conditions = self.body.pop("Conditions", {})
        resources = self.body["Resources"]
        self.body["Resources"] = {
            name: self.decide({key: value for key, value in resource.items() if key != "Condition"})
            for name, resource in resources.items()
            if self.holds(resource.get("Condition"))
        }
        self.body["Outputs"] = {
            name: self.decide({key: value for key, value in output.items() if key != "Condition"})
            for name, output in self.body.get("Outputs", {}).items()
            if self.holds(output.get("Condition"))
        }
        self.check_references()

    def holds(self, condition):
        if condition is None:
            return True
        if isinstance(condition, str):
            if condition not in self.conditions:
                raise Wrong(f"{self.name}: there is no condition {condition}")
            return self.holds(self.conditions[condition])
        return self.boolean(condition)

    def boolean(self, condition):
        (function, argument), = condition.items()
        if function == "Condition":
            return self.holds(argument)
        if function == "Fn::Not":
            return not self.boolean(argument[0])
        if function == "Fn::And":
            return all(self.boolean(part) for part in argument)
        if function == "Fn::Or":
            return any(self.boolean(part) for part in argument)
        if function == "Fn::Equals":
            left, right = (str(self.value(side)) for side in argument)
            return left == right
        raise Wrong(f"{self.name}: a condition by {function} is not decided here")

    def value(self, side):
        if not isinstance(side, dict):
            return side
        (function, argument), = side.items()
        if function == "Fn::Select":
            index, parts = int(argument[0]), self.value(argument[1])
            # An update to a malformed value is only compared, not deployed.
            return parts[index] if index < len(parts) else ""
        if function == "Fn::Split":
            return str(self.value(argument[1])).split(argument[0])
        if function == "Fn::Join":
            return argument[0].join(map(str, self.value(argument[1])))
        if function == "Fn::Sub":
            return re.sub(r"\$\{(\w+)\}", lambda found: str(self.value({"Ref": found[1]})), argument)
        if side == {"Ref": "AWS::AccountId"}:
            return ACCOUNT
        value = self.values.get(argument) if function == "Ref" else None
        if value is None:
            raise Wrong(f"{self.name}: a condition on {side} is not decided here")
        return value

    def decide(self, node):
        if isinstance(node, list):
            return [part for part in map(self.decide, node) if part != NO_VALUE]
        if not isinstance(node, dict):
            return node
        if set(node) == {"Fn::If"}:
            condition, then, otherwise = node["Fn::If"]
            return self.decide(then if self.holds(condition) else otherwise)
        decided = {key: self.decide(value) for key, value in node.items()}
        return {key: value for key, value in decided.items() if value != NO_VALUE}

    @staticmethod
    def attribute(value):
        """Returns the resource and the attribute of a GetAtt, which has two forms."""
        return tuple(value.split(".", 1)) if isinstance(value, str) else (value[0], value[1])

    def references(self, node):
        """Yields every reference below this node, as (resource or parameter, attribute or None)."""
        if isinstance(node, list):
            for part in node:
                yield from self.references(part)
        elif isinstance(node, dict):
            for key, value in node.items():
                if key == "Ref" and isinstance(value, str):
                    yield value, None
                elif key == "Fn::GetAtt":
                    yield self.attribute(value)
                elif key == "Fn::Sub":
                    pattern, own = (value, {}) if isinstance(value, str) else value
                    yield from self.references(own)
                    for found in re.findall(r"\$\{([^!}][^}]*)\}", pattern):
                        name, _, attribute = found.partition(".")
                        if name not in own:
                            yield name, attribute or None
                else:
                    yield from self.references(value)

    def check_references(self):
        resources = self.body["Resources"]
        for owner, node in itertools.chain(resources.items(), self.body["Outputs"].items()):
            for name, attribute in self.references(node):
                known = name in resources or (attribute is None and (name in self.parameters or PSEUDO.match(name)))
                if not known:
                    raise Wrong(f"{self.name}: {owner} names {name}, which is not made")
            after = node.get("DependsOn", [])
            for name in [after] if isinstance(after, str) else after:
                if name not in resources:
                    raise Wrong(f"{self.name}: {owner} depends on {name}, which is not made")

    def of_type(self, kind):
        return {name: each for name, each in self.body["Resources"].items() if each["Type"] == kind}


def passed(parent, expression):
    """Returns the value of a nested stack's parameter: that of a parameter of the parent, or one that is known later."""
    if not isinstance(expression, dict):
        return expression
    if expression.get("Ref") in parent.values:
        return parent.values[expression["Ref"]]
    resource, attribute = parent.attribute(expression.get("Fn::GetAtt", "none.none"))
    if attribute == "Arn" and resource in parent.of_type("AWS::DynamoDB::Table"):
        return Later(f"{TABLE}{resource}")
    return Later(json.dumps(expression))


def nested(parent, folder, name, checked=True):
    """Returns all nested templates of a resolved one, at any depth: (path, template) by the logical ID of the stack."""
    stacks = parent.stacks
    for stack_id, stack in parent.of_type("AWS::CloudFormation::Stack").items():
        path = os.path.normpath(os.path.join(folder, stack["Properties"]["TemplateURL"]))
        given = stack["Properties"].get("Parameters", {})
        values = {key: passed(parent, value) for key, value in given.items()}
        template = Template(f"{name} {os.path.basename(path)}", expand_nested(path), values, checked)
        template.parent, template.given = parent, given
        stacks[stack_id] = (path, template)
    for owner, node in itertools.chain(parent.body["Resources"].items(), parent.body["Outputs"].items()):
        for stack_id, attribute in parent.references(node):
            if stack_id in stacks and attribute is not None:
                path, template = stacks[stack_id]
                if attribute.removeprefix("Outputs.") not in template.body["Outputs"]:
                    raise Wrong(f"{parent.name}: {owner} names {stack_id}.{attribute}, which {path} does not give")
    within = [nested(template, os.path.dirname(path), name, checked) for path, template in stacks.values()]
    return stacks | {stack_id: stack for more in within for stack_id, stack in more.items()}


def check_tiers(root, stacks, tiers):
    """Checks that the network exists only with a tier, has no way out, and contains only functions that use a tier."""
    on = {tier for tier, choice in tiers.items() if choice != "none"}
    expected = {"Replication"} | ({"NetworkStack", "EndpointsStack"} if on else set())
    expected |= {stack for tier, stack in (("RelationalTier", "RelationalStack"), ("CacheTier", "CacheStack")) if tier in on}
    if tiers["RelationalTier"] == "rds-postgres":
        expected.add("RotationStack")
    if set(stacks) != expected:
        raise Wrong(f"{root.name}: makes {sorted(stacks)} and not {sorted(expected)}")
    for _, template in stacks.values():
        for kind in ("AWS::EC2::NatGateway", "AWS::EC2::InternetGateway", "AWS::EC2::EgressOnlyInternetGateway"):
            if template.of_type(kind):
                raise Wrong(f"{template.name}: {kind} leads outside")
    check_network(root, on)
    check_network(stacks["Replication"][1], on)


def check_network(template, on):
    """Checks that a function is in the network if and only if it uses a tier, which must be on."""
    for name, function in template.of_type("AWS::Lambda::Function").items():
        variables = function["Properties"].get("Environment", {}).get("Variables", {})
        uses = {tier for tier, needs in TIERS.items() if needs & set(variables)}
        if bool(uses) != ("VpcConfig" in function["Properties"]):
            raise Wrong(f"{template.name}: {name} uses {sorted(uses) or 'no tier'} and is {'' if not uses else 'not '}in the network")
        if not uses <= on:
            raise Wrong(f"{template.name}: {name} is told of {sorted(uses - on)}, which is off")


def granted(template, name):
    """Returns the statements in the inline policies of a role by Sid."""
    policies = template.of_type("AWS::IAM::Role")[name]["Properties"]["Policies"]
    return {statement["Sid"]: statement for policy in policies for statement in policy["PolicyDocument"]["Statement"]}


def check_replication(template, values):
    """Checks what infra/replication.yaml creates and grants for one table with these parameters."""
    tables, keys = template.of_type("AWS::DynamoDB::Table"), template.of_type("AWS::KMS::Key")
    is_given = {name: values.get(name, "none") != "none" for name in template.parameters}
    creates_replica = not is_given["ReplicaTableArn"] and not is_given["Replication"]
    if bool(tables) != creates_replica or bool(keys) == is_given["KeyArn"]:
        raise Wrong(f"{template.name}: creates {sorted(tables)} and {sorted(keys)}")
    for table in tables.values():
        properties = table["Properties"]
        given = [template.values[name] for name in ("PartitionKey", "SortKey") if is_given[name]]
        expected = [(unescape(name), kind) for name, kind in (key.split(":") for key in given)]
        declared = [
            (template.value(each["AttributeName"]), template.value(each["AttributeType"]))
            for each in properties["AttributeDefinitions"]
        ]
        keys_declared = [template.value(each["AttributeName"]) for each in properties["KeySchema"]]
        if declared != expected or keys_declared != [name for name, _ in expected]:
            raise Wrong(f"{template.name}: the replica has the key {keys_declared} of {declared}")
    archive = template.values["Archive"]
    needed = {
        "SourceKey": is_given["SourceKeyArn"],
        "Replica": not is_given["Replication"] or is_given["ReplicaTableArns"],
        "ReplicaKey": is_given["ReplicaKeyArn"] or creates_replica,
        "ReplicaKeys": is_given["ReplicaKeyArns"],
        "HashKeys": is_given["HashKeySecretArns"],
        "ReplicaRole": is_given["ReplicaRoleArn"],
        "ReplicaRoles": is_given["ReplicaRoleArns"],
        "Replication": values.get("Replication", "none").startswith("s3://"),
        "Emails": is_given["EmailsTableArn"],
    }
    roles = dict(OPTIONAL)
    if archive != "separate":
        del roles["ArchiverRole"]
    for role, sids in roles.items():
        own = needed | {sid: archive != "off" for sid in OPTIONAL["MaintenanceRole"] if sid.startswith("Archive")}
        if role == "ReplicatorRole":
            own["Archive"] = archive == "in-replicator"
        grants = granted(template, role)
        expected = {sid for sid in sids if own[sid]}
        if set(grants) & set(own) != expected:
            raise Wrong(f"{template.name}: {role} grants {sorted(grants)} and not {sorted(expected)}")
        check_grants(template, role, grants)
    check_archive(template, archive)
    check_schedule(template, values.get("VerifySchedule", "off"))
    is_foreign = template.values["SourceTableArn"].split(":")[4] != ACCOUNT
    source = variables(template, "MaintenanceFunction")["SOURCE_TABLE"]
    if source != {"Ref": "SourceTableArn" if is_foreign else "SourceTableName"}:
        raise Wrong(f"{template.name}: maintenance is told SOURCE_TABLE={source}")
    for function in ("ReplicatorFunction", "MaintenanceFunction"):
        settings = variables(template, function)
        if ("REPLICATION" in settings, "REPLICA_TABLE" in settings) != (is_given["Replication"], not is_given["Replication"]):
            raise Wrong(f"{template.name}: {function} is told {sorted(settings)}")


def unescape(name):
    """Returns the name of a key attribute as the parameter's escapes mean it."""
    return re.sub("%3A|%25", lambda found: {"%3A": ":", "%25": "%"}[found[0]], name)


def check_grants(template, role, grants):
    """Checks that the tables, roles and the object of a replication document are granted as the parameters list them."""
    for sid, parameter in (("Replica", "ReplicaTableArns"), ("ReplicaRoles", "ReplicaRoleArns")):
        if sid in grants and template.values[parameter] != "none":
            if grants[sid]["Resource"] != {"Fn::Split": [",", {"Ref": parameter}]}:
                raise Wrong(f"{template.name}: {role} {sid} grants {grants[sid]['Resource']}")
    if "ReplicaRole" in grants and grants["ReplicaRole"]["Resource"] != {"Ref": "ReplicaRoleArn"}:
        raise Wrong(f"{template.name}: {role} may assume {grants['ReplicaRole']['Resource']}")
    if "Replication" in grants:
        pattern, own = grants["Replication"]["Resource"]["Fn::Sub"]
        granted_object = pattern.replace("${AWS::Partition}", "aws").replace("${Object}", template.value(own["Object"]))
        expected = template.values["Replication"].replace("s3://", "arn:aws:s3:::", 1)
        if granted_object != expected:
            raise Wrong(f"{template.name}: {role} reads {granted_object} and not {expected}")


def variables(template, name):
    """Returns the environment variables of a function."""
    return template.of_type("AWS::Lambda::Function")[name]["Properties"]["Environment"]["Variables"]


def check_archive(template, archive):
    """Checks the resources and settings of the archive in one choice of Archive."""
    resources = template.body["Resources"]
    mappings = template.of_type("AWS::Lambda::EventSourceMapping")
    of_archiver = sorted(name for name in resources if name.startswith("Archiver"))
    of_archive = sorted(name for name in resources if re.match("Archive[A-Z]", name))
    is_separate = archive == "separate"
    if len(mappings) != (2 if is_separate else 1) or bool(of_archiver) != is_separate:
        raise Wrong(f"{template.name}: Archive={archive} makes {sorted(mappings)} and {of_archiver}")
    if bool(of_archive) == (archive == "off"):
        raise Wrong(f"{template.name}: Archive={archive} makes {of_archive}")
    told = {name: set(variables(template, name)) for name in ("ReplicatorFunction", "MaintenanceFunction")}
    for variable, function, is_told in (
        ("ARCHIVE_BUCKET", "ReplicatorFunction", archive == "in-replicator"),
        ("ARCHIVE_COMPRESSION", "ReplicatorFunction", archive == "in-replicator"),
        ("ARCHIVE_BUCKET", "MaintenanceFunction", archive != "off"),
        ("ARCHIVE_COMPRESSION", "MaintenanceFunction", archive != "off"),
        ("ARCHIVER_FUNCTION", "MaintenanceFunction", is_separate),
    ):
        if (variable in told[function]) != is_told:
            raise Wrong(f"{template.name}: with Archive={archive}, {function} is told {sorted(told[function])}")


def check_outputs(root, archive):
    """Checks that template.yaml returns the names of exactly what the choice of Archive creates."""
    for output, is_given in (
        ("ArchiveBucketName", archive != "off"),
        ("ArchiveDatabaseName", archive != "off"),
        ("ArchiverFunctionName", archive == "separate"),
    ):
        if (output in root.body["Outputs"]) != is_given:
            raise Wrong(f"{root.name}: with Archive={archive}, the outputs are {sorted(root.body['Outputs'])}")


def check_schedule(template, schedule):
    """Checks the schedule of verify, and that the composite alarms combine exactly the alarms that exist."""
    resources = template.body["Resources"]
    expected = {
        "ScheduledVerification": schedule != "off",
        "ScheduledVerificationRole": schedule != "off",
        "VerifyOverdueAlarm": schedule in ("hourly", "daily"),
    }
    for name, exists in expected.items():
        if (name in resources) != exists:
            raise Wrong(f"{template.name}: VerifySchedule={schedule} and {name}")
    composites = template.of_type("AWS::CloudWatch::CompositeAlarm").values()
    combined = [
        name
        for composite in composites
        for entry in composite["Properties"]["AlarmRule"]["Fn::Join"][1]
        if entry != "FALSE"
        for name in re.findall(r"\$\{(\w+)\}", entry["Fn::Sub"])
    ]
    if sorted(combined) != sorted(template.of_type("AWS::CloudWatch::Alarm")):
        raise Wrong(f"{template.name}: the composite alarms combine {sorted(combined)}")


def check_api(root, access):
    """Checks that each route, OPTIONS and $default too, has an authorizer and a function that this API may invoke."""
    resources = root.body["Resources"]
    has_tokens, has_cors = "JwtIssuer" in access, "CorsOrigins" in access
    routes = root.of_type("AWS::ApiGatewayV2::Route")
    keys = [route["Properties"]["RouteKey"] for route in routes.values()]
    if len(keys) < 12 or len(set(keys)) != len(keys):
        raise Wrong(f"{root.name}: routes {sorted(keys)}")
    for name, route in routes.items():
        properties = route["Properties"]
        authorization = (properties.get("AuthorizationType", "NONE"), properties.get("AuthorizerId"))
        if authorization != (("JWT", {"Ref": "TokenAuthorizer"}) if has_tokens else ("AWS_IAM", None)):
            raise Wrong(f"{root.name}: {name} is let in by {authorization}")
        integration = resources[re.fullmatch(r"integrations/\$\{(\w+)\}", properties["Target"]["Fn::Sub"])[1]]
        (function, _) = integration["Properties"]["IntegrationUri"]["Fn::GetAtt"]
        invoked = [
            permission["Properties"]
            for permission in root.of_type("AWS::Lambda::Permission").values()
            if permission["Properties"]["FunctionName"] == {"Fn::GetAtt": [function, "Arn"]}
        ]
        if len(invoked) != 1 or not invoked[0]["SourceArn"]["Fn::Sub"].endswith(":${UsersApi}/*"):
            raise Wrong(f"{root.name}: {function} may be invoked by {invoked}")
    options = [key for key in keys if key == "$default" or key.split(" ")[0] in ("ANY", "OPTIONS")]
    # A preflight request has neither token nor signature: a route for OPTIONS would reject it.
    if bool(options) == has_cors or ("CorsConfiguration" in resources["UsersApi"]["Properties"]) != has_cors:
        raise Wrong(f"{root.name}: with{'' if has_cors else 'out'} CORS, routes {options}")
    for name, function in root.of_type("AWS::Lambda::Function").items():
        auth = function["Properties"].get("Environment", {}).get("Variables", {}).get("AUTH")
        if auth not in (None, "jwt" if has_tokens else "iam"):
            raise Wrong(f"{root.name}: {name} is told AUTH={auth}")


def check_code(template, prefix):
    """Checks that each function of the packaged template takes its own code from the bucket."""
    for name, function in template.of_type("AWS::Lambda::Function").items():
        code = function["Properties"]["Code"]
        pattern, own = code["S3Key"]["Fn::Sub"]
        key = pattern.replace("${Prefix}", str(template.value(own["Prefix"])))
        expected = f"{prefix}{name.removesuffix('Function').lower()}-${{Architecture}}.zip"
        if (code["S3Bucket"], key) != ({"Ref": "CodeBucket"}, expected):
            raise Wrong(f"{template.name}: the code of {name} is {code}")


def write(path, body):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(body, file, indent=1, default=str)


def main(path, alone, released, target):
    folder = os.path.dirname(os.path.abspath(path))
    expanded = expand(path)
    choices = {tier: expanded["Parameters"][tier]["AllowedValues"] for tier in TIERS}
    count = 0
    everything = tuple(values[-1] for values in choices.values())
    archives = expanded["Parameters"]["Archive"]["AllowedValues"]
    for chosen, (access_name, access), archive in itertools.product(
        itertools.product(*choices.values()), ACCESS.items(), archives
    ):
        tiers = dict(zip(choices, chosen))
        name = "+".join(chosen) + access_name + ("" if archive == archives[0] else f"+{archive}")
        root = Template(name, expanded, tiers | access | {"Archive": archive})
        stacks = nested(root, folder, name)
        check_tiers(root, stacks, tiers)
        check_api(root, access)
        _, replication = stacks["Replication"]
        check_replication(replication, replication.values)
        check_outputs(root, archive)
        count += 1
        if (access or archive != archives[0]) and (chosen != everything or (access and archive != archives[0])):
            continue
        write(os.path.join(target, name, "template.json"), root.body)
        for path, template in stacks.values():
            write(os.path.join(target, name, os.path.relpath(path, folder)), template.body)
    for name, values in ALONE.items():
        template = Template(name, expand_nested(alone), SOURCE | values)
        check_network(template, {tier for tier in TIERS if tier in values})
        check_replication(template, template.values)
        write(os.path.join(target, name, os.path.relpath(os.path.abspath(alone), folder)), template.body)
    for number, (values, prefix) in enumerate(RELEASED):
        template = Template("released", expand_nested(released), SOURCE | values)
        check_code(template, prefix)
        check_replication(template, template.values)
        write(os.path.join(target, f"released+{number}", "replication.yaml"), template.body)
    print(f"{count} choices of {', '.join(choices)}, Archive, and of who may call, resolved into {target}")
    for values in REFUSED:
        try:
            Template("refused", expand_nested(alone), SOURCE | values)
        except Refused:
            continue
        raise Wrong(f"{alone}: no rule refuses {values}")
    for values in MALFORMED:
        try:
            Template("malformed", expand_nested(alone), SOURCE | values)
        except Refused:
            pass
        except Wrong:
            continue
        raise Wrong(f"{alone}: no pattern refuses {values}")
    count = len(REFUSED) + len(MALFORMED)
    print(f"{len(ALONE)} choices of {alone} by itself, and {count} that its rules and patterns refuse")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit("usage: resolve_templates.py template.yaml infra/replication.yaml PACKAGED FOLDER")
    try:
        main(*sys.argv[1:])
    except Wrong as wrong:
        sys.exit(str(wrong))
