-- What search adds to the table users: two computed columns, a view, and indexes. The maintenance task migrate creates
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

-- Names by their words, each as it may be misspelled: complete, and without one of its letters. Two words that share one
-- of these keys differ by a letter that is missing, added, replaced or moved, and by no more. An index finds them in a
-- fraction of a millisecond; groups of three letters are shared by too many names, each of which has to be compared.

-- A word of one or two letters has only itself as a key, and so has one that is too long for a name. Of a name that is
-- longer than a user's may be, the beginning is used: folding makes three characters of one at most. The characters that
-- separate words are also those in functions/search/src/filter/tokenize.rs.
--
-- Restricted in parallel: a page of names is found in less time than it takes to start a worker.
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
create index users_expires_at on public.users (expires_at) where deleted_at is null and expires_at is not null;
-- Attributes by containment.
create index users_attributes on public.users using gin (attributes jsonb_path_ops) where deleted_at is null;
