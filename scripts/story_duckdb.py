#!/usr/bin/env python3
"""Queries the archive's files with DuckDB: as the archiver wrote them, after a compaction, with both layouts present,
and as Parquet. Then follows one item through two expirations and queries its archive rows after each. Last, it
queries the columns that a replication document declares for a table of another shape.

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
from datetime import date, datetime, timezone
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


def columns(folder, table="Users"):
    """Returns DuckDB with the documentation's view of the Parquet files."""
    connection = duckdb.connect()
    sql = documented(r"^CREATE VIEW expired_items AS$.*?;$")
    connection.execute(sql.replace("'parquet/Users/", f"'{folder}/parquet/{table}/"))
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
    declared_columns()


# The columns of a table with another key, one of each type, as a replication document declares them.
DOCUMENT = {
    "version": 1,
    "replicas": [{"name": "archive", "sink": "archive", "records": "expired"}],
    "columns": {
        "city": {"path": "address.city", "type": "text"},
        "amount": {"path": "total", "type": "numeric"},
        "quantity": {"path": "lines[0].count", "type": "bigint"},
        "paid": {"path": "paid", "type": "boolean"},
        "placed_at": {"path": "placedAt", "type": "timestamptz"},
        "ends_at": {"path": "ttl", "type": "timestamptz", "format": "epoch_seconds"},
        "due": {"path": "due", "type": "date"},
        "address": {"path": "address", "type": "jsonb"},
        "digest": {"path": "digest", "type": "bytea"},
        "tags": {"path": "tags", "type": "text[]"},
        "prices": {"path": "prices", "type": "numeric[]"},
    },
}
TYPES = {
    "city": "VARCHAR",
    "amount": "VARCHAR",
    "quantity": "BIGINT",
    "paid": "BOOLEAN",
    "placed_at": "TIMESTAMP WITH TIME ZONE",
    "ends_at": "TIMESTAMP WITH TIME ZONE",
    "due": "DATE",
    "address": "VARCHAR",
    "digest": "BLOB",
    "tags": "VARCHAR[]",
    "prices": "VARCHAR[]",
}
FITS = {
    "address": {"M": {"city": {"S": "Łódź"}}},
    "total": {"N": "12345678901234567890123456789012345.678"},
    "lines": {"L": [{"M": {"count": {"N": "9223372036854775807"}}}]},
    "paid": {"BOOL": True},
    "placedAt": {"S": "2026-11-22T10:00:00.123456+02:00"},
    "due": {"S": "2026-11-30"},
    "digest": {"B": b"\x00\xff"},
    "tags": {"SS": ["new", "gift"]},
    "prices": {"L": [{"N": "2.50"}, {"N": "1E+2"}]},
}
# Only the JSON column and the expiry fit.
DOES_NOT_FIT = {
    "address": {"M": {"city": {"N": "7"}}},
    "total": {"S": "7"},
    "lines": {"L": [{"M": {"count": {"N": "0.5"}}}]},
    "paid": {"S": "true"},
    "placedAt": {"S": "soon"},
    "due": {"S": "2026-02-30"},
    "digest": {"S": "x"},
    "tags": {"NS": ["1"]},
    "prices": {"SS": ["1"]},
}


def declared_columns():
    """Checks that DuckDB reads a declared column of each type exactly, and null for what does not fit."""
    table = ("--table", os.path.join("examples", "orders-table.json"), "--ttl-attribute", "ttl")
    document = ("--parameter", "Archive=in-replicator", "--parameter", f"Replication={json.dumps(DOCUMENT)}")
    with tempfile.TemporaryDirectory() as data, Local("--data", data, *table, *document) as local:
        ends_at = int(time.time()) - 60
        for number, item in enumerate((FITS, DOES_NOT_FIT, {})):
            key = {"pk": {"S": "customer-1"}, "sk": {"N": str(number)}, "ttl": {"N": str(ends_at)}}
            local.dynamodb.put_item(TableName="Orders", Item={**key, **item})
        bucket = "orders-archive"
        stored = lambda: local.s3.list_objects_v2(Bucket=bucket, Prefix="archive/Orders/").get("Contents", [])
        count = lambda: sum(int(local.s3.head_object(Bucket=bucket, Key=one["Key"])["Metadata"]["rows"]) for one in stored())
        eventually("3 expired orders are archived by the replicator", lambda: count() == 3)
        task(local, {"task": "compact", "to": "2999-01-01T00:00:00Z"})
        told = task(local, {"task": "export-parquet", "to": "2999-01-01T00:00:00Z"})
        check("the export counts the values that do not fit", re.search(r"unfit_values\s+9\b", told))
        connection = columns(os.path.join(data, "s3", bucket), "Orders")
        connection.execute("SET TimeZone = 'UTC'")
        described = dict(row[:2] for row in connection.execute("DESCRIBE expired_items").fetchall())
        check("DuckDB reads each declared type", {name: described.get(name) for name in TYPES} == TYPES)
        names = ", ".join(DOCUMENT["columns"])
        rows = connection.execute(f"SELECT {names} FROM expired_items ORDER BY sort_key_integer").fetchall()
        ends = datetime.fromtimestamp(ends_at, timezone.utc)
        fits = (
            "Łódź",
            "12345678901234567890123456789012345.678",
            9223372036854775807,
            True,
            datetime(2026, 11, 22, 8, 0, 0, 123456, timezone.utc),
            ends,
            date(2026, 11, 30),
            '{"city":"Łódź"}',
            b"\x00\xff",
            ["gift", "new"],
            ["2.5", "100"],
        )
        utc = lambda row: tuple(value.astimezone(timezone.utc) if isinstance(value, datetime) else value for value in row)
        check("every value that fits is exact", utc(rows[0]) == fits)
        nulls = (*[None] * 5, ends, None)
        check("every other value is null", utc(rows[1]) == (*nulls, '{"city":7}', None, None, None))
        check("and so is a missing one", utc(rows[2]) == (*nulls, None, None, None, None))
        sums = connection.execute("SELECT sum(TRY_CAST(amount AS DECIMAL(38, 3))) FROM expired_items").fetchone()
        check("a query converts a number exactly", sums == (Decimal("12345678901234567890123456789012345.678"),))


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
