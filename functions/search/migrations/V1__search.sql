-- What search adds to the table users: two computed columns, a view, indexes, and the counts of the statistics. The maintenance task migrate creates
-- the table from functions/search/replication.json, then applies this file.

-- The function similarity.
create extension if not exists pg_trgm;

alter table public.users
    -- The expiry in epoch seconds, as DynamoDB's TTL interprets it: a fraction is rounded up, and zero, a negative number
    -- and any other type count as none.
    add column expires_at numeric generated always as (
        case when item -> 'expires_at' ->> 'N' ~ '^[+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$'
            then nullif(ceil((item -> 'expires_at' ->> 'N')::numeric), 0) end
    ) stored,
    -- The part of the email after its last @, folded; null if that part is empty or the email has no @.
    add column email_domain text collate "C" generated always as (
        case when strpos(email_folded, '@') > 0
            then nullif(right(email_folded, strpos(reverse(email_folded), '@') - 1), '') end
    ) stored;

-- The records that search queries. Keys and names are compared by code points, as DynamoDB does, whatever the database's
-- locale.
create view public.users_search as
    select item, user_id collate "C" as user_id, "timestamp", name_folded collate "C" as name_folded, email_domain,
        status, attributes, expires_at, created_at, updated_at
    from public.users where deleted_at is null;

-- The fuzzy search for names compares words. Two words match if they are equal, or if they become equal when one letter is
-- removed from either: one letter is missing, added, replaced or moved. This function returns the keys under which a name
-- is indexed, so that the index finds these matches: each word of the name, and each word without one of its letters.
-- Two words match if they have a key in common. Example: "Ada Lee" has the keys ada, da, aa, ad, lee, ee, le, le.
--
-- - A word of one or two letters has one key, itself, and so has a word of more than 32 letters.
-- - Only the first 768 characters of a name count. A user's name has at most 256, of which folding makes at most 768.
-- - The characters that separate words must be the same in functions/search/src/filter/tokenize.rs, which computes the
--   keys of a query.
-- - Restricted in parallel: a page of names is found in less time than it takes to start a worker.
--
-- An index on groups of three letters (trigrams) takes about 100 times as long: too many names share such a group, and
-- each of them has to be compared.
create function public.users_name_keys(name text) returns text[] language plpgsql immutable strict parallel restricted as $$
declare
    keys text[] := '{}';
    word text;
begin
    foreach word in array string_to_array(
        translate(left(name, 768), E'-.,;:/|()[]"_\t\n\r\u00a0\u3000''\u2019', repeat(' ', 18)), ' '
    ) loop
        if word <> '' then
            keys := keys || word;
            if length(word) between 3 and 32 then
                for letter in 1..length(word) loop
                    keys := keys || overlay(word placing '' from letter for 1);
                end loop;
            end if;
        end if;
    end loop;
    return keys;
end
$$;

create index users_name_keys on public.users using gin (public.users_name_keys(name_folded collate "C"))
    where deleted_at is null;
-- Names by their beginning and in their order.
create index users_name_order on public.users (name_folded collate "C", user_id collate "C", "timestamp")
    where deleted_at is null;

-- Lists by key and by time, newest first, with the key as the tie-break that a keyset cursor needs.
create index users_user_id on public.users (user_id collate "C", "timestamp") where deleted_at is null;
create index users_timestamp on public.users ("timestamp", user_id collate "C") where deleted_at is null;
create index users_updated_at on public.users (updated_at, user_id collate "C", "timestamp") where deleted_at is null;
create index users_created_at on public.users (created_at, user_id collate "C", "timestamp") where deleted_at is null;

create index users_status on public.users (status, updated_at, user_id collate "C", "timestamp")
    where deleted_at is null;
create index users_email_domain on public.users (email_domain, updated_at, user_id collate "C", "timestamp")
    where deleted_at is null and email_domain is not null;
-- With the columns that the statistics subtract of expired records, so that they read no rows.
create index users_expires_at on public.users (expires_at) include (status, created_at, email_domain)
    where deleted_at is null and expires_at is not null;
-- Attributes by containment.
create index users_attributes on public.users using gin (attributes jsonb_path_ops) where deleted_at is null;

-- The counts of the statistics: the numbers of rows that are not tombstones, by status, by day of creation in UTC (in days
-- since 1970-01-01) and by email domain. A record counts until its row becomes a tombstone; the statistics subtract the
-- records that have expired until then.
--
-- A statement that writes rows appends what it changes to the log, in one row, so that concurrent writers never wait for
-- each other, and a batch does not write a row for each of its domains. Every 64th statement on average adds the log to
-- the counts. A count is therefore the sum of both.
create table public.users_counts (
    dimension text not null check (dimension in ('status', 'no status', 'day', 'domain')),
    value text collate "C" not null,
    records bigint not null,
    primary key (dimension, value)
) with (fillfactor = 50);
create table public.users_count_log (changes public.users_counts[] not null);

-- The count of a group of rows, which are grouped by one of the three; grouped is grouping(status, day, email_domain). The
-- value is null if the group does not count: rows without a day or without a domain.
create function public.users_count(grouped int, status text, day date, email_domain text, records bigint)
returns public.users_counts language sql immutable parallel safe as $$
    select row(
        case grouped when 3 then case when status is null then 'no status' else 'status' end when 5 then 'day' else 'domain' end,
        case grouped when 3 then coalesce(status, '')
            when 5 then case when isfinite(day) then (day - date '1970-01-01')::text end else email_domain end,
        records)::public.users_counts
$$;

-- Counts the rows that a statement has changed. The function has the rights of its owner: a user who writes rows needs
-- none on the counts. So that no other user can run code with these rights, no name is looked up in the schema of
-- temporary objects first, and no other user may create a trigger with it or call the functions
-- (https://www.postgresql.org/docs/current/sql-createfunction.html#SQL-CREATEFUNCTION-SECURITY).
create function public.users_count_changes() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    changes public.users_counts[];
begin
    if tg_op = 'TRUNCATE' then
        delete from public.users_count_log;
        delete from public.users_counts;
        return null;
    elsif tg_op = 'INSERT' then
        changes := array(
            select public.users_count(grouping(status, day, email_domain), status, day, email_domain, count(*))
            from (select status, (created_at at time zone 'UTC')::date as day, email_domain from new_rows
                where deleted_at is null) as changed
            group by grouping sets ((status), (day), (email_domain)));
    elsif tg_op = 'DELETE' then
        changes := array(
            select public.users_count(grouping(status, day, email_domain), status, day, email_domain, -count(*))
            from (select status, (created_at at time zone 'UTC')::date as day, email_domain from old_rows
                where deleted_at is null) as changed
            group by grouping sets ((status), (day), (email_domain)));
    else
        changes := array(
            select public.users_count(grouping(status, day, email_domain), status, day, email_domain, sum(records))
            from (select status, (created_at at time zone 'UTC')::date as day, email_domain, 1 as records from new_rows
                where deleted_at is null
                union all select status, (created_at at time zone 'UTC')::date, email_domain, -1 from old_rows
                where deleted_at is null) as changed
            group by grouping sets ((status), (day), (email_domain)) having sum(records) <> 0);
    end if;
    if cardinality(changes) = 0 then
        return null;
    end if;
    insert into public.users_count_log values (changes);
    -- Only the transaction that has this lock writes counts, and no other waits for it. The number is arbitrary.
    if random() < 1.0 / 64 and pg_try_advisory_xact_lock(5926110247031844702) then
        perform public.users_add_count_log();
    end if;
    return null;
end
$$;

-- Adds the log to the counts.
create function public.users_add_count_log() returns void language sql set search_path = pg_catalog, pg_temp as $$
    with logged as (delete from public.users_count_log returning changes)
    insert into public.users_counts as stored select dimension, value, sum(records)
    from logged cross join unnest(changes) where value is not null group by dimension, value having sum(records) <> 0
    on conflict (dimension, value) do update set records = stored.records + excluded.records;
    delete from public.users_counts where records = 0
$$;

create trigger users_count_inserts after insert on public.users referencing new table as new_rows
    for each statement execute function public.users_count_changes();
create trigger users_count_updates after update on public.users referencing old table as old_rows new table as new_rows
    for each statement execute function public.users_count_changes();
create trigger users_count_deletes after delete on public.users referencing old table as old_rows
    for each statement execute function public.users_count_changes();
create trigger users_count_truncates after truncate on public.users
    for each statement execute function public.users_count_changes();

-- Counts all rows. It is needed only after rows were written without the triggers, or if a restore loaded both the rows
-- and their counts with the triggers (pg_restore --data-only). Writers wait for it.
create function public.users_recount() returns void language sql set search_path = pg_catalog, pg_temp as $$
    lock table public.users in share row exclusive mode;
    delete from public.users_count_log;
    delete from public.users_counts;
    insert into public.users_counts select (counted).*
    from (select public.users_count(grouping(status, day, email_domain), status, day, email_domain, count(*)) as counted
        from (select status, (created_at at time zone 'UTC')::date as day, email_domain from public.users
            where deleted_at is null) as stored
        group by grouping sets ((status), (day), (email_domain))) as groups
    where (counted).value is not null
$$;

revoke execute on function public.users_count_changes(), public.users_add_count_log(), public.users_recount() from public;

select public.users_recount();
