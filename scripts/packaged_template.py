#!/usr/bin/env python3
"""Prints infra/replication.yaml as it is released: the functions take their code from a bucket (`CodeBucket`,
`CodePrefix`), so that it is deployed without a Rust toolchain and without `sam build`.

    packaged_template.py infra/replication.yaml >replication-packaged.yaml

SAM accepts a path or a bucket and a key as `CodeUri`, but no condition between them, and a function whose code is in a
bucket must not have a build method. So the released template is a second file, generated from the one that is built
from source: the parameters, resources, rules and alarms are those of the source, and only the code's location differs.
"""

import re
import sys

PARAMETERS = """\
  CodeBucket:
    Type: String
    AllowedPattern: ^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$
    Description: Bucket with the released code of the functions, in the Region of the stack.
  CodePrefix:
    Type: String
    Default: none
    AllowedPattern: ^(none|[A-Za-z0-9][^\\s?#]*/)$
    Description: >-
      Prefix of the keys of the code, which ends with a slash and differs for each release, such as millrace/0.1.0/. An
      update to code with the same key would change nothing. With none, the keys have no prefix.
"""
CONDITION = "  HasCodePrefix: !Not [!Equals [!Ref CodePrefix, none]]\n"
CODE = """\
      CodeUri:
        Bucket: !Ref CodeBucket
        Key: !Sub
          - ${{Prefix}}{function}-${{Architecture}}.zip
          - Prefix: !If [HasCodePrefix, !Ref CodePrefix, ""]
"""
BUILD = re.compile(r"      BuildMethod: rust-cargolambda\n      BuildProperties:\n        Binary: (\w+)\n    Properties:\n")


def packaged(text):
    """Returns the packaged form of the template's text; raises `ValueError` if the text has another form."""
    for once, replacement in (
        ("\nParameters:\n", "\nParameters:\n" + PARAMETERS),
        ("\nConditions:\n", "\nConditions:\n" + CONDITION),
        ("    CodeUri: ..\n", ""),
    ):
        if text.count(once) != 1:
            raise ValueError(f"{once.strip()!r} does not occur once: adapt scripts/packaged_template.py")
        text = text.replace(once, replacement)
    text, count = BUILD.subn(lambda found: "    Properties:\n" + CODE.format(function=found[1]), text)
    functions = text.count("Type: AWS::Serverless::Function\n")
    if count != functions or "BuildMethod" in text:
        raise ValueError(f"{count} of {functions} functions have the build method rust-cargolambda")
    return text


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: packaged_template.py infra/replication.yaml")
    with open(sys.argv[1], encoding="utf-8") as file:
        try:
            print(packaged(file.read()), end="")
        except ValueError as error:
            sys.exit(f"{sys.argv[1]}: {error}")
