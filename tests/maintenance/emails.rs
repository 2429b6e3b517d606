//! Unique emails: an item restored from the archive reserves its own email, or is not restored.

use aws_sdk_dynamodb::types::AttributeValue;
use futures::future::join;
use millrace_maintenance::MaintenanceHandler;
use millrace_maintenance::progress::TaskProgress;
use millrace_shared::clock::Clock;
use millrace_shared::table::{NonceSource, RestoreTable, UserTable, WriteError};
use millrace_shared::user::Timestamp;
use millrace_shared::user::email::Email;
use millrace_shared::user::id::UserId;
use millrace_shared::user::{User, UserKey, UserName, UserProfile};
use serde_json::{Value, json};

use super::scene::{MaintenanceScene, SOURCE, SceneItem, text, to_its_end, user};

const EMAILS: &str = "Emails";
const ADDRESS: &str = "Ada@Example.com";

fn table(scene: &MaintenanceScene) -> UserTable {
    let table = UserTable::new(scene.dynamodb.clone(), SOURCE.to_owned(), "EmailIndex".to_owned());
    table.with_unique_emails(Some(EMAILS), NonceSource::new(Clock::system()))
}

/// The maintenance function with unique emails enabled.
fn maintenance(scene: &MaintenanceScene) -> MaintenanceHandler {
    let mut maintenance = scene.maintenance();
    maintenance.restore_table = RestoreTable::new(scene.dynamodb.clone(), SOURCE.to_owned())
        .with_unique_emails(Some(EMAILS), NonceSource::new(Clock::system()));
    maintenance
}

fn with_address(user_id: &str, address: &str) -> SceneItem {
    let mut item = user(user_id, "Then");
    item.insert("email".to_owned(), text(address));
    item
}

/// Lets these users expire and be archived, each with the same email.
async fn expired(scene: &MaintenanceScene, users: &[&str]) {
    let past = (Clock::system().now() - time::Duration::days(30)).unix_timestamp();
    for user in users {
        let mut item = with_address(user, ADDRESS);
        item.insert("expires_at".to_owned(), AttributeValue::N(past.to_string()));
        scene.put(SOURCE, item).await;
    }
    assert_eq!(scene.stack.run_ttl_sweep().await.unwrap(), users.len());
    scene.stack.wait_until_drained().await;
}

async fn create(scene: &MaintenanceScene, user_id: &str) -> Result<(), WriteError> {
    let now = Clock::system().now();
    let key = UserKey { id: UserId::parse(user_id.to_owned()).unwrap(), timestamp: Timestamp::parse(1).unwrap() };
    let name = UserName::parse("Now".to_owned()).unwrap();
    let email = Some(Email::parse(ADDRESS.to_lowercase()).unwrap());
    let profile = UserProfile { name, email, status: None, attributes: None, expires_at: None };
    table(scene).create(&User::created(key, profile, now), now).await
}

async fn restore(scene: &MaintenanceScene, more: Value) -> TaskProgress {
    let mut order = json!({"task": "restore", "run_id": "back", "expires_in_seconds": 3600, "dry_run": false});
    order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    to_its_end(&maintenance(scene), order, std::time::Duration::from_mins(1)).await.unwrap().progress
}

fn all() -> Value {
    json!({"from": "2026-01-01T00:00:00Z"})
}

/// The emails that have an owner, and their owners.
async fn owners(scene: &MaintenanceScene) -> Vec<(String, String)> {
    let of = |item: &SceneItem, name: &str| item[name].as_s().unwrap().clone();
    let items = scene.items(EMAILS).await;
    let owners = items.iter().filter(|item| item["record"] == text("#owner"));
    owners.map(|owner| (of(owner, "email"), of(owner, "user_id"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_item_takes_its_address_and_ends_with_it() {
    let scene = MaintenanceScene::start().await;
    expired(&scene, &["ada"]).await;
    assert_eq!(restore(&scene, all()).await.get("restore.restored"), 1);
    assert_eq!(owners(&scene).await, [(ADDRESS.to_lowercase(), "ada".to_owned())]);
    assert!(matches!(create(&scene, "eve").await, Err(WriteError::EmailTaken)));
    let ends = scene.item(SOURCE, "ada").await.unwrap()["expires_at"].clone();
    let reservation = scene.items(EMAILS).await;
    assert_eq!(reservation.len(), 2);
    assert!(reservation.iter().all(|item| item["expires_at"] == ends), "the reservation ends with the item");
    assert_eq!(restore(&scene, all()).await.get("restore.already_restored"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_is_refused_if_another_user_has_reserved_the_email() {
    let scene = MaintenanceScene::start().await;
    expired(&scene, &["ada"]).await;
    create(&scene, "eve").await.unwrap();
    for (dry, run, done) in [(true, "dry", "would_refuse"), (false, "wet", "refused")] {
        let more = json!({"from": "2026-01-01T00:00:00Z", "dry_run": dry, "run_id": run});
        assert_eq!(restore(&scene, more).await.get(&format!("restore.{done}")), 1, "{run}");
        let report = scene.report(run).await;
        assert_eq!((&report[0]["key"]["user_id"]["S"], &report[0]["outcome"]), (&json!("ada"), &json!(done)));
        assert_eq!(report[0]["reason"], "the email belongs to another user");
        assert!(!format!("{report:?}").to_lowercase().contains("@example.com"), "an address is nobody's to log");
    }
    assert!(scene.item(SOURCE, "ada").await.is_none());
    assert_eq!(owners(&scene).await, [(ADDRESS.to_lowercase(), "eve".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_users_who_had_an_address_one_comes_back() {
    let scene = MaintenanceScene::start().await;
    let users = ["ada", "bob", "cleo", "dora"];
    expired(&scene, &users).await;
    let progress = restore(&scene, all()).await;
    assert_eq!((progress.get("restore.restored"), progress.get("restore.refused")), (1, 3));
    let live = scene.live(SOURCE).await;
    let owner = live.keys().next().unwrap().clone();
    assert_eq!((live.len(), owners(&scene).await), (1, vec![(ADDRESS.to_lowercase(), owner)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_restore_and_a_create_at_the_same_time_one_has_the_address() {
    let scene = MaintenanceScene::start().await;
    expired(&scene, &["ada"]).await;
    for _ in 0..20 {
        for user in ["ada", "eve"] {
            scene.delete(SOURCE, user).await;
        }
        for item in scene.items(EMAILS).await {
            let key = ["email", "record"].map(|name| (name.to_owned(), item[name].clone())).into();
            scene.dynamodb.delete_item().table_name(EMAILS).set_key(Some(key)).send().await.unwrap();
        }
        let (progress, created) = Box::pin(join(restore(&scene, all()), create(&scene, "eve"))).await;
        let users: Vec<String> = scene.live(SOURCE).await.into_keys().collect();
        assert_eq!(users.len(), 1, "{users:?} {progress} {created:?}");
        assert_eq!(owners(&scene).await, [(ADDRESS.to_lowercase(), users[0].clone())]);
        assert_eq!(progress.get("restore.restored") == 1, users[0] == "ada");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_is_written_over_gives_its_address_back() {
    let scene = MaintenanceScene::start().await;
    expired(&scene, &["ada"]).await;
    let now = Clock::system().now();
    let key = UserKey { id: UserId::parse("ada".to_owned()).unwrap(), timestamp: Timestamp::parse(1).unwrap() };
    let (name, email) = (UserName::parse("New".to_owned()).unwrap(), Email::parse("new@example.com".to_owned()).ok());
    let profile = UserProfile { name, email, status: None, attributes: None, expires_at: None };
    table(&scene).create(&User::created(key, profile, now), now).await.unwrap();
    let more = json!({"from": "2026-01-01T00:00:00Z", "overwrite": true});
    assert_eq!(restore(&scene, more).await.get("restore.restored"), 1);
    assert_eq!(scene.item(SOURCE, "ada").await.unwrap()["email"], text(ADDRESS));
    assert_eq!(owners(&scene).await, [(ADDRESS.to_lowercase(), "ada".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_accepts_a_user_without_email_and_refuses_an_invalid_key() {
    let scene = MaintenanceScene::start().await;
    let past = (Clock::system().now() - time::Duration::days(30)).unix_timestamp();
    for mut item in [user("plain", "Then"), with_address("no user", ADDRESS)] {
        item.insert("expires_at".to_owned(), AttributeValue::N(past.to_string()));
        scene.put(SOURCE, item).await;
    }
    assert_eq!(scene.stack.run_ttl_sweep().await.unwrap(), 2);
    scene.stack.wait_until_drained().await;
    let progress = restore(&scene, all()).await;
    assert_eq!((progress.get("restore.restored"), progress.get("restore.refused")), (1, 1));
    assert!(owners(&scene).await.is_empty());
    let report = scene.report("back").await;
    let why = report.iter().find_map(|line| line["reason"].as_str()).unwrap();
    assert!(why.contains("its key is not a valid user key"), "{why}");
}
