//! Exports of the archive for a DynamoDB import into a new table.

use std::collections::HashMap;
use std::io::Read as _;

use aws_sdk_dynamodb::types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType};
use millrace_shared::raw_item::RawItem;
use serde_json::{Value, json};

use super::restores::expired;
use super::scene::{ARCHIVE, MaintenanceScene, SceneItem, invoke, text};
use crate::archival::harness::{get, keys};

const TABLE: &str = "UsersImported";

/// Creates the table that the command specifies and puts the lines of the export, as the service's import does; returns
/// the items of the table. The embedded engine does not implement imports.
async fn imported(scene: &MaintenanceScene, run: &str) -> Vec<SceneItem> {
    let command = get(&scene.s3, ARCHIVE, &format!("export/{run}/import-table.sh")).await.0;
    let command = String::from_utf8(command).unwrap();
    let prefix = format!("export/{run}/data/");
    assert!(command.starts_with("aws dynamodb import-table"), "{command}");
    assert!(command.contains(&format!("S3Bucket={ARCHIVE},S3KeyPrefix={prefix}")), "{command}");
    assert!(command.contains("--input-format DYNAMODB_JSON --input-compression-type ZSTD"), "{command}");
    let parameters = command.split('\'').nth(1).unwrap();
    let parameters: Value = serde_json::from_str(parameters).unwrap();
    let mut create = scene.dynamodb.create_table().table_name(parameters["TableName"].as_str().unwrap());
    for element in parameters["KeySchema"].as_array().unwrap() {
        let name = element["AttributeName"].as_str().unwrap();
        let kind = KeyType::from(element["KeyType"].as_str().unwrap());
        create = create.key_schema(KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap());
    }
    for attribute in parameters["AttributeDefinitions"].as_array().unwrap() {
        let of = ScalarAttributeType::from(attribute["AttributeType"].as_str().unwrap());
        let name = attribute["AttributeName"].as_str().unwrap();
        let attribute = AttributeDefinition::builder().attribute_name(name).attribute_type(of).build().unwrap();
        create = create.attribute_definitions(attribute);
    }
    create.billing_mode(BillingMode::PayPerRequest).send().await.unwrap();
    for key in keys(&scene.s3, ARCHIVE).await.into_iter().filter(|key| key.starts_with(&prefix)) {
        assert!(key.ends_with(".json.zst"), "one compression: {key}");
        let mut lines = String::new();
        let bytes = get(&scene.s3, ARCHIVE, &key).await.0;
        zstd::Decoder::new(bytes.as_slice()).unwrap().read_to_string(&mut lines).unwrap();
        for line in lines.lines() {
            let line: HashMap<String, Box<serde_json::value::RawValue>> = serde_json::from_str(line).unwrap();
            assert_eq!(line.len(), 1, "other members are an error of the import");
            let item = RawItem::parse(line["Item"].get()).unwrap().into_attributes();
            let put = scene.dynamodb.put_item().table_name(TABLE).set_item(Some(item));
            // If two lines have the same key, the service's import may keep either.
            let put = put.condition_expression("attribute_not_exists(user_id)").send().await;
            put.expect("each key is in the export once");
        }
    }
    scene.items(TABLE).await
}

fn by_name(items: &[SceneItem]) -> Vec<(String, String)> {
    let of = |item: &SceneItem, name: &str| item[name].as_s().unwrap().clone();
    let mut names: Vec<_> = items.iter().map(|item| (of(item, "user_id"), of(item, "name"))).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_row_of_each_key_is_imported_whole_and_once() {
    let scene = MaintenanceScene::start().await;
    expired(&scene, &["ada", "bob"], "First").await;
    expired(&scene, &["ada"], "Second").await;
    scene.task(json!({"task": "compact", "to": "2999-01-01T00:00:00Z"})).await;
    expired(&scene, &["cleo"], "First").await;
    let mut items = 0;
    for segment in 0..2 {
        let order = json!({
            "task": "export-import-table", "run_id": "whole", "table": TABLE, "segment": segment, "segments": 2,
            "target_file_size_bytes": 1024,
        });
        items += scene.task(order).await.progress.get("export-import-table.items");
    }
    assert_eq!(items, 3);
    let imported = imported(&scene, "whole").await;
    let expected = [("ada", "Second"), ("bob", "First"), ("cleo", "First")];
    assert_eq!(by_name(&imported), expected.map(|(user, name)| (user.to_owned(), name.to_owned())));
    let cleo = imported.iter().find(|item| item["user_id"] == text("cleo")).unwrap();
    assert_eq!(cleo["score"].as_n().unwrap(), "0.12345678901234567890123456789012345678");
    let report = scene.report("whole").await;
    assert!(
        report.iter().any(|line| line["command"].as_str().is_some_and(|command| command.contains(TABLE))),
        "{report:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_point_in_time_what_was_removed_later_is_not_there() {
    let scene = MaintenanceScene::start().await;
    expired(&scene, &["ada"], "First").await;
    tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
    let at = millrace_shared::clock::Clock::system().now() - time::Duration::seconds(1);
    let at = at.format(&time::format_description::well_known::Rfc3339).unwrap();
    expired(&scene, &["ada", "bob"], "Second").await;
    scene.task(json!({"task": "export-import-table", "run_id": "then", "table": TABLE, "as_of": at})).await;
    assert_eq!(by_name(&imported(&scene, "then").await), [("ada".to_owned(), "First".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_export_replaces_its_objects_and_rejects_other_segments() {
    let scene = MaintenanceScene::start().await;
    expired(&scene, &["ada", "bob", "cleo", "dora"], "First").await;
    let order =
        json!({"task": "export-import-table", "run_id": "anew", "table": TABLE, "target_file_size_bytes": 1024});
    let mut small = order.clone();
    small["target_file_size_bytes"] = json!(1024);
    for user in ["e", "f", "g", "h", "i", "j", "k", "l"] {
        expired(&scene, &[user], &"x".repeat(500)).await;
    }
    let written = scene.task(small).await.progress.get("export-import-table.written");
    assert!(written > 2, "{written}");
    let mut large = order;
    large["target_file_size_bytes"] = json!(1_000_000);
    let response = scene.task(large.clone()).await;
    assert_eq!(
        (response.progress.get("export-import-table.written"), response.progress.get("export-import-table.removed")),
        (1, written - 1)
    );
    assert_eq!(imported(&scene, "anew").await.len(), 12, "each item once");

    (large["segments"], large["segment"]) = (json!(2), json!(1));
    let refused = invoke(&scene.maintenance(), &large, std::time::Duration::from_mins(1)).await.unwrap_err();
    assert_eq!(refused.kind().as_str(), "TaskInvalid");
    assert!(refused.to_string().contains("choose another run_id or delete it"), "{refused}");
}
