use super::service::{ApiHandle, NOW, UsersService, config, longest};
use millrace_shared::clock::Clock;

#[tokio::test]
async fn a_record_over_400_kb_is_too_large_however_it_is_written() {
    let service = UsersService::start().await;
    let api = service.api();
    api.created("ada", 7).await;
    let long = "x".repeat(420_000);
    for (method, path, body) in [
        ("POST", "/users", format!(r#"{{"name":"A","attributes":{{"a":"{long}"}}}}"#)),
        ("PUT", "/users/ada/7", format!(r#"{{"name":"A","attributes":{{"a":"{long}"}}}}"#)),
        ("PUT", "/users/ada/8", format!(r#"{{"name":"A","attributes":{{"a":"{long}"}}}}"#)),
        ("PATCH", "/users/ada/7", format!(r#"{{"attributes":{{"a":"{long}"}}}}"#)),
    ] {
        let content_type = if method == "PATCH" { super::service::MERGE } else { super::service::JSON };
        let refused = api.send(method, path, &[content_type], &body).await;
        assert_eq!((refused.status, refused.problem()), (413, "record-too-large"), "{method} {path}");
    }
    assert_eq!(api.get("/users/ada/7").await.status, 200);
}

#[tokio::test]
async fn a_record_that_leaves_no_room_for_a_replica_s_revision_is_too_large_however_it_is_written() {
    use super::service::{FIRST, JSON, MERGE};
    let unique = [("UNIQUE_EMAIL", "true"), ("EMAILS_TABLE", "Emails"), ("IDEMPOTENCY_TABLE", "Idempotency")];
    let once = [JSON, ("idempotency-key", "one")];
    for variables in [&unique[2..], &unique[..]] {
        let service = UsersService::start().await;
        let api = service.api_with(variables);
        let new =
            serde_json::json!({"user_id": "c", "timestamp": 51, "name": "B", "attributes": {"x": "a".repeat(409_451)}});
        let refused = api.post(&new.to_string()).await;
        assert_eq!((refused.status, refused.problem()), (413, "record-too-large"), "400 KB less what a revision takes");
        let detail = refused.json["detail"].as_str().unwrap();
        assert!(detail.contains("409456 bytes") && detail.contains("407552"), "{detail}");
        api.created("ada", 7).await;
        for (method, path, headers) in [
            ("POST", "/users", &[JSON][..]),
            ("POST", "/users", &once),
            ("PUT", "/users/ada/7", &[JSON]),
            ("PUT", "/users/ada/8", &[JSON]),
            ("PATCH", "/users/ada/7", &[MERGE]),
        ] {
            let refused = api.send(method, path, headers, &longest(407_553).to_string()).await;
            assert_eq!((refused.status, refused.problem()), (413, "record-too-large"), "{method} {path}");
        }
        assert_eq!(api.get("/users/ada/7").await.version(), FIRST);
        assert_eq!(api.get("/users/ada/8").await.status, 404);
        // A merge that makes the stored record exceed the limit, and one that does not.
        let half = serde_json::json!({"attributes": {"x": "a".repeat(203_000)}}).to_string();
        assert_eq!(api.patch("/users/ada/7", &half).await.status, 200);
        assert_eq!(api.patch("/users/ada/7", &half.replace("\"x\"", "\"y\"")).await.status, 200);
        let more = api.patch("/users/ada/7", r#"{"email":"ada@example.com","attributes":{"z":"aaaaaaaaaaaaaaa"}}"#);
        assert_eq!(more.await.status, 200);
        let grown = api.patch("/users/ada/7", &half.replace("\"x\"", "\"z\"")).await;
        assert_eq!((grown.status, grown.problem()), (413, "record-too-large"));
        for (method, path, headers) in
            [("POST", "/users", &once[..]), ("PUT", "/users/ada/7", &[JSON]), ("PATCH", "/users/ada/7", &[MERGE])]
        {
            let mut largest = longest(407_552);
            largest["email"] = format!("{}@example.com", method.to_lowercase()).into();
            let written = api.send(method, path, headers, &largest.to_string()).await;
            let expected = if method == "PATCH" { [200, 200] } else { [200, 201] };
            assert!(expected.contains(&written.status), "{method} {path}: {}", written.json["detail"]);
        }
    }
}

#[tokio::test]
async fn a_table_that_is_not_there_is_an_operator_s_matter() {
    let service = UsersService::start().await;
    let api = ApiHandle(millrace_api::app(&config("Elsewhere"), service.dynamodb.clone(), None, Clock::fixed(NOW)));
    for (method, path) in [("GET", "/users/ada/7"), ("GET", "/users"), ("DELETE", "/users/ada/7")] {
        let refused = api.send(method, path, &[], "").await;
        assert_eq!((refused.status, refused.problem()), (500, "internal"), "{method} {path}");
        assert!(!refused.text.contains("Elsewhere"), "{}", refused.text);
    }
    assert_eq!(api.get("/health").await.status, 200);
}

#[tokio::test]
async fn a_body_that_is_no_user_is_refused_and_nothing_is_written() {
    let service = UsersService::start().await;
    let api = service.api();
    let refused = api.post(r#"{"user_id":"ada","timestamp":7,"name":" ","email":"nobody","nick":"a"}"#).await;
    assert_eq!((refused.status, refused.problem()), (422, "invalid-user"));
    let pointers: Vec<_> =
        refused.json["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect();
    assert_eq!(pointers, ["/name", "/email", "/nick"]);
    let malformed = api.post("{\"name\": \"Ada\",}").await;
    assert_eq!((malformed.status, malformed.problem()), (400, "malformed-json"));
    assert_eq!(api.get("/users").await.seconds(), [0; 0]);
}
