#!/usr/bin/env python3
"""Runs the functions as processes of `cargo lambda watch` with `millrace`, and invokes one event and tasks directly."""

import json
import os
import socket
import sys
import urllib.error
import urllib.request

from story import FEATURES, ROOT, Local, Program, check, eventually

ENV_FILE = os.path.join("target", "story.env")
BIN = os.path.join(ROOT, ".venv", "bin")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=600) as response:
            return response.status, response.read()
    except (urllib.error.URLError, ConnectionError):
        return None


def main():
    port = free_port()
    served = f"http://127.0.0.1:{port}"
    path = {"PATH": BIN + os.pathsep + os.environ["PATH"]}
    where = ["--invoke-address", "127.0.0.1", "--invoke-port", port]
    with Local("--lambda-endpoint", served, "--env-file", ENV_FILE) as local:
        watch = ["cargo", "lambda", "watch", "--ignore-changes", *FEATURES, "--env-file", ENV_FILE, *where]
        with Program(*watch, env=path) as watching:
            eventually("cargo lambda watch serves the API by its path", lambda: get(f"{served}/health"), 900)

            user = {"user_id": "edsger", "timestamp": 1700000000, "name": "Edsger Dijkstra", "email": "e@example.com"}
            request = urllib.request.Request(
                f"{local.api}/users", json.dumps(user).encode(), {"content-type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=60) as response:
                check("local hands the API's requests on to it", response.status == 201)

            def replica(user_id, timestamp):
                key = {"user_id": {"S": user_id}, "timestamp": {"N": timestamp}}
                return local.dynamodb.get_item(TableName="UsersReplica", Key=key, ConsistentRead=True).get("Item")

            # The replicator is compiled on its first batch.
            eventually("and stream batches to the replicator", lambda: replica("edsger", "1700000000"), 900)

            def invoked(function, event):
                data = os.path.join("events", f"{event}.json")
                # A function is compiled on its first invocation.
                with Program("cargo", "lambda", "invoke", function, "--data-file", data, *where, env=path) as invoking:
                    response = invoking.output(900)
                if invoking.process.returncode != 0:
                    watching.fail(f"{function} answered {response}")
                return json.loads(response)

            response = invoked("replicator", "user-renamed")
            check("cargo lambda invoke sends an event of events/", response == {"batchItemFailures": []})
            renamed = replica("ada", "1795334400")
            check("whose change the replica holds", renamed["name"] == {"S": "Ada King"})

            found = invoked("maintenance", "task-verify")
            check("maintenance goes about a task of events/", found["task"] == "verify" and found["done"])
            # The event was invoked directly, so the source has no user ada.
            counts = {"source.items": 1, "dynamodb.items": 2, "dynamodb.equal": 1, "dynamodb.resurrected": 1}
            check("and finds what was never in the source", found["progress"] == counts)
            filled = invoked("maintenance", "task-backfill")
            check("a backfill knows the mappings from local", filled["progress"] == {"source.items": 1, "dynamodb.skipped": 1})


if __name__ == "__main__":
    sys.exit(main())
