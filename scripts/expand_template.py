#!/usr/bin/env python3
"""Expands a template in the same way as AWS SAM on deployment and prints the CloudFormation template, offline.

cfn-lint and `sam validate --lint` do not detect dependency cycles that include SAM's own resource types; they are
visible only in the expanded template. No AWS account is used; SAM's managed policies, which this template does not use,
are left unresolved.
"""

import copy
import functools
import json
import os
import sys

from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse


@functools.cache
def parse(path):
    """Returns a template as it is written. It must not be changed."""
    with open(path, encoding="utf-8") as file:
        return yaml_parse(file)


@functools.cache
def expand_nested(path):
    """Returns a nested template as CloudFormation. It must not be changed. Nested templates without SAM's transform
    are returned as they are.
    """
    template = parse(path)
    return expand(path) if "Transform" in template else template


def expand(path, parameters=None):
    """Returns the template as CloudFormation, expanded with these parameter values (otherwise with the defaults)."""
    # The translator requires a region, but sends no requests.
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    template = copy.deepcopy(parse(path))
    # The bucket and key of the built code, which `sam package` sets unless the template does; the translator requires
    # them but reads no code.
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"].setdefault("CodeUri", {"Bucket": "packaged", "Key": "packaged"})
    template.get("Globals", {}).get("Function", {}).pop("CodeUri", None)
    translator = Translator({}, Parser())
    expanded = translator.translate(template, parameter_values=parameters or {})
    # Unpublished metrics would cause a warning; this publisher sends nothing.
    translator.metrics.publish()
    return expanded


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: expand_template.py template.yaml")
    json.dump(expand(sys.argv[1]), sys.stdout, indent=2, default=str)
    print()
