//! Summaries, counts, and the freshness of the results.

use serde_json::json;

use super::scene::{AS_OF, NOW, ScenePerson, SearchScene, ids, over};
use crate::relational::store::apply;
use crate::relational::tcp_proxy::TcpProxy;
use crate::replication::events::EventBuilder;

fn people() -> Vec<ScenePerson> {
    let at = |id: &str, timestamp, created: i64, status: Option<&str>, email: Option<&str>| ScenePerson {
        timestamp,
        status: status.map(str::to_owned),
        email: email.map(str::to_owned),
        created_at: Some(NOW.unix_timestamp() - created),
        updated_at: Some(NOW.unix_timestamp() - created),
        ..ScenePerson::named(id, "Ada")
    };
    let day = 86_400;
    vec![
        at("ada", 5, 10, Some("active"), Some("ada@example.com")),
        at("ada", 9, day, Some("inactive"), Some("ada@Example.com")),
        at("ada", 7, 40 * day, Some("active"), Some("ada@x.org")),
        at("eve", 7, 20, None, None),
        ScenePerson {
            expires_at: Some(NOW.unix_timestamp()),
            ..at("ada", 11, 5, Some("active"), Some("ada@gone.org"))
        },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_summary_is_the_newest_live_record_with_counts_and_times() {
    let scene = SearchScene::with_people(&people()).await;
    let response = scene.search.get("/users/ada/summary").await;
    assert_eq!(response.status, 200, "{}", response.text);
    let summary = &response.json;
    assert_eq!(
        (summary["user"]["timestamp"].as_i64(), summary["user"]["status"].as_str()),
        (Some(9), Some("inactive"))
    );
    assert_eq!(
        (summary["records"].as_i64(), summary["first_timestamp"].as_i64(), summary["last_timestamp"].as_i64()),
        (Some(3), Some(5), Some(9))
    );
    assert_eq!(summary["first_created_at"], "2026-10-13T10:00:00.000Z");
    assert_eq!(summary["last_updated_at"], "2026-11-22T09:59:50.000Z");
    assert_eq!(summary["as_of"], AS_OF);
    let nobody = scene.search.get("/users/nobody/summary").await;
    assert_eq!((nobody.status, nobody.problem()), (404, "not-found"));
    let wrong = scene.search.get("/users/ada/summary?fields=name").await;
    assert_eq!((wrong.status, wrong.json["errors"][0]["parameter"].as_str()), (400, Some("fields")));
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_are_by_status_by_day_and_by_domain() {
    let scene = SearchScene::with_people(&people()).await;
    let response = scene.search.get("/stats/users").await;
    assert_eq!(
        response.json,
        json!({
            "records": 4,
            "statuses": [{"status": "active", "records": 2}, {"status": "inactive", "records": 1}, {"status": null, "records": 1}],
            "days": [{"day": "2026-11-21", "records": 1}, {"day": "2026-11-22", "records": 2}],
            "domains": [{"domain": "example.com", "records": 2}, {"domain": "x.org", "records": 1}],
            "as_of": AS_OF,
        })
    );
    let fewer = scene.search.get("/stats/users?days=1&domains=1").await;
    assert_eq!(fewer.json["days"], json!([{"day": "2026-11-22", "records": 2}]));
    assert_eq!(fewer.json["domains"], json!([{"domain": "example.com", "records": 2}]));
    let wrong = scene.search.get("/stats/users?days=0&domains=101&hours=1").await;
    assert_eq!((wrong.status, wrong.json["errors"].as_array().unwrap().len()), (400, 3));
    let none = SearchScene::with_people(&[]).await.search.get("/stats/users").await;
    assert_eq!(none.json, json!({"records": 0, "statuses": [], "days": [], "domains": [], "as_of": null}));
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_and_expired_users_are_in_no_response() {
    let gone = ScenePerson { expires_at: Some(NOW.unix_timestamp()), ..ScenePerson::named("gone", "Ada") };
    let scene =
        SearchScene::with_people(&[ScenePerson::named("ada", "Ada"), gone, ScenePerson::named("eve", "Eve")]).await;
    apply(&scene.store.sink, &[EventBuilder::deleted("eve", 9)]).await;
    assert_eq!(scene.find("").await, ["ada"]);
    assert_eq!(scene.search.get("/stats/users").await.json["records"], 1);
    for id in ["gone", "eve"] {
        assert_eq!(scene.search.get(&format!("/users/{id}/summary")).await.status, 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_response_contains_the_as_of_timestamp() {
    let scene = SearchScene::with_people(&[]).await;
    let search = "/search/users";
    assert_eq!(scene.search.get(search).await.json["as_of"], json!(null));
    apply(&scene.store.sink, &[ScenePerson::named("ada", "Ada").event(1)]).await;
    assert_eq!(scene.search.get(search).await.json["as_of"], AS_OF);
    // A later change; a delete counts, too.
    apply(&scene.store.sink, &[EventBuilder::deleted("ada", 2)]).await;
    scene.store.client.execute("update users set changed_at = changed_at + interval '1.5 s'", &[]).await.unwrap();
    let response = scene.search.get(search).await;
    assert_eq!((ids(&response).len(), response.json["as_of"].as_str()), (0, Some("2027-01-15T08:00:00.500Z")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_is_no_user_is_left_out_and_does_not_end_the_list() {
    let foreign = ScenePerson { name: "\u{1}".into(), ..ScenePerson::named("bob", "") };
    let people = [ScenePerson::named("ada", "Ada"), foreign, ScenePerson::named("eve", "Eve")];
    let scene = SearchScene::with_people(&people).await;
    assert_eq!(scene.find("sort=user_id").await, ["ada", "eve"]);
    let first = scene.search.get("/search/users?sort=user_id&limit=1").await;
    let second = scene
        .search
        .get(&format!("/search/users?sort=user_id&limit=1&cursor={}", first.json["next_cursor"].as_str().unwrap()))
        .await;
    let third = scene
        .search
        .get(&format!("/search/users?sort=user_id&limit=1&cursor={}", second.json["next_cursor"].as_str().unwrap()))
        .await;
    assert_eq!((ids(&first), ids(&second), ids(&third)), (vec!["ada".into()], vec![], vec!["eve".into()]));
    let summary = scene.search.get("/users/bob/summary").await;
    assert_eq!((summary.status, summary.problem()), (500, "corrupt-record"));
}

/// Almost the maximum size of a record.
const LARGE: usize = 390_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_large_records_is_bounded_in_bytes_and_so_is_what_is_read_for_it() {
    let large = |number: usize| ScenePerson {
        attributes: Some(json!({"M": {"text": {"S": "x".repeat(LARGE)}}})),
        ..ScenePerson::named(&format!("user-{number:03}"), "Large")
    };
    let people: Vec<ScenePerson> = (0..100).map(large).collect();
    let scene = SearchScene::with_people(&people).await;
    let line = TcpProxy::to(&scene.store.url).await;
    let search = over(&[("POSTGRES_URL", line.url())]);
    let mut found = Vec::new();
    let mut path = "/search/users?sort=user_id&limit=1000".to_owned();
    loop {
        let before = line.answered_bytes();
        let page = search.get(&path).await;
        assert_eq!(page.status, 200, "{}", &page.text[..page.text.len().min(500)]);
        let quoted = serde_json::to_string(&page.text).unwrap().len();
        assert!(quoted < 6 * 1024 * 1024, "a Lambda function's response has at most 6 MB: {quoted}");
        // The rows have 39 MB in total; when the page is full, rows in transit remain in the buffers of two
        // connections.
        let read = line.answered_bytes() - before;
        assert!(read < 20 * 1024 * 1024, "{read} bytes were read for a page of {quoted}");
        assert!(!ids(&page).is_empty());
        found.extend(ids(&page));
        match page.json["next_cursor"].as_str() {
            Some(next) => path = format!("/search/users?sort=user_id&limit=1000&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(found, people.iter().map(|person| person.id.clone()).collect::<Vec<_>>(), "each record once, in order");
    assert!(line.connections() > 1, "a connection that still sends is left");
}
