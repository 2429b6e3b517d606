#!/usr/bin/env python3
"""Checks that an update that changes parameters alone reaches everything that is invoked.

    check_updates.py template.yaml

template.yaml is expanded as AWS SAM does it, once with its defaults, once with either pair of tiers on, and from each of
these starting points once more for every parameter with another value. Wherever that changes what a function is deployed
with (its properties, with parameters, conditions and the outputs of nested stacks resolved), whatever invokes the function
must be led to something that changed as well: a mapping, a route, the state machine, a permission. A published version is
what its logical id says, and that is computed from the text of the template: it does not change with a parameter.

Also: the parameters that are known to configure functions are seen to reach them, so that the comparison is not empty.
"""

import json
import re
import sys

from expand_template import expand
from resolve_templates import Template, Wrong, nested

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
# What a parameter must be seen to reach in one base or another.
REACHES = {
    "RelationalTier": {"SearchFunction", "ReplicatorFunction", "MaintenanceFunction"},
    "CacheTier": {"ApiFunction", "ReplicatorFunction"},
    "DatabaseUrl": {"SearchFunction", "ReplicatorFunction", "MaintenanceFunction"},
    "LogLevel": {"ApiFunction", "SearchFunction", "ReplicatorFunction", "ArchiverFunction", "MaintenanceFunction"},
    "TombstoneRetentionDays": {"ReplicatorFunction", "MaintenanceFunction"},
    "ArchiveCompression": {"ArchiverFunction", "MaintenanceFunction"},
    "UniqueEmail": {"ApiFunction", "MaintenanceFunction"},
    "RequirePreconditions": {"ApiFunction"},
    "RateLimit": {"ApiFunction"},
    "RateLimitBurst": {"ApiFunction"},
    "CursorSecretVersion": {"ApiFunction", "SearchFunction"},
    "PreviousCursorSecretVersion": {"ApiFunction", "SearchFunction"},
}
# Copies of a configuration that are made when the resource is made and never again.
COPIES = {"AWS::Lambda::Version", "AWS::Lambda::Alias", "AWS::StepFunctions::StateMachineVersion"}


def another(declared, value):
    """A value that the parameter does not have. It need not match the pattern: only whether it changes anything counts."""
    allowed = [each for each in declared.get("AllowedValues", []) if str(each) != str(value)]
    if allowed:
        return str(allowed[0])
    if declared["Type"] == "Number":
        number = float(value)
        return f"{number + 1 if number + 1 <= float(declared.get('MaxValue', number + 1)) else number - 1:g}"
    return "another"


class Deployment:
    """What a deployment with these parameters makes, for comparison with another one."""

    def __init__(self, path, values):
        name = " ".join(f"{key}={value}" for key, value in values.items()) or "the defaults"
        self.root = Template(name, expand(path, values), values, checked=False)
        self.stacks = nested(self.root, "", name)
        self.resources = self.root.body["Resources"]

    def resolved(self, node, template=None):
        """The node with every parameter replaced by its value, and every output of a nested stack by what it is there."""
        template = template or self.root
        if isinstance(node, list):
            return [self.resolved(part, template) for part in node]
        if not isinstance(node, dict):
            return node
        if set(node) == {"Ref"} and node["Ref"] in template.values:
            return template.values[node["Ref"]]
        if set(node) == {"Fn::GetAtt"}:
            target, attribute = template.attribute(node["Fn::GetAtt"])
            stack = self.stacks.get(target) if template is self.root else None
            if stack:
                output = stack[1].body["Outputs"][attribute.removeprefix("Outputs.")]
                return {"of": target, "is": self.resolved(output["Value"], stack[1])}
        if set(node) == {"Fn::Sub"}:
            pattern, own = (node["Fn::Sub"], {}) if isinstance(node["Fn::Sub"], str) else node["Fn::Sub"]
            known = {name: value for name, value in template.values.items() if value is not None and name not in own}
            filled = re.sub(r"\$\{(\w+)\}", lambda found: str(known.get(found[1], found[0])), pattern)
            return {"Fn::Sub": [filled, self.resolved(own, template)]}
        return {key: self.resolved(value, template) for key, value in node.items()}

    def configuration(self, name):
        """Of a function: what it runs with. Of a copy: its name, by which alone it becomes another one."""
        resource = self.resources[name]
        if resource["Type"] in COPIES:
            return [name, sorted(self.configuration(each) for each in self.named(resource, COPIES))]
        return json.dumps(self.resolved(resource["Properties"]), sort_keys=True, default=str)

    def named(self, node, kinds):
        found = {name for name, _ in self.root.references(node) if name in self.resources}
        return sorted(name for name in found if self.resources[name]["Type"] in kinds)

    def functions(self):
        return self.root.of_type("AWS::Lambda::Function")

    def function_of(self, name):
        """The function that a function, or a copy of one, is of."""
        if self.resources[name]["Type"] == "AWS::Lambda::Function":
            return name
        (function,) = {self.function_of(each) for each in self.named(self.resources[name], {"AWS::Lambda::Function"})}
        return function

    def invoked(self):
        """Every (who invokes, what it names), a function or a copy of one."""
        for invoker, resource in self.resources.items():
            properties = resource.get("Properties", {})
            place = {
                "AWS::Lambda::EventSourceMapping": lambda: properties["FunctionName"],
                "AWS::Lambda::Permission": lambda: properties["FunctionName"],
                "AWS::Lambda::Url": lambda: properties["TargetFunctionArn"],
                "AWS::ApiGatewayV2::Api": lambda: properties.get("Body", {}),
                "AWS::ApiGatewayV2::Integration": lambda: properties["IntegrationUri"],
                "AWS::StepFunctions::StateMachine": lambda: properties,
                "AWS::Scheduler::Schedule": lambda: properties["Target"],
                "AWS::Events::Rule": lambda: properties["Targets"],
            }.get(resource["Type"])
            if place:
                for target in self.named(place(), {"AWS::Lambda::Function", *COPIES}):
                    yield invoker, target


def check(path):
    reached = {}
    updates = 0
    for base in BASES:
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
    for parameter, functions in REACHES.items():
        missed = functions - reached.get(parameter, set())
        if missed:
            raise Wrong(f"{parameter} is not seen to reach {sorted(missed)}")
    print(f"{updates} updates of a parameter reach whatever is invoked")


def check_update(before, after, parameter, reached):
    """Everything that led to a function before and after, and whose function changed, leads to something that changed."""
    both = set(before.functions()) & set(after.functions())
    changed = {name for name in both if before.configuration(name) != after.configuration(name)}
    # A function that comes or goes with its tier is reached by the change as well.
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
    if len(sys.argv) != 2:
        sys.exit("usage: check_updates.py template.yaml")
    try:
        check(sys.argv[1])
    except Wrong as wrong:
        sys.exit(str(wrong))
