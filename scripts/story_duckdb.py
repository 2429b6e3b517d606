#!/usr/bin/env python3
"""Queries the archive's files with DuckDB: as the archiver wrote them, after a compaction, with both layouts present,
and as Parquet. Then follows one item through two expirations and queries its archive rows after each.

It reads the buckets in the folder of `millrace --data` with the views of docs/archive.md, and checks each time that the
number of rows and the sums are the same.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from decimal import Decimal

import duckdb
from story import MILLRACE, ROOT, Local, check, eventually

USERS = 40
BUCKET = "users-archive"


def view(folder):
    """Returns DuckDB with the documentation's view of the raw rows, over the layouts that exist."""
    sql = documented(r"^CREATE VIEW expired_items_raw AS$.*?;$")
    there = [
        f"'{folder}/{pattern}'"
        for pattern in re.findall(r"'((?:archive|compacted)/[^']*)'", sql)
        if os.path.isdir(os.path.join(folder, pattern.split("/")[0], "Users"))
        and any(files for _, _, files in os.walk(os.path.join(folder, pattern.split("/")[0], "Users")))
    ]
    sql = re.sub(r"\['archive/.*?\]", "[" + ", ".join(there) + "]", sql, flags=re.DOTALL)
    connection = duckdb.connect()
    connection.execute(sql)
    return connection


def documented(pattern):
    """Returns a statement of docs/archive.md."""
    with open(os.path.join(ROOT, "docs", "archive.md"), encoding="utf-8") as page:
        return re.search(pattern, page.read(), re.MULTILINE | re.DOTALL)[0]


def columns(folder):
    """Returns DuckDB with the documentation's view of the Parquet files."""
    connection = duckdb.connect()
    sql = documented(r"^CREATE VIEW expired_items AS$.*?;$")
    connection.execute(sql.replace("'parquet/", f"'{folder}/parquet/"))
    return connection


def facts_in_columns(folder):
    """Returns the same as `facts`, from the Parquet files."""
    return columns(folder).execute(
        """SELECT count(*), count(DISTINCT user_id), sum(CAST(item ->> '$.score.N' AS DECIMAL(20, 2))) FROM expired_items"""
    ).fetchone()


def facts(folder):
    """Returns the number of rows, the number of users, and the sum of the scores."""
    return view(folder).execute(
        """SELECT count(*), count(DISTINCT Item ->> '$.user_id.S'), sum(CAST(Item ->> '$.score.N' AS DECIMAL(20, 2)))
           FROM expired_items_raw"""
    ).fetchone()


def task(local, order):
    """Runs a maintenance task against the running `millrace`."""
    ports = [part for option, port in local.ports.items() for part in (option, port)]
    command = [*MILLRACE, "task", "--request", json.dumps(order), *ports]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"  FAILED  {order}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def expire(local, users, score):
    """Puts users that have already expired, and waits until all of them are archived."""
    before = rows(local)
    for user in users:
        local.dynamodb.put_item(
            TableName="Users",
            Item={
                "user_id": {"S": f"user-{user:03}"},
                "timestamp": {"N": "1700000000"},
                "name": {"S": "Expired"},
                "score": {"N": score},
                "expires_at": {"N": str(int(time.time()) - 60)},
            },
        )
    eventually(f"{len(users)} expired users are archived", lambda: rows(local) >= before + len(users))


def rows(local):
    """Returns the number of rows in the objects of both layouts, according to their metadata."""
    count = 0
    for prefix in ("archive/", "compacted/"):
        for stored in local.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", []):
            count += int(local.s3.head_object(Bucket=BUCKET, Key=stored["Key"])["Metadata"]["rows"])
    return count


def main():
    with tempfile.TemporaryDirectory() as data, Local("--data", data) as local:
        folder = os.path.join(data, "s3", BUCKET)
        expire(local, range(USERS), "0.25")
        as_it_lies = facts(folder)
        check("DuckDB counts the archive as it lies", as_it_lies[:2] == (USERS, USERS) and as_it_lies[2] == USERS / 4)

        task(local, {"task": "compact", "to": "2999-01-01T00:00:00Z"})
        layout = local.s3.list_objects_v2(Bucket=BUCKET, Prefix="archive/").get("KeyCount", 0)
        check("a compaction leaves nothing in the archiver's layout", layout == 0)
        check("DuckDB counts the same after it", facts(folder) == as_it_lies)
        task(local, {"task": "export-parquet", "to": "2999-01-01T00:00:00Z"})
        check("and the same of its Parquet files", facts_in_columns(folder) == as_it_lies)

        expire(local, range(10), "1.00")
        both = facts(folder)
        check("of both layouts it reads each row once", both == (USERS + 10, USERS, as_it_lies[2] + 10))
        copies = local.s3.list_objects_v2(Bucket=BUCKET, Prefix="superseded/archive/")["Contents"]
        for stored in copies:
            key = stored["Key"].removeprefix("superseded/")
            local.s3.copy_object(Bucket=BUCKET, Key=key, CopySource={"Bucket": BUCKET, "Key": stored["Key"]})
        check("what an archiver writes again is not counted again", facts(folder) == both)
        task(local, {"task": "compact", "to": "2999-01-01T00:00:00Z"})
        task(local, {"task": "export-parquet", "to": "2999-01-01T00:00:00Z"})
        check("the Parquet files contain the same once that is merged", facts_in_columns(folder) == both == facts(folder))

        found = task(local, {"task": "audit"})
        check("an audit finds a row for all that the replica remembers", "missing" not in found)
        task(local, {"task": "restore", "user_id": "user-003", "expires_in_seconds": 3600, "dry_run": False})
        key = {"user_id": {"S": "user-003"}, "timestamp": {"N": "1700000000"}}
        restored = local.dynamodb.get_item(TableName="Users", Key=key, ConsistentRead=True)["Item"]
        check("a restore brings the latest row back", restored["score"]["N"] == "1.00" or restored["score"]["N"] == "1")
        eventually(
            "which reaches the replica",
            lambda: "name" in local.dynamodb.get_item(TableName="UsersReplica", Key=key).get("Item", {}),
        )
        life(local, folder)
        numbers(local, folder)


# Numbers that DynamoDB accepts as a key, each with its value as a 64-bit integer if it has one.
NUMBERS = {
    "12345678901234567890123456789012345678": None,
    "1E+38": None,
    "1E+125": None,
    "-1E+125": None,
    "1E-130": None,
    "-7": -7,
    "1.5": None,
    "1.6": None,
    "9223372036854775807": 9223372036854775807,
    "9223372036854775808": None,
}


def numbers(local, folder):
    """Checks that keys of every size are exact when archived, queried (in each format), exported and restored."""
    for number in NUMBERS:
        item = {
            "user_id": {"S": "numbers"},
            "timestamp": {"N": number},
            "name": {"S": number},
            "expires_at": {"N": str(int(time.time()) - 60)},
        }
        local.dynamodb.put_item(TableName="Users", Item=item)
    # The columns in each of the documentation's views: the number that was put, and the key as text and as typed
    # column.
    exact = {number: (Decimal(number), typed) for number, typed in NUMBERS.items()}
    known = lambda connection, view, name, text, typed: {
        put: (Decimal(text), typed)
        for put, text, typed in connection.execute(
            f"SELECT {name}, {text}, {typed} FROM {view} WHERE user_id = 'numbers'"
        ).fetchall()
    }
    lines = lambda: known(view(folder), "expired_items_raw", "Item ->> '$.name.S'", "timestamp_text", "timestamp")
    typed = lambda column: known(columns(folder), "expired_items", "name", "sort_key", column)
    eventually("keys of every size are archived, and DuckDB reads them exactly", lambda: lines() == exact)
    for order in ("compact", "export-parquet"):
        task(local, {"task": order, "to": "2999-01-01T00:00:00Z"})
    check("the same once they are compacted", lines() == exact)
    check("and as Parquet", typed("timestamp") == exact == typed("sort_key_integer"))

    task(local, {"task": "export-import-table", "run_id": "numbers"})
    objects = local.s3.list_objects_v2(Bucket=BUCKET, Prefix="export/numbers/data/")["Contents"]
    files = [os.path.join(folder, stored["Key"]) for stored in objects]
    exported = duckdb.connect().execute(
        """SELECT Item ->> '$.name.S', Item ->> '$.timestamp.N'
           FROM read_json(?, format = 'newline_delimited', columns = {Item: 'JSON'})
           WHERE Item ->> '$.user_id.S' = 'numbers'""",
        [files],
    )
    check("an export has them", {name: Decimal(text) for name, text in exported.fetchall()} == {n: Decimal(n) for n in NUMBERS})

    task(local, {"task": "restore", "user_id": "numbers", "expires_in_seconds": 3600, "dry_run": False})
    restored = local.dynamodb.query(
        TableName="Users",
        KeyConditionExpression="user_id = :user",
        ExpressionAttributeValues={":user": {"S": "numbers"}},
        ConsistentRead=True,
    )["Items"]
    found = {item["name"]["S"]: Decimal(item["timestamp"]["N"]) for item in restored}
    check("and a restore brings them back under their keys", found == {n: Decimal(n) for n in NUMBERS})
    found = task(local, {"task": "audit"})
    check("an audit finds their rows", "missing" not in found)


def ends(folder):
    """Returns the name and version in each of Ada's archive rows, and the version in the latest of them."""
    known = columns(folder)
    rows = "SELECT name, version FROM expired_items WHERE user_id = 'ada' ORDER BY revision_bytes"
    latest = "SELECT arg_max(version, revision_bytes) FROM expired_items WHERE user_id = 'ada' GROUP BY key"
    return known.execute(rows).fetchall(), known.execute(latest).fetchone()


def life(local, folder):
    """Follows an item that is created, archived on expiry, compacted, queried, restored, and expires again."""
    key = {"user_id": {"S": "ada"}, "timestamp": {"N": "1700000000"}}
    replica = lambda: local.dynamodb.get_item(TableName="UsersReplica", Key=key).get("Item", {})
    merge = [{"task": name, "to": "2999-01-01T00:00:00Z"} for name in ("compact", "export-parquet")]

    ada = {**key, "name": {"S": "Ada Lovelace"}, "version": {"N": "7"}, "expires_at": {"N": str(int(time.time()) + 3)}}
    local.dynamodb.put_item(TableName="Users", Item=ada)
    eventually("Ada is created, and replicated", lambda: "name" in replica())
    eventually("she expires, and the replica knows why", lambda: "_deleted_by_ttl" in replica())
    eventually("she is archived", lambda: view(folder).execute(
        "SELECT count(*) FROM expired_items_raw WHERE Item ->> '$.user_id.S' = 'ada'").fetchone() == (1,))
    for order in merge:
        task(local, order)
    check("DuckDB finds her end", ends(folder) == ([("Ada Lovelace", 7)], (7,)))

    task(local, {"task": "restore", "user_id": "ada", "expires_in_seconds": 3, "dry_run": False})
    eventually("she is brought back, and her replica lives again", lambda: "name" in replica())
    version = int(replica()["version"]["N"])
    eventually("she expires again", lambda: "_deleted_by_ttl" in replica())
    eventually("which is a second row", lambda: view(folder).execute(
        "SELECT count(*) FROM expired_items_raw WHERE Item ->> '$.user_id.S' = 'ada'").fetchone() == (2,))
    for order in merge:
        task(local, order)
    check("and DuckDB finds both her ends", ends(folder) == ([("Ada Lovelace", 7), ("Ada Lovelace", version)], (version,)))


if __name__ == "__main__":
    sys.exit(main())
