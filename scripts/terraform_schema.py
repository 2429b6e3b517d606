#!/usr/bin/env python3
"""Writes the arguments and attributes of the resource types of the Terraform module as the AWS provider defines them.

    pip download --no-deps cdktf-cdktf-provider-aws==21.22.1
    terraform_schema.py cdktf_cdktf_provider_aws-21.22.1-py3-none-any.whl infra/terraform/replication >scripts/terraform_schema.json

The package contains the schema of the provider (version 6.25.0) as classes of Python, which are parsed and not run. Run
this after the module has got a resource of another type; scripts/check_terraform.py reads the result.
"""

import ast
import json
import re
import sys
import zipfile

from check_terraform import blocks_of, module_of, texts_of

# Arguments of Terraform itself, which a class has next to those of the provider.
META = {"scope", "id_", "connection", "count", "depends_on", "for_each", "lifecycle", "provider", "provisioners"}


class Provider:
    """The classes of one resource type."""

    def __init__(self, source):
        self.classes = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
        bases = {node.name: [ast.unparse(base) for base in node.bases] for node in self.classes.values()}
        is_main = lambda name: any(base.endswith((".TerraformResource", ".TerraformDataSource")) for base in bases[name])
        (self.main,) = filter(is_main, bases)

    def arguments(self, name):
        """Returns the arguments of a class: whether each is required, and those of its block if it is one."""
        init = next(node for node in self.classes[name].body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
        text = ast.get_docstring(init) or ""
        found = {}
        for argument, default in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True):
            if argument.arg in META:
                continue
            described = re.search(rf":param {argument.arg}: (.*)", text)
            real = re.search(r"#(\w+) ", described[1]) if described else None
            schema = {"required": default is None}
            if described and described[1].startswith(f"{argument.arg} block."):
                kind = re.search(r"'(\w+)'", ast.unparse(argument.annotation))
                schema["block"] = self.arguments(kind[1])
            found[real[1] if real else argument.arg] = schema
        return found

    def attributes(self):
        """Returns the names of the attributes of the resource."""
        properties = (
            node.name
            for node in self.classes[self.main].body
            if isinstance(node, ast.FunctionDef) and any(ast.unparse(one) == "builtins.property" for one in node.decorator_list)
        )
        return sorted({"id"} | {name for name in properties if not name.endswith("_input")} - META)


def main(wheel, folder):
    schemas = {}
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        version = re.search(r"hashicorp/aws provider version ([\d.]+)", archive.read(metadata).decode())[1]
        for mode, kind in sorted({(block.kind, block.labels[0]) for block in blocks_of(module_of(texts_of(folder)), "resource", "data")}):
            name = kind.removeprefix("aws_")
            name = f"data_{kind}" if mode == "data" else name
            provider = Provider(archive.read(f"cdktf_cdktf_provider_aws/{name}/__init__.py").decode())
            schemas[f"{mode}.{kind}"] = {
                "arguments": provider.arguments(provider.main),
                "attributes": provider.attributes(),
            }
    lines = ",\n".join(f"{json.dumps(kind)}: {json.dumps(schema, sort_keys=True)}" for kind, schema in schemas.items())
    print(f'{{"provider": {json.dumps(version)}, "types": {{\n{lines}\n}}}}')


if __name__ == "__main__":
    main(*sys.argv[1:])
