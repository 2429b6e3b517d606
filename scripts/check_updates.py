#!/usr/bin/env python3
"""Checks that an update which changes only parameters reaches everything that is invoked.

    check_updates.py template.yaml infra/replication.yaml

Each template is expanded in the same way as AWS SAM does, with its nested templates, from several starting points: the
defaults and combinations of tiers, or the choices of ALONE; and from each of them once more for every parameter with
another value. If this changes the configuration of a function (its properties, with parameters, conditions and the
inputs and outputs of nested stacks resolved), then everything that invokes the function (a mapping, a route, the state
machine, a permission) must refer to a target that has changed as well. A published version does not meet this condition: it is identified by its logical ID, which is
computed from the text of the template and does not change with a parameter.

Also checks that each parameter which is known to configure functions changes them, so that the comparison is not empty.
"""

import json
import os
import re
import sys

from expand_template import expand
from resolve_templates import ALONE, SOURCE, Template, Wrong, nested

BASES = [
    {},
    {"RelationalTier": "aurora-serverless", "CacheTier": "valkey-serverless"},
    {
        "RelationalTier": "rds-postgres",
        "CacheTier": "valkey-replication-group",
        "RateLimit": "100/1s",
        "CursorSecretVersion": "a1b2c3d4-5678-90ab-cdef-1234567890ab",
    },
]
# The functions that a parameter must change, in at least one of the starting points.
REACHES = {
    "RelationalTier": {"SearchFunction", "ReplicatorFunction", "MaintenanceFunction"},
    "CacheTier": {"ApiFunction", "ReplicatorFunction"},
    "DatabaseUrl": {"SearchFunction", "ReplicatorFunction", "MaintenanceFunction"},
    "LogLevel": {"ApiFunction", "SearchFunction", "ReplicatorFunction", "ArchiverFunction", "MaintenanceFunction"},
    "TombstoneRetentionDays": {"ReplicatorFunction", "MaintenanceFunction"},
    "Archive": {"ReplicatorFunction", "ArchiverFunction", "MaintenanceFunction"},
    "ArchiveCompression": {"ArchiverFunction", "MaintenanceFunction"},
    "UniqueEmail": {"ApiFunction", "MaintenanceFunction"},
    "RequirePreconditions": {"ApiFunction"},
    "RateLimit": {"ApiFunction"},
    "RateLimitBurst": {"ApiFunction"},
    "CursorSecretVersion": {"ApiFunction", "SearchFunction"},
    "PreviousCursorSecretVersion": {"ApiFunction", "SearchFunction"},
}
# The same of infra/replication.yaml by itself.
REACHES_ALONE = {
    "SourceTableName": {"MaintenanceFunction"},
    "ReplicaTableArn": {"ReplicatorFunction", "MaintenanceFunction"},
    "ReplicaRegion": {"ReplicatorFunction", "MaintenanceFunction"},
    "ReplicaRoleArn": {"ReplicatorFunction", "MaintenanceFunction"},
    "Replication": {"ReplicatorFunction", "MaintenanceFunction"},
    "Archive": {"ReplicatorFunction", "ArchiverFunction", "MaintenanceFunction"},
    "DeploymentName": {"ReplicatorFunction", "ArchiverFunction", "MaintenanceFunction"},
    "LogLevel": {"ReplicatorFunction", "ArchiverFunction", "MaintenanceFunction"},
    "TombstoneRetentionDays": {"ReplicatorFunction", "MaintenanceFunction"},
    "ReservedPrefix": {"ReplicatorFunction", "MaintenanceFunction"},
    "ArchiveCompression": {"ArchiverFunction", "MaintenanceFunction"},
    "DatabaseUrl": {"ReplicatorFunction", "MaintenanceFunction"},
    "CacheUrl": {"ReplicatorFunction"},
    "EmailsTableArn": {"MaintenanceFunction"},
}
# Copies of a configuration, which are made when the resource is created and never updated.
COPIES = {"AWS::Lambda::Version", "AWS::Lambda::Alias", "AWS::StepFunctions::StateMachineVersion"}


def another(declared, value):
    """Returns another value of the parameter. It need not match the pattern, since only its effect is checked."""
    allowed = [each for each in declared.get("AllowedValues", []) if str(each) != str(value)]
    if allowed:
        return str(allowed[0])
    if declared["Type"] == "Number":
        number = float(value)
        return f"{number + 1 if number + 1 <= float(declared.get('MaxValue', number + 1)) else number - 1:g}"
    return "another"


class Deployment:
    """The resources of a deployment with these parameters, for comparison with another one."""

    def __init__(self, path, values):
        name = " ".join(f"{key}={value}" for key, value in values.items()) or "the defaults"
        self.root = Template(name, expand(path, values), values, checked=False)
        nested(self.root, os.path.dirname(path), name, checked=False)
        # No two of the templates that have functions use a name for different resources.
        self.templates = [self.root, *(each for _, each in self.root.stacks.values() if functions_of(each))]
        self.template_of = {name: template for template in self.templates for name in template.body["Resources"]}
        self.resources = {name: template.body["Resources"][name] for name, template in self.template_of.items()}
        if len(self.template_of) != sum(len(template.body["Resources"]) for template in self.templates):
            raise Wrong(f"{name}: two templates with functions use one name")

    def resolved(self, node, template):
        """Returns the node with parameters replaced by values, and outputs of nested stacks by their definitions."""
        if isinstance(node, list):
            return [self.resolved(part, template) for part in node]
        if not isinstance(node, dict):
            return node
        if set(node) == {"Ref"} and node["Ref"] in template.values:
            return self.parameter(node["Ref"], template)
        if set(node) == {"Fn::GetAtt"}:
            target, attribute = template.attribute(node["Fn::GetAtt"])
            stack = template.stacks.get(target)
            if stack:
                output = stack[1].body["Outputs"][attribute.removeprefix("Outputs.")]
                return {"of": target, "is": self.resolved(output["Value"], stack[1])}
        if set(node) == {"Fn::Sub"}:
            pattern, own = (node["Fn::Sub"], {}) if isinstance(node["Fn::Sub"], str) else node["Fn::Sub"]
            known = {name: self.parameter(name, template) for name in template.values if name not in own}
            filled = re.sub(r"\$\{(\w+)\}", lambda found: str(known.get(found[1], found[0])), pattern)
            return {"Fn::Sub": [filled, self.resolved(own, template)]}
        return {key: self.resolved(value, template) for key, value in node.items()}

    def parameter(self, name, template):
        """Returns the value of a parameter, or what a nested stack is given for it if that is known only later."""
        given = template.given.get(name)
        return self.resolved(given, template.parent) if isinstance(given, dict) else template.values[name]

    def configuration(self, name):
        """Returns the resolved properties of a function, or the name of a copy, which changes only if its name does."""
        resource = self.resources[name]
        if resource["Type"] in COPIES:
            return [name, sorted(self.configuration(each) for each in self.named(resource, COPIES))]
        return json.dumps(self.resolved(resource["Properties"], self.template_of[name]), sort_keys=True, default=str)

    def named(self, node, kinds):
        found = {name for name, _ in self.root.references(node) if name in self.resources}
        return sorted(name for name in found if self.resources[name]["Type"] in kinds)

    def functions(self):
        return {name: function for template in self.templates for name, function in functions_of(template).items()}

    def function_of(self, name):
        """Returns the function itself, or the function that a copy was made of."""
        if self.resources[name]["Type"] == "AWS::Lambda::Function":
            return name
        (function,) = {self.function_of(each) for each in self.named(self.resources[name], {"AWS::Lambda::Function"})}
        return function

    def invoked(self):
        """Yields every pair of an invoking resource and the function, or copy of one, that it invokes."""
        for invoker, resource in self.resources.items():
            properties = resource.get("Properties", {})
            target_of = {
                "AWS::Lambda::EventSourceMapping": lambda: properties["FunctionName"],
                "AWS::Lambda::Permission": lambda: properties["FunctionName"],
                "AWS::Lambda::Url": lambda: properties["TargetFunctionArn"],
                "AWS::ApiGatewayV2::Api": lambda: properties.get("Body", {}),
                "AWS::ApiGatewayV2::Integration": lambda: properties["IntegrationUri"],
                "AWS::StepFunctions::StateMachine": lambda: properties,
                "AWS::Scheduler::Schedule": lambda: properties["Target"],
                "AWS::Events::Rule": lambda: properties["Targets"],
            }.get(resource["Type"])
            if target_of:
                for target in self.named(target_of(), {"AWS::Lambda::Function", *COPIES}):
                    yield invoker, target


def functions_of(template):
    return template.of_type("AWS::Lambda::Function")


def check(path, bases, reaches):
    reached = {}
    updates = 0
    for base in bases:
        before = Deployment(path, base)
        copies = sorted(name for name, each in before.resources.items() if each["Type"] in COPIES)
        if copies:
            raise Wrong(f"{before.root.name}: publishes copies of a configuration: {', '.join(copies)}")
        led_to = {before.function_of(target) for _, target in before.invoked()}
        if led_to != set(before.functions()):
            raise Wrong(f"{before.root.name}: nothing is seen to invoke {sorted(set(before.functions()) - led_to)}")
        for parameter, declared in before.root.parameters.items():
            value = another(declared, before.root.values[parameter])
            after = Deployment(path, base | {parameter: value})
            updates += 1
            check_update(before, after, parameter, reached)
    for parameter, functions in reaches.items():
        missed = functions - reached.get(parameter, set())
        if missed:
            raise Wrong(f"{parameter} is not seen to reach {sorted(missed)}")
    print(f"{updates} updates of a parameter of {path} reach whatever is invoked")


def check_update(before, after, parameter, reached):
    """Checks that whatever invokes a changed function before and after the update refers to a changed target."""
    both = set(before.functions()) & set(after.functions())
    changed = {name for name in both if before.configuration(name) != after.configuration(name)}
    # A function that is added or removed with its tier also counts as reached.
    reached.setdefault(parameter, set()).update(changed, set(before.functions()) ^ set(after.functions()))
    former = set(before.invoked())
    for invoker, target in after.invoked():
        function = after.function_of(target)
        if function not in changed or (invoker, target) not in former:
            continue
        if before.configuration(target) == after.configuration(target):
            raise Wrong(
                f"{after.root.name}: {parameter} changes {function}, and {invoker} goes on with {target} as it was"
            )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: check_updates.py template.yaml infra/replication.yaml")
    try:
        check(sys.argv[1], BASES, REACHES)
        check(sys.argv[2], [SOURCE | values for values in ALONE.values()], REACHES_ALONE)
    except Wrong as wrong:
        sys.exit(str(wrong))
