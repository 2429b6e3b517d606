-- What the PostgreSQL replica holds of a user's record, and how it is found. Applied by the maintenance task `migrate`.

create extension if not exists pg_trgm;

create table users (
    -- The key is compared byte by byte, as DynamoDB does, whatever the database's locale.
    user_id      text collate "C" not null,
    "timestamp"  numeric          not null,
    -- Its age: a write goes only over nothing or over a lower one. Unsigned byte order is age.
    revision     bytea            not null,
    -- What queries ask for. The numbers are as exact as the table's, which hold 38 digits.
    name         text,
    email        text,
    status       text,
    attributes   jsonb,
    expires_at   numeric,
    version      numeric,
    created_at   timestamptz,
    updated_at   timestamptz,
    -- The whole item as DynamoDB JSON, so that nothing is lost that has no column.
    item         jsonb,
    -- A tombstone: when it was laid. Nothing but its key and its age is left.
    deleted_at   timestamptz,
    expired      boolean          not null default false,
    -- When the change happened, by the stream's clock; nothing if a backfill or a repair wrote it.
    changed_at   timestamptz,
    primary key (user_id, "timestamp"),
    constraint users_item_or_tombstone check ((item is null) = (deleted_at is not null))
);

-- How fresh the replica is: the newest change applied.
create index users_changed_at on users (changed_at);
-- What is to be purged.
create index users_deleted_at on users (deleted_at) where deleted_at is not null;

-- Equal parts for maintenance, which goes over the table in segments: ranges of a hash that is the same in every version,
-- because hash partitions rest on it.
create index users_segment on users (hashtextextended(user_id, 0));

-- Lists, newest first, with the key as the tie-break that a keyset cursor needs.
create index users_updated_at on users (updated_at, user_id, "timestamp") where deleted_at is null;
create index users_status on users (status, updated_at, user_id, "timestamp") where deleted_at is null;
create index users_email_domain on users (lower(split_part(email, '@', 2)), updated_at, user_id, "timestamp")
    where deleted_at is null and email is not null;
-- Names by their beginning and in their order, by code points. Groups of letters would serve a beginning badly: "ann" is
-- made of such as half of all names have.
create index users_name_order on users (lower(name) collate "C", user_id, "timestamp") where deleted_at is null;
-- How names are spread. The index's own statistics do not tell: PostgreSQL does not find them for an expression with another
-- collation, takes every beginning for one name in two hundred, and walks through the newest instead.
create statistics users_names on (lower(name)) from users;
-- Names by likeness, attributes by containment.
create index users_name_likeness on users using gin (lower(name) gin_trgm_ops) where deleted_at is null;
create index users_attributes on users using gin (attributes jsonb_path_ops) where deleted_at is null;
