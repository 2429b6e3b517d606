#!/usr/bin/env python3
"""Checks that SAM CLI parses a samconfig.toml that `millrace attach` writes, and that the template accepts it.

    check_samconfig.py infra/replication.yaml SAMCONFIG...

SAM CLI reads the file with its own code, through the option `--config-file` of a command with the options of
`sam deploy` that the file sets. Each parameter must be parsed as it is meant: text after a space is kept only inside
quotes. Then each must be a parameter of the template, with a value that it allows, and each parameter that the template
requires must be set.
"""

import os
import sys
import tomllib

import click
from check_overrides import Wrong, check_value
from samcli.cli.cli_config_file import ConfigProvider, configuration_option
from samcli.commands._utils.options import parameter_override_option
from samtranslator.yaml_helper import yaml_parse


def taken(path):
    """Returns the parameters and the stack's name that SAM CLI reads for `sam deploy`."""

    @click.command("deploy")
    @configuration_option(provider=ConfigProvider(section="parameters"))
    @click.option("--stack-name")
    @click.option("--region")
    @parameter_override_option
    def command(parameter_overrides, stack_name, region, **_):
        return parameter_overrides, stack_name, region

    try:
        arguments = ["--config-file", os.path.abspath(path)]
        return command.main(arguments, prog_name="deploy", standalone_mode=False)
    except click.ClickException as error:
        raise Wrong(f"SAM CLI refuses it: {error.format_message()}") from error


def meant(override):
    """Returns the name and the value of an override, without the quotes that SAM CLI removes."""
    name, value = override.split("=", 1)
    if value.startswith('"'):
        value = value[1:-1].replace('\\"', '"')
    return name, value


def check_file(parameters, path):
    """Checks one file; raises `Wrong` if it is not correct."""
    with open(path, "rb") as file:
        config = tomllib.load(file)["default"]
    expected = dict(map(meant, config["deploy"]["parameters"]["parameter_overrides"]))
    got, stack_name, region = taken(path)
    if got != expected:
        raise Wrong(f"SAM CLI takes {expected} for {got}")
    if (stack_name, region) != (config["global"]["parameters"]["stack_name"], config["global"]["parameters"]["region"]):
        raise Wrong(f"SAM CLI takes stack {stack_name} in {region}")
    for name, value in expected.items():
        check_value(parameters, name, value)
    missing = {name for name, declared in parameters.items() if "Default" not in declared} - set(expected)
    if missing:
        raise Wrong(f"does not set {', '.join(sorted(missing))}")
    return len(expected)


def main(template, paths):
    with open(template, encoding="utf-8") as file:
        parameters = yaml_parse(file)["Parameters"]
    count = 0
    for path in paths:
        try:
            count += check_file(parameters, path)
        except Wrong as wrong:
            raise Wrong(f"{path}: {wrong}") from wrong
    print(f"{len(paths)} files of millrace attach set {count} parameters as SAM CLI takes them")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: check_samconfig.py infra/replication.yaml SAMCONFIG...")
    try:
        main(sys.argv[1], sys.argv[2:])
    except Wrong as wrong:
        sys.exit(str(wrong))
