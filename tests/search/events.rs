//! API Gateway's payload, as the function receives it.

use super::scene::{ScenePerson, SearchScene, ids, over};
use crate::users_api::events::deliver_batch;

const EVENT: &str = include_str!("../../events/search-users.json");

#[tokio::test(flavor = "multi_thread")]
async fn the_sample_call_is_answered() {
    let ada = ScenePerson { status: Some("active".into()), ..ScenePerson::named("ada", "Ada Lovelace") };
    let scene = SearchScene::with_people(&[ada, ScenePerson::named("eve", "Eve")]).await;
    let response = deliver_batch(&scene.search, EVENT).await;
    assert_eq!((response.status, ids(&response)), (200, vec!["ada".to_owned()]), "{}", response.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_not_canonical_is_refused() {
    let scene = SearchScene::with_people(&[ScenePerson::named("ada", "Ada")]).await;
    for path in [
        "/search/users#x",
        "/search/users?x",
        "/search\\users",
        "/search/use\trs",
        "/stats/../search/users",
        "/search/%75sers",
        "/search//users",
        "/users/ada/summary#",
        "/users/eve/../ada/summary",
    ] {
        let mut event: serde_json::Value = serde_json::from_str(EVENT).unwrap();
        event["rawPath"] = path.into();
        let refused = deliver_batch(&scene.search, &event.to_string()).await;
        assert_eq!((refused.status, refused.problem()), (400, "invalid-path"), "{path:?}: {}", refused.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plus_in_a_query_is_a_space() {
    let on_leave = ScenePerson { status: Some("on leave".into()), ..ScenePerson::named("ada", "Ada") };
    let plus = ScenePerson { status: Some("on+leave".into()), ..ScenePerson::named("eve", "Eve") };
    let scene = SearchScene::with_people(&[on_leave, plus]).await;
    for (query, found) in [("on+leave", "ada"), ("on%20leave", "ada"), ("on%2Bleave", "eve")] {
        assert_eq!(scene.find(&format!("status={query}")).await, [found], "{query}");
        let mut event: serde_json::Value = serde_json::from_str(EVENT).unwrap();
        event["rawQueryString"] = format!("status={query}").into();
        assert_eq!(ids(&deliver_batch(&scene.search, &event.to_string()).await), [found], "{query}");
    }
    let refused = scene.search.get("/search/users?updated_from=2026-11-22T10:00:00+01:00").await;
    assert!(refused.status == 400 && refused.text.contains("%2B"), "{}", refused.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn base_path_is_removed_and_prefixes_the_next_page_link() {
    let scene = SearchScene::with_people(&[ScenePerson::named("ada", "Ada"), ScenePerson::named("eve", "Eve")]).await;
    let mut event: serde_json::Value = serde_json::from_str(EVENT).unwrap();
    event["rawPath"] = "/v1/search/users".into();
    event["rawQueryString"] = "limit=1".into();
    event["requestContext"]["domainName"] = "api.example.com".into();
    for (settings, status) in [(&[][..], 404), (&[("API_BASE_PATH", "/v1")], 200)] {
        let search = over(&[&[("POSTGRES_URL", scene.store.url.as_str())], settings].concat());
        let response = deliver_batch(&search, &event.to_string()).await;
        assert_eq!(response.status, status, "{}", response.text);
        let next = "</v1/search/users?limit=1&cursor=";
        assert_eq!(response.header("link").starts_with(next), status == 200, "{}", response.header("link"));
    }
}
