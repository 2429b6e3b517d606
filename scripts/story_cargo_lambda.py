#!/usr/bin/env python3
"""The functions as processes, served by `cargo lambda watch` and fed by `local`; and one event sent by hand."""

import json
import os
import socket
import sys
import urllib.error
import urllib.request

from story import ROOT, Local, Program, check, eventually

ENV_FILE = os.path.join("target", "story.env")
BIN = os.path.join(ROOT, ".venv", "bin")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=600) as answer:
            return answer.status, answer.read()
    except (urllib.error.URLError, ConnectionError):
        return None


def main():
    port = free_port()
    served = f"http://127.0.0.1:{port}"
    path = {"PATH": BIN + os.pathsep + os.environ["PATH"]}
    where = ["--invoke-address", "127.0.0.1", "--invoke-port", port]
    with Local("--functions", served, "--env-file", ENV_FILE) as local:
        watch = ["cargo", "lambda", "watch", "--ignore-changes", "--env-file", ENV_FILE, *where]
        with Program(*watch, env=path) as watching:
            eventually("cargo lambda watch serves the API by its path", lambda: get(f"{served}/health"), 900)

            user = {"user_id": "edsger", "timestamp": 1700000000, "name": "Edsger Dijkstra", "email": "e@example.com"}
            request = urllib.request.Request(
                f"{local.api}/users", json.dumps(user).encode(), {"content-type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                check("local hands the API's requests on to it", answer.status == 201)

            def replica(user_id, timestamp):
                key = {"user_id": {"S": user_id}, "timestamp": {"N": timestamp}}
                return local.dynamodb.get_item(TableName="UsersReplica", Key=key, ConsistentRead=True).get("Item")

            # The replicator is compiled at its first batch.
            eventually("and stream batches to the replicator", lambda: replica("edsger", "1700000000"), 900)

            event = os.path.join("events", "user-renamed.json")
            invoke = ["cargo", "lambda", "invoke", "replicator", "--data-file", event, *where]
            with Program(*invoke, env=path) as invoking:
                invoking.process.wait(120)
            answer = "".join(invoking.lines)
            if invoking.process.returncode != 0:
                watching.fail(f"the replicator answered {answer}")
            check("cargo lambda invoke sends an event of events/", json.loads(answer) == {"batchItemFailures": []})
            renamed = replica("ada", "1795334400")
            check("whose change the replica holds", renamed["name"] == {"S": "Ada King"})


if __name__ == "__main__":
    sys.exit(main())
