use super::service::{Api, NOW, Service, config};
use shared::clock::Clock;

#[tokio::test]
async fn a_record_over_400_kb_is_too_large_however_it_is_written() {
    let service = Service::start().await;
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
async fn a_table_that_is_not_there_is_an_operator_s_matter() {
    let service = Service::start().await;
    let api = Api(api::app(&config("Elsewhere"), service.dynamodb.clone(), None, Clock::fixed(NOW)));
    for (method, path) in [("GET", "/users/ada/7"), ("GET", "/users"), ("DELETE", "/users/ada/7")] {
        let refused = api.send(method, path, &[], "").await;
        assert_eq!((refused.status, refused.problem()), (500, "internal"), "{method} {path}");
        assert!(!refused.text.contains("Elsewhere"), "{}", refused.text);
    }
    assert_eq!(api.get("/health").await.status, 200);
}

#[tokio::test]
async fn a_body_that_is_no_user_is_refused_and_nothing_is_written() {
    let service = Service::start().await;
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
