//! API Gateway's payload, as `lambda_http` hands it over.

use axum::body::Body;
use lambda_http::request::from_str;
use tower::ServiceExt;

use super::scene::{Person, Scene, ids};
use crate::users_api::service::Answer;

#[tokio::test(flavor = "multi_thread")]
async fn the_sample_call_is_answered() {
    let ada = Person { status: Some("active".into()), ..Person::named("ada", "Ada Lovelace") };
    let scene = Scene::of(&[ada, Person::named("eve", "Eve")]).await;
    let request = from_str(include_str!("../../events/search-users.json")).unwrap();
    let answer = Answer::of(scene.search.0.clone().oneshot(request).await.unwrap().map(Body::new)).await;
    assert_eq!((answer.status, ids(&answer)), (200, vec!["ada".to_owned()]), "{}", answer.text);
}
