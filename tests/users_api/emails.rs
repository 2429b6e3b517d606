//! Where addresses are unique: one user has one, however many records it has, for as long as one of them lasts.

use serde_json::json;
use shared::clock::Clock;
use time::{Duration, OffsetDateTime};

use super::service::{Api, FIRST, JSON, NOW, Service, config_with};
use crate::faults::proxy::{self, Mishap};

const UNIQUE: [(&str, &str); 3] =
    [("UNIQUE_EMAIL", "true"), ("EMAILS_TABLE", "Emails"), ("IDEMPOTENCY_TABLE", "Idempotency")];

fn api_at(service: &Service, now: OffsetDateTime) -> Api {
    Api(api::app(&config_with("Users", &UNIQUE), service.dynamodb.clone(), service.cache.clone(), Clock::fixed(now)))
}

async fn create(api: &Api, id: &str, second: u64, email: &str, expires_at: Option<i64>) -> u16 {
    let body = json!({"user_id": id, "timestamp": second, "name": "A", "email": email, "expires_at": expires_at});
    let answer = api.post(&body.to_string()).await;
    if answer.status == 409 {
        assert_eq!((answer.problem(), answer.json["errors"][0]["pointer"].as_str()), ("email-taken", Some("/email")));
    }
    answer.status
}

async fn markers(service: &Service) -> usize {
    service.dynamodb.scan().table_name("Emails").send().await.unwrap().items().len()
}

#[tokio::test]
async fn an_address_is_one_user_s_however_many_records_it_has() {
    let service = Service::start().await;
    let api = api_at(&service, NOW);
    assert_eq!(create(&api, "ada", 1, "ada@example.com", None).await, 201);
    assert_eq!(create(&api, "ada", 2, "Ada@Example.com", None).await, 201, "the same user may have it again");
    assert_eq!(create(&api, "eve", 1, "ADA@example.com", None).await, 409, "in whatever case");
    assert_eq!(create(&api, "eve", 1, "eve@example.com", None).await, 201);
    for (method, body) in
        [("PUT", r#"{"name":"E","email":"ada@example.com"}"#), ("PATCH", r#"{"email":"ada@example.com"}"#)]
    {
        let content_type = if method == "PUT" { JSON } else { super::service::MERGE };
        let taken = api.send(method, "/users/eve/1", &[content_type], body).await;
        assert_eq!((taken.status, taken.problem()), (409, "email-taken"), "{method}");
    }
    assert_eq!(api.get("/users/eve/1").await.version(), FIRST, "nothing was written");
    assert_eq!((markers(&service).await, api.get("/users").await.seconds().len()), (2, 3));
}

#[tokio::test]
async fn an_address_is_freed_by_the_last_record_that_leaves_it() {
    // How the last record leaves its address.
    for leave in ["DELETE", "PUT", "PATCH", "PATCH null"] {
        let service = Service::start().await;
        let api = api_at(&service, NOW);
        for second in [1, 2] {
            assert_eq!(create(&api, "ada", second, "ada@example.com", None).await, 201);
        }
        assert_eq!(api.delete("/users/ada/1").await.status, 204);
        assert_eq!(create(&api, "eve", 1, "ada@example.com", None).await, 409, "{leave}: one record is left");
        let left = match leave {
            "DELETE" => api.delete("/users/ada/2").await,
            "PUT" => api.put("/users/ada/2", r#"{"name":"Ada","email":"other@example.com"}"#).await,
            "PATCH" => api.patch("/users/ada/2", r#"{"email":"other@example.com"}"#).await,
            _ => api.patch("/users/ada/2", r#"{"email":null}"#).await,
        };
        assert!(left.status < 300, "{leave}: {}", left.text);
        assert_eq!(create(&api, "eve", 1, "ada@example.com", None).await, 201, "{leave}");
        let moved = leave == "PUT" || leave == "PATCH";
        assert_eq!(markers(&service).await, if moved { 2 } else { 1 }, "{leave}");
        if leave != "DELETE" {
            assert_eq!(left.version(), FIRST + 1);
            assert_eq!(
                api.get("/users/ada/2").await.json["user"],
                left.json["user"],
                "{leave}: as answered, so stored"
            );
        }
    }
}

#[tokio::test]
async fn an_address_ends_with_its_records() {
    let service = Service::start().await;
    let end = NOW.unix_timestamp() + 3_600;
    assert_eq!(create(&api_at(&service, NOW), "ada", 1, "ada@example.com", Some(end)).await, 201);
    assert_eq!(create(&api_at(&service, NOW + Duration::seconds(3_599)), "eve", 1, "ada@example.com", None).await, 409);
    let after = api_at(&service, NOW + Duration::HOUR);
    assert_eq!(
        create(&after, "eve", 1, "ada@example.com", None).await,
        201,
        "though neither record nor marker is gone"
    );
    assert_eq!(create(&after, "ada", 1, "ada@example.com", None).await, 409);
    // A record that is kept keeps its address, too.
    assert_eq!(create(&after, "ada", 5, "new@example.com", Some(end + 3_600)).await, 201);
    assert_eq!(after.patch("/users/ada/5", r#"{"expires_at":null}"#).await.status, 200);
    let later = api_at(&service, NOW + Duration::DAY);
    assert_eq!(create(&later, "eve", 9, "new@example.com", None).await, 409);
}

#[tokio::test]
async fn of_many_users_who_want_an_address_one_has_it() {
    let service = Service::start().await;
    let api = api_at(&service, NOW);
    let ids: Vec<String> = (0..8).map(|user| format!("user-{user}")).collect();
    let wants = ids.iter().map(|id| create(&api, id, 1, "one@example.com", None));
    let mut statuses = futures::future::join_all(wants).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409, 409, 409]);
    assert_eq!(api.get("/users?email=one@example.com").await.seconds(), [1]);
}

#[tokio::test]
async fn one_user_s_records_that_race_are_all_counted() {
    let service = Service::start().await;
    let api = api_at(&service, NOW);
    let creates = (1..5).map(|second| create(&api, "ada", second, "ada@example.com", None));
    assert_eq!(futures::future::join_all(creates).await, [201; 4]);
    let deletes = (1..4).map(|second| {
        let api = api.clone();
        async move { api.delete(&format!("/users/ada/{second}")).await.status }
    });
    assert_eq!(futures::future::join_all(deletes).await, [204; 3]);
    assert_eq!(create(&api, "eve", 1, "ada@example.com", None).await, 409, "one is left");
    assert_eq!(api.delete("/users/ada/4").await.status, 204);
    assert_eq!((create(&api, "eve", 1, "ada@example.com", None).await, markers(&service).await), (201, 1));
}

#[tokio::test]
async fn conditions_and_the_rest_of_an_item_hold_in_transactions_too() {
    use super::service::{MERGE, n, s};
    let service = Service::start().await;
    let api = api_at(&service, NOW);
    service.put(&[("user_id", s("ada")), ("timestamp", n(7)), ("name", s("Ada")), ("mark", s("theirs"))]).await;
    let tagged = [MERGE, ("if-match", "\"1\"")];
    assert_eq!(api.send("PATCH", "/users/ada/7", &tagged, r#"{"email":"a@b.cd"}"#).await.status, 412);
    assert_eq!(api.patch("/users/ada/7", r#"{"email":"a@b.cd","attributes":{"a":1.10}}"#).await.version(), FIRST);
    assert_eq!(api.put("/users/ada/7", r#"{"name":"Ada King","email":"a@b.cd"}"#).await.version(), FIRST + 1);
    assert_eq!(service.item("ada", 7).await.unwrap()["mark"], s("theirs"));
    let tag = format!("\"{}\"", FIRST + 1);
    for (tags, status) in [("\"1\"", 412), (tag.as_str(), 204), (tag.as_str(), 404)] {
        assert_eq!(api.send("DELETE", "/users/ada/7", &[("if-match", tags)], "").await.status, status, "{tags}");
    }
    assert_eq!(api.send("PUT", "/users/ada/7", &[JSON, ("if-match", "*")], r#"{"name":"A"}"#).await.status, 412);
    let new = [JSON, ("if-none-match", "*")];
    assert_eq!(api.send("PUT", "/users/ada/7", &new, r#"{"name":"A","email":"a@b.cd"}"#).await.status, 201);
    assert_eq!(api.send("PUT", "/users/ada/7", &new, r#"{"name":"A"}"#).await.status, 412);
}

#[tokio::test]
async fn a_create_with_a_key_takes_the_address_with_the_record_or_neither() {
    let service = Service::start().await;
    let key = [JSON, ("idempotency-key", "one")];
    let body = r#"{"name":"Ada","email":"ada@example.com"}"#;
    // The transaction fails for good; then all is well.
    let url = proxy::before(service.endpoint(), |call| match call.operation {
        "TransactWriteItems" => Mishap::Error(503, "ServiceUnavailable"),
        _ => Mishap::None,
    });
    let client = local::clients::dynamodb(&url.await);
    let broken = Api(api::app(&config_with("Users", &UNIQUE), client, None, Clock::fixed(NOW)));
    assert_eq!(broken.send("POST", "/users", &key, body).await.status, 503);
    assert_eq!(markers(&service).await, 0);
    let api = api_at(&service, NOW);
    let created = api.send("POST", "/users", &key, body).await;
    assert_eq!((created.status, markers(&service).await), (201, 1), "{}", created.text);
    assert_eq!(api.send("POST", "/users", &key, body).await.text, created.text);
    let other = api.send("POST", "/users", &[JSON, ("idempotency-key", "two")], body).await;
    assert_eq!((other.status, other.problem()), (409, "email-taken"));
    let free = other.json["user"].is_null() && api.delete(created.header("location")).await.status == 204;
    assert!(free, "{}", other.text);
    let again = api.send("POST", "/users", &[JSON, ("idempotency-key", "two")], body).await;
    assert_eq!(again.status, 201, "a taken address is no answer for a day: {}", again.text);
}
