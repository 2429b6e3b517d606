#!/usr/bin/env python3
"""Checks that the Terraform module is valid, and has the mapping settings, permissions and alarms of the template.

    check_terraform.py target/templates/expanded/replication.json infra/terraform/replication

The first argument is infra/replication.yaml as scripts/expand_template.py prints it. The syntax is that of a parser of HCL,
bc-python-hcl2 (scripts/checkov_requirements.txt). Neither Terraform nor a provider is needed: scripts/terraform_schema.json has the schema of the provider. As `terraform
validate` does, this finds unknown and missing arguments, references to what does not exist, and cycles, but it does not
compare types. Faults that are planted in the module must be found, too.
"""

import json
import os
import re
import sys

import hcl2
from lark.exceptions import LarkError

# Conditions of the tiers and of the users service, which the module does not have.
ABSENT = {"HasRelational", "HasCache", "HasNetwork", "HasEmails"}
MAPPING = {
    "StartingPosition": "starting_position",
    "BatchSize": "batch_size",
    "MaximumBatchingWindowInSeconds": "maximum_batching_window_in_seconds",
    "ParallelizationFactor": "parallelization_factor",
    "MaximumRetryAttempts": "maximum_retry_attempts",
    "MaximumRecordAgeInSeconds": "maximum_record_age_in_seconds",
    "BisectBatchOnFunctionError": "bisect_batch_on_function_error",
    "FunctionResponseTypes": "function_response_types",
}
ALARM = {
    "AlarmDescription": "alarm_description",
    "Namespace": "namespace",
    "MetricName": "metric_name",
    "Statistic": "statistic",
    "Period": "period",
    "EvaluationPeriods": "evaluation_periods",
    "Threshold": "threshold",
    "ComparisonOperator": "comparison_operator",
    "TreatMissingData": "treat_missing_data",
}


# Arguments of Terraform itself.
META = {"count", "depends_on", "for_each", "lifecycle", "provider"}


# Faults that `terraform validate` reports: a text of main.tf, another one in its place, and the message.
PLANTED = (
    ("  batch_size = ", "  batchsize = ", "no argument batchsize"),
    ("  function_name = aws_lambda_function.", "  starting_position = aws_lambda_function.", "starting_position occurs twice"),
    ("  function_name = aws_lambda_function.", "  kms_key_arn = aws_lambda_function.", "required argument function_name is missing"),
    ("  destination_config {", "  destination_config = {", "destination_config is a block"),
    ("    on_failure {", "    on_success {", "no argument on_success"),
    ("var.source_table_arn", "var.source_tables_arn", "var.source_tables_arn, which does not exist"),
    ("local.has_archive ?", "local.has_archives ?", "local.has_archives, which does not exist"),
    ("aws_s3_bucket.failure_bucket.arn", "aws_s3_bucket.failure_bucket.arm", "failure_bucket.arm, which the provider"),
    ("aws_s3_bucket.failure_bucket.arn", "aws_s3_bucket.failures.arn", "aws_s3_bucket.failures, which does not exist"),
    ("aws_dynamodb_table.replica_table[0].", "aws_dynamodb_table.replica_table.", "without an index"),
    ("aws_s3_bucket.failure_bucket.", "aws_s3_bucket.failure_bucket[0].", "with an index"),
    ("locals {", "locals {\n  unused = 1", "nothing uses local.unused"),
    ("locals {", "locals {\n  first = local.second\n  second = local.first", "a cycle of local.first, local.second"),
    ('"${var.name}-replicator"', '"${var.name-replicator"', "line \\d+: "),
)

# Faults of the syntax, in any file of the module: a text and another one in its place.
MALFORMED = (
    (" = [", " = [1,, "),
    (" ? ", " ? : "),
    ("local.", "local.."),
    ("split(", "split((\"a\", "),
    ("\n}\n", "\n"),
    ("{\n", "{{\n"),
)


class Wrong(Exception):
    pass


def snake(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def normal(node):
    """Returns what the parser gives without the list that it puts around each argument, and around a single block."""
    if isinstance(node, dict):
        inner = {key.strip('"'): value for key, value in node.items()}
        return {key: normal(value[0] if isinstance(value, list) and len(value) == 1 else value) for key, value in inner.items()}
    if isinstance(node, list):
        return [normal(each) for each in node]
    if isinstance(node, str):
        number = re.fullmatch(r"\$\{(-?\d+)\}", node)
        return int(number[1]) if number else node.replace('\\"', '"')
    return node


def many(block, name):
    """Returns the nested blocks of a name."""
    nested = block.get(name, [])
    return nested if isinstance(nested, list) else [nested]


def same(what, template, module):
    if template != module:
        raise Wrong(f"{what}: the template has {template!r}, and the module {module!r}")


def parsed(name, text):
    """Parses the text of a file."""
    try:
        return hcl2.loads(text)
    except LarkError as error:
        raise Wrong(f"{name} is not HCL: {str(error).splitlines()[0]}") from error


def check_malformed(texts):
    """Plants each fault of the syntax in main.tf, and fails if the parser accepts it."""
    for found, planted in MALFORMED:
        text = texts["main.tf"]
        if found not in text:
            raise Wrong(f"the module has no {found!r} to plant a fault in")
        try:
            parsed("main.tf", text.replace(found, planted, 1))
        except Wrong:
            continue
        raise Wrong(f"{planted!r} is accepted as HCL")


def read(texts):
    """Returns the blocks of the module: the resources and data sources by type and name, and the variables by name."""
    blocks, variables = {}, {}
    for name, text in texts.items():
        content = parsed(name, text)
        for kind in ("resource", "data"):
            for block in content.get(kind, []):
                ((of, named),) = block.items()
                ((own, body),) = named.items()
                key = (of.strip('"'), own.strip('"'))
                if key in blocks:
                    raise Wrong(f"{name}: {key} occurs twice")
                blocks[key] = normal(body)
        for block in content.get("variable", []):
            ((own, body),) = block.items()
            variables[own.strip('"')] = normal(body)
    return blocks, variables


def check_mapping(name, properties, block):
    """Compares the settings of an event source mapping."""
    for own, other in MAPPING.items():
        same(f"{name}.{own}", properties.get(own), block.get(other))
    filters = properties.get("FilterCriteria", {}).get("Filters", [])
    patterns = [each["pattern"] for each in many(block.get("filter_criteria", {}), "filter")]
    same(f"{name}.FilterCriteria", [json.loads(each["Pattern"]) for each in filters], [json.loads(each) for each in patterns])
    destination = block["destination_config"]["on_failure"]["destination_arn"]
    same(f"{name}.OnFailure", "${aws_s3_bucket.failure_bucket.arn}", destination)
    same(f"{name}.MetricsConfig", properties["MetricsConfig"]["Metrics"], block["metrics_config"]["metrics"])


def granted(block):
    """Returns the actions of a statement and the operators and variables of its conditions."""
    return (block["actions"], sorted((each["test"], each["variable"]) for each in many(block, "condition")))


def statements(document):
    """Returns what each statement of a policy document grants, by Sid."""
    dynamic = [each["statement"]["content"] for each in many(document, "dynamic")]
    return {each["sid"]: granted(each) for each in many(document, "statement") + dynamic}


def expected_statements(policies):
    """Returns the same of the inline policies of a role in the template."""
    expected = {}
    for policy in policies:
        for statement in policy["PolicyDocument"]["Statement"]:
            if "Fn::If" in statement:
                (condition, statement, _) = statement["Fn::If"]
                if condition in ABSENT:
                    continue
            actions = statement["Action"]
            conditions = [(test, variable) for test, given in statement.get("Condition", {}).items() for variable in given]
            expected[statement["Sid"]] = (actions if isinstance(actions, list) else [actions], sorted(conditions))
    return expected


def check_alarm(name, properties, block):
    """Compares an alarm: its settings, and namespace, name, dimensions and statistic of each metric."""
    for own, other in ALARM.items():
        value = properties.get(own)
        if isinstance(value, dict):
            # A period that depends on a condition.
            (_, then, otherwise) = value["Fn::If"]
            if f"? {then} : {otherwise}" not in str(block[other]):
                raise Wrong(f"{name}.{own}: {block[other]}")
            continue
        same(f"{name}.{own}", value, block.get(other))
    dimensions = sorted(each["Name"] for each in properties.get("Dimensions", []))
    same(f"{name}.Dimensions", dimensions, sorted(block.get("dimensions", {})))
    queries = {each["id"]: each for each in many(block, "metric_query")}
    same(f"{name}.Metrics", sorted(each["Id"] for each in properties.get("Metrics", [])), sorted(queries))
    for query in properties.get("Metrics", []):
        other = queries[query["Id"]]
        same(f"{name}.{query['Id']}.Expression", query.get("Expression"), other.get("expression"))
        if "MetricStat" in query:
            metric, stat = query["MetricStat"]["Metric"], query["MetricStat"]
            given = other["metric"]
            found = (given["namespace"], given["metric_name"], sorted(given["dimensions"]), given["period"], given["stat"])
            names = sorted(each["Name"] for each in metric["Dimensions"])
            same(f"{name}.{query['Id']}", (metric["Namespace"], metric["MetricName"], names, stat["Period"], stat["Stat"]), found)


class Block:
    """A block of HCL: its kind, its labels, the text of each argument, and the blocks in it."""

    def __init__(self, kind, labels):
        self.kind = kind
        self.labels = labels
        self.arguments = {}
        self.blocks = []

    def address(self):
        """Returns the name by which expressions refer to the block."""
        prefix = {"variable": "var.", "data": "data."}.get(self.kind, "")
        return prefix + ".".join(self.labels)

    def given(self):
        """Returns the names of the arguments and blocks, with those of dynamic blocks, and the blocks of each."""
        found = {name: [] for name in self.arguments}
        for block in self.blocks:
            if block.kind == "dynamic":
                found.setdefault(block.labels[0], []).extend(one for one in block.blocks if one.kind == "content")
            else:
                found.setdefault(block.kind, []).append(block)
        return found

    def texts(self):
        """Returns the text of every expression in the block."""
        return [*self.arguments.values(), *(text for block in self.blocks for text in block.texts())]


class Reader:
    """Reads the subset of HCL that scripts/terraform_module.py writes: no heredocs, and comments on lines of their own."""

    def __init__(self, name, text):
        self.name = name
        self.text = text
        self.at = 0

    def fail(self, what):
        line = self.text.count("\n", 0, self.at) + 1
        raise Wrong(f"{self.name}, line {line}: {what}")

    def match(self, pattern):
        found = re.compile(pattern).match(self.text, self.at)
        if found:
            self.at = found.end()
        return found

    def blocks(self, into, top=False):
        """Reads the content of a block into it, up to its closing brace or the end of the file."""
        while True:
            self.match(r"(\s+|#[^\n]*\n)*")
            if self.at == len(self.text) and top:
                return into
            if self.match(r"\}") and not top:
                return into
            name = self.match(r"([A-Za-z_][\w-]*) *")
            if not name:
                self.fail("expected an argument, a block or a closing brace")
            if self.match(r"= *"):
                if name[1] in into.arguments:
                    self.fail(f"the argument {name[1]} occurs twice")
                into.arguments[name[1]] = self.expression()
                continue
            labels = []
            while label := self.match(r'"([^"]*)" *'):
                labels.append(label[1])
            if not self.match(r"\{"):
                self.fail(f"expected = or a block after {name[1]}")
            into.blocks.append(self.blocks(Block(name[1], labels)))

    def expression(self):
        """Returns the text up to the end of the line that closes every bracket."""
        start = self.at
        self.skip("\n")
        return self.text[start : self.at].strip()

    def skip(self, end):
        """Skips to a character outside of brackets and strings."""
        while self.at < len(self.text):
            letter = self.text[self.at]
            if letter == end:
                return
            self.at += 1
            if letter == '"':
                self.string()
            elif letter in "([{":
                self.skip({"(": ")", "[": "]", "{": "}"}[letter])
                self.at += 1
            elif letter in ")]}":
                self.at -= 1
                self.fail(f"{letter} closes nothing")
        self.fail(f"no {end!r} up to the end of the file")

    def string(self):
        """Skips a string up to its closing quote."""
        while self.at < len(self.text):
            if self.match(r'"'):
                return
            if self.match(r"\$\{"):
                self.skip("}")
                self.at += 1
            elif not self.match(r"\$\$\{|\\.|[^\n]"):
                self.fail("a string does not end")
        self.fail("a string does not end")


def texts_of(folder):
    """Returns the files of a module by name."""
    texts = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".tf"):
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                texts[name] = file.read()
    return texts


def module_of(texts):
    """Returns a block with the content of all files of a module."""
    module = Block("module", [])
    for name, text in texts.items():
        Reader(name, text).blocks(module, top=True)
    return module


def blocks_of(module, *kinds):
    return [block for block in module.blocks if block.kind in kinds]


def expressions(text):
    """Returns the parts of an expression that are evaluated: not the literal parts of its strings."""
    found, at = [], 0
    while at < len(text):
        if text[at] != '"':
            end = text.find('"', at)
            end = len(text) if end < 0 else end
            found.append(text[at:end])
            at = end
            continue
        at += 1
        while text[at] != '"':
            if text.startswith("$${", at):
                at += 3
            elif text.startswith("${", at):
                reader = Reader("", text)
                reader.at = at + 2
                reader.skip("}")
                found.extend(expressions(text[at + 2 : reader.at]))
                at = reader.at + 1
            else:
                at += 2 if text[at] == "\\" else 1
        at += 1
    return found


def references(text):
    """Returns the references of an expression: address, whether it has an index, and the first attribute behind it."""
    pattern = r"(?<![\w.])((?:data\.)?aws_\w+\.\w+|var\.\w+|local\.\w+)((?:\[[^]]*\])?)(?:\.(\w+))?"
    return [(found[1], bool(found[2]), found[3]) for part in expressions(text) for found in re.finditer(pattern, part)]


def check_arguments(where, block, schema):
    """Checks that a block has no argument that the provider does not know, and every one that it requires."""
    given = block.given()
    for name, blocks in given.items():
        if name not in schema:
            raise Wrong(f"{where}: the provider has no argument {name}")
        is_block = "block" in schema[name]
        if is_block != (name not in block.arguments):
            raise Wrong(f"{where}: {name} is {'a block' if is_block else 'an argument with ='}")
        for nested in blocks:
            check_arguments(f"{where}.{name}", nested, schema[name]["block"])
    for name, argument in schema.items():
        if argument["required"] and name not in given:
            raise Wrong(f"{where}: the required argument {name} is missing")


def check_references(module, types):
    """Checks that every reference leads to something that exists, that everything declared is used, and that there is no
    cycle."""
    declared = {block.address(): block for block in blocks_of(module, "variable", "resource", "data")}
    texts = {address: block.texts() for address, block in declared.items()}
    for block in blocks_of(module, "locals"):
        texts |= {f"local.{name}": [text] for name, text in block.arguments.items()}
    for block in blocks_of(module, "output"):
        texts[f"output.{block.labels[0]}"] = block.texts()
    leads = {}
    for source, of in texts.items():
        leads[source] = set()
        for address, indexed, attribute in (found for text in of for found in references(text)):
            if address not in texts:
                raise Wrong(f"{source} refers to {address}, which does not exist")
            # The validation of a variable names the variable.
            if not (address == source and source.startswith("var.")):
                leads[source].add(address)
            block = declared.get(address)
            if block is None or block.kind == "variable":
                continue
            schema = types[f"{block.kind}.{block.labels[0]}"]
            if attribute and attribute not in schema["attributes"] and attribute not in schema["arguments"]:
                raise Wrong(f"{source} refers to {address}.{attribute}, which the provider does not have")
            # `depends_on` names all instances.
            if indexed != ("count" in block.arguments) and (indexed or attribute):
                raise Wrong(f"{source} refers to {address} {'with' if indexed else 'without'} an index")
    used = set().union(*leads.values())
    unused = sorted(address for address in texts if address.startswith(("var.", "local.")) and address not in used)
    if unused:
        raise Wrong(f"nothing uses {', '.join(unused)}")
    left = dict(leads)
    while free := [address for address, of in left.items() if not of & left.keys()]:
        for address in free:
            del left[address]
    if left:
        raise Wrong(f"a cycle of {', '.join(sorted(left))}")


def check_module(module, types):
    """Checks arguments and references as `terraform validate` does."""
    for block in blocks_of(module, "resource", "data"):
        schema = types.get(f"{block.kind}.{block.labels[0]}")
        if schema is None:
            raise Wrong(f"{block.address()}: scripts/terraform_schema.json lacks {block.labels[0]}: run scripts/terraform_schema.py")
        check_arguments(block.address(), without_meta(block), schema["arguments"])
    check_references(module, types)


def check_planted(texts, types):
    """Plants each fault in the module, and fails if it is not found."""
    for found, planted, expected in PLANTED:
        text = texts["main.tf"]
        if found not in text:
            raise Wrong(f"the module has no {found!r} to plant a fault in")
        try:
            check_module(module_of(texts | {"main.tf": text.replace(found, planted, 1)}), types)
        except Wrong as wrong:
            if not re.search(expected, str(wrong)):
                raise Wrong(f"{planted!r} is reported as: {wrong}") from wrong
            continue
        raise Wrong(f"{planted!r} is not found")


def without_meta(block):
    """Returns the block without the arguments of Terraform itself."""
    stripped = Block(block.kind, block.labels)
    stripped.arguments = {name: text for name, text in block.arguments.items() if name not in META}
    stripped.blocks = [one for one in block.blocks if one.kind not in META]
    return stripped


def main(path, folder):
    with open(path, encoding="utf-8") as file:
        template = json.load(file)
    texts = texts_of(folder)
    blocks, variables = read(texts)
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "terraform_schema.json"), encoding="utf-8") as file:
        schema = json.load(file)
    check_malformed(texts)
    check_module(module_of(texts), schema["types"])
    check_planted(texts, schema["types"])
    counts = {}
    for name, resource in template["Resources"].items():
        kind, properties, own = resource["Type"], resource["Properties"], snake(name)
        if kind == "AWS::Lambda::EventSourceMapping":
            block = blocks[("aws_lambda_event_source_mapping", own)]
            check_mapping(name, properties, block)
        elif kind == "AWS::IAM::Role":
            block = blocks[("aws_iam_role", own)]
            same(name, expected_statements(properties["Policies"]), statements(blocks[("aws_iam_policy_document", own)]))
        elif kind == "AWS::CloudWatch::Alarm":
            block = blocks[("aws_cloudwatch_metric_alarm", own)]
            check_alarm(name, properties, block)
        elif kind == "AWS::CloudWatch::CompositeAlarm":
            block = blocks[("aws_cloudwatch_composite_alarm", own)]
            named = re.findall(r"\$\{(\w+)\}", json.dumps(properties["AlarmRule"]))
            same(name, [snake(each) for each in named], re.findall(r"aws_cloudwatch_metric_alarm\.(\w+)", str(block["alarm_rule"])))
        else:
            continue
        counts[kind] = counts.get(kind, 0) + 1
        condition = resource.get("Condition")
        count = f"${{local.{snake(condition)} ? 1 : 0}}" if condition else None
        same(f"{name}.Condition", count, block.get("count"))
    for kind, other in (("Alarm", "metric_alarm"), ("CompositeAlarm", "composite_alarm")):
        same(f"{kind}s", counts[f"AWS::CloudWatch::{kind}"], sum(of == f"aws_cloudwatch_{other}" for of, _ in blocks))
    same("roles", counts["AWS::IAM::Role"], sum(of == "aws_iam_role" for of, _ in blocks))
    parameters = {snake(name): parameter for name, parameter in template["Parameters"].items()}
    for name, variable in variables.items():
        if name in ("name", "code_bucket", "code_prefix"):
            continue
        default = parameters[name].get("Default")
        same(f"{name}.Default", default, variable.get("default"))
    found = ", ".join(f"{count} {kind.rsplit('::', 1)[1]}" for kind, count in sorted(counts.items()))
    print(f"{folder}: valid for version {schema['provider']} of the AWS provider; {found} as in the template")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: check_terraform.py EXPANDED_TEMPLATE FOLDER")
    try:
        main(*sys.argv[1:])
    except (Wrong, KeyError) as wrong:
        sys.exit(f"{sys.argv[2]}: {wrong}")
