//! Authorization of search: the same rules as in the API.

use axum::body::Body;
use http::Request;
use millrace_http::gateway::GatewayContext;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::scene::{ScenePerson, SearchScene, over};
use crate::users_api::service::{ApiHandle, ServiceResponse};

const NEXT: &str = "/search/users?limit=1";

/// Sends a request as API Gateway does for a caller whose token has this subject and scope; `None` is an
/// unauthenticated caller.
async fn get(search: &ApiHandle, path: &str, caller: Option<(&str, &str)>) -> ServiceResponse {
    let mut request = Request::builder().uri(path).header("authorization", "Bearer nobody.reads.this");
    if let Some((subject, scope)) = caller {
        let claims = json!({"sub": subject, "scope": scope, "iss": "https://issuer.example"});
        let context: Value = json!({"stage": "$default", "requestId": "r", "timeEpoch": 0,
            "authorizer": {"jwt": {"claims": claims, "scopes": null}},
            "http": {"method": "GET", "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "t"}});
        request = request.extension(serde_json::from_value::<GatewayContext>(context).unwrap());
    }
    ServiceResponse::from_response(search.0.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn all_users_are_an_administrator_s_and_a_summary_its_own_user_s() {
    let scene = SearchScene::with_people(&[ScenePerson::named("ada", "Ada"), ScenePerson::named("eve", "Eve")]).await;
    let search = over(&[("POSTGRES_URL", &scene.store.url), ("AUTH", "jwt")]);
    let (ada, admin) = (Some(("ada", "users:read users:write")), Some(("operator", "users:admin")));
    for (path, caller, status) in [
        ("/search/users", None, 401),
        ("/search/users", ada, 403),
        ("/search/users", admin, 200),
        ("/stats/users", None, 401),
        ("/stats/users", ada, 403),
        ("/stats/users", admin, 200),
        ("/users/ada/summary", None, 401),
        ("/users/ada/summary", Some(("ada", "users:write")), 403),
        ("/users/ada/summary", ada, 200),
        ("/users/eve/summary", ada, 404),
        ("/users/eve/summary", admin, 200),
        ("/search/nothing", ada, 404),
    ] {
        assert_eq!(get(&search, path, caller).await.status, status, "{path} {caller:?}");
    }
    let foreign = get(&search, "/users/eve/summary", ada).await;
    let missing = get(&search, "/users/ada/summary", Some(("ada", "users:read"))).await;
    assert_eq!(missing.status, 200);
    let nobody = get(&search, "/users/nobody/summary", Some(("nobody", "users:read"))).await;
    let without_id = |response: &ServiceResponse| response.text.split(r#","instance""#).next().unwrap().to_owned();
    assert_eq!(without_id(&foreign), without_id(&nobody), "as if it were not there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_is_its_caller_s_alone() {
    let scene = SearchScene::with_people(&[ScenePerson::named("ada", "Ada"), ScenePerson::named("eve", "Eve")]).await;
    let search = over(&[("POSTGRES_URL", &scene.store.url), ("AUTH", "jwt")]);
    let first = get(&search, NEXT, Some(("one", "users:admin"))).await;
    let path = format!("{NEXT}&cursor={}", first.json["next_cursor"].as_str().unwrap());
    assert_eq!(get(&search, &path, Some(("one", "users:admin"))).await.status, 200);
    assert_eq!(get(&search, &path, Some(("other", "users:admin"))).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_methods_are_refused_with_those_that_there_are() {
    let scene = SearchScene::with_people(&[]).await;
    for path in ["/search/users", "/stats/users", "/users/ada/summary"] {
        let response = scene.search.send("POST", path, &[], "{}").await;
        assert_eq!((response.status, response.problem()), (405, "method-not-allowed"));
        assert_eq!(response.header("allow"), "GET, HEAD, OPTIONS");
        assert_eq!(scene.search.send("OPTIONS", path, &[], "").await.status, 204);
    }
}
