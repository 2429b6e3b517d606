#!/usr/bin/env python3
"""A user of boto3 at the endpoints that `local` prints: writes to the table, reads the replica and the archive."""

import io
import json
import sys
import time
import urllib.request

from story import Local, check, eventually

KEY = {"user_id": {"S": "grace"}, "timestamp": {"N": "1700000000"}}
ITEM = {
    **KEY,
    "name": {"S": "Grace Hopper"},
    "email": {"S": "grace@example.com"},
    "exact": {"N": "0.12345678901234567890123456789012345678"},
    "raw": {"B": b"\x00\xff"},
    "nested": {"M": {"list": {"L": [{"NULL": True}, {"BOOL": False}, {"NS": ["1", "2"]}]}}},
}


def main():
    with Local() as local:
        dynamodb, s3 = local.dynamodb, local.s3
        tables = {name: dynamodb.describe_table(TableName=name)["Table"] for name in dynamodb.list_tables()["TableNames"]}
        check("the template's tables are there", {"Users", "UsersReplica", "Idempotency", "Emails"} <= set(tables))
        # boto3 knows the engine by its description alone.
        streams = {name: table["StreamSpecification"] for name, table in tables.items() if "StreamSpecification" in table}
        views = {name: stream["StreamViewType"] for name, stream in streams.items()}
        check("the source streams, and nothing else does", views == {"Users": "NEW_AND_OLD_IMAGES"})

        dynamodb.put_item(TableName="Users", Item=ITEM)
        found = dynamodb.get_item(TableName="Users", Key=KEY, ConsistentRead=True)["Item"]
        check("an item is read as it was put", found == ITEM)
        by_email = dynamodb.query(
            TableName="Users",
            IndexName="EmailIndex",
            KeyConditionExpression="email = :email",
            ExpressionAttributeValues={":email": {"S": "grace@example.com"}},
        )
        check("and found by its email", by_email["Items"] == [ITEM])

        def replica():
            return dynamodb.get_item(TableName="UsersReplica", Key=KEY, ConsistentRead=True).get("Item")

        copy = eventually("the replica holds it", replica)
        check("every attribute untouched, and its revision", {k: v for k, v in copy.items() if k != "_rev"} == ITEM)
        check("the revision is binary", len(copy["_rev"]["B"]) == 23)

        with urllib.request.urlopen(f"{local.api}/users/grace") as answer:
            users = json.load(answer)["users"]
        check("the API reads what boto3 wrote", users[0]["name"] == "Grace Hopper")

        dynamodb.delete_item(TableName="Users", Key=KEY)
        tombstone = eventually("a delete leaves a tombstone", lambda: "_gone" in (replica() or {}) and replica())
        check("which is no expiry", "_expired" not in tombstone)

        past = {**ITEM, "expires_at": {"N": str(int(time.time()) - 60)}}
        dynamodb.put_item(TableName="Users", Item=past)
        objects = eventually(
            "an expired item is archived",
            lambda: s3.list_objects_v2(Bucket="users-archive", Prefix="archive/Users/").get("Contents"),
        )
        archived = s3.get_object(Bucket="users-archive", Key=objects[0]["Key"])
        check("as one row", archived["Metadata"]["rows"] == "1")
        eventually("and the replica knows that it expired", lambda: "_expired" in (replica() or {}))

        s3.upload_fileobj(io.BytesIO(b"mine"), "users-failures", "mine.txt")
        check("boto3 writes objects too", s3.get_object(Bucket="users-failures", Key="mine.txt")["Body"].read() == b"mine")


if __name__ == "__main__":
    sys.exit(main())
