//! Table schemas: creates the template's tables in the engine, and compares existing tables with the template.

use dynoxide::Database;
use millrace_shared::shell;
use serde_json::{Value, json};

use super::DynamoDbEngineError;
use crate::template::{KeyDefinition, SecondaryIndex, TableResource};

/// The fix of a table in the data folder that has another schema.
const OTHER_FOLDER: &str = "choose another folder with --data";

/// The members of the API that contain the indexes of a table.
const GLOBAL_INDEXES: &str = "GlobalSecondaryIndexes";
const LOCAL_INDEXES: &str = "LocalSecondaryIndexes";

/// Creates the table, or checks that the existing one has the template's schema.
pub(super) fn create(database: &Database, table: &TableResource) -> Result<(), DynamoDbEngineError> {
    if database.get_table_metadata(&table.name)?.is_some() {
        compare(database, table)?;
    } else {
        database.create_table(request(creation(table))?)?;
    }
    switch_ttl(database, table)
}

fn creation(table: &TableResource) -> Value {
    let attributes: Vec<Value> = table
        .attributes
        .iter()
        .map(|attribute| json!({"AttributeName": attribute.name, "AttributeType": attribute.kind}))
        .collect();
    let mut creation = json!({
        "TableName": table.name,
        "BillingMode": "PAY_PER_REQUEST",
        "KeySchema": keys(&table.keys),
        "AttributeDefinitions": attributes,
    });
    for (kind, indexes) in [(GLOBAL_INDEXES, &table.indexes), (LOCAL_INDEXES, &table.local_indexes)] {
        if !indexes.is_empty() {
            creation[kind] = indexes.iter().map(index).collect();
        }
    }
    if let Some(view) = &table.stream_view {
        creation["StreamSpecification"] = json!({"StreamEnabled": true, "StreamViewType": view});
    }
    creation
}

fn index(index: &SecondaryIndex) -> Value {
    let mut projection = json!({"ProjectionType": index.projection});
    if !index.non_key_attributes.is_empty() {
        projection["NonKeyAttributes"] = json!(index.non_key_attributes);
    }
    json!({"IndexName": index.name, "KeySchema": keys(&index.keys), "Projection": projection})
}

fn keys(keys: &[KeyDefinition]) -> Value {
    keys.iter().map(|key| json!({"AttributeName": key.name, "KeyType": key.role})).collect()
}

/// Compares both schemas in the format of `DescribeTable`, reduced to the properties that the template defines.
fn compare(database: &Database, table: &TableResource) -> Result<(), DynamoDbEngineError> {
    let described = database.describe_table(request(json!({"TableName": table.name}))?)?;
    let described = serde_json::to_value(&described).map_err(|error| DynamoDbEngineError::Engine(error.to_string()))?;
    let (found, wanted) = (shape(&described["Table"]), shape(&creation(table)));
    for ((part, found), (_, wanted)) in found.into_iter().zip(wanted) {
        if found != wanted {
            return Err(DynamoDbEngineError::OtherShape {
                table: table.name.clone(),
                found: format!("{part} {found}"),
                wanted: wanted.to_string(),
                fix: OTHER_FOLDER.to_owned(),
            });
        }
    }
    Ok(())
}

fn shape(table: &Value) -> [(&'static str, Value); 5] {
    let sorted = |list: &Value, by: &str| {
        let mut list = list.as_array().cloned().unwrap_or_default();
        list.sort_by_key(|entry| entry[by].to_string());
        list
    };
    let indexes = |kind: &str| -> Value {
        let indexes = sorted(&table[kind], "IndexName");
        let shape = indexes.iter().map(|index| {
            let kind = &index["Projection"]["ProjectionType"];
            let others = sorted(&index["Projection"]["NonKeyAttributes"], "");
            json!({"name": index["IndexName"], "keys": index["KeySchema"], "projection": kind, "attributes": others})
        });
        shape.collect()
    };
    let stream = &table["StreamSpecification"];
    let stream = if stream["StreamEnabled"] == json!(true) { stream["StreamViewType"].clone() } else { Value::Null };
    [
        ("keys", table["KeySchema"].clone()),
        ("attributes", Value::Array(sorted(&table["AttributeDefinitions"], "AttributeName"))),
        ("indexes", indexes(GLOBAL_INDEXES)),
        ("local indexes", indexes(LOCAL_INDEXES)),
        ("stream", stream),
    ]
}

fn switch_ttl(database: &Database, table: &TableResource) -> Result<(), DynamoDbEngineError> {
    let described = database.describe_time_to_live(request(json!({"TableName": table.name}))?)?;
    let described = serde_json::to_value(&described).map_err(|error| DynamoDbEngineError::Engine(error.to_string()))?;
    let description = &described["TimeToLiveDescription"];
    let on = matches!(description["TimeToLiveStatus"].as_str(), Some("ENABLED" | "ENABLING"));
    let found = if on { description["AttributeName"].as_str() } else { None };
    let wanted = table.ttl_attribute.as_deref();
    match (found, wanted) {
        (None, Some(attribute)) => {
            let specification = json!({"AttributeName": attribute, "Enabled": true});
            let wanted = json!({"TableName": table.name, "TimeToLiveSpecification": specification});
            database.update_time_to_live(request(wanted)?)?;
            Ok(())
        }
        (found, wanted) if found == wanted => Ok(()),
        (found, wanted) => Err(DynamoDbEngineError::OtherShape {
            table: table.name.clone(),
            found: format!("ttl attribute {}", found.unwrap_or("none")),
            wanted: wanted.unwrap_or("none").to_owned(),
            // That of a table of the template is not an option.
            fix: if table.is_outside_template() {
                format!("repeat --ttl-attribute {}, or {OTHER_FOLDER}", shell::quote(found.unwrap_or("none")))
            } else {
                OTHER_FOLDER.to_owned()
            },
        }),
    }
}

/// Converts JSON of DynamoDB's API to a request of the engine, which validates requests in this format completely.
fn request<R: serde::de::DeserializeOwned>(request: Value) -> Result<R, DynamoDbEngineError> {
    serde_json::from_value(request).map_err(|error| DynamoDbEngineError::Engine(error.to_string()))
}
