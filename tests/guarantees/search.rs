//! The guarantees of search.

use crate::relational::store::apply;
use crate::replication::events::EventBuilder;
use crate::search::scene::{AS_OF, NOW, ScenePerson, SearchScene, nobody, over};

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_25_what_is_searched_is_what_was_replicated() {
    let active = |id: &str| ScenePerson { status: Some("active".into()), ..ScenePerson::named(id, "Ada") };
    let gone = ScenePerson { expires_at: Some(NOW.unix_timestamp()), ..active("gone") };
    let scene = SearchScene::with_people(&[
        active("ada"),
        active("eve"),
        active("mallory"),
        gone,
        ScenePerson::named("bob", "Bob"),
    ])
    .await;
    apply(&scene.store.sink, &[EventBuilder::deleted("eve", 9)]).await;
    assert_eq!(scene.find("status=active&sort=user_id").await, ["ada", "mallory"]);
    let first = scene.search.get("/search/users?status=active&sort=user_id&limit=1").await;
    assert_eq!(first.json["as_of"], AS_OF);
    let next = first.json["next_cursor"].as_str().unwrap();
    assert_eq!(scene.find(&format!("status=active&sort=user_id&limit=1&cursor={next}")).await, ["mallory"]);
    assert_eq!(scene.find("status=%27%20or%201%3D1%20--").await, [""; 0]);
    let search = over(&[("POSTGRES_URL", &scene.store.url), ("POSTGRES_READER_URL", &nobody().await)]);
    assert_eq!(search.get("/stats/users").await.json["records"], 3, "the writer responds");
}
