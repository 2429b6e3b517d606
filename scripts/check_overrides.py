#!/usr/bin/env python3
"""Checks that SAM CLI parses every parameter override in the documentation correctly.

    check_overrides.py template.yaml infra/replication.yaml PACKAGED README.md docs/*.md samconfig.toml scripts/package

PACKAGED is infra/replication.yaml as scripts/packaged_template.py prints it.

SAM CLI splits each argument of `--parameter-overrides` with a pattern and drops text that does not match: a value with
a space loses everything after the space, a value with double quotes is cut at the first unless single quotes surround
the value, and an empty value is ignored. So each documented argument is parsed with SAM
CLI's own option; it must be returned unchanged, name a parameter of the template, and have a value that the parameter
allows. A command is for the first template that has all of its parameters. The same is checked for each `Name=value` in
the prose, and for every default value, so that every override can be undone.
"""

import re
import shlex
import sys

import click
from samcli.commands._utils.options import parameter_override_option
from samtranslator.yaml_helper import yaml_parse

OPTION = "--parameter-overrides"
# The values of the shell variables in the documented commands.
VARIABLES = {
    "architecture": "x86_64",
    "host": "users-restored.c1example.eu-west-1.rds.amazonaws.com",
    "resource": "db-ABCDEFGHIJKL01234EXAMPLE",
    "version": "a1b2c3d4-5678-90ab-cdef-1234567890ab",
    "document": """{
  "version": 1,
  "replicas": [
    {"name": "staging", "sink": "dynamodb", "table": "OrdersStaging"}
  ]
}""",
    "previous": "b2c3d4e5-6789-0abc-def1-234567890abc",
}


class Wrong(Exception):
    pass


def taken(arguments):
    """Returns the overrides that SAM CLI parses from these arguments of the option."""

    @click.command()
    @parameter_override_option
    def command(parameter_overrides):
        return parameter_overrides

    try:
        return command.main([OPTION, *arguments], standalone_mode=False)
    except click.ClickException as error:
        raise Wrong(f"SAM CLI refuses it: {error.format_message()}") from error


def check(parameters, arguments):
    """Checks these arguments, as the shell passes them; raises `Wrong` if one is not correct."""
    expected = dict(argument.split("=", 1) for argument in arguments)
    # SAM CLI removes the single quotes around a value.
    expected = {name: re.sub(r"^'(.*)'$", r"\1", value, flags=re.DOTALL) for name, value in expected.items()}
    got = taken(arguments)
    if got != expected:
        raise Wrong(f"SAM CLI takes {expected} for {got}")
    for name, value in expected.items():
        check_value(parameters, name, value)


def check_value(parameters, name, value):
    """Checks that the template has this parameter and allows this value; raises `Wrong` otherwise."""
    declared = parameters.get(name)
    if declared is None:
        raise Wrong(f"the template has no parameter {name}")
    allowed = [str(each) for each in declared.get("AllowedValues", [value])]
    if value not in allowed:
        raise Wrong(f"{name}={value}: allowed are {', '.join(allowed)}")
    if not re.search(declared.get("AllowedPattern", ""), value):
        raise Wrong(f"{name}={value}: does not match {declared['AllowedPattern']}")
    if declared["Type"] == "Number":
        number = float(value)
        if not declared.get("MinValue", number) <= number <= declared.get("MaxValue", number):
            raise Wrong(f"{name}={value}: is out of range")


def commands(text):
    """Yields the arguments of the option in every command of a text, as the shell would pass them."""
    # A backslash at the end of a line continues a command on the next line.
    for line in text.replace("\\\n", " ").splitlines():
        if not re.search(rf"\bsam (build|deploy)\b.* {OPTION} ", line):
            continue
        for variable in re.findall(r"\$\{?(\w+)", line):
            if variable not in VARIABLES:
                raise Wrong(f"{line.strip()}: nothing is known of ${variable}")
        words = shlex.split(line.lstrip("# "), comments=True)
        # As in a shell, the quotes in a variable's value are part of the argument.
        words = [re.sub(r"\$\{?(\w+)\}?", lambda found: VARIABLES[found[1]], word) for word in words]
        after = words[words.index(OPTION) + 1 :]
        end = next((at for at, word in enumerate(after) if re.match(r"-|[&;|)]", word)), len(after))
        if not after[:end]:
            raise Wrong(f"{line.strip()}: overrides nothing")
        yield after[:end]


def of(templates, arguments):
    """Returns the parameters of the first template that has all of these."""
    names = {argument.split("=", 1)[0] for argument in arguments}
    return next((parameters for parameters in templates if names <= set(parameters)), templates[0])


def main(paths):
    templates = []
    for path in paths[:3]:
        with open(path, encoding="utf-8") as file:
            templates.append(yaml_parse(file)["Parameters"])
    documented = 0
    known = {name for parameters in templates for name in parameters}
    for path in paths[3:]:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        prose = [f"{name}={value}" for name, value in re.findall(r"`([A-Z]\w+)=([^`]*)`", text) if name in known]
        for arguments in [*commands(text), *([each] for each in prose)]:
            try:
                check(of(templates, arguments), arguments)
            except Wrong as wrong:
                raise Wrong(f"{path}: {' '.join(arguments)}: {wrong}") from wrong
            documented += 1
    defaults = [(parameters, *each) for parameters in templates for each in parameters.items() if "Default" in each[1]]
    for parameters, name, declared in defaults:
        try:
            check(parameters, [f"{name}={declared['Default']}"])
        except Wrong as wrong:
            raise Wrong(f"the default of {name} cannot be set: {wrong}") from wrong
    print(f"{documented} overrides of the documentation and {len(defaults)} defaults are what SAM CLI takes them for")


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit("usage: check_overrides.py template.yaml infra/replication.yaml PACKAGED FILE...")
    try:
        main(sys.argv[1:])
    except Wrong as wrong:
        sys.exit(str(wrong))
