use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_dynamodb::types::AttributeValue;
use millrace_local::clients;
use millrace_shared::clock::Clock;
use millrace_shared::raw_item::RawItem;
use serde_json::json;
use time::Duration;

use super::service::{ApiHandle, FIRST, JSON, MERGE, NOW, ServiceResponse, UsersService, config, n, s};
use crate::faults::proxy::{self, HttpFault};
use crate::relational::store::apply;
use crate::replication::events::EventBuilder;
use crate::search::scene::{SearchScene, ids};

const RECORD: &str = "/users/ada/7";

/// Creates a record that expires an hour after [`NOW`], and remains in the table.
async fn expiring(service: &UsersService) {
    let expires_at = NOW.unix_timestamp() + 3_600;
    let body = format!(
        r#"{{"user_id":"ada","timestamp":7,"name":"Old","email":"ada@example.com","status":"old","attributes":{{"a":1}},"expires_at":{expires_at}}}"#
    );
    assert_eq!(service.api().post(&body).await.status, 201);
}

#[tokio::test]
async fn an_expired_record_is_absent_for_every_read_though_it_is_still_there() {
    let service = UsersService::start().await;
    expiring(&service).await;
    let before = service.api_at(NOW + Duration::seconds(3_599));
    let after = service.api_at(NOW + Duration::HOUR);
    assert_eq!(before.get(RECORD).await.status, 200);
    for path in [RECORD, "/users/ada/latest"] {
        assert_eq!(after.get(path).await.status, 404, "{path}");
    }
    for path in ["/users/ada", "/users", "/users?email=ada@example.com"] {
        assert_eq!(before.get(path).await.seconds(), [7], "{path}");
        let empty = after.get(path).await;
        assert_eq!(empty.text, r#"{"users":[],"next_cursor":null}"#, "{path}");
    }
    assert!(service.item("ada", 7).await.is_some());
}

#[tokio::test]
async fn an_update_or_a_delete_of_an_expired_record_finds_nothing() {
    let service = UsersService::start().await;
    expiring(&service).await;
    let api = service.api_at(NOW + Duration::HOUR);
    let tag = format!("\"{FIRST}\"");
    for body in [r#"{"name":"New"}"#, r#"{"attributes":{"a":2}}"#, r#"{"expires_at":null}"#] {
        assert_eq!(api.patch(RECORD, body).await.status, 404, "{body}");
        assert_eq!(api.send("PATCH", RECORD, &[MERGE, ("if-match", &tag)], body).await.status, 404, "{body}");
    }
    assert_eq!(api.delete(RECORD).await.status, 404);
    assert!(service.item("ada", 7).await.is_some(), "it is left to TTL, and so to the archive");
    let put = api.send("PUT", RECORD, &[JSON, ("if-match", "*")], r#"{"name":"New"}"#).await;
    assert_eq!(put.status, 412, "there is nothing to match");
}

#[tokio::test]
async fn create_over_an_expired_record_starts_from_scratch() {
    for method in ["POST", "PUT", "PUT if-none-match"] {
        let service = UsersService::start().await;
        expiring(&service).await;
        let api = service.api_at(NOW + Duration::HOUR);
        let created = match method {
            "POST" => api.post(r#"{"user_id":"ada","timestamp":7,"name":"New"}"#).await,
            "PUT" => api.put(RECORD, r#"{"name":"New"}"#).await,
            _ => {
                let headers = [JSON, ("if-none-match", "*")];
                api.send("PUT", RECORD, &headers, r#"{"name":"New"}"#).await
            }
        };
        assert_eq!((created.status, created.version()), (201, FIRST + 3_600_000_000), "{method}: {}", created.text);
        let item = service.item("ada", 7).await.unwrap();
        let mut names: Vec<_> = item.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["created_at", "name", "timestamp", "updated_at", "user_id", "version"],
            "nothing of the old record shows through ({method})"
        );
        assert_eq!(api.get(RECORD).await.json["user"]["created_at"], "2026-11-22T11:00:00.123Z");
    }
}

#[tokio::test]
async fn a_record_may_be_ended_at_once_and_kept_while_it_lives() {
    let service = UsersService::start().await;
    let api = service.api();
    api.created("ada", 7).await;
    let kept = api.patch(RECORD, &format!(r#"{{"expires_at":{}}}"#, NOW.unix_timestamp() + 1)).await;
    assert_eq!(kept.status, 200);
    assert_eq!(api.patch(RECORD, r#"{"expires_at":null}"#).await.status, 200, "while it lives it can be kept");
    assert_eq!(api.patch(RECORD, &format!(r#"{{"expires_at":{}}}"#, NOW.unix_timestamp())).await.status, 200);
    assert_eq!(api.get(RECORD).await.status, 404);
    let beyond = NOW.unix_timestamp() + 51 * 365 * 86_400;
    // TTL would never delete an item that expired more than five years ago, and the archive would never receive it.
    for expires_at in [0, beyond] {
        let refused = api.post(&format!(r#"{{"name":"Ada","expires_at":{expires_at}}}"#)).await;
        assert_eq!((refused.status, refused.json["errors"][0]["pointer"].as_str()), (422, Some("/expires_at")));
    }
}

#[tokio::test]
async fn an_expiry_that_is_no_number_ends_nothing_and_blocks_nothing() {
    for expires_at in [AttributeValue::Null(true), s("tomorrow"), AttributeValue::N("0".to_owned())] {
        let service = UsersService::start().await;
        let api = service.api();
        let item = [("user_id", s("ada")), ("timestamp", n(7)), ("name", s("Ada")), ("expires_at", expires_at)];
        service.put(&item).await;
        assert_eq!(api.get(RECORD).await.status, 200);
        assert_eq!(api.get("/users/ada/latest").await.status, 200, "one record, one result");
        assert_eq!(api.get("/users/ada").await.seconds(), [7]);
        assert_eq!(api.post(r#"{"user_id":"ada","timestamp":7,"name":"Eve"}"#).await.status, 409);
        assert_eq!(api.patch(RECORD, r#"{"attributes":{"a":1}}"#).await.status, 200);
        assert_eq!(api.send("PUT", RECORD, &[JSON], r#"{"name":"Ada King"}"#).await.status, 200);
        service.put(&item).await;
        assert_eq!(api.delete(RECORD).await.status, 204);
    }
}

/// Values that may be stored as an expiry; whether the record is visible at [`NOW`], and the expiry that is returned
/// for it.
fn expiries() -> Vec<(AttributeValue, bool, Option<i64>)> {
    let (now, year) = (NOW.unix_timestamp(), 31_557_600);
    let number = AttributeValue::N;
    vec![
        (number((now + 1).to_string()), true, Some(now + 1)),
        (number(now.to_string()), false, None),
        (number(format!("{}.5", now + 3_600)), true, Some(now + 3_601)),
        (number(format!("{now}.5")), true, Some(now + 1)),
        (number(format!("{}.5", now - 6)), false, None),
        (number("0".to_owned()), true, None),
        (number("-1".to_owned()), true, None),
        (number((now - 4 * year).to_string()), false, None),
        (number((now - 5 * year + 1).to_string()), false, None),
        (number((now - 5 * year).to_string()), true, None),
        (number((now - 6 * year).to_string()), true, None),
        (number((now * 1_000).to_string()), true, Some(now * 1_000)),
        (number("1.9E+9".to_owned()), true, Some(1_900_000_000)),
        (number("1.7E+9".to_owned()), false, None),
        (number("12345678901234567890123456789012345678".to_owned()), true, None),
        (s("tomorrow"), true, None),
        (s(&now.to_string()), true, None),
        (AttributeValue::Bool(true), true, None),
        (AttributeValue::Null(true), true, None),
        (AttributeValue::Ns(vec!["1".to_owned()]), true, None),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiry_means_the_same_to_the_api_to_ttl_and_to_search() {
    let (service, search) = (UsersService::start().await, SearchScene::with_people(&[]).await);
    let api = service.api();
    let rows = expiries();
    let id = |row: usize| format!("user-{row:02}");
    for (row, (expires_at, _, _)) in rows.iter().enumerate() {
        let item = [
            ("user_id", s(&id(row))),
            ("timestamp", n(7)),
            ("name", s("Ada")),
            ("email", s("ada@example.com")),
            ("expires_at", expires_at.clone()),
        ];
        service.put(&item).await;
        let image = RawItem::new(item.map(|(name, value)| (name.to_owned(), value)).into()).encode();
        let event = EventBuilder::image(&id(row), 1 + u64::try_from(row).unwrap(), &image).at("7");
        assert_eq!(apply(&search.store.sink, &[event]).await.applied, 1, "{expires_at:?}");
    }
    let live: Vec<String> = (0..rows.len()).filter(|row| rows[*row].1).map(id).collect();
    let listed = |response: &ServiceResponse| -> Vec<String> {
        let mut ids = ids(response);
        ids.sort_unstable();
        ids
    };
    for path in ["/users?limit=100", "/users?email=ada@example.com&limit=100"] {
        assert_eq!(listed(&api.get(path).await), live, "{path}");
    }
    let found = search.search.get("/search/users?limit=100&sort=user_id").await;
    assert_eq!(listed(&found), live, "search");
    assert_eq!(search.search.get("/stats/users").await.json["records"], live.len());
    let keys: Vec<_> = (0..rows.len()).map(|row| json!({"user_id": id(row), "timestamp": 7})).collect();
    let batch = api.send("POST", "/users:batchGet", &[JSON], &json!({"keys": keys}).to_string()).await;
    assert_eq!(listed(&batch), live, "{}", batch.text);
    let found = found.json["users"].as_array().unwrap();
    for (row, (value, is_live, shown)) in rows.iter().enumerate() {
        let status = if *is_live { 200 } else { 404 };
        for path in [format!("/users/{}/7", id(row)), format!("/users/{}/latest", id(row))] {
            let read = api.get(&path).await;
            assert_eq!(read.status, status, "{value:?} {path}");
            assert_eq!(read.json["user"]["expires_at"].as_i64(), *shown, "{value:?} {path}");
        }
        let searched = found.iter().find(|user| user["user_id"] == id(row).as_str());
        assert_eq!(searched.and_then(|user| user["expires_at"].as_i64()), *shown, "{value:?}");
    }
    // TTL deletes the records that are not visible, and no others.
    assert_eq!(service.expire(NOW).await, rows.len() - live.len());
    for (row, (value, is_live, _)) in rows.iter().enumerate() {
        assert_eq!(service.item(&id(row), 7).await.is_some(), *is_live, "{value:?}");
        let again = format!(r#"{{"user_id":"{}","timestamp":7,"name":"Eve"}}"#, id(row));
        assert_eq!(api.post(&again).await.status, if *is_live { 409 } else { 201 }, "{value:?}");
        let patched = api.patch(&format!("/users/{}/7", id(row)), r#"{"attributes":{"a":1}}"#).await;
        assert_eq!(patched.status, 200, "{value:?}");
    }
}

#[tokio::test]
async fn a_record_that_has_expired_by_any_spelling_is_written_over() {
    for (value, is_live, _) in expiries() {
        let service = UsersService::start().await;
        let api = service.api();
        service
            .put(&[("user_id", s("ada")), ("timestamp", n(7)), ("name", s("Ada")), ("expires_at", value.clone())])
            .await;
        let deleted = api.delete(RECORD).await.status;
        assert_eq!(deleted, if is_live { 204 } else { 404 }, "{value:?}");
        assert_eq!(api.post(r#"{"user_id":"ada","timestamp":7,"name":"Eve"}"#).await.status, 201, "{value:?}");
    }
}

#[tokio::test]
async fn a_fraction_of_a_second_does_not_keep_an_expired_item() {
    let service = UsersService::start().await;
    let expires_at = AttributeValue::N(format!("{}.5", NOW.unix_timestamp() - 1));
    service.put(&[("user_id", s("ada")), ("timestamp", n(7)), ("name", s("Ada")), ("expires_at", expires_at)]).await;
    assert_eq!(service.api().get(RECORD).await.status, 404);
    assert_eq!(service.api().post(r#"{"user_id":"ada","timestamp":7,"name":"Eve"}"#).await.status, 201);
}

#[tokio::test]
async fn the_latest_record_is_found_behind_many_expired_ones() {
    let service = UsersService::start().await;
    let api = service.api();
    api.created("ada", 1).await;
    let expired = NOW.unix_timestamp().to_string();
    for second in 2..40_u64 {
        let expires_at = aws_sdk_dynamodb::types::AttributeValue::N(expired.clone());
        let name = super::service::s("Old");
        let id = super::service::s("ada");
        service
            .put(&[
                ("user_id", id),
                ("timestamp", super::service::n(second)),
                ("name", name),
                ("expires_at", expires_at),
            ])
            .await;
    }
    assert_eq!(api.get("/users/ada/latest").await.json["user"]["timestamp"], 1);
    let page = api.get("/users/ada?limit=1").await;
    assert_eq!((page.seconds(), page.json["next_cursor"].is_null()), (vec![1], true), "{}", page.text);
}

#[tokio::test]
async fn the_latest_is_looked_for_among_so_many_expired_records_and_is_never_wrongly_missing() {
    let service = UsersService::start().await;
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&reads);
    let url = proxy::before(service.endpoint(), move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        HttpFault::None
    });
    let api = ApiHandle(millrace_api::app(&config("Users"), clients::dynamodb(&url.await), None, Clock::fixed(NOW)));
    let past = n(u64::try_from(NOW.unix_timestamp()).unwrap() - 1);
    let long = "x".repeat(390_000);
    let put = async |second: u64| {
        let item = [("user_id", s("ada")), ("timestamp", n(second)), ("name", s("A")), ("expires_at", past.clone())];
        service.put(&[&item[..], &[("long", s(&long))]].concat()).await;
    };
    service.api().created("ada", 1).await;
    for second in 100..110 {
        put(second).await;
    }
    let latest = api.get("/users/ada/latest").await;
    assert_eq!((latest.status, latest.json["user"]["timestamp"].as_u64()), (200, Some(1)), "beyond a few it is found");
    for second in 110..160 {
        put(second).await;
    }
    reads.store(0, Ordering::Relaxed);
    let latest = api.get("/users/ada/latest").await;
    assert_eq!((latest.status, latest.problem()), (503, "too-many-expired"), "{}", latest.text);
    assert_eq!(latest.header("retry-after"), "3600");
    assert!(reads.load(Ordering::Relaxed) <= 20, "{reads:?} reads");
    // The list that the error recommends contains the record.
    let mut path = "/users/ada?limit=1".to_owned();
    loop {
        let page = api.get(&path).await;
        match page.seconds().first() {
            Some(second) => break assert_eq!(*second, 1),
            None => path = format!("/users/ada?limit=1&cursor={}", page.json["next_cursor"].as_str().unwrap()),
        }
    }
}
