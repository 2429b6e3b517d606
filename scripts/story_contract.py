#!/usr/bin/env python3
"""Checks the API against its OpenAPI document, with tokens: the examples are valid, schemathesis finds no difference
between the document and the API, and a generated client creates, reads, changes and deletes users."""

import json
import os
import re
import subprocess
import sys

import jsonschema_rs

from story import ROOT, Local, check, eventually

BIN = os.path.join(ROOT, ".venv-contract", "bin")
CONTRACT = os.path.join(ROOT, "functions", "api", "openapi.json")
CLIENT = os.path.join(ROOT, "target", "contract", "millrace_client")
CASES = 2_000


def examples_are_valid(contract):
    """Validates every example against the schema next to it."""
    found = 0

    def walk(node):
        nonlocal found
        if isinstance(node, dict):
            if "example" in node:
                schema = {**node.get("schema", node), "components": contract["components"]}
                jsonschema_rs.validator_for(schema).validate(node["example"])
                found += 1
            for child in node.values():
                walk(child)
        elif isinstance(node, list):
            for child in node:
                walk(child)

    walk(contract)
    check(f"the contract's {found} examples are valid", found >= 5)


def schemathesis_finds_nothing(local, token):
    command = [
        os.path.join(BIN, "schemathesis"),
        *("--config-file", os.path.join(ROOT, "scripts", "schemathesis.toml")),
        *("run", CONTRACT, "--url", local.api, "--workers", "2"),
    ]
    environment = {**os.environ, "TOKEN": token, "PYTHONPATH": os.path.join(ROOT, "scripts")}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    cases = re.search(r"(\d+) generated", run.stdout)
    if run.returncode != 0 or cases is None:
        sys.exit(f"schemathesis: exit code {run.returncode}\n{run.stdout}\n{run.stderr}")
    check("the token opens every operation to schemathesis", "Authentication failed" not in run.stdout)
    check(f"schemathesis has no objection in {cases[1]} cases", int(cases[1]) >= CASES)


def a_generated_client_works(local, token):
    generate = ["generate", "--path", CONTRACT, "--output-path", CLIENT, "--meta", "none", "--overwrite"]
    os.makedirs(os.path.dirname(CLIENT), exist_ok=True)
    path = {"PATH": BIN + os.pathsep + os.environ["PATH"]}
    command = [os.path.join(BIN, "openapi-python-client"), *generate]
    run = subprocess.run(command, cwd=ROOT, env={**os.environ, **path}, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {run.returncode}\n{run.stdout}{run.stderr}")
    sys.path.insert(0, os.path.dirname(CLIENT))
    from millrace_client import AuthenticatedClient
    from millrace_client.api.users import (
        batch_get_users,
        create_user,
        delete_user,
        get_latest_user,
        get_user,
        list_user_history,
        replace_user,
        update_user,
    )
    from millrace_client.api.search import get_user_summary
    from millrace_client.models import BatchGetUsersRequest, CreateUserRequest, Key, Patch, Replacement

    with AuthenticatedClient(base_url=local.api, token=token) as client:
        key = {"user_id": "ada", "timestamp": 1_700_000_000}
        draft = CreateUserRequest.from_dict({**key, "name": "Ada Lovelace", "attributes": {"plan": "team"}})
        created = create_user.sync_detailed(client=client, body=draft, idempotency_key="8e03978e-40d5")
        check("a generated client creates", created.status_code == 201)
        again = create_user.sync_detailed(client=client, body=draft, idempotency_key="8e03978e-40d5")
        check("once, however often it asks", again.content == created.content)

        read = get_user.sync_detailed(client=client, **key)
        check("reads what it wrote", read.parsed.user.name == "Ada Lovelace")
        tag = read.headers["etag"]
        unmodified = get_user.sync_detailed(client=client, **key, if_none_match=tag)
        check("and is told when nothing is new", unmodified.status_code == 304)

        patch = Patch.from_dict({"name": "Ada King", "attributes": {"plan": None, "seats": 2}})
        patched = update_user.sync_detailed(client=client, **key, body=patch, if_match=tag)
        check("patches", patched.parsed.user.attributes.to_dict() == {"seats": 2})
        stale = replace_user.sync_detailed(client=client, **key, body=Replacement(name="Eve"), if_match=tag)
        check("cannot lose an update", (stale.status_code, stale.parsed.status) == (412, 412))
        replaced = replace_user.sync_detailed(client=client, **key, body=Replacement(name="Ada"))
        check("replaces", replaced.status_code == 200)

        listed = list_user_history.sync(client=client, user_id="ada", limit=1)
        check("lists", [user.name for user in listed.users] == ["Ada"])
        wanted = BatchGetUsersRequest(keys=[Key(**key), Key(user_id="eve", timestamp=1)])
        batch = batch_get_users.sync(client=client, body=wanted)
        check("reads a batch", (len(batch.users), batch.missing[0].user_id) == (1, "eve"))

        latest = get_latest_user.sync(client=client, user_id="ada")
        check("reads the latest record of a user", latest.user.name == "Ada")

        def summary(status):
            found = get_user_summary.sync_detailed(client=client, user_id="ada")
            return found if found.status_code == status else None

        arrived = eventually("reads the summary of a user once the record is replicated", lambda: summary(200))
        check("with the number of records", arrived.parsed.records == 1)

        deleted = delete_user.sync_detailed(client=client, **key)
        gone = get_user.sync_detailed(client=client, **key)
        check("and deletes", (deleted.status_code, gone.status_code) == (204, 404))
        gone_latest = get_latest_user.sync_detailed(client=client, user_id="ada")
        check("the user then has no latest record", gone_latest.status_code == 404)
        eventually("nor a summary once the removal is replicated", lambda: summary(404))
        check("a failure is a problem with a type", gone.parsed.type_ == "urn:millrace:problem:not-found")


def main():
    with open(CONTRACT, encoding="utf-8") as file:
        contract = json.load(file)
    examples_are_valid(contract)
    with Local("--auth", "jwt", "--postgres", "auto", "--cache", "auto") as local:
        token = re.search(r"ADMIN=(\S+)", "".join(local.lines))[1]
        a_generated_client_works(local, token)
        schemathesis_finds_nothing(local, token)


if __name__ == "__main__":
    sys.exit(main())
