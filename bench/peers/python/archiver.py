"""Writes the items that DynamoDB TTL removed to S3, as JSON lines compressed with gzip: one object per batch."""

import gzip
import json
import os

import boto3
from boto3.dynamodb.types import TypeDeserializer

s3 = boto3.client("s3")
deserialize = TypeDeserializer().deserialize


def is_expired(record):
    identity = record.get("userIdentity") or {}
    return record["eventName"] == "REMOVE" and identity.get("principalId") == "dynamodb.amazonaws.com"


def line(record):
    item = {name: deserialize(value) for name, value in record["dynamodb"]["OldImage"].items()}
    return json.dumps(item, default=str) + "\n"


def handler(event, _context):
    expired = [record for record in event["Records"] if is_expired(record)]
    if expired:
        s3.put_object(
            Bucket=os.environ["ARCHIVE_BUCKET"],
            Key=f"items/{expired[0]['dynamodb']['SequenceNumber']}.json.gz",
            Body=gzip.compress("".join(map(line, expired)).encode(), compresslevel=6),
            ContentType="application/x-ndjson",
            ContentEncoding="gzip",
        )
    return {"batchItemFailures": []}
