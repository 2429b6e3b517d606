//! The statements of the replica. Each takes lists, one value a row, and is one round trip for all of them.
//!
//! Numbers and JSON travel as text and are read by the server: no float is between, and what is no number is an error of
//! that row. Rows come sorted by their keys and are locked in that order, because `unnest` keeps it.

/// A new session is told to go by the indexes: a plan is made once a session, often while the table is still empty, and
/// kept when it has millions of rows.
pub(super) const SETUP: &str = "set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off; \
    set jit = off";

macro_rules! columns {
    () => {
        r#"user_id, "timestamp", revision, name, email, status, attributes, expires_at, version, created_at,
           updated_at, item, deleted_at, expired, changed_at, name_folded, email_domain"#
    };
}

macro_rules! typed {
    ($name:literal) => {
        concat!(
            $name,
            ".user_id, ",
            $name,
            ".second::numeric as \"timestamp\", ",
            $name,
            ".revision, ",
            $name,
            ".name, ",
            $name,
            ".email, ",
            $name,
            ".status, ",
            $name,
            ".attributes::jsonb as attributes, ",
            $name,
            ".expires_at::numeric as expires_at, ",
            $name,
            ".version::numeric as version, ",
            $name,
            ".created_at, ",
            $name,
            ".updated_at, ",
            $name,
            ".item::jsonb as item, ",
            $name,
            ".deleted_at, ",
            $name,
            ".expired, ",
            $name,
            ".changed_at, ",
            $name,
            ".name_folded, ",
            $name,
            ".email_domain"
        )
    };
}

macro_rules! lists {
    () => {
        "$1::text[], $2::text[], $3::bytea[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], \
         $10::timestamptz[], $11::timestamptz[], $12::text[], $13::timestamptz[], $14::bool[], $15::timestamptz[], \
         $16::text[], $17::text[]"
    };
}

macro_rules! list_names {
    () => {
        "user_id, second, revision, name, email, status, attributes, expires_at, version, created_at, updated_at, \
         item, deleted_at, expired, changed_at, name_folded, email_domain"
    };
}

/// What a write leaves of the row that it goes over: all of its own, nothing of the other.
macro_rules! replaced_by {
    ($name:literal) => {
        concat!(
            "revision = ",
            $name,
            ".revision, name = ",
            $name,
            ".name, email = ",
            $name,
            ".email, status = ",
            $name,
            ".status, attributes = ",
            $name,
            ".attributes, expires_at = ",
            $name,
            ".expires_at, version = ",
            $name,
            ".version, created_at = ",
            $name,
            ".created_at, updated_at = ",
            $name,
            ".updated_at, item = ",
            $name,
            ".item, deleted_at = ",
            $name,
            ".deleted_at, expired = ",
            $name,
            ".expired, changed_at = ",
            $name,
            ".changed_at, name_folded = ",
            $name,
            ".name_folded, email_domain = ",
            $name,
            ".email_domain"
        )
    };
}

/// The guarded write: over nothing or over a lower revision. It answers how many rows were written, how many of them are
/// tombstones, and how many were refused for the very same revision; the rest is stale.
///
/// What stands there is looked up before, in the statement's snapshot, so that a replay writes and locks nothing; what
/// comes in between is the conflict's to refuse, and counts as stale.
pub(super) const APPLY: &str = concat!(
    "with told as materialized (select ",
    typed!("list"),
    r#",
        (select stands.revision from users stands
         where stands.user_id = list.user_id and stands."timestamp" = list.second::numeric) as standing
      from unnest("#,
    lists!(),
    ") as list (",
    list_names!(),
    r#")),
    written as (insert into users ("#,
    columns!(),
    ") select ",
    columns!(),
    r#" from told
      where standing is null or standing < revision
      on conflict (user_id, "timestamp") do update set "#,
    replaced_by!("excluded"),
    r#"
      where users.revision < excluded.revision
      returning deleted_at)
    select (select count(*) from written), (select count(deleted_at) from written),
           (select count(*) from told where standing = revision)"#
);

/// A write over nothing; it answers the keys that were written.
pub(super) const INSERT: &str = concat!(
    "insert into users (",
    columns!(),
    ") select ",
    typed!("list"),
    " from unnest(",
    lists!(),
    ") as list (",
    list_names!(),
    r#") on conflict (user_id, "timestamp") do nothing returning user_id, "timestamp"::text"#
);

/// A write over exactly the revisions of `$18`; it answers the keys that were written. Rows are locked in the lists' order
/// before any is changed.
pub(super) const REPLACE: &str = concat!(
    "with told as materialized (select ",
    typed!("list"),
    ", list.expected, list.place from unnest(",
    lists!(),
    ", $18::bytea[]) with ordinality as list (",
    list_names!(),
    r#", expected, place)),
    locked as materialized (select told.place from told join users on users.user_id = told.user_id
        and users."timestamp" = told."timestamp" and users.revision = told.expected
        order by told.place for update of users)
    update users set "#,
    replaced_by!("told"),
    r#" from told join locked using (place)
    where users.user_id = told.user_id and users."timestamp" = told."timestamp" and users.revision = told.expected
    returning users.user_id, users."timestamp"::text"#
);

/// Whether the table takes a row that is beyond doubt: the insert is undone by the error that follows it.
pub(super) const PROBE: &str = r#"do $$ begin
    insert into users (user_id, "timestamp", revision, name, email, status, attributes, expires_at, version, created_at,
        updated_at, item, changed_at, name_folded, email_domain)
    values (' probe', 0, '\x00', 'a', 'a@b.c', 'a', '{}', 0, 0, now(), now(), '{}', now(), 'a', 'b.c');
    raise sqlstate 'MR001';
end $$"#;

/// The error that [`PROBE`] ends with if all is well.
pub(super) const PROBED: &str = "MR001";

/// Takes tombstones away that were laid before `$1`, `$2` of them at most, and none that somebody else is at.
pub(super) const PURGE: &str = r#"delete from users where (user_id, "timestamp") in (
        select user_id, "timestamp" from users where deleted_at < $1 order by deleted_at limit $2
        for update skip locked)
    and deleted_at < $1"#;

/// What stands under these keys, with the place of each.
pub(super) const READ: &str = r#"select list.place, users.revision, users.item::text, users.expired
    from unnest($1::text[], $2::text[]) with ordinality as list (user_id, second, place)
    join users on users.user_id = list.user_id and users."timestamp" = list.second::numeric"#;

/// A page of a segment of the table, from the hash `$1` to `$2`, of `$3` rows at most: the first one.
pub(super) const SCAN: &str = r#"select user_id, "timestamp"::text, revision, item::text, expired from users
    where hashtextextended(user_id, 0) between $1 and $2
    order by hashtextextended(user_id, 0), user_id, "timestamp" limit $3"#;

/// The page after the user `$4` and the second `$5`.
pub(super) const SCAN_ON: &str = r#"select user_id, "timestamp"::text, revision, item::text, expired from users
    where hashtextextended(user_id, 0) between hashtextextended($4::text, 0) and $2
      and hashtextextended(user_id, 0) >= $1
      and (hashtextextended(user_id, 0), user_id, "timestamp") > (hashtextextended($4::text, 0), $4, $5::text::numeric)
    order by hashtextextended(user_id, 0), user_id, "timestamp" limit $3"#;

/// Whether the server takes no writes, and whether this user may do what the replicator does.
pub(super) const CHECK: &str = "select pg_is_in_recovery() or current_setting('transaction_read_only') = 'on'";
