#!/usr/bin/env python3
"""Expands template.yaml as AWS SAM would on deployment and prints the CloudFormation, offline.

cfn-lint and `sam validate --lint` skip dependency cycles that touch SAM's own resource types: only the expanded template
shows them. No account is asked; SAM's managed policies, which this template does not use, are left unresolved.
"""

import json
import os
import sys

from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse


def expand(path, parameters=None):
    """The template as CloudFormation, deployed with these values of parameters (default: each its own)."""
    # The translator wants to know where it is, not to go there.
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    with open(path, encoding="utf-8") as file:
        template = yaml_parse(file)
    # `sam package` puts the built code there; the translator wants the place and never looks into it.
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["CodeUri"] = {"Bucket": "packaged", "Key": "packaged"}
    template.get("Globals", {}).get("Function", {}).pop("CodeUri", None)
    translator = Translator({}, Parser())
    expanded = translator.translate(template, parameter_values=parameters or {})
    # It warns of what it has counted and told nobody; its publisher sends nothing.
    translator.metrics.publish()
    return expanded


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: expand_template.py template.yaml")
    json.dump(expand(sys.argv[1]), sys.stdout, indent=2, default=str)
    print()
