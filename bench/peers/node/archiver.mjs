// Writes the items that DynamoDB TTL removed to S3, as JSON lines compressed with gzip: one object per batch.

import { gzipSync } from "node:zlib";

import { PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
import { unmarshall } from "@aws-sdk/util-dynamodb";

const client = new S3Client({});

export const handler = async (event) => {
  const expired = event.Records.filter(
    (record) => record.eventName === "REMOVE" && record.userIdentity?.principalId === "dynamodb.amazonaws.com",
  );
  if (expired.length > 0) {
    const lines = expired.map((record) => `${JSON.stringify(unmarshall(record.dynamodb.OldImage))}\n`);
    const command = new PutObjectCommand({
      Bucket: process.env.ARCHIVE_BUCKET,
      Key: `items/${expired[0].dynamodb.SequenceNumber}.json.gz`,
      Body: gzipSync(lines.join("")),
      ContentType: "application/x-ndjson",
      ContentEncoding: "gzip",
    });
    await client.send(command);
  }
  return { batchItemFailures: [] };
};
