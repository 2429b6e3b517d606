use super::service::{FIRST, UsersService};

const RECORD: &str = "/users/ada/7";
const FULL: &str = r#"{"user_id":"ada","timestamp":7,"name":"Ada","email":"ada@example.com","status":"on","expires_at":1900000000,
    "attributes":{"a":{"b":1,"c":[1,2]},"d":"x"}}"#;

#[tokio::test]
async fn a_patch_changes_what_it_names_and_nothing_else() {
    let service = UsersService::start().await;
    let api = service.api();
    let before = api.post(FULL).await;
    let patched = api.patch(RECORD, r#"{"name":"Ada King","status":"off"}"#).await;
    assert_eq!((patched.status, patched.version()), (200, FIRST + 1));
    let mut expected = before.json["user"].clone();
    expected["name"] = "Ada King".into();
    expected["status"] = "off".into();
    expected["version"] = (FIRST + 1).into();
    assert_eq!(patched.json["user"], expected);
    assert_eq!(api.get(RECORD).await.json["user"], expected);
}

#[tokio::test]
async fn null_removes_every_part_that_may_be_absent() {
    let service = UsersService::start().await;
    let api = service.api();
    api.post(FULL).await;
    let patched = api.patch(RECORD, r#"{"email":null,"status":null,"expires_at":null,"attributes":null}"#).await;
    assert_eq!(patched.status, 200, "{}", patched.text);
    for part in ["email", "status", "expires_at", "attributes"] {
        assert!(patched.json["user"].get(part).is_none(), "{part}: {}", patched.text);
    }
    assert_eq!(api.get("/users?email=ada@example.com").await.seconds(), [0; 0], "the index lost it too");
    let again = api.patch(RECORD, r#"{"email":null,"attributes":null}"#).await;
    assert_eq!(again.status, 200, "removing nothing is no failure");
}

#[tokio::test]
async fn attributes_are_merged_member_by_member() {
    let service = UsersService::start().await;
    let api = service.api();
    api.post(FULL).await;
    let patched =
        api.patch(RECORD, r#"{"attributes":{"a":{"b":null,"e":0.10},"d":{"f":{"g":null}},"h":[null]}}"#).await;
    assert_eq!(patched.status, 200, "{}", patched.text);
    assert_eq!(
        patched.json["user"]["attributes"],
        serde_json::json!({"a": {"c": [1, 2], "e": 0.1}, "d": {"f": {}}, "h": [null]})
    );
    assert_eq!(patched.json["user"]["name"], "Ada");
}

#[tokio::test]
async fn attributes_are_merged_into_nothing() {
    let service = UsersService::start().await;
    let api = service.api();
    api.created("ada", 7).await;
    let patched = api.patch(RECORD, r#"{"attributes":{"a":{"b":null,"c":1}}}"#).await;
    assert_eq!(patched.json["user"]["attributes"], serde_json::json!({"a": {"c": 1}}));
}

#[tokio::test]
async fn patches_that_race_are_all_merged() {
    let service = UsersService::start().await;
    let api = service.api();
    api.created("ada", 7).await;
    let patches = (0..6).map(|writer| {
        let api = api.clone();
        async move { api.patch(RECORD, &format!(r#"{{"attributes":{{"w{writer}":{writer}}}}}"#)).await.status }
    });
    let statuses = futures::future::join_all(patches).await;
    assert_eq!(statuses, [200; 6]);
    let user = &api.get(RECORD).await.json["user"];
    assert_eq!(user["attributes"].as_object().unwrap().len(), 6, "{user}");
    assert_eq!(user["version"], FIRST + 6);
}

#[tokio::test]
async fn invalid_patch_is_rejected_as_a_whole() {
    let service = UsersService::start().await;
    let api = service.api();
    api.created("ada", 7).await;
    let refused = api.patch(RECORD, r#"{"name":"New","user_id":"eve","version":1,"email":"x","attributes":[1]}"#).await;
    assert_eq!((refused.status, refused.problem()), (422, "invalid-user"));
    assert_eq!(refused.json["errors"].as_array().unwrap().len(), 4, "{}", refused.text);
    let user = &api.get(RECORD).await.json["user"];
    assert_eq!((user["name"].as_str(), user["version"].as_u64()), (Some("Ada"), Some(FIRST)));
}
