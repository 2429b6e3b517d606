-- Queries over the archive's Parquet files, which the tasks compact and export-parquet write.
-- Set the bucket first: SET VARIABLE bucket = '.millrace/s3/users-archive'

-- One row per removal, with a typed column per attribute. `item` is the complete item as DynamoDB JSON.
CREATE OR REPLACE TEMP VIEW expired_items AS
SELECT *
FROM read_parquet(getvariable('bucket') || '/parquet/Users/*/*.parquet', hive_partitioning = true)
QUALIFY row_number() OVER (PARTITION BY key, revision) = 1;

-- Title: Removals per day (Parquet)
SELECT dt, count(*) AS removals, count(DISTINCT user_id) AS users
FROM expired_items
GROUP BY dt
ORDER BY dt;

-- Title: Latest state per key (Parquet)
SELECT user_id, arg_max(name, revision_bytes) AS name, arg_max(attributes, revision_bytes) AS attributes
FROM expired_items
GROUP BY key, user_id
ORDER BY user_id
LIMIT 5;
