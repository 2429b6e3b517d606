#!/usr/bin/env python3
"""Deploys both templates with SAM on ministack, an AWS emulator that is not part of Millrace.

The table of examples/orders-table.json has items before it has a stream: `millrace attach` writes the files, `sam deploy`
creates the stack, and every maintenance task runs through the deployed state machine. The local stack runs the same tasks
over the same changes, and the counts are compared. `millrace console` shows the stack. Then template.yaml is deployed: its
API is called with signed requests, parameters are changed, `millrace doctor --stack` finds no fault but those that the story
makes, and the stack is deleted: the tables, buckets and keys of both of its templates remain.

The functions are debug builds, which run as processes of the emulator with the credentials of their roles. The emulator
checks every call against the policies of the roles: a denied call fails the story. scripts/ministack_server.py lists
what the emulator lacks.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from packaged_template import BUILD
from story import FEATURES, MILLRACE, ROOT, Local, Program, check, eventually

DESCRIPTION = os.path.join("examples", "orders-table.json")
FUNCTIONS = ("api", "search", "replicator", "archiver", "maintenance")
BIN = os.path.dirname(sys.executable)
REGION = "eu-west-1"
ACCOUNT = "000000000000"
ITEMS = 300
# How many objects the removals are archived in, and what is made of each, depends on when the stream brings them.
COUNTS_OF_OBJECTS = {
    "audit.objects",
    "compact.objects",
    "compact.superseded",
    "compact.written",
    "export-import-table.objects",
    "export-import-table.written",
    "export-parquet.written",
    "restore.objects",
}
# Calls that the story causes, by role.
ROLES = {
    "ReplicatorRole": ("dynamodb:PutItem", "s3:PutObject"),
    "ArchiverRole": ("s3:PutObject",),
    "MaintenanceRole": ("dynamodb:Scan", "dynamodb:PutItem", "lambda:ListEventSourceMappings", "s3:DeleteObject"),
}
# Actions that the policy of `millrace doctor --print-policy` does not allow on the emulator, and why.
DENIED_TO_DOCTOR = {
    "iam:SimulatePrincipalPolicy": "it is checked for all resources, not for the role",
    "lambda:PutFunctionConcurrency": "GetFunctionConcurrency is taken for it",
}
# The types of resources that store data; those of the users service that the deletion of its stack must keep, and others.
DATA = {"AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::KMS::Key"}
KEPT = {"DataKey", "UsersTable", "EmailsTable", "ReplicaTable", "ArchiveBucket", "FailureBucket"}
DELETED = {"IdempotencyTable"}
# Findings of `millrace doctor --stack` that the emulator causes: the rule, the end of its text, and why. One that is not found
# any more has no reason to be here.
DOCTOR_GAPS = [
    ("mapping-not-watched", "MetricsConfig does not enable EventCount", "mappings in templates are created without MetricsConfig"),
    ("table-not-protected", "point-in-time recovery is off", "PointInTimeRecoverySpecification in templates is ignored"),
]


def run(*command, codes=(0,), **options):
    """Runs a program in the repository's root; returns its output. Fails if its exit code is not expected."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **options)
    if done.returncode not in codes:
        sys.exit(f"  FAILED  {' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def built_functions(folder):
    """Builds the functions with the features and the profile of the tests, and writes `<function>/bootstrap`."""
    bins = [part for function in FUNCTIONS for part in ("--bin", function)]
    messages = run("cargo", "build", "--locked", "--profile", "test", *FEATURES, *bins, "--message-format", "json")
    built = {}
    for line in messages.splitlines():
        message = json.loads(line) if line.startswith("{") else {}
        if message.get("executable"):
            built[message["target"]["name"]] = message["executable"]
    for function in FUNCTIONS:
        os.makedirs(os.path.join(folder, function))
        # Symbols are half of the size, and every byte is packed, uploaded and unpacked.
        run("strip", "-o", os.path.join(folder, function, "bootstrap"), built[function])


def built_template(folder, path):
    """Writes a template as `sam build` leaves it: the code of each function is the folder with its bootstrap."""
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        text = file.read()
    up = "../" * path.count("/")
    text, codes = re.subn(r"\n    CodeUri: \.\.?\n", "\n", text)
    text, count = BUILD.subn(lambda found: f"    Properties:\n      CodeUri: {up}{found[1]}\n", text)
    functions = text.count("Type: AWS::Serverless::Function\n")
    check(f"{path} takes the code of {functions} functions from folders", (codes, count) == (1, functions))
    with open(os.path.join(folder, path), "w", encoding="utf-8") as file:
        file.write(text)


class Emulator(Program):
    """A running emulator, whose caller is the root user."""

    def __init__(self, folder):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = str(listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.decisions = os.path.join(folder, "decisions")
        self.credentials = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": REGION}
        server = os.path.join("scripts", "ministack_server.py")
        env = self.credentials | {"TMPDIR": folder}
        super().__init__(sys.executable, server, self.port, self.decisions, env=env)
        self.wait_for("Running on http", 120)
        self.session = boto3.Session("test", "test", region_name=REGION)
        for gap in self.lines:
            if gap.startswith("gap "):
                print(f"          {gap.rstrip()}")

    def __exit__(self, kind, *details):
        if kind:
            print(f"the last lines of the emulator:\n{''.join(self.lines[-80:])}")
        super().__exit__(kind, *details)

    def client(self, service):
        """Returns a new client of the root user."""
        return self.session.client(service, endpoint_url=self.url)

    def deploy(self, template, *options):
        """Deploys a template with SAM."""
        command = [os.path.join(BIN, "sam"), "deploy", "--template-file", template, "--no-confirm-changeset", *options]
        env = os.environ | self.credentials | {"AWS_ENDPOINT_URL": self.url, "SAM_CLI_TELEMETRY": "0"}
        return run(*command, env=env)

    def outputs(self, stack):
        """Returns the outputs of a stack."""
        described = self.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
        return {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}

    def checked_calls(self):
        """Returns the calls that the emulator has checked: caller, action, resource, and the denial or None."""
        with open(self.decisions, encoding="utf-8") as file:
            return [json.loads(line) for line in file]


class DeployedTasks:
    """The maintenance tasks of a deployed stack, through its state machine."""

    def __init__(self, emulator, outputs):
        self.states = emulator.client("stepfunctions")
        self.machine = outputs["MaintenanceStateMachineArn"]

    def run(self, **request):
        """Runs a task to completion; returns its counters and its number of differences."""
        arguments = {"stateMachineArn": self.machine, "input": json.dumps(request)}
        execution = self.states.start_execution(**arguments)["executionArn"]
        deadline = time.monotonic() + 120
        while True:
            state = self.states.describe_execution(executionArn=execution)
            if state["status"] == "SUCCEEDED":
                output = json.loads(state["output"])
                return output["progress"], output["differences"]
            if state["status"] != "RUNNING":
                return self.differences(request, state)
            if time.monotonic() > deadline:
                sys.exit(f"  FAILED  {request} is done within 120 s")
            time.sleep(0.2)

    @staticmethod
    def differences(request, state):
        found = re.fullmatch(r"\w+ found (\d+) differences: (\{.*\}); the report is below .*", state.get("cause", ""))
        if state.get("error") != "DifferencesFound" or not found:
            sys.exit(f"  FAILED  {request}: {state['status']} {state.get('error')}: {state.get('cause')}")
        return json.loads(found[2]), int(found[1])


class LocalTasks:
    """The maintenance tasks of a local stack, through `millrace task`."""

    def __init__(self, local):
        self.ports = [part for option, port in local.ports.items() for part in (option, port)]

    def run(self, **request):
        """Runs a task to completion; returns its counters and its number of differences."""
        command = [*MILLRACE, "task", "--request", json.dumps(request), "--output", "json", *self.ports]
        # The exit code of differences is 1.
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1) or not done.stdout:
            sys.exit(f"  FAILED  {' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        outcome = json.loads(done.stdout)
        return outcome["progress"], outcome["differences"]


class OrdersStory:
    """The changes of the orders and the tasks, on one of the two stacks; the counts of each task are recorded."""

    def __init__(self, dynamodb, s3, tasks, replica, archive, failures):
        self.dynamodb = dynamodb
        self.s3 = s3
        self.tasks = tasks
        self.replica = replica
        self.archive = archive
        self.failures = failures
        self.counts = []

    def task(self, name, **fields):
        """Runs a task; returns its counters with its number of differences."""
        progress, differences = self.tasks.run(task=name, **fields)
        counts = progress | {"differences": differences}
        recorded = {name: value for name, value in counts.items() if name not in COUNTS_OF_OBJECTS}
        # The stream may bring an item to the replica first.
        brought = recorded.pop("dynamodb.written", 0) + recorded.pop("dynamodb.skipped", 0)
        self.counts.append((name, recorded | {"dynamodb.written or skipped": brought}))
        return counts

    def items(self, table):
        pages = self.dynamodb.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
        return [item for page in pages for item in page["Items"]]

    def live(self):
        """Returns the replica's items without tombstones and revisions, by key."""
        found = (item for item in self.items(self.replica) if "_tombstone_expires_at" not in item)
        return by_key({name: value for name, value in item.items() if name != "_rev"} for item in found)

    def is_equal(self):
        return self.live() == by_key(self.items("Orders"))

    def objects(self, bucket, prefix):
        return [one["Key"] for one in self.s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])]

    def rows(self):
        """Returns the number of archived rows that are not compacted."""
        keys = self.objects(self.archive, "archive/Orders/")
        return sum(int(self.s3.head_object(Bucket=self.archive, Key=key)["Metadata"]["rows"]) for key in keys)

    def set(self, number, name, value):
        self.dynamodb.update_item(
            TableName="Orders",
            Key=key(number),
            UpdateExpression="SET #name = :value",
            ExpressionAttributeNames={"#name": name},
            ExpressionAttributeValues={":value": value},
        )

    def follow(self):
        """Backfill, changes, a poison record, expiry, damage of the replica, the archive's tasks and a restore."""
        counts = self.task("backfill", segments=2)
        written = counts.get("dynamodb.written", 0) + counts.get("dynamodb.skipped", 0)
        check("a backfill copies the items that are older than the stream", written == ITEMS and self.is_equal())
        counts = self.task("verify", segments=2)
        check("verify finds no difference", counts["differences"] == 0 and counts["dynamodb.equal"] == ITEMS)

        for number in range(ITEMS, ITEMS + 20):
            self.dynamodb.put_item(TableName="Orders", Item=key(number) | {"status": {"S": "draft"}})
        for number in range(20):
            self.set(number, "status", {"S": "cancelled"})
        for number in range(20, 30):
            self.dynamodb.delete_item(TableName="Orders", Key=key(number))
        eventually("the replica follows creates, changes and deletes", self.is_equal, 60)

        self.set(40, "_rev", {"S": "poison"})
        self.set(41, "status", {"S": "after the poison"})
        quarantine = lambda: self.objects(self.failures, "quarantine/replicator/")
        eventually("a record that cannot be applied is quarantined", lambda: len(quarantine()) == 1, 60)
        behind = lambda: self.live().get(("customer-00013", "41"), {}).get("status") == {"S": "after the poison"}
        eventually("and the records behind it are applied", behind, 60)
        names = {"#rev": "_rev"}
        remove = {"UpdateExpression": "REMOVE #rev", "ExpressionAttributeNames": names}
        self.dynamodb.update_item(TableName="Orders", Key=key(40), **remove)
        eventually("the item is mended in the table", self.is_equal, 60)
        counts = self.task("redrive", dry_run=False)
        check("the record is redriven", counts["redrive.redriven"] == 1 and not quarantine())

        past = {"N": str(int(time.time()) - 60)}
        for number in range(50, 60):
            self.set(number, "ttl", past)
        expired = {(f"customer-{number // 3:05}", str(number)) for number in range(50, 60)}
        gone = lambda: expired.isdisjoint(by_key(self.items("Orders")))
        eventually("expired items are removed", gone, 60)
        eventually("and archived", lambda: self.rows() == 10, 90)
        removed = lambda: sum("_deleted_by_ttl" in item for item in self.items(self.replica))
        eventually("and the replica knows that they expired", lambda: removed() == 10, 60)
        counts = self.task("audit")
        check("audit finds the row of each", counts["audit.found"] == 10 and counts["differences"] == 0)

        for number in range(60, 65):
            self.dynamodb.delete_item(TableName=self.replica, Key=key(number))
        counts = self.task("verify", segments=2, recheck_after_seconds=0)
        lost = (counts["differences"], counts["dynamodb.missing"])
        check("verify fails for items that the replica has lost", lost == (5, 5))
        self.task("repair", segments=2, dry_run=False, recheck_after_seconds=0)
        check("repair writes them", self.is_equal())

        today = time.strftime("%Y-%m-%dT00:00:00Z", time.gmtime(time.time() - 86400))
        tomorrow = time.strftime("%Y-%m-%dT00:00:00Z", time.gmtime(time.time() + 86400))
        days = {"from": today, "to": tomorrow}
        self.task("compact", **days)
        self.task("export-parquet", **days)
        self.task("export-import-table", table="OrdersOfBefore")
        counts = self.task("restore", expires_in_seconds=3600, dry_run=False, **{"from": today})
        check("the archived items are restored", counts["restore.restored"] == 10 and not gone())
        expiries = [float(item["ttl"]["N"]) for item in self.items("Orders") if "ttl" in item]
        soon = [expiry for expiry in expiries if abs(expiry - time.time()) < 4000]
        check("and expire by the table's TTL attribute", len(soon) == 10)
        eventually("and reach the replica", self.is_equal, 60)
        counts = self.task("verify", segments=2)
        found = (counts["differences"], counts["dynamodb.equal"])
        check("a last verify finds no difference", found == (0, ITEMS + 10))


def key(number):
    return {"pk": {"S": f"customer-{number // 3:05}"}, "sk": {"N": str(number)}}


def by_key(items):
    """Returns items by key; the order of a set has no meaning."""
    ordered = lambda item: item | {"tags": sorted(item["tags"]["SS"])} if "tags" in item else item
    return {(item["pk"]["S"], item["sk"]["N"]): ordered(item) for item in items}


def orders():
    """Returns the items that the table has before it is attached."""
    lines = run(sys.executable, os.path.join("examples", "orders.py"), str(ITEMS)).splitlines()
    return [json.loads(line)["Item"] for line in lines]


def attach(emulator, folder, built):
    """Creates the table, attaches it and deploys; returns the story of the deployed stack."""
    dynamodb = emulator.client("dynamodb")
    with open(os.path.join(ROOT, DESCRIPTION), encoding="utf-8") as file:
        table = json.load(file)["Table"]
    # The index has the attributes of the description that CreateTable accepts.
    accepted = ("IndexName", "KeySchema", "Projection")
    indexes = [{name: index[name] for name in accepted} for index in table["GlobalSecondaryIndexes"]]
    same = {name: table[name] for name in ("TableName", "AttributeDefinitions", "KeySchema")}
    dynamodb.create_table(**same, BillingMode="PAY_PER_REQUEST", GlobalSecondaryIndexes=indexes)
    ttl = {"AttributeName": "ttl", "Enabled": True}
    dynamodb.update_time_to_live(TableName="Orders", TimeToLiveSpecification=ttl)
    for item in orders():
        dynamodb.put_item(TableName="Orders", Item=item)

    out = os.path.join(folder, "attach")
    command = [*MILLRACE, "attach", "Orders", "--endpoint-url", emulator.url, "--region", REGION, "--out", out]
    env = os.environ | emulator.credentials
    output = run(*command, codes=(1,), env=env)
    check("attach reports the table's missing stream with the command", "aws dynamodb update-table" in output)
    stream = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
    dynamodb.update_table(TableName="Orders", StreamSpecification=stream)
    output = run(*command, env=env)
    found = all(text in output for text in ("TTL           ttl", "pk (string), sk (number)"))
    check("attach finds the TTL attribute and the keys", found)

    config = os.path.join(out, "Orders", "samconfig.toml")
    emulator.deploy(os.path.join(built, "infra", "replication.yaml"), "--config-file", config)
    outputs = emulator.outputs("orders-replication")
    check("sam deploy creates the stack with the files of attach", "MaintenanceStateMachineArn" in outputs)
    tasks = DeployedTasks(emulator, outputs)
    stores = (outputs["ReplicaTableName"], outputs["ArchiveBucketName"], outputs["FailureBucketName"])
    return OrdersStory(dynamodb, emulator.client("s3"), tasks, *stores)


def local_counts(folder):
    """Runs the same story on a local stack; returns the counts of its tasks."""
    path = os.path.join(folder, "items.ndjson")
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"Item": item}) + "\n" for item in orders())
    with Local("--table", DESCRIPTION, "--ttl-attribute", "ttl", "--import", path) as local:
        stores = ("OrdersReplica", "orders-archive", "orders-failures")
        story = OrdersStory(local.dynamodb, local.s3, LocalTasks(local), *stores)
        eventually("the local stack replicates the imported items", story.is_equal, 60)
        story.follow()
    return story.counts


class UsersStory:
    """The users service, through its API with signed requests."""

    def __init__(self, emulator, stack):
        self.emulator = emulator
        self.outputs = emulator.outputs(stack)
        self.api = f"{emulator.url}/_aws/execute-api/{self.outputs['ApiId']}/$default"
        self.dynamodb = emulator.client("dynamodb")
        self.s3 = emulator.client("s3")
        self.lambdas = emulator.client("lambda")
        self.tasks = DeployedTasks(emulator, self.outputs)

    def caller(self, name, routes):
        """Creates a user of the account who may call these routes; returns the credentials."""
        iam = self.emulator.client("iam")
        iam.create_user(UserName=name)
        resources = [f"arn:aws:execute-api:{REGION}:{ACCOUNT}:{self.outputs['ApiId']}/$default/{one}" for one in routes]
        statement = {"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": resources}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_user_policy(UserName=name, PolicyName="api", PolicyDocument=policy)
        created = iam.create_access_key(UserName=name)["AccessKey"]
        return Credentials(created["AccessKeyId"], created["SecretAccessKey"])

    def request(self, credentials, method, path, body=None):
        """Sends a request, signed unless `credentials` is None; returns the status and the document."""
        data = json.dumps(body).encode() if body is not None else b""
        signed = AWSRequest(method, self.api + path, data=data, headers={"content-type": "application/json"})
        if credentials:
            SigV4Auth(credentials, "execute-api", REGION).add_auth(signed)
        request = urllib.request.Request(self.api + path, data or None, dict(signed.headers), method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def items(self, table):
        return self.dynamodb.scan(TableName=self.outputs[table], ConsistentRead=True)["Items"]

    def follow(self):
        """Create, replica, a poison record, expiry, archive, verify and redrive."""
        clerk = self.caller("clerk", ["*"])
        reader = self.caller("reader", ["GET/users/*"])
        ada = {"user_id": "ada", "timestamp": 1700000000, "name": "Ada", "email": "ada@example.com"}
        check("the API refuses requests that are not signed", self.request(None, "POST", "/users", ada)[0] == 403)
        check("and callers who may not create users", self.request(reader, "POST", "/users", ada)[0] == 403)
        check("it creates a user", self.request(clerk, "POST", "/users", ada)[0] == 201)
        status, read = self.request(reader, "GET", "/users/ada/1700000000")
        check("and returns the user to a reader", status == 200 and read["user"]["name"] == "Ada")
        replica = lambda: {item["user_id"]["S"]: item for item in self.items("ReplicaTableName")}
        eventually("the replica has the user", lambda: "ada" in replica(), 60)

        soon = {**ada, "user_id": "bob", "email": "bob@example.com", "expires_at": int(time.time()) + 3}
        check("it creates a user that expires", self.request(clerk, "POST", "/users", soon)[0] == 201)
        rows = lambda: self.s3.list_objects_v2(Bucket=self.outputs["ArchiveBucketName"], Prefix="archive/")["KeyCount"]
        eventually("whom the archiver archives", rows, 60)
        eventually("and the replica has as removed by TTL", lambda: "_deleted_by_ttl" in replica().get("bob", {}), 60)

        table = self.outputs["UsersTableName"]
        poisoned = {"user_id": {"S": "eve"}, "timestamp": {"N": "1700000000"}}
        self.dynamodb.put_item(TableName=table, Item=poisoned | {"_rev": {"S": "poison"}})
        quarantine = {"Bucket": self.outputs["FailureBucketName"], "Prefix": "quarantine/replicator/"}
        eventually("a poison record is quarantined", lambda: self.s3.list_objects_v2(**quarantine)["KeyCount"], 60)
        self.dynamodb.delete_item(TableName=table, Key=poisoned)
        progress, _ = self.tasks.run(task="redrive", dry_run=False)
        left = self.s3.list_objects_v2(**quarantine)["KeyCount"]
        check("and redriven", (progress["redrive.redriven"], left) == (1, 0))
        progress, differences = self.tasks.run(task="verify")
        check("verify finds no difference", differences == 0 and progress["dynamodb.equal"] == 1)
        return clerk, ada

    def change(self, built, clerk, ada):
        """Deploys other values of parameters, and finds them in what is invoked."""
        twin = {**ada, "user_id": "twin"}
        check("an email may be used twice", self.request(clerk, "POST", "/users", twin)[0] == 201)
        deploy_users(self.emulator, built, "LogLevel=debug", "UniqueEmail=true")
        # The emulator gives the functions of an updated nested stack new names.
        self.outputs = self.emulator.outputs("millrace")
        for function in ("Api", "Replicator", "Archiver", "Maintenance"):
            name = self.outputs[f"{function}FunctionName"]
            variables = self.lambdas.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
            check(f"{function} has the new log level", variables["LOG_LEVEL"] == "debug")
        first = {**ada, "user_id": "carl", "email": "carl@example.com"}
        check("the API reserves emails", self.request(clerk, "POST", "/users", first)[0] == 201)
        second = self.request(clerk, "POST", "/users", {**first, "user_id": "second"})[0]
        check("and refuses a second user with the same email", second == 409)

    def data_resources(self, stack):
        """Returns the tables, buckets and keys of a stack and of its nested stacks: logical ID to type and name."""
        found = {}
        pages = self.emulator.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=stack)
        for resource in (one for page in pages for one in page["StackResourceSummaries"]):
            kind, name = resource["ResourceType"], resource["PhysicalResourceId"]
            if kind == "AWS::CloudFormation::Stack":
                found |= self.data_resources(name)
            elif kind in DATA:
                found[resource["LogicalResourceId"]] = (kind, name)
        return found

    def contents(self, kind, name):
        """Returns what a table or a bucket contains, or the state of a key."""
        if kind == "AWS::DynamoDB::Table":
            items = self.dynamodb.scan(TableName=name, ConsistentRead=True)["Items"]
            return sorted(json.dumps(item, sort_keys=True, default=repr) for item in items)
        if kind == "AWS::S3::Bucket":
            listed = self.s3.list_objects_v2(Bucket=name).get("Contents", [])
            return sorted((one["Key"], one["ETag"]) for one in listed)
        return self.emulator.client("kms").describe_key(KeyId=name)["KeyMetadata"]["KeyState"]

    def delete(self):
        """Deletes the stack, and finds the data kept."""
        # Tombstones have no name.
        users = lambda table: {item["user_id"]["S"] for item in self.items(table) if "name" in item}
        expected = {"ada", "twin", "carl"}
        eventually("the replica has all users", lambda: users("ReplicaTableName") == expected, 60)
        resources = self.data_resources("millrace")
        check("the stacks have the tables, the buckets and the key", set(resources) == KEPT | DELETED)
        before = {logical_id: self.contents(*resources[logical_id]) for logical_id in sorted(KEPT)}
        empty = [logical_id for logical_id, contents in before.items() if not contents]
        check(f"those to keep have contents{''.join(empty)}", not empty)

        formation = self.emulator.client("cloudformation")
        formation.delete_stack(StackName="millrace")
        formation.get_waiter("stack_delete_complete").wait(StackName="millrace", WaiterConfig={"Delay": 1})
        left = self.lambdas.list_functions()["Functions"]
        names = [one["FunctionName"] for one in left if one["FunctionName"].startswith("millrace")]
        check("the deleted stack leaves no function", not names)
        check("it keeps the users", users("UsersTableName") == expected)
        for logical_id, contents in before.items():
            check(f"it keeps {logical_id} with its contents", self.contents(*resources[logical_id]) == contents)
        tables = self.dynamodb.list_tables()["TableNames"]
        deleted = [logical_id for logical_id in DELETED if resources[logical_id][1] not in tables]
        check("it deletes the table of idempotency keys", len(deleted) == len(DELETED))


class DoctorStory:
    """`millrace doctor --stack` on the deployed users service."""

    def __init__(self, emulator):
        self.emulator = emulator

    def diagnosis(self, credentials=None):
        """Returns the exit code, with findings that lose records as the limit, and the document."""
        command = [*MILLRACE, "doctor", "--stack", "millrace", "--endpoint-url", self.emulator.url, "--region", REGION]
        caller = credentials or self.emulator.credentials
        env = os.environ | {"AWS_EC2_METADATA_DISABLED": "true"} | caller
        arguments = [*command, "--output", "json", "--fail-on", "loses"]
        done = subprocess.run(arguments, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1):
            sys.exit(f"  FAILED  {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.returncode, json.loads(done.stdout)

    def caller(self, name, policy):
        """Creates a user of the account with a policy; returns the credentials."""
        iam = self.emulator.client("iam")
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="doctor", PolicyDocument=json.dumps(policy))
        created = iam.create_access_key(UserName=name)["AccessKey"]
        return {"AWS_ACCESS_KEY_ID": created["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": created["SecretAccessKey"]}

    def unexpected(self, document):
        """Returns the findings that the emulator does not cause; fails if it causes one of the list no more."""
        gaps = {(rule, text): 0 for rule, text, _ in DOCTOR_GAPS}
        findings = []
        for finding in document["findings"]:
            gap = next((gap for gap in gaps if gap[0] == finding["rule"] and finding["problem"].endswith(gap[1])), None)
            if gap:
                gaps[gap] += 1
            else:
                findings.append((finding["rule"], finding["resource"], finding["problem"]))
        closed = [rule for (rule, _), count in gaps.items() if not count]
        if closed:
            sys.exit(f"  FAILED  the emulator has learnt what {', '.join(closed)} needs: remove it from DOCTOR_GAPS")
        return findings

    def follow(self):
        """Expects no finding in the deployed stack, then makes faults, each of which is found and repaired."""
        for name, reason in [(rule, reason) for rule, _, reason in DOCTOR_GAPS] + list(DENIED_TO_DOCTOR.items()):
            print(f"          doctor gap: {name}: {reason}")
        code, document = self.diagnosis()
        findings = self.unexpected(document)
        check(f"doctor evaluates both mappings of the stack and finds nothing {findings or ''}", not findings and code == 0)
        left = document["not_checked"] + document["not_read"] + document["unused_ignores"] + document["problems"]
        check(f"and leaves nothing unchecked {left or ''}", document["mappings"] == 2 and not left)

        code, document = self.diagnosis(self.caller("doctor", json.loads(run(*MILLRACE, "doctor", "--print-policy"))))
        checked = [call for call in self.emulator.checked_calls() if call["caller"].endswith(":user/doctor")]
        denied = {call["action"] for call in checked if call["denied"]}
        check(f"the policy that doctor prints allows all of its calls but {sorted(denied)}", denied == set(DENIED_TO_DOCTOR))
        check("a denied call is never a finding", code == 0 and not self.unexpected(document))
        reasons = {one["reason"] for one in document["not_checked"]}
        calls = {"SimulatePrincipalPolicy": "iam", "GetFunctionConcurrency": "lambda"}
        expected = {f"{name} was denied: allow {service}:{name}" for name, service in calls.items()}
        check("and makes the rules that need it not checked", reasons == expected)

        lambdas, s3 = self.emulator.client("lambda"), self.emulator.client("s3")
        outputs = self.emulator.outputs("millrace")
        (mapping,) = lambdas.list_event_source_mappings(FunctionName=outputs["ReplicatorFunctionName"])["EventSourceMappings"]
        bucket = outputs["FailureBucketName"]
        enabled = lambda on: lambdas.update_event_source_mapping(UUID=mapping["UUID"], Enabled=on)
        versioned = lambda on: s3.put_bucket_versioning(
            Bucket=bucket, VersioningConfiguration={"Status": "Enabled" if on else "Suspended"}
        )
        enabled(False)
        versioned(False)
        code, document = self.diagnosis()
        found = {(rule, resource.rsplit(".", 1)[-1]) for rule, resource, _ in self.unexpected(document)}
        expires = {("failure-objects-expire", "Changes"), ("failure-objects-expire", "Expiries")}
        check(
            f"doctor finds the mapping that is disabled and the bucket without versions {sorted(found)}",
            (code, found) == (1, {("mapping-disabled", "Changes")} | expires),
        )
        enabled(True)
        versioned(True)
        code, document = self.diagnosis()
        check("and nothing once they are as before", code == 0 and not self.unexpected(document))


def deploy_users(emulator, built, *parameters):
    """Deploys template.yaml with its samconfig.toml and these parameters."""
    config = os.path.join(ROOT, "samconfig.toml")
    overrides = ("--parameter-overrides", "Architecture=x86_64", *parameters)
    emulator.deploy(os.path.join(built, "template.yaml"), "--config-file", config, *overrides)


def compare(counts, local):
    """Checks that each task counted on the emulator what it counted on the local stack."""
    for (task, deployed), (_, expected) in zip(counts, local, strict=True):
        if deployed != expected:
            sys.exit(f"  FAILED  {task} counts {deployed} on the emulator and {expected} on the local stack")
    check(f"the counts of {len(counts)} tasks are those of the local stack", len(counts) == len(local))


def console(emulator, stack, tasks):
    """Opens the pages of the deployed stack's console."""
    options = ["--endpoint-url", emulator.url, "--region", REGION, "--console-port", "0"]
    with Program(*MILLRACE, "console", "--stack", stack, *options, env=emulator.credentials) as program:
        url = re.search(r"http://127\.0\.0\.1:\d+", program.wait_for("console of", 600))[0]

        def page(path):
            with urllib.request.urlopen(url + path, timeout=120) as response:
                return response.read().decode()

        shown = page("/key?" + urllib.parse.urlencode({"key": json.dumps(key(0))}))
        is_shown = "source: Orders" in shown and "Every replica is equal to the source." in shown
        check("the console of the stack shows a key in all stores", is_shown)
        runs = page("/tasks")
        names = re.findall(r'<a href="/tasks/runs/([^"]+)">', runs)
        check("and the executions of its state machine", len(names) == min(tasks, 20) and ">verify</a>" in runs)
        run = page(f"/tasks/runs/{names[0]}")
        check("and the report of one", "# reports/" in run and "dynamodb.equal" in run)
        check("and no form that starts a task", 'method="post"' not in runs)


def calls(emulator):
    """Checks that the calls of every role are checked, and that none is denied."""
    iam = emulator.client("iam")
    iam.create_user(UserName="stranger")
    stranger = iam.create_access_key(UserName="stranger")["AccessKey"]
    session = boto3.Session(stranger["AccessKeyId"], stranger["SecretAccessKey"], region_name=REGION)
    try:
        session.client("dynamodb", endpoint_url=emulator.url).scan(TableName="Orders")
        error = None
    except ClientError as denied:
        error = denied.response["Error"]["Code"]
    check("a caller without permissions is denied", error == "AccessDeniedException")
    checked = [call for call in emulator.checked_calls() if ":assumed-role/" in call["caller"]]
    denied = "".join(f"\n{call}" for call in checked if call["denied"])
    check(f"none of the {len(checked)} calls of the functions is denied{denied}", not denied)
    made = {(role, call["action"]) for call in checked for role in ROLES if f"-{role}-" in call["caller"]}
    for role, actions in ROLES.items():
        missing = [action for action in actions if (role, action) not in made]
        check(f"among them those of {role}{''.join(missing)}", not missing)


def main():
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        built = os.path.join(folder, "built")
        os.makedirs(built)
        built_functions(built)
        # SAM packages every nested template.
        shutil.copytree(os.path.join(ROOT, "infra"), os.path.join(built, "infra"))
        for template in (os.path.join("infra", "replication.yaml"), "template.yaml"):
            built_template(built, template)
        local = local_counts(folder)
        with Emulator(folder) as emulator:
            story = attach(emulator, folder, built)
            story.follow()
            compare(story.counts, local)
            console(emulator, "orders-replication", len(story.counts))
            deploy_users(emulator, built)
            users = UsersStory(emulator, "millrace")
            users.change(built, *users.follow())
            DoctorStory(emulator).follow()
            users.delete()
            calls(emulator)
    print(f"  took    {time.monotonic() - started:.0f} s, built")


if __name__ == "__main__":
    sys.exit(main())
