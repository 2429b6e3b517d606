-- Names and domains without case and in one Unicode spelling, folded by the replicator (shared/src/folding.rs) and by search alike.
-- The server's own lower() depends on its locale, knows no final sigma, and does not compose.

-- The folded forms of rows that are there already are not the server's to make.
do $$ begin
    if exists (select from users where deleted_at is null) then
        raise exception 'the table users has rows without folded names: on AWS, turn the relational tier off and on again; elsewhere, disable the replicator''s mapping, truncate users, migrate, enable the mapping, backfill, repair';
    end if;
end $$;

drop index users_email_domain;
drop index users_name_order;
drop statistics users_names;
drop index users_name_keys;

alter table users
    add column name_folded  text collate "C",
    add column email_domain text collate "C";

create index users_email_domain on users (email_domain, updated_at, user_id, "timestamp")
    where deleted_at is null and email_domain is not null;
-- Names by their beginning and in their order, by code points.
create index users_name_order on users (name_folded, user_id, "timestamp") where deleted_at is null;

-- As before, of a folded name; folding makes three characters of one at most.
create or replace function users_name_keys(name text) returns text[] language plpgsql immutable strict parallel restricted as $$
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

create index users_name_keys on users using gin (users_name_keys(name_folded)) where deleted_at is null;
