"""Copies the changes of a DynamoDB stream to a table, with the batch processor of Powertools for AWS Lambda and boto3."""

import os

import boto3
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.dynamo_db_stream_event import DynamoDBRecordEventName

processor = BatchProcessor(event_type=EventType.DynamoDBStreams)
table = boto3.resource("dynamodb").Table(os.environ["REPLICA_TABLE"])


def replicate(record):
    if record.event_name == DynamoDBRecordEventName.REMOVE:
        table.delete_item(Key=record.dynamodb.keys)
    else:
        table.put_item(Item=record.dynamodb.new_image)


def handler(event, context):
    return process_partial_response(event=event, record_handler=replicate, processor=processor, context=context)
