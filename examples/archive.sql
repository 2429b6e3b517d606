-- Queries over the archive's compressed JSON files, in the archiver's layout and the compacted layout.
-- Set the bucket first: SET VARIABLE bucket = '.millrace/s3/users-archive'

-- A layout that has no files yet contributes nothing to the list.
SET VARIABLE archive_files = (
  SELECT list(file)
  FROM (
    SELECT file FROM glob(getvariable('bucket') || '/archive/Users/*/*/*.ndjson.zst')
    UNION ALL
    SELECT file FROM glob(getvariable('bucket') || '/compacted/Users/*/*.ndjson.zst')
  )
);

-- One row per removal. The same row may be stored in two files, so rows are deduplicated by key and revision.
CREATE OR REPLACE TEMP VIEW expired_items_raw AS
SELECT
  Item AS item,
  Item ->> '$.user_id.S' AS user_id,
  Item ->> '$.timestamp.N' AS timestamp_text,
  Metadata ->> '$.Revision' AS revision,
  CAST(Metadata ->> '$.RemovedAt' AS TIMESTAMPTZ) AS removed_at
FROM read_json(
  getvariable('archive_files'),
  format = 'newline_delimited', columns = {Item: 'JSON', Metadata: 'JSON'}
)
QUALIFY row_number() OVER (PARTITION BY user_id, timestamp_text, revision) = 1;

-- Title: Removals per status
SELECT item ->> '$.status.S' AS status, count(*) AS removals, count(DISTINCT user_id) AS users
FROM expired_items_raw
GROUP BY ALL
ORDER BY status NULLS LAST;

-- Title: Latest removals
SELECT user_id, timestamp_text, item ->> '$.name.S' AS name, item ->> '$.attributes.M.seats.N' AS seats
FROM expired_items_raw
ORDER BY removed_at DESC, user_id
LIMIT 5;
