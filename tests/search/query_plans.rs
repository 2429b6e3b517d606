//! Query plans over many rows: queries use an index, and the index scan of a page starts at its cursor.

use millrace_search::statement;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::scene::{NOW, SearchScene};

const ROWS: i64 = 60_000;

/// Inserts rows like those of the sink; the server generates them.
async fn fill(client: &Client) {
    let made = format!(
        "insert into users (key, user_id, \"timestamp\", revision, name, email, status, attributes, version, created_at, \
         updated_at, item, changed_at, name_folded, email_folded) select 'u' || n, 'u' || n, n, '\\x01', 'Name ' || md5(n::text), \
         'p' || n || '@d' || n % 500 || '.example.com', case when n % 200 = 0 then 'rare' else 'active' end, \
         jsonb_build_object('plan', 'p' || n % 30000, 'n', n), 1, to_timestamp(1700000000 + n), \
         to_timestamp(1700000000 + n), case when n % 100 = 0 then jsonb_build_object('expires_at', \
         jsonb_build_object('N', (1795341600 + n)::text)) else '{{}}' end, now(), 'name ' || md5(n::text), \
         'p' || n || '@d' || n % 500 || '.example.com' from generate_series(1, {ROWS}) as n"
    );
    client.batch_execute(&made).await.unwrap();
    client.batch_execute("vacuum analyze users").await.unwrap();
}

async fn explained(client: &Client, question: &str, after: Option<&[&str]>) -> String {
    let (sql, parameters) = statement(question, after, NOW.unix_timestamp()).unwrap();
    let parameters: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|text| text as _).collect();
    let rows = client.query(&format!("explain (costs off) {sql}"), &parameters).await.unwrap();
    rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_filter_that_has_an_index_is_answered_by_it_and_a_page_begins_where_the_last_one_ended() {
    let scene = SearchScene::with_people(&[]).await;
    let client = &scene.store.client;
    fill(client).await;
    for (question, index) in [
        ("", "users_updated_at"),
        ("order=asc", "users_updated_at"),
        ("updated_from=2023-11-15T00:00:00Z&updated_to=2023-11-15T00:01:00Z", "users_updated_at"),
        ("status=rare", "users_status"),
        ("status=active", "users_"),
        ("email_domain=D7.example.com", "users_email_domain"),
        ("name_prefix=name%20c4ca4238", "users_name_order"),
        ("name_like=name%20c4ca4238a0b923820dcc509a6f75849b", "users_name_keys"),
        ("name_like=nmae%20c4ca4238a0b923820dcc509a6f75849b&sort=updated_at", "users_name_keys"),
        ("name_like=nobody&sort=updated_at", "users_name_keys"),
        ("attributes.plan=p7", "users_attributes"),
        ("attributes.n=4711", "users_attributes"),
        ("name_prefix=name%20c4ca42&sort=updated_at", "users_name_order"),
        ("sort=user_id", "users_user_id"),
        ("sort=created_at", "users_created_at"),
        ("created_from=2023-11-15T00:00:00Z&created_to=2023-11-15T00:01:00Z", "users_created_at"),
        ("sort=timestamp", "users_timestamp"),
        ("from=100&to=120", "users_timestamp"),
        ("expires_to=1795341700", "users_expires_at"),
        ("sort=name", "users_name_order"),
    ] {
        let plan = explained(client, question, None).await;
        assert!(plan.contains(index) && !plan.contains("Seq Scan"), "{question}:\n{plan}");
    }
    for (question, columns) in [
        ("", "updated_at"),
        ("status=active", "updated_at"),
        ("status=rare&order=asc", "updated_at"),
        ("sort=created_at", "created_at"),
        ("sort=name", "(name_folded)::text"),
        ("name_prefix=name%20c", "(name_folded)::text"),
    ] {
        let plan = explained(client, question, Some(&["2023-11-15 00:00:00+00", "u100", "100"])).await;
        let entered = plan.lines().find(|line| line.contains("Index Cond")).unwrap_or_default();
        assert!(entered.contains(&format!("ROW({columns}, (user_id)::text, \"timestamp\")")), "{question}:\n{plan}");
        assert!(!plan.contains("Sort"), "{question}:\n{plan}");
    }
    let plan = explained(client, "sort=timestamp", Some(&["100", "u100"])).await;
    let entered = plan.lines().find(|line| line.contains("Index Cond")).unwrap_or_default();
    assert!(entered.contains("ROW(\"timestamp\", (user_id)::text)") && !plan.contains("Sort"), "{plan}");
}

/// Without statistics on the index expression, PostgreSQL estimates that every prefix matches one name in 200, and for
/// a prefix that is nearly unique it would scan the records from the newest on.
#[tokio::test(flavor = "multi_thread")]
async fn a_beginning_that_few_names_have_is_looked_up_though_all_names_begin_alike() {
    let scene = SearchScene::with_people(&[]).await;
    let client = &scene.store.client;
    fill(client).await;
    client.batch_execute("update users set name_folded = 'name number ' || timestamp").await.unwrap();
    client.batch_execute("vacuum analyze users").await.unwrap();
    let plan = explained(client, "name_prefix=name%20number%2047110&sort=updated_at&limit=20", None).await;
    assert!(plan.contains("users_name_order"), "{plan}");
}
