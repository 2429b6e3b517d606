-- Names by their words, each as it may be misspelled: whole, and without one of its letters. Two words that share one of these
-- keys differ by a letter that is missing, added, replaced or moved, and by no more. This is asked of an index in a fraction
-- of a millisecond; groups of three letters are shared by too many names, each of which has to be compared.

-- A word of one or two letters stands for itself alone, and so does one that is too long for a name; of a name that is longer
-- than a user's may be, the beginning. What stands between words here does so in functions/search/src/filter/words.rs, too.
--
-- Restricted in parallel: a page of names is found in less time than it takes to start a helper.
create function users_name_keys(name text) returns text[] language plpgsql immutable strict parallel restricted as $$
declare
    keys text[] := '{}';
    word text;
begin
    foreach word in array string_to_array(
        translate(lower(left(name, 256)), E'-.,;:/|()[]"_\t\n\r\u00a0\u3000''\u2019', repeat(' ', 18)), ' '
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

create index users_name_keys on users using gin (users_name_keys(name)) where deleted_at is null;
drop index users_name_likeness;
