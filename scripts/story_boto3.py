#!/usr/bin/env python3
"""Uses the endpoints of `millrace` with boto3: writes to the table, reads the replica and the archive."""

import datetime
import hashlib
import io
import json
import sys
import time
import urllib.request

import botocore.exceptions
from botocore.config import Config

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
        # The table descriptions that boto3 receives contain the settings of the streams.
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

        with urllib.request.urlopen(f"{local.api}/users/grace") as response:
            users = json.load(response)["users"]
        check("the API reads what boto3 wrote", users[0]["name"] == "Grace Hopper")

        dynamodb.delete_item(TableName="Users", Key=KEY)
        tombstone = eventually(
            "a delete leaves a tombstone", lambda: "_tombstone_expires_at" in (replica() or {}) and replica()
        )
        check("which is no expiry", "_deleted_by_ttl" not in tombstone)

        past = {**ITEM, "expires_at": {"N": str(int(time.time()) - 60)}}
        dynamodb.put_item(TableName="Users", Item=past)
        objects = eventually(
            "an expired item is archived",
            lambda: s3.list_objects_v2(Bucket="users-archive", Prefix="archive/Users/").get("Contents"),
        )
        archived = s3.get_object(Bucket="users-archive", Key=objects[0]["Key"])
        check("as one row", archived["Metadata"]["rows"] == "1")
        eventually("and the replica knows that it expired", lambda: "_deleted_by_ttl" in (replica() or {}))

        s3.upload_fileobj(io.BytesIO(b"mine"), "users-failures", "mine.txt")
        check("boto3 writes objects too", s3.get_object(Bucket="users-failures", Key="mine.txt")["Body"].read() == b"mine")
        buckets(local)
        streams_as_on_aws(local)


def code(call, *arguments, **named):
    """Returns the error code of a call, or `None` if it succeeds."""
    try:
        call(*arguments, **named)
    except botocore.exceptions.ClientError as refused:
        return refused.response["Error"]["Code"]
    return None


def buckets(local):
    """Checks S3 features that clients expect: keys of any characters, verified uploads, conditions, presigned URLs."""
    s3, bucket = local.s3, "keys-of-all-kinds"
    check("a bucket is created", s3.create_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 200)
    keys = sorted(f"q/{key}" for key in ("a+b", "a b", "a//b", "a/b", "a", "a/", "é/%2B", "..", "../a", "x" * 900))
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="q/", PaginationConfig={"PageSize": 3})
    check("keys of all kinds are listed as they are", [o["Key"] for page in pages for o in page["Contents"]] == keys)
    check("by the first version, too", [o["Key"] for o in s3.list_objects(Bucket=bucket)["Contents"]] == keys)
    check("and read", all(s3.get_object(Bucket=bucket, Key=k)["Body"].read() == k.encode() for k in keys))
    folders = s3.list_objects_v2(Bucket=bucket, Prefix="q/", Delimiter="/")["CommonPrefixes"]
    check("folders are theirs", [folder["Prefix"] for folder in folders] == ["q/../", "q/a/", "q/é/"])
    check("a bucket that holds objects is not deleted", code(s3.delete_bucket, Bucket=bucket) == "BucketNotEmpty")
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys]})
    check("what was listed can be deleted", s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0)

    s3.put_object(Bucket=bucket, Key="k", Body=b"first")
    wrong = {
        "a wrong checksum": {"ChecksumSHA256": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="},
        "a wrong MD5": {"ContentMD5": "iwThCcPMCN+MRWOoQLE8Tg=="},
    }
    for what, named in wrong.items():
        refused = code(s3.put_object, Bucket=bucket, Key="k", Body=b"hello", **named)
        kept = s3.get_object(Bucket=bucket, Key="k")["Body"].read()
        check(f"{what} is refused, and the object stays", (refused, kept) == ("BadDigest", b"first"))
    tag = s3.head_object(Bucket=bucket, Key="k")["ETag"]
    check("the ETag is the MD5", tag == f'"{hashlib.md5(b"first").hexdigest()}"')
    get = lambda **condition: code(s3.get_object, Bucket=bucket, Key="k", **condition)
    check("nothing new is 304", get(IfNoneMatch=tag) == "304")
    check("another object is 412", get(IfMatch='"other"') == "PreconditionFailed")
    later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)
    check("conditions on dates apply", (get(IfModifiedSince=later), get(IfUnmodifiedSince=later)) == ("304", None))
    put = lambda **condition: code(s3.put_object, Bucket=bucket, Key="k", Body=b"second", **condition)
    check("a create over an object is refused", put(IfNoneMatch="*") == "PreconditionFailed")
    check("a write over the object that was read is not", put(IfMatch=tag) is None)

    old, new = (local.client("s3", config=Config(signature_version=version)) for version in ("s3", "s3v4"))
    for version, client in (("by default", s3), ("of version 2", old), ("of version 4", new)):
        named = {"Bucket": bucket, "Key": "presigned a+b"}
        url = client.generate_presigned_url("put_object", Params=named)
        request = urllib.request.Request(url, data=b"presigned", method="PUT", headers={"Content-Type": ""})
        with urllib.request.urlopen(request) as response:
            check(f"a presigned URL {version} writes", response.status == 200)
        with urllib.request.urlopen(client.generate_presigned_url("get_object", Params=named)) as response:
            check("and another reads", response.read() == b"presigned")

    upload = s3.create_multipart_upload(Bucket=bucket, Key="in parts")["UploadId"]
    listed = s3.list_multipart_uploads(Bucket=bucket)["Uploads"]
    check("an upload in parts is listed", [(u["Key"], u["UploadId"]) for u in listed] == [("in parts", upload)])
    s3.abort_multipart_upload(Bucket=bucket, Key="in parts", UploadId=upload)
    check("until it is aborted", "Uploads" not in s3.list_multipart_uploads(Bucket=bucket))
    large = bytes(range(256)) * 4096 * 9
    s3.upload_fileobj(io.BytesIO(large), bucket, "large")
    check("a large file is uploaded in parts", s3.get_object(Bucket=bucket, Key="large")["Body"].read() == large)
    check("no bucket has versions", "Status" not in s3.get_bucket_versioning(Bucket=bucket))
    encryption = code(s3.get_bucket_encryption, Bucket=bucket)
    check("or encryption", encryption == "ServerSideEncryptionConfigurationNotFoundError")
    check("or a region", s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None)


def streams_as_on_aws(local):
    """Checks a table's stream with the calls that read a stream on AWS."""
    dynamodb, streams = local.dynamodb, local.client("dynamodbstreams", local.dynamodb.meta.endpoint_url)
    backups = dynamodb.describe_continuous_backups(TableName="Users")["ContinuousBackupsDescription"]
    check("there are no backups", backups["ContinuousBackupsStatus"] == "DISABLED")
    check("of a table that is not there, either",
          code(dynamodb.describe_continuous_backups, TableName="Absent") == "TableNotFoundException")

    def create():
        return dynamodb.create_table(
            TableName="Own",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )["TableDescription"]

    def records(arn):
        """Returns all records of a stream, read in the same way as on AWS."""
        found = []
        for shard in streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]:
            iterator = streams.get_shard_iterator(
                StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
            while page := streams.get_records(ShardIterator=iterator, Limit=2):
                found += page["Records"]
                iterator = page.get("NextShardIterator")
                if not page["Records"] or iterator is None:
                    break
        return found

    table = create()
    arn, label = table["LatestStreamArn"], table["LatestStreamLabel"]
    described = streams.describe_stream(StreamArn=arn)["StreamDescription"]
    datetime.datetime.strptime(label, "%Y-%m-%dT%H:%M:%S.%f")
    check("a stream's label is a time", arn.endswith(f"/stream/{label}") and described["StreamLabel"] == label)
    check("a stream says whose it is", (described["TableName"], described["StreamViewType"], described["KeySchema"])
          == ("Own", "NEW_AND_OLD_IMAGES", [{"AttributeName": "id", "KeyType": "HASH"}]))
    check("and since when", described["CreationRequestDateTime"].year >= 2026)
    listed = streams.list_streams(TableName="Own")["Streams"]
    check("it is listed so", [(s["StreamArn"], s["StreamLabel"]) for s in listed] == [(arn, label)])
    again = dynamodb.describe_table(TableName="Own")["Table"]
    check("the table says the same", (again["LatestStreamArn"], again["LatestStreamLabel"]) == (arn, label))
    check("an own table's shard is long enough for botocore", len(described["Shards"][0]["ShardId"]) >= 28)

    for n in range(3):
        dynamodb.put_item(TableName="Own", Item={"id": {"S": "a"}, "n": {"N": str(n)}})
    dynamodb.delete_item(TableName="Own", Key={"id": {"S": "a"}})
    names = [record["eventName"] for record in records(arn)]
    check("its records are read page by page", names == ["INSERT", "MODIFY", "MODIFY", "REMOVE"])
    shard = streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"][0]
    second = records(arn)[1]["dynamodb"]["SequenceNumber"]
    after = streams.get_shard_iterator(
        StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="AFTER_SEQUENCE_NUMBER", SequenceNumber=second
    )["ShardIterator"]
    check("and from a sequence number on", len(streams.get_records(ShardIterator=after)["Records"]) == 2)
    latest = streams.get_shard_iterator(StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="LATEST")
    check("and from now on", streams.get_records(ShardIterator=latest["ShardIterator"])["Records"] == [])

    expired = [record for record in records(local.dynamodb.describe_table(TableName="Users")["Table"]["LatestStreamArn"])
               if record["eventName"] == "REMOVE" and "userIdentity" in record]
    service = {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}
    check("a removal by TTL names the service", [record["userIdentity"] for record in expired] == [service])

    dynamodb.delete_table(TableName="Own")
    check("a deleted table's stream is gone", code(streams.describe_stream, StreamArn=arn) == "ResourceNotFoundException")
    time.sleep(0.01)
    new = create()["LatestStreamArn"]
    check("a table that is made again has another stream", new != arn)
    check("the former one stays gone", code(streams.describe_stream, StreamArn=arn) == "ResourceNotFoundException")
    check("with its iterators", code(streams.get_records, ShardIterator=after) == "ResourceNotFoundException")
    check("and the new one is empty", records(new) == [])
    dynamodb.delete_table(TableName="Own")


if __name__ == "__main__":
    sys.exit(main())
