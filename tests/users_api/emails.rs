//! Unique emails: an email belongs to one user, in any number of records, until the last of these records ends.

use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use millrace_shared::clock::Clock;
use serde_json::json;
use time::{Duration, OffsetDateTime};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use super::service::{ApiHandle, FIRST, JSON, NOW, UsersService, config_with, s};
use crate::faults::proxy::{self, HttpFault};

const UNIQUE: [(&str, &str); 3] =
    [("UNIQUE_EMAIL", "true"), ("EMAILS_TABLE", "Emails"), ("IDEMPOTENCY_TABLE", "Idempotency")];

fn api_at(service: &UsersService, now: OffsetDateTime) -> ApiHandle {
    ApiHandle(millrace_api::app(
        &config_with("Users", &UNIQUE),
        service.dynamodb.clone(),
        service.cache.clone(),
        Clock::fixed(now),
    ))
}

async fn create(api: &ApiHandle, id: &str, second: u64, email: &str, expires_at: Option<i64>) -> u16 {
    let body = json!({"user_id": id, "timestamp": second, "name": "A", "email": email, "expires_at": expires_at});
    let response = api.post(&body.to_string()).await;
    if response.status == 409 {
        assert_eq!(
            (response.problem(), response.json["errors"][0]["pointer"].as_str()),
            ("email-taken", Some("/email"))
        );
    }
    response.status
}

/// The number of emails that have an owner.
async fn owned(service: &UsersService) -> usize {
    let scanned = service.dynamodb.scan().table_name("Emails").send().await.unwrap();
    scanned.items().iter().filter(|item| item["record"] == super::service::s("#owner")).count()
}

#[tokio::test]
async fn an_email_belongs_to_one_user_however_many_records_it_has() {
    let service = UsersService::start().await;
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
    assert_eq!((owned(&service).await, api.get("/users").await.seconds().len()), (2, 3));
}

#[tokio::test]
async fn an_email_is_released_with_its_last_record() {
    // The ways in which the last record with an email can be removed or changed.
    for leave in ["DELETE", "PUT", "PATCH", "PATCH null"] {
        let service = UsersService::start().await;
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
        assert_eq!(owned(&service).await, if moved { 2 } else { 1 }, "{leave}");
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
async fn an_email_expires_with_its_records() {
    let service = UsersService::start().await;
    let end = NOW.unix_timestamp() + 3_600;
    assert_eq!(create(&api_at(&service, NOW), "ada", 1, "ada@example.com", Some(end)).await, 201);
    assert_eq!(create(&api_at(&service, NOW + Duration::seconds(3_599)), "eve", 1, "ada@example.com", None).await, 409);
    let after = api_at(&service, NOW + Duration::HOUR);
    assert_eq!(
        create(&after, "eve", 1, "ada@example.com", None).await,
        201,
        "though neither the record nor its reservation is gone"
    );
    assert_eq!(create(&after, "ada", 1, "ada@example.com", None).await, 409);
    // A record whose expiry is removed keeps its email, too.
    assert_eq!(create(&after, "ada", 5, "new@example.com", Some(end + 3_600)).await, 201);
    assert_eq!(after.patch("/users/ada/5", r#"{"expires_at":null}"#).await.status, 200);
    let later = api_at(&service, NOW + Duration::DAY);
    assert_eq!(create(&later, "eve", 9, "new@example.com", None).await, 409);
}

#[tokio::test]
async fn of_many_users_who_request_an_email_one_gets_it() {
    let service = UsersService::start().await;
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
    let service = UsersService::start().await;
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
    assert_eq!((create(&api, "eve", 1, "ada@example.com", None).await, owned(&service).await), (201, 1));
}

#[tokio::test]
async fn conditions_and_the_rest_of_an_item_hold_in_transactions_too() {
    use super::service::{MERGE, n};
    let service = UsersService::start().await;
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
    let service = UsersService::start().await;
    let key = [JSON, ("idempotency-key", "one")];
    let body = r#"{"name":"Ada","email":"ada@example.com"}"#;
    // Every transaction fails at first; afterwards there are no faults.
    let url = proxy::before(service.endpoint(), |call| match call.operation {
        "TransactWriteItems" => HttpFault::Error(503, "ServiceUnavailable"),
        _ => HttpFault::None,
    });
    let client = millrace_local::clients::dynamodb(&url.await);
    let broken = ApiHandle(millrace_api::app(&config_with("Users", &UNIQUE), client, None, Clock::fixed(NOW)));
    assert_eq!(broken.send("POST", "/users", &key, body).await.status, 503);
    assert_eq!(owned(&service).await, 0);
    let api = api_at(&service, NOW);
    let created = api.send("POST", "/users", &key, body).await;
    assert_eq!((created.status, owned(&service).await), (201, 1), "{}", created.text);
    assert_eq!(api.send("POST", "/users", &key, body).await.text, created.text);
    let other = api.send("POST", "/users", &[JSON, ("idempotency-key", "two")], body).await;
    assert_eq!((other.status, other.problem()), (409, "email-taken"));
    let free = other.json["user"].is_null() && api.delete(created.header("location")).await.status == 204;
    assert!(free, "{}", other.text);
    let again = api.send("POST", "/users", &[JSON, ("idempotency-key", "two")], body).await;
    assert_eq!(again.status, 201, "the response to a taken address is not kept for a day: {}", again.text);
}

/// Signals of a transaction that is held back: it has arrived, and it may continue.
#[derive(Default)]
struct EmailItem {
    arrived: Notify,
    go: Notify,
}

/// The API, whose first transaction is held back until it may continue.
async fn api_that_waits(service: &UsersService, held: &Arc<EmailItem>) -> ApiHandle {
    let (held, once) = (Arc::clone(held), Arc::new(Semaphore::new(1)));
    let url = proxy::before_with(service.endpoint(), move |operation| {
        let wait = operation == "TransactWriteItems" && once.try_acquire().map(SemaphorePermit::forget).is_ok();
        let held = Arc::clone(&held);
        async move {
            if wait {
                held.arrived.notify_one();
                held.go.notified().await;
            }
        }
    });
    let client = millrace_local::clients::dynamodb(&url.await);
    ApiHandle(millrace_api::app(&config_with("Users", &UNIQUE), client, None, Clock::fixed(NOW)))
}

#[tokio::test]
async fn a_transaction_that_is_late_takes_no_email_from_its_next_user() {
    // The late writes of ada, after the record with the email was deleted and eve has taken the email.
    let late = [
        ("POST", "/users", r#"{"user_id":"ada","timestamp":2,"name":"A","email":"ada@example.com"}"#),
        ("PUT", "/users/ada/2", r#"{"name":"A","email":"ada@example.com"}"#),
        ("PATCH", "/users/ada/3", r#"{"email":"ada@example.com"}"#),
    ];
    for (method, path, body) in late {
        let service = UsersService::start().await;
        let api = api_at(&service, NOW);
        assert_eq!(create(&api, "ada", 1, "ada@example.com", None).await, 201);
        assert_eq!(create(&api, "ada", 3, "other@example.com", None).await, 201);
        let held = Arc::new(EmailItem::default());
        let slow = api_that_waits(&service, &held).await;
        let written = tokio::spawn(async move {
            let content_type = if method == "PATCH" { super::service::MERGE } else { JSON };
            slow.send(method, path, &[content_type], body).await.status
        });
        held.arrived.notified().await;
        assert_eq!(api.delete("/users/ada/1").await.status, 204);
        assert_eq!(create(&api, "eve", 1, "ada@example.com", None).await, 201, "{method}: it is free");
        held.go.notify_one();
        assert_eq!(written.await.unwrap(), 409, "{method}");
        let users = api.get("/users?email=ada@example.com").await;
        assert_eq!(users.json["users"][0]["user_id"], "eve", "{method}");
        assert_eq!(users.seconds(), [1], "{method}");
    }
}

#[tokio::test]
async fn a_transaction_that_is_late_forgets_no_record_of_its_own_user() {
    let service = UsersService::start().await;
    let api = api_at(&service, NOW);
    assert_eq!(create(&api, "ada", 1, "ada@example.com", None).await, 201);
    let held = Arc::new(EmailItem::default());
    let slow = api_that_waits(&service, &held).await;
    let second = tokio::spawn(async move { create(&slow, "ada", 2, "ada@example.com", None).await });
    held.arrived.notified().await;
    assert_eq!(api.delete("/users/ada/1").await.status, 204);
    assert_eq!(create(&api, "ada", 3, "ada@example.com", None).await, 201);
    held.go.notify_one();
    assert_eq!(second.await.unwrap(), 201);
    assert_eq!(api.delete("/users/ada/2").await.status, 204);
    assert_eq!(create(&api, "eve", 1, "ada@example.com", None).await, 409, "the third record has it");
    assert_eq!(api.delete("/users/ada/3").await.status, 204);
    assert_eq!(create(&api, "eve", 1, "ada@example.com", None).await, 201, "no record has it");
}

/// Gives the user a record with the email for each number of the range, by writing the items that the API would write.
async fn hold(service: &UsersService, records: std::ops::Range<u64>) {
    let written = service.dynamodb.scan().table_name("Emails").send().await.unwrap();
    let of_record = written.items().iter().find(|item| item["record"] == s("ada/1")).unwrap().clone();
    let puts: Vec<WriteRequest> = records
        .map(|second| {
            let mut item = of_record.clone();
            item.insert("record".to_owned(), AttributeValue::S(format!("ada/{second}")));
            let put = PutRequest::builder().set_item(Some(item)).build().unwrap();
            WriteRequest::builder().put_request(put).build()
        })
        .collect();
    for chunk in puts.chunks(25) {
        let written = service.dynamodb.batch_write_item().request_items("Emails", chunk.to_vec()).send().await.unwrap();
        assert!(written.unprocessed_items().is_none_or(std::collections::HashMap::is_empty));
    }
}

#[tokio::test]
async fn a_reservation_costs_the_same_however_many_records_hold_the_email() {
    let service = UsersService::start().await;
    let calls = Arc::new(Mutex::new(Vec::<(String, usize)>::new()));
    let seen = Arc::clone(&calls);
    let url = proxy::before(service.endpoint(), move |call| {
        seen.lock().unwrap().push((call.operation.to_owned(), call.body.len()));
        HttpFault::None
    });
    let client = millrace_local::clients::dynamodb(&url.await);
    let api = ApiHandle(millrace_api::app(&config_with("Users", &UNIQUE), client, None, Clock::fixed(NOW)));
    let mut costs = Vec::new();
    // The numbers have the same number of digits, so that the requests have the same size.
    for (created, held) in [(1_u64, 0..0_u64), (10_001, 20_000..20_098), (10_002, 30_000..32_900)] {
        if !held.is_empty() {
            hold(&service, held).await;
        }
        calls.lock().unwrap().clear();
        assert_eq!(create(&api, "ada", created, "ada@example.com", None).await, 201);
        costs.push(calls.lock().unwrap().clone());
    }
    let operations = |cost: &[(String, usize)]| cost.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert!(costs.iter().all(|cost| operations(cost) == ["GetItem", "TransactWriteItems"]), "{costs:?}");
    assert_eq!(costs[1], costs[2], "at 100 records and at 3,000");
    assert!(costs[1][1].1 < 2_000, "{costs:?}");
    // A delete queries one other record with the email, and no more.
    calls.lock().unwrap().clear();
    assert_eq!(api.delete("/users/ada/10001").await.status, 204);
    assert_eq!(operations(&calls.lock().unwrap()), ["GetItem", "Query", "TransactWriteItems"]);
    assert_eq!(create(&api, "eve", 1, "ada@example.com", None).await, 409);
}

#[tokio::test]
async fn an_email_is_taken_over_once_the_last_of_many_records_has_ended() {
    let service = UsersService::start().await;
    let api = api_at(&service, NOW);
    let end = NOW.unix_timestamp() + 60;
    assert_eq!(create(&api, "ada", 1, "ada@example.com", Some(end)).await, 201);
    // More than one page of expired records, and a last one that has not expired.
    hold(&service, 1_000..2_500).await;
    assert_eq!(create(&api, "ada", 9_999, "ada@example.com", Some(end + 60)).await, 201);
    let after = |seconds| api_at(&service, NOW + Duration::seconds(seconds));
    assert_eq!(create(&after(119), "eve", 1, "ada@example.com", None).await, 409);
    assert_eq!(create(&after(120), "eve", 1, "ada@example.com", None).await, 201);
    assert_eq!(create(&after(120), "ada", 2, "ada@example.com", None).await, 409);
}

#[tokio::test]
async fn no_item_of_a_deleted_user_s_email_stays_that_ttl_does_not_remove() {
    // The expiry of the record that remains last, after the expiry of the others, which are removed first.
    for (first, patched) in [(None, Some(60)), (Some(3_600), Some(60)), (Some(60), Some(30))] {
        let service = UsersService::start().await;
        let api = api_at(&service, NOW);
        let seconds = |after: Option<i64>| after.map(|after| NOW.unix_timestamp() + after);
        assert_eq!(create(&api, "ada", 1, "ada@example.com", seconds(first)).await, 201);
        assert_eq!(create(&api, "ada", 2, "ada@example.com", None).await, 201);
        assert_eq!(api.delete("/users/ada/2").await.status, 204);
        let ends = json!({"expires_at": seconds(patched)}).to_string();
        assert_eq!(api.patch("/users/ada/1", &ends).await.status, 200);
        let items = service.dynamodb.scan().table_name("Emails").send().await.unwrap().items.unwrap();
        let wanted = AttributeValue::N(seconds(patched).unwrap().to_string());
        assert_eq!(items.len(), 2);
        assert!(items.iter().all(|item| item.get("expires_at") == Some(&wanted)), "{items:?}");
        assert_eq!(api.delete("/users/ada/1").await.status, 204);
        let left = service.dynamodb.scan().table_name("Emails").send().await.unwrap().items.unwrap();
        assert!(left.is_empty(), "{left:?}");
    }
}
