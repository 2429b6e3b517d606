#!/usr/bin/env python3
"""Reads the archive with DuckDB: creates two users that expire, waits until they are archived, and queries the files.

Requires a running `millrace` with a data folder and the Python package duckdb, which scripts/tools installs in .venv:

    cargo run -- --data .millrace
    .venv/bin/python examples/archive_duckdb.py
"""

import argparse
import glob
import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
import uuid

import duckdb

EXAMPLES = os.path.dirname(os.path.abspath(__file__))
ARCHIVED_WITHIN_SECONDS = 60


def create_expiring_user(api, name, status, seats):
    """Creates a user that expires in two seconds and returns its ID."""
    user = {
        "user_id": f"expiring-{uuid.uuid4()}",
        "name": name,
        "status": status,
        "attributes": {"seats": seats},
        "expires_at": int(time.time()) + 2,
    }
    request = urllib.request.Request(
        f"{api}/users", json.dumps(user).encode(), {"content-type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)["user"]["user_id"]
    except urllib.error.HTTPError as error:
        sys.exit(f"error: POST {api}/users: {error.code}: {error.read().decode()}")
    except urllib.error.URLError as error:
        sys.exit(f"error: cannot reach {api}: {error.reason}; start it with cargo run -- --data .millrace, or set "
                 "--api")


def statements(file_name):
    """Returns each statement of an SQL file, with its title if it is a query whose result is printed."""
    with open(os.path.join(EXAMPLES, file_name), encoding="utf-8") as file:
        texts = file.read().split(";\n")
    titles = [re.search(r"^-- Title: (.*)$", text, re.MULTILINE) for text in texts]
    return [(title and title[1], text) for title, text in zip(titles, texts) if text.strip()]


def define_views(connection, file_name):
    """Runs the statements that have no title."""
    for title, statement in statements(file_name):
        if not title:
            connection.execute(statement)


def print_queries(connection, file_name):
    """Runs the statements that have a title and prints their rows."""
    for title, statement in statements(file_name):
        if title:
            result = connection.execute(statement)
            names = [column[0] for column in result.description]
            print(f"{title}:")
            for row in result.fetchall():
                print("  " + ", ".join(f"{name}={value}" for name, value in zip(names, row)))


def wait_until_archived(connection, bucket, user_ids):
    """Returns when a row of every user is in the archive."""
    deadline = time.monotonic() + ARCHIVED_WITHIN_SECONDS
    missing = set(user_ids)
    while missing:
        if time.monotonic() > deadline:
            sys.exit(f"error: not archived within {ARCHIVED_WITHIN_SECONDS} s: {', '.join(sorted(missing))}; is --bucket "
                     f"{bucket} the folder of the stack that --api names?")
        time.sleep(0.5)
        # read_json fails if no file matches.
        if glob.glob(os.path.join(bucket, "archive", "Users", "*", "*", "*.ndjson.zst")):
            define_views(connection, "archive.sql")
            archived = connection.execute("SELECT DISTINCT user_id FROM expired_items_raw").fetchall()
            missing -= {user_id for (user_id,) in archived}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--api", default="http://127.0.0.1:8080", help="the API's URL (default: %(default)s)")
    parser.add_argument(
        "--bucket", default=".millrace/s3/users-archive", help="the archive bucket's folder (default: %(default)s)"
    )
    options = parser.parse_args()

    if not os.path.isdir(options.bucket):
        sys.exit(f"error: --bucket {options.bucket}: no such folder; start the stack with cargo run -- --data "
                 ".millrace, or name the folder users-archive below its --data folder")
    connection = duckdb.connect()
    connection.execute("SET VARIABLE bucket = ?", [options.bucket])
    user_ids = [
        create_expiring_user(options.api, "Ada Lovelace", "active", 12),
        create_expiring_user(options.api, "Alan Turing", "on leave", 3),
    ]
    print(f"created {len(user_ids)} users that expire in 2 s")
    wait_until_archived(connection, options.bucket, user_ids)
    print("both are archived")
    print_queries(connection, "archive.sql")

    if glob.glob(os.path.join(options.bucket, "parquet", "Users", "*", "*.parquet")):
        define_views(connection, "archive_parquet.sql")
        print_queries(connection, "archive_parquet.sql")
    else:
        print("no Parquet files: run the tasks compact and export-parquet to create them")


if __name__ == "__main__":
    main()
