//! The SQL statements of the replica. Each takes lists, with one value per row, and is one round trip for all rows.
//!
//! Numbers and JSON are sent as text and parsed by the server: no float is involved, and a text that is not a number is
//! an error of its row. Rows are sorted by their keys and are locked in that order, because `unnest` preserves it.

/// Makes a new session use the indexes: a statement is planned once per session, often while the table is still empty,
/// and the plan is still used when the table has millions of rows.
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

/// The assignments of an update: all columns get the new row's values, and none keeps its old value.
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

/// The write with the revision guard: each row is written if its key has no row or one with a lower revision. It
/// returns how many rows were written, how many of them are tombstones, and how many were rejected because of the same
/// revision; the rest are stale.
///
/// The stored revisions are read first, in the statement's snapshot, so that a replay writes and locks nothing. A row
/// that another transaction writes in between is rejected by the `on conflict` clause, and counts as stale.
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

/// The insert of rows whose keys have no row; it returns the keys that were written.
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

/// The update of rows that have exactly the revisions in `$18`; it returns the keys that were written. Rows are locked
/// in the lists' order before any is changed.
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

/// Checks whether the table accepts a row that is certainly valid: the error that follows the insert rolls it back.
pub(super) const PROBE: &str = r#"do $$ begin
    insert into users (user_id, "timestamp", revision, name, email, status, attributes, expires_at, version, created_at,
        updated_at, item, changed_at, name_folded, email_domain)
    values (' probe', 0, '\x00', 'a', 'a@b.c', 'a', '{}', 0, 0, now(), now(), '{}', now(), 'a', 'b.c');
    raise sqlstate 'MR001';
end $$"#;

/// The error code that [`PROBE`] ends with if the row was accepted.
pub(super) const PROBED: &str = "MR001";

/// Deletes tombstones that were created before `$1`, at most `$2` of them, and none that another transaction has
/// locked.
pub(super) const PURGE: &str = r#"delete from users where (user_id, "timestamp") in (
        select user_id, "timestamp" from users where deleted_at < $1 order by deleted_at limit $2
        for update skip locked)
    and deleted_at < $1"#;

/// Reads the rows under these keys, each with the index of its key.
pub(super) const READ: &str = r#"select list.place, users.revision, users.item::text, users.expired
    from unnest($1::text[], $2::text[]) with ordinality as list (user_id, second, place)
    join users on users.user_id = list.user_id and users."timestamp" = list.second::numeric"#;

/// The first page of a segment of the table, from the hash `$1` to `$2`: at most `$3` rows.
pub(super) const SCAN: &str = r#"select user_id, "timestamp"::text, revision, item::text, expired from users
    where hashtextextended(user_id, 0) between $1 and $2
    order by hashtextextended(user_id, 0), user_id, "timestamp" limit $3"#;

/// The page of a segment after the user `$4` and the second `$5`.
pub(super) const SCAN_NEXT_PAGE: &str = r#"select user_id, "timestamp"::text, revision, item::text, expired from users
    where hashtextextended(user_id, 0) between hashtextextended($4::text, 0) and $2
      and hashtextextended(user_id, 0) >= $1
      and (hashtextextended(user_id, 0), user_id, "timestamp") > (hashtextextended($4::text, 0), $4, $5::text::numeric)
    order by hashtextextended(user_id, 0), user_id, "timestamp" limit $3"#;

/// Returns whether the server is read-only.
pub(super) const CHECK: &str = "select pg_is_in_recovery() or current_setting('transaction_read_only') = 'on'";
