#!/usr/bin/env python3
"""Follows README's "Attach to your table" for a table whose key and TTL attribute are not those of the users table: starts
the stack from the description of the table, imports 10,000 items, writes and deletes some, lets others expire, loses the
replica, rebuilds it, restores the archived items, and ends with a `verify` without differences.

The last line is the time that this took.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

from story import MILLRACE, ROOT, Local, check, eventually

DESCRIPTION = os.path.join("examples", "orders-table.json")
ITEMS = 10_000
SOURCE = "Orders"
REPLICA = "OrdersReplica"
ARCHIVE = "orders-archive"
EXPIRED = 120


def imported_items(folder):
    """Writes the items to a file; returns its path."""
    path = os.path.join(folder, "items.ndjson")
    with open(path, "w", encoding="utf-8") as file:
        program = [sys.executable, os.path.join("examples", "orders.py"), str(ITEMS)]
        subprocess.run(program, cwd=ROOT, stdout=file, check=True)
    return path


def task(local, name, *options):
    """Runs a maintenance task with the ports as its only target; returns its counters and its number of differences."""
    ports = [part for option, port in local.ports.items() for part in (option, port)]
    command = [*MILLRACE, "task", name, "--output", "json", *options, *ports]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"  FAILED  {' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    outcome = json.loads(done.stdout)
    return outcome["progress"], outcome["differences"]


def items(local, table, **scan):
    """Returns all items of a table."""
    pages = local.dynamodb.get_paginator("scan").paginate(TableName=table, ConsistentRead=True, **scan)
    return [item for page in pages for item in page["Items"]]


def live(local):
    """Returns the items of the replica that are not tombstones, without their revisions, by key."""
    found = (item for item in items(local, REPLICA) if "_tombstone_expires_at" not in item)
    return by_key({name: value for name, value in item.items() if name != "_rev"} for item in found)


def by_key(all_items):
    """Returns items by key; the order of a set has no meaning."""
    ordered = lambda item: {**item, "tags": sorted(item["tags"]["SS"])} if "tags" in item else item
    return {(item["pk"]["S"], item["sk"]["N"]): ordered(item) for item in all_items}


def key(number):
    return {"pk": {"S": f"customer-{number // 3:05}"}, "sk": {"N": str(number)}}


def batches(local, table, requests):
    """Writes the requests in batches of 25."""
    for start in range(0, len(requests), 25):
        response = local.dynamodb.batch_write_item(RequestItems={table: requests[start : start + 25]})
        if response.get("UnprocessedItems"):
            sys.exit(f"  FAILED  a batch for {table} is written completely: {response['UnprocessedItems']}")


def rows(local):
    """Returns the number of rows in the archive, according to the metadata of its objects."""
    listed = local.s3.list_objects_v2(Bucket=ARCHIVE, Prefix="archive/Orders/").get("Contents", [])
    return sum(int(local.s3.head_object(Bucket=ARCHIVE, Key=one["Key"])["Metadata"]["rows"]) for one in listed)


def main():
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = imported_items(folder)
        with Local("--table", DESCRIPTION, "--ttl-attribute", "ttl", "--import", path) as local:
            follow(local)
    print(f"  took    {time.monotonic() - started:.0f} s, built")


def follow(local):
    output = "".join(local.lines)
    check(f"{ITEMS} items are imported", f"import: {ITEMS} items in " in output)
    check("the start prints the table, its key and its replica", "table Orders, key pk (S), sk (N)" in output and REPLICA in output)
    description = local.dynamodb.describe_table(TableName=SOURCE)["Table"]
    check("the table has the index of its description", description["GlobalSecondaryIndexes"][0]["IndexName"] == "by-status")
    source = by_key(items(local, SOURCE))
    check("every imported item is replicated", len(source) == ITEMS and live(local) == source)
    progress, differences = task(local, "verify", "--segments", "4")
    check("verify finds no difference", differences == 0 and progress["dynamodb.equal"] == ITEMS)

    writes(local)
    expiry(local)
    loss(local)

    progress, _ = task(local, "restore", "--from", "2026-01-01T00:00:00Z", "--expires-in-seconds", "3600", "--apply")
    check("the archived items are restored", progress["restore.restored"] == EXPIRED)
    source = by_key(items(local, SOURCE))
    in_an_hour = [item for item in source.values() if abs(int(item.get("ttl", {"N": "0"})["N"]) - time.time()) < 4000]
    check("they expire by the table's TTL attribute", len(in_an_hour) == EXPIRED)
    eventually("they reach the replica", lambda: live(local) == source, 120)
    progress, differences = task(local, "verify", "--segments", "4")
    counts = (progress["source.items"], progress["dynamodb.equal"])
    check("a last verify finds no difference", differences == 0 and counts == (len(source), len(source)))


def writes(local):
    """Creates 200 items, changes 100 and deletes 50."""
    for number in range(ITEMS, ITEMS + 200):
        local.dynamodb.put_item(TableName=SOURCE, Item={**key(number), "status": {"S": "draft"}})
    for number in range(100):
        local.dynamodb.update_item(
            TableName=SOURCE,
            Key=key(number),
            UpdateExpression="SET #status = :status",
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues={":status": {"S": "cancelled"}},
        )
    for number in range(100, 150):
        local.dynamodb.delete_item(TableName=SOURCE, Key=key(number))
    source = by_key(items(local, SOURCE))
    check("items are created, changed and deleted", len(source) == ITEMS + 150)
    eventually("the replica follows", lambda: live(local) == source, 120)


def expiry(local):
    """Lets imported items and new ones expire."""
    before = len(items(local, SOURCE))
    past = {"N": str(int(time.time()) - 60)}
    for number in range(200, 220):
        local.dynamodb.update_item(
            TableName=SOURCE,
            Key=key(number),
            UpdateExpression="SET #ttl = :past",
            ExpressionAttributeNames={"#ttl": "ttl"},
            ExpressionAttributeValues={":past": past},
        )
    new = [{"PutRequest": {"Item": {**key(number), "ttl": past}}} for number in range(20_000, 20_000 + EXPIRED - 20)]
    batches(local, SOURCE, new)
    eventually("expired items are removed from the table", lambda: len(items(local, SOURCE)) == before - 20, 60)
    eventually("and archived", lambda: rows(local) == EXPIRED, 60)
    removed = lambda: sum("_deleted_by_ttl" in item for item in items(local, REPLICA))
    eventually("and the replica knows that they expired", lambda: removed() == EXPIRED, 60)
    progress, _ = task(local, "audit")
    check("audit finds the row of each", progress["audit.found"] == EXPIRED and not progress.get("audit.missing"))


def loss(local):
    """Deletes everything in the replica, and rebuilds it."""
    lost = [{name: item[name] for name in ("pk", "sk")} for item in items(local, REPLICA)]
    batches(local, REPLICA, [{"DeleteRequest": {"Key": key}} for key in lost])
    check("the replica is lost", items(local, REPLICA) == [])
    source = by_key(items(local, SOURCE))
    progress, _ = task(local, "backfill", "--segments", "4")
    # On a busy machine an invocation may end within a page, whose items the next one finds written.
    written = progress.get("dynamodb.written", 0) + progress.get("dynamodb.skipped", 0)
    check("a backfill writes every item", written == len(source))
    check("and the replica is as the table", live(local) == source)


if __name__ == "__main__":
    sys.exit(main())
