use super::service::{FIRST, UsersService};

#[tokio::test]
async fn a_created_record_is_read_back_at_its_location() {
    let service = UsersService::start().await;
    let api = service.api();
    let body = r#"{"user_id":"auth0|ada","timestamp":7,"name":"Ada","email":"ada@example.com","status":"on","expires_at":1900000000}"#;
    let created = api.post(body).await;
    assert_eq!(created.status, 201, "{}", created.text);
    assert_eq!(created.header("location"), "/users/auth0%7Cada/7");
    assert_eq!(created.header("etag"), format!("\"{FIRST}\""));
    assert!(created.json.get("source").is_none(), "a write has no source");

    let read = api.get(created.header("location")).await;
    assert_eq!((read.status, read.json["source"].as_str()), (200, Some("database")));
    assert_eq!(read.json["user"], created.json["user"]);
    assert_eq!(read.header("etag"), created.header("etag"));
    assert_eq!(read.header("cache-control"), "private, no-cache");
    assert_eq!(
        created.text,
        r#"{"user":{"user_id":"auth0|ada","timestamp":7,"name":"Ada","email":"ada@example.com","status":"on","expires_at":1900000000,"#
            .to_owned()
            + r#""version":1795341600123456,"created_at":"2026-11-22T10:00:00.123Z","updated_at":"2026-11-22T10:00:00.123Z"}}"#
    );
}

#[tokio::test]
async fn a_record_without_a_key_gets_a_new_user_and_the_present_second() {
    let service = UsersService::start().await;
    let created = service.api().post(r#"{"name":"Ada"}"#).await;
    assert_eq!(created.status, 201, "{}", created.text);
    assert_eq!(created.json["user"]["timestamp"], 1_795_341_600);
    let id = created.json["user"]["user_id"].as_str().unwrap();
    assert_eq!((id.len(), &id[14..15]), (36, "7"), "a version 7 UUID: {id}");
    assert!(id.starts_with("019aab2b-b37b") || id.starts_with("01"), "by the request's clock: {id}");
    let other = service.api().post(r#"{"name":"Ada"}"#).await;
    assert_ne!(other.json["user"]["user_id"], created.json["user"]["user_id"]);
}

#[tokio::test]
async fn a_live_record_is_not_created_again() {
    let service = UsersService::start().await;
    let api = service.api();
    api.created("ada", 7).await;
    let again = api.post(r#"{"user_id":"ada","timestamp":7,"name":"Eve"}"#).await;
    assert_eq!((again.status, again.problem()), (409, "already-exists"));
    assert_eq!(api.get("/users/ada/7").await.json["user"]["name"], "Ada");
    assert_eq!(api.post(r#"{"user_id":"ada","timestamp":8,"name":"Ada"}"#).await.status, 201, "another second is free");
}

#[tokio::test]
async fn a_put_creates_then_replaces_whole_and_keeps_the_creation_time() {
    let service = UsersService::start().await;
    let created =
        service.api().put("/users/ada/7", r#"{"name":"Ada","email":"ada@example.com","attributes":{"a":1}}"#).await;
    assert_eq!((created.status, created.version()), (201, FIRST));
    let later = service.api_at(super::service::NOW + time::Duration::HOUR);
    let replaced =
        later.put("/users/ada/7", r#"{"user_id":"ada","timestamp":7,"name":"Ada King","status":"on"}"#).await;
    assert_eq!((replaced.status, replaced.version()), (200, FIRST + 1));
    assert_eq!(replaced.header("etag"), format!("\"{}\"", FIRST + 1));
    let user = &replaced.json["user"];
    assert!(user.get("email").is_none() && user.get("attributes").is_none(), "{user}");
    assert_eq!(user["created_at"], "2026-11-22T10:00:00.123Z");
    assert_eq!(user["updated_at"], "2026-11-22T11:00:00.123Z");
    assert_eq!(later.get("/users/ada/7").await.json["user"], *user, "what was answered is what is stored");
}

#[tokio::test]
async fn a_deleted_record_is_gone() {
    let service = UsersService::start().await;
    let api = service.api();
    api.created("ada", 7).await;
    let deleted = api.delete("/users/ada/7").await;
    assert_eq!((deleted.status, deleted.text.as_str()), (204, ""));
    assert!(service.item("ada", 7).await.is_none());
    for (method, path) in [("GET", "/users/ada/7"), ("DELETE", "/users/ada/7"), ("GET", "/users/ada/latest")] {
        let response = api.send(method, path, &[], "").await;
        assert_eq!((response.status, response.problem()), (404, "not-found"), "{method} {path}");
    }
    assert_eq!(api.patch("/users/ada/7", r#"{"name":"Eve"}"#).await.status, 404);
    assert_eq!(api.patch("/users/ada/7", r#"{"attributes":{"a":1}}"#).await.status, 404);
}

#[tokio::test]
async fn a_head_is_a_get_without_its_body() {
    let service = UsersService::start().await;
    let api = service.api();
    api.created("ada", 7).await;
    for path in ["/users/ada/7", "/users/ada/latest", "/users/ada", "/users", "/health"] {
        let (get, head) = (api.get(path).await, api.send("HEAD", path, &[], "").await);
        assert_eq!((head.status, head.text.as_str()), (200, ""), "{path}");
        assert_eq!(head.header("etag"), get.header("etag"), "{path}");
        assert!(head.is_as_long_as(&get), "{path}");
    }
    let missing = api.send("HEAD", "/users/ada/8", &[], "").await;
    assert_eq!((missing.status, missing.text.as_str()), (404, ""));
}

#[tokio::test]
async fn the_latest_record_is_the_one_of_the_latest_second() {
    let service = UsersService::start().await;
    let api = service.api();
    for second in [9, 100, 20] {
        api.created("ada", second).await;
    }
    let latest = api.get("/users/ada/latest").await;
    assert_eq!((latest.status, latest.json["user"]["timestamp"].as_u64()), (200, Some(100)));
    assert_eq!(latest.json["source"], "database");
    assert_eq!(latest.header("content-location"), "/users/ada/100");
    let unmodified = api.send("GET", "/users/ada/latest", &[("if-none-match", latest.header("etag"))], "").await;
    assert_eq!(unmodified.status, 304);
}

#[tokio::test]
async fn unmanaged_attributes_survive_every_write_except_a_delete() {
    use super::service::{n, s};
    let service = UsersService::start().await;
    let api = service.api();
    let tags = aws_sdk_dynamodb::types::AttributeValue::Ss(vec!["x".into()]);
    service.put(&[("user_id", s("ada")), ("timestamp", n(7)), ("name", s("Ada")), ("tags", tags.clone())]).await;
    let read = api.get("/users/ada/7").await;
    assert_eq!((read.status, read.version(), read.header("etag")), (200, 0, ""), "no version, no tag");
    assert_eq!(api.patch("/users/ada/7", r#"{"status":"on"}"#).await.version(), FIRST, "a first version");
    assert_eq!(api.patch("/users/ada/7", r#"{"attributes":{"a":1}}"#).await.version(), FIRST + 1);
    assert_eq!(api.put("/users/ada/7", r#"{"name":"Ada King"}"#).await.version(), FIRST + 2);
    assert_eq!(service.item("ada", 7).await.unwrap()["tags"], tags);
}
