// Copies the changes of a DynamoDB stream to a table, with the batch processor of Powertools for AWS Lambda and lib-dynamodb.

import { BatchProcessor, EventType, processPartialResponse } from "@aws-lambda-powertools/batch";
import { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import { DeleteCommand, DynamoDBDocumentClient, PutCommand } from "@aws-sdk/lib-dynamodb";
import { unmarshall } from "@aws-sdk/util-dynamodb";

const processor = new BatchProcessor(EventType.DynamoDBStreams);
const client = DynamoDBDocumentClient.from(new DynamoDBClient({}));
const TableName = process.env.REPLICA_TABLE;

async function replicate(record) {
  const { Keys, NewImage } = record.dynamodb;
  if (record.eventName === "REMOVE") {
    await client.send(new DeleteCommand({ TableName, Key: unmarshall(Keys) }));
  } else {
    await client.send(new PutCommand({ TableName, Item: unmarshall(NewImage) }));
  }
}

export const handler = async (event, context) => processPartialResponse(event, replicate, processor, { context });
