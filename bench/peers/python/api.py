"""GET and PUT of /users/{user_id}/{timestamp} over a DynamoDB table, with boto3."""

import base64
import datetime
import json
import os
from decimal import Decimal
from urllib.parse import unquote

import boto3

table = boto3.resource("dynamodb").Table(os.environ["USERS_TABLE"])


def respond(status, body):
    headers = {"content-type": "application/json"}
    return {"statusCode": status, "headers": headers, "body": json.dumps(body, default=str)}


def read(key):
    item = table.get_item(Key=key).get("Item")
    return respond(200, item) if item else respond(404, {"message": "the user does not exist"})


def replace(key, event):
    text = base64.b64decode(event["body"]) if event.get("isBase64Encoded") else event["body"]
    user = json.loads(text, parse_float=Decimal)
    if not isinstance(user.get("name"), str) or not isinstance(user.get("email"), str):
        return respond(400, {"message": "name and email are required"})
    now = datetime.datetime.now(datetime.timezone.utc)
    fields = {name: user.get(name) for name in ("name", "email", "status", "attributes")}
    times = {"created_at": now.isoformat(), "updated_at": now.isoformat()}
    item = {**key, **fields, **times, "version": int(now.timestamp() * 1_000_000)}
    table.put_item(Item=item)
    return respond(200, item)


def handler(event, _context):
    user_id, timestamp = map(unquote, event["rawPath"].split("/")[2:4])
    key = {"user_id": user_id, "timestamp": int(timestamp)}
    method = event["requestContext"]["http"]["method"]
    if method == "GET":
        return read(key)
    if method == "PUT":
        return replace(key, event)
    return respond(405, {"message": "only GET and PUT are supported"})
