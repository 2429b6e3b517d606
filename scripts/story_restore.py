#!/usr/bin/env python3
"""Runs the commands of "The restore on one machine" in docs/operations.md, as they are written there: a system with a replica,
an archive and PostgreSQL is backed up, damaged and lost, restored from the backup, and verified.

Only the ports differ: the default ones may be in use. `millrace` is the one that cargo builds. `aws` is a replacement for
the AWS CLI, which calls boto3 with the options of the command.
"""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time

import boto3
from botocore import xform_name
from story import ROOT, Local, Program, check

DOCUMENT = os.path.join(ROOT, "docs", "operations.md")
HEADING = "#### The restore on one machine"
PORTS = {"--port": 8080, "--dynamodb-port": 8000, "--s3-port": 8001}
ENDED = "the drill has ended"
USERS = {"ada", "bob", "cleo"}


def commands():
    """Returns the commands of the drill."""
    with open(DOCUMENT, encoding="utf-8") as file:
        (_, rest) = file.read().split(f"\n{HEADING}\n")
    blocks = re.findall(r"```sh\n(.*?)```", rest.split("\n**Check.** ")[0], re.DOTALL)
    if not blocks:
        sys.exit(f"  FAILED  {HEADING} of docs/operations.md has commands")
    return "".join(blocks)


def free_ports():
    """Returns a free port for each option."""
    listeners = {option: socket.create_server(("127.0.0.1", 0)) for option in PORTS}
    ports = {option: listener.getsockname()[1] for option, listener in listeners.items()}
    for listener in listeners.values():
        listener.close()
    return ports


def millrace(ports):
    """Returns a program that runs `millrace` with these ports, from any folder.

    Another stack has built it. Cargo would build it again in another folder, without the settings of .cargo/config.toml.
    """
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    command = shlex.quote(os.path.join(os.path.abspath(target), "debug", "millrace"))
    options = " ".join(f"{option} {port}" for option, port in ports.items())
    up = 'if [ "$command" = up ]; then set -- --console-port 0 "$@"; fi'
    return f'#!/bin/sh\ncommand=$1\nshift\n{up}\nexec {command} "$command" "$@" {options}\n'


def write_program(folder, name, text):
    """Writes a program that the commands call."""
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, 0o755)


def aws(service, operation, *options):
    """Calls an operation as the AWS CLI does, and prints its result: `--table-name Users`, and switches without a value."""
    client = boto3.client(service)
    arguments, names = {}, list(options)
    while names:
        name = "".join(part.capitalize() for part in names.pop(0).removeprefix("--").split("-"))
        arguments[name] = True if not names or names[0].startswith("--") else names.pop(0)
    if arguments.pop("Output") != "json":
        sys.exit("only --output json is supported")
    name = xform_name(operation.title().replace("-", ""))
    pages = client.get_paginator(name).paginate(**arguments) if client.can_paginate(name) else [getattr(client, name)(**arguments)]
    result = {}
    for page in pages:
        page.pop("ResponseMetadata")
        for member, value in page.items():
            result[member] = result[member] + value if isinstance(result.get(member), list) else value
    print(json.dumps(result))


def main():
    started = time.monotonic()
    ports = free_ports()
    script = commands()
    for option, usual in PORTS.items():
        script = script.replace(f"http://127.0.0.1:{usual}", f"http://127.0.0.1:{ports[option]}")
    with tempfile.TemporaryDirectory() as folder:
        programs = os.path.join(folder, "programs")
        os.mkdir(programs)
        # `millrace up` searches the template there.
        for name in ("template.yaml", "infra"):
            os.symlink(os.path.join(ROOT, name), os.path.join(folder, name))
        write_program(programs, "millrace", millrace(ports))
        call = shlex.join([sys.executable, os.path.abspath(__file__), "aws"])
        write_program(programs, "aws", f'#!/bin/sh\nexec {call} "$@"\n')
        full = f"set -euo pipefail\ncd {shlex.quote(folder)}\n{script}\necho {ENDED}\nwait\n"
        # Another stack lends its PostgreSQL server.
        with Local("--postgres", "auto") as lender:
            (url,) = re.findall(r"^  PostgreSQL +(postgres://\S+)$", "".join(lender.lines), re.MULTILINE)
            user, server = re.fullmatch(r"postgres://(\w+)@([^/]+)/\w+", url).groups()
            create = f"create database rehearsal owner {user}"
            subprocess.run(["psql", "--quiet", f"postgres://postgres@{server}/postgres", "--command", create], check=True)
            env = {"PATH": f"{programs}:{os.environ['PATH']}", "database": f"postgres://{user}@{server}/rehearsal"}
            with Program("bash", "-c", full, env=env) as drill:
                follow(drill.wait_for(f"^({ENDED})$", 300), ports["--dynamodb-port"])
    print(f"  took    {time.monotonic() - started:.0f} s, built")


def follow(printed, port):
    """Checks what the commands have printed, and what they leave."""
    check("the commands of the drill succeed", True)
    endpoint = f"http://127.0.0.1:{port}"
    dynamodb = boto3.client("dynamodb", "us-east-1", endpoint_url=endpoint, aws_access_key_id="any", aws_secret_access_key="any")
    items = lambda table: dynamodb.scan(TableName=table, ConsistentRead=True)["Items"]
    check("the table has the users of the backup", {item["user_id"]["S"] for item in items("Users")} == USERS)
    live = {item["user_id"]["S"] for item in items("UsersReplica") if "_tombstone_expires_at" not in item}
    check("so has the replica", live == USERS)
    (before, verified) = printed.rsplit("\nverify ", 1)
    counts = dict(re.findall(r"^  ([\w.]+) +(\d+)$", verified, re.MULTILINE))
    check("repair and redrive have run", "\nrepair " in before and "\nredrive " in before)
    equal = {name: count for name, count in counts.items() if not name.startswith("restore.")}
    names = ("dynamodb.equal", "dynamodb.items", "postgres.equal", "postgres.items", "source.items")
    check("verify finds the replica and PostgreSQL equal to the table", equal == dict.fromkeys(names, "3"))
    check("the archive has the expired user", counts["restore.would_restore"] == "1")


if __name__ == "__main__":
    sys.exit(aws(*sys.argv[2:]) if sys.argv[1:2] == ["aws"] else main())
