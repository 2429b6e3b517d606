// GET and PUT of /users/{user_id}/{timestamp} over a DynamoDB table, with lib-dynamodb.

import { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import { DynamoDBDocumentClient, GetCommand, PutCommand } from "@aws-sdk/lib-dynamodb";

const client = DynamoDBDocumentClient.from(new DynamoDBClient({}));
const TableName = process.env.USERS_TABLE;

function respond(statusCode, body) {
  return { statusCode, headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
}

async function read(Key) {
  const { Item } = await client.send(new GetCommand({ TableName, Key }));
  return Item ? respond(200, Item) : respond(404, { message: "the user does not exist" });
}

async function replace(key, event) {
  const text = event.isBase64Encoded ? Buffer.from(event.body, "base64").toString() : event.body;
  const { name, email, status, attributes } = JSON.parse(text);
  if (typeof name !== "string" || typeof email !== "string") {
    return respond(400, { message: "name and email are required" });
  }
  const now = new Date();
  const at = now.toISOString();
  const version = now.getTime() * 1000;
  const Item = { ...key, name, email, status, attributes, version, created_at: at, updated_at: at };
  await client.send(new PutCommand({ TableName, Item }));
  return respond(200, Item);
}

export const handler = async (event) => {
  const [, , userId, timestamp] = event.rawPath.split("/").map(decodeURIComponent);
  const key = { user_id: userId, timestamp: Number(timestamp) };
  switch (event.requestContext.http.method) {
    case "GET":
      return read(key);
    case "PUT":
      return replace(key, event);
    default:
      return respond(405, { message: "only GET and PUT are supported" });
  }
};
