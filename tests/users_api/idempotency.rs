//! A create with an idempotency key takes effect once, whatever fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration as Pause;

use aws_sdk_dynamodb::config::retry::RetryConfig;
use millrace_local::clients;
use millrace_shared::clock::Clock;
use millrace_shared::table::{IDEMPOTENCY_TTL_SECONDS, IN_PROGRESS_EXPIRY_SECONDS};
use time::{Duration, OffsetDateTime};

use super::service::{ApiHandle, JSON, NOW, ServiceResponse, UsersService, config_with};
use crate::faults::proxy::{self, HttpFault};

const TABLE: (&str, &str) = ("IDEMPOTENCY_TABLE", "Idempotency");
const KEY: (&str, &str) = ("idempotency-key", "\"8e03978e-40d5-43e8-bc93-6894a57f9324\"");
const BODY: &str = r#"{"name":"Ada","email":"ada@example.com","attributes":{"n":0.10}}"#;

fn api(service: &UsersService, now: OffsetDateTime) -> ApiHandle {
    ApiHandle(millrace_api::app(
        &config_with("Users", &[TABLE]),
        service.dynamodb.clone(),
        service.cache.clone(),
        Clock::fixed(now),
    ))
}

async fn post(api: &ApiHandle, body: &str) -> ServiceResponse {
    api.send("POST", "/users", &[JSON, KEY], body).await
}

async fn users(service: &UsersService) -> usize {
    service.dynamodb.scan().table_name("Users").send().await.unwrap().items().len()
}

#[tokio::test]
async fn the_same_request_again_has_the_same_answer_and_no_second_effect() {
    let service = UsersService::start().await;
    let first = post(&api(&service, NOW), BODY).await;
    assert_eq!(first.status, 201, "{}", first.text);
    let address = first.header("location").to_owned();
    let later = NOW + Duration::seconds(IDEMPOTENCY_TTL_SECONDS - 1);
    for again in 0..3 {
        let replayed = post(&api(&service, later), BODY).await;
        assert_eq!((replayed.status, replayed.text.as_str()), (201, first.text.as_str()), "{again}");
        assert_eq!((replayed.header("location"), replayed.header("etag")), (address.as_str(), first.header("etag")));
        assert_eq!(users(&service).await, usize::from(again < 2));
        // The response is the original one, even if the record has changed or been deleted since.
        match again {
            0 => assert_eq!(api(&service, later).patch(&address, r#"{"name":"Eve"}"#).await.status, 200),
            _ => drop(api(&service, later).delete(&address).await),
        }
    }
    let unquoted = [JSON, ("idempotency-key", KEY.1.trim_matches('"'))];
    assert_eq!(api(&service, later).send("POST", "/users", &unquoted, BODY).await.text, first.text);
    let free = post(&api(&service, NOW + Duration::seconds(IDEMPOTENCY_TTL_SECONDS)), BODY).await;
    assert_eq!(free.status, 201, "after a day the key is free");
    assert_ne!(free.json["user"]["user_id"], first.json["user"]["user_id"]);
}

#[tokio::test]
async fn a_key_with_another_body_is_refused() {
    let service = UsersService::start().await;
    let api = api(&service, NOW);
    assert_eq!(post(&api, BODY).await.status, 201);
    let other = post(&api, r#"{"name":"Eve"}"#).await;
    assert_eq!((other.status, other.problem()), (422, "idempotency-key-reused"));
    let another = [JSON, ("idempotency-key", "another")];
    assert_eq!(api.send("POST", "/users", &another, r#"{"name":"Eve"}"#).await.status, 201);
    assert_eq!(users(&service).await, 2);
}

#[tokio::test]
async fn a_retry_in_another_form_is_the_same_request() {
    let service = UsersService::start().await;
    let api = api(&service, NOW);
    let first = post(&api, BODY).await;
    for body in [
        r#"{ "attributes": {"n": 1e-1}, "email": "ada@example.com", "name": "\u0041da" }"#,
        "{\n\"name\":\"Ada\",\"email\":\"ada\\u0040example.com\",\"attributes\":{\"n\":0.1}}",
    ] {
        let again = post(&api, body).await;
        assert_eq!((again.status, again.header("location")), (201, first.header("location")), "{}", again.text);
    }
    for (body, status) in [
        (r#"{"name":"Ada","email":"ada@example.com","attributes":{"n":"0.10"}}"#, 422),
        (r#"{"name":"Ada","name":"Ada","email":"ada@example.com","attributes":{"n":0.10}}"#, 422),
    ] {
        assert_eq!(post(&api, body).await.status, status, "{body}");
    }
    assert_eq!(users(&service).await, 1);
}

/// Starts a create whose second call hangs, and drops the client.
async fn hang(slow: &ApiHandle, calls: &AtomicUsize) {
    let hanging = async {
        while calls.load(Ordering::Relaxed) < 2 {
            tokio::time::sleep(Pause::from_millis(5)).await;
        }
    };
    tokio::select! {
        response = post(slow, BODY) => panic!("{}", response.text),
        () = hanging => {}
    }
}

#[tokio::test]
async fn interrupted_claim_returns_retry_after_until_its_key_is_free() {
    let service = UsersService::start().await;
    let (slow, calls) = troubled(&service, 1, false, HttpFault::Silence, false).await;
    hang(&slow, &calls).await;
    for (seconds, retry_after) in [(0, "1"), (9, "1"), (10, "20"), (29, "1")] {
        let response = post(&api(&service, NOW + Duration::seconds(seconds)), BODY).await;
        assert_eq!((response.status, response.header("retry-after")), (409, retry_after), "after {seconds} s");
    }
    assert_eq!(post(&api(&service, NOW + Duration::seconds(30)), BODY).await.status, 201);
}

#[tokio::test]
async fn a_refusal_is_remembered_and_a_mistake_is_not() {
    let service = UsersService::start().await;
    let api = api(&service, NOW);
    let body = r#"{"user_id":"ada","timestamp":7,"name":"Ada"}"#;
    assert_eq!(post(&api, r#"{"user_id":"ada","timestamp":7,"name":" "}"#).await.status, 422);
    api.created("ada", 7).await;
    assert_eq!(post(&api, body).await.problem(), "already-exists", "the mistake did not use up the key");
    assert_eq!(api.delete("/users/ada/7").await.status, 204);
    assert_eq!(post(&api, body).await.problem(), "already-exists", "the same request has the same response");
    assert_eq!(users(&service).await, 0);
}

#[tokio::test]
async fn of_many_at_once_one_creates() {
    let service = UsersService::start().await;
    let api = api(&service, NOW);
    let responses = futures::future::join_all((0..10).map(|_| post(&api, BODY))).await;
    let mut created = Vec::new();
    for response in &responses {
        if response.status == 201 {
            created.push(&response.text);
            continue;
        }
        assert_eq!((response.status, response.problem()), (409, "idempotency-key-in-use"), "{}", response.text);
        assert_eq!(response.header("retry-after"), "1", "the work takes milliseconds");
    }
    assert!(!created.is_empty() && created.iter().all(|text| *text == created[0]), "{created:?}");
    assert_eq!(users(&service).await, 1);
}

#[tokio::test]
async fn where_keys_are_not_offered_none_is_silently_ignored() {
    let service = UsersService::start().await;
    let refused = post(&service.api(), BODY).await;
    assert_eq!((refused.status, refused.json["errors"][0]["header"].as_str()), (400, Some("idempotency-key")));
    let wrong = [JSON, ("idempotency-key", "a b")];
    assert_eq!(api(&service, NOW).send("POST", "/users", &wrong, BODY).await.status, 400);
    assert_eq!(users(&service).await, 0);
}

/// The API with a fault in its calls to the tables, in call `from` alone or in every call from `from` on.
async fn troubled(
    service: &UsersService,
    from: usize,
    for_good: bool,
    mishap: HttpFault,
    retries: bool,
) -> (ApiHandle, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let plan = move |_: &proxy::ProxiedCall<'_>| {
        let call = counted.fetch_add(1, Ordering::Relaxed);
        if call == from || (for_good && call > from) { mishap } else { HttpFault::None }
    };
    let url = proxy::before(service.endpoint(), plan).await;
    let config = clients::dynamodb(&url).config().to_builder();
    let retry = if retries { RetryConfig::standard().with_max_attempts(3) } else { RetryConfig::disabled() };
    let client = aws_sdk_dynamodb::Client::from_conf(config.retry_config(retry).build());
    (ApiHandle(millrace_api::app(&config_with("Users", &[TABLE]), client, None, Clock::fixed(NOW))), calls)
}

/// Interrupts a create and repeats it; returns whether the first attempt was cut short.
async fn crash(mishap: HttpFault, from: usize, for_good: bool, retries: bool) -> bool {
    let story = format!("{mishap:?} from call {from}, for good: {for_good}, retries: {retries}");
    let service = UsersService::start().await;
    let (broken, _) = troubled(&service, from, for_good, mishap, retries).await;
    // A client that waits too long disconnects, and the process ends with it.
    let first = tokio::time::timeout(Pause::from_millis(1_500), post(&broken, BODY)).await;
    let first = first.ok().filter(|response| response.status == 201);

    let at_once = post(&api(&service, NOW), BODY).await;
    assert!([201, 409].contains(&at_once.status), "{story}: {}", at_once.text);
    let after = post(&api(&service, NOW + Duration::seconds(IN_PROGRESS_EXPIRY_SECONDS)), BODY).await;
    assert_eq!(after.status, 201, "{story}: the key is free again or answered: {}", after.text);
    for earlier in first.iter().chain(Some(&at_once).filter(|response| response.status == 201)) {
        assert_eq!(earlier.text, after.text, "{story}: the same response");
    }
    assert_eq!(users(&service).await, 1, "{story}");
    first.is_none()
}

#[tokio::test]
async fn a_crash_at_any_call_never_creates_two_users() {
    let mut crashes = Vec::new();
    for mishap in [HttpFault::Error(500, "InternalServerError"), HttpFault::ResponseLost, HttpFault::Silence] {
        for (for_good, retries) in [(false, false), (true, false), (false, true), (true, true)] {
            // The claim, the transaction, the release of the claim, and one call more than there are.
            crashes.extend((0..4).map(|from| crash(mishap, from, for_good, retries)));
        }
    }
    let cut_short = futures::future::join_all(crashes).await.into_iter().filter(|cut_short| *cut_short).count();
    assert!(cut_short >= 16, "the crashes did hit: {cut_short}");
}

#[tokio::test]
async fn an_attempt_that_lost_its_claim_cannot_write_any_more() {
    let service = UsersService::start().await;
    let (slow, calls) = troubled(&service, 1, false, HttpFault::Silence, false).await;
    // The attempt claims the key, and its transaction hangs.
    hang(&slow, &calls).await;
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    let other = post(&api(&service, NOW + Duration::seconds(IN_PROGRESS_EXPIRY_SECONDS)), BODY).await;
    assert_eq!((other.status, users(&service).await), (201, 1));
    let item = service.dynamodb.scan().table_name("Idempotency").send().await.unwrap().items.unwrap().remove(0);
    // The condition of the late transaction requires a claim that another attempt has taken over.
    let late = service.dynamodb.update_item().table_name("Idempotency").key("id", item["id"].clone());
    let late = late.update_expression("SET #status = :completed").condition_expression("#status = :in_progress");
    let late = late.expression_attribute_names("#status", "status");
    let late = late.expression_attribute_values(":completed", super::service::s("COMPLETED"));
    let late = late.expression_attribute_values(":in_progress", super::service::s("INPROGRESS")).send().await;
    assert!(late.unwrap_err().into_service_error().is_conditional_check_failed_exception());
    let mut kept: Vec<_> = item.keys().map(String::as_str).collect();
    kept.sort_unstable();
    assert_eq!(kept, ["data", "expiration", "id", "owner_token", "status", "validation"]);
    assert_eq!(item["status"], super::service::s("COMPLETED"));
    let data: serde_json::Map<String, serde_json::Value> = serde_json::from_str(item["data"].as_s().unwrap()).unwrap();
    let mut members: Vec<_> = data.keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(members, ["created_at", "outcome", "timestamp", "user_id"], "no word of the user");
}
