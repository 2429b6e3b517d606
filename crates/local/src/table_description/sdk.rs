//! Conversion of the SDK's response to `DescribeTable` to the JSON that the AWS CLI prints for it: [`document`].

use aws_sdk_dynamodb::types;
use serde_json::{Value, json};

/// Returns `{"Table": {…}}` with the members that a table description reads. Absent members are null.
pub(super) fn document(table: &types::TableDescription) -> Value {
    let stream = table.stream_specification().map(|stream| {
        json!({
            "StreamEnabled": stream.stream_enabled(),
            "StreamViewType": stream.stream_view_type().map(types::StreamViewType::as_str),
        })
    });
    let encryption = table.sse_description().map(|encryption| {
        json!({
            "Status": encryption.status().map(types::SseStatus::as_str),
            "SSEType": encryption.sse_type().map(types::SseType::as_str),
            "KMSMasterKeyArn": encryption.kms_master_key_arn(),
        })
    });
    let throughput = table.provisioned_throughput().map(|throughput| {
        json!({
            "ReadCapacityUnits": throughput.read_capacity_units().unwrap_or_default(),
            "WriteCapacityUnits": throughput.write_capacity_units().unwrap_or_default(),
        })
    });
    let replica = |replica: &types::ReplicaDescription| {
        json!({
            "RegionName": replica.region_name(),
            "ReplicaStatus": replica.replica_status().map(types::ReplicaStatus::as_str),
        })
    };
    let attribute = |attribute: &types::AttributeDefinition| {
        json!({
            "AttributeName": attribute.attribute_name(),
            "AttributeType": attribute.attribute_type().as_str(),
        })
    };
    let global = |global: &types::GlobalSecondaryIndexDescription| {
        index(global.index_name(), global.key_schema(), global.projection())
    };
    let local = |local: &types::LocalSecondaryIndexDescription| {
        index(local.index_name(), local.key_schema(), local.projection())
    };
    let billing = table
        .billing_mode_summary()
        .map(|billing| json!({"BillingMode": billing.billing_mode().map(types::BillingMode::as_str)}));
    let class = table.table_class_summary().and_then(types::TableClassSummary::table_class);
    let list = |values: Vec<Value>| (!values.is_empty()).then_some(values);
    json!({
        "Table": {
            "TableName": table.table_name(),
            "TableArn": table.table_arn(),
            "TableStatus": table.table_status().map(types::TableStatus::as_str),
            "AttributeDefinitions": list(table.attribute_definitions().iter().map(attribute).collect()),
            "KeySchema": list(keys(table.key_schema())),
            "ItemCount": table.item_count(),
            "TableSizeBytes": table.table_size_bytes(),
            "StreamSpecification": stream,
            "LatestStreamArn": table.latest_stream_arn(),
            "LatestStreamLabel": table.latest_stream_label(),
            "SSEDescription": encryption,
            "Replicas": list(table.replicas().iter().map(replica).collect()),
            "GlobalTableVersion": table.global_table_version(),
            "BillingModeSummary": billing,
            "ProvisionedThroughput": throughput,
            "GlobalSecondaryIndexes": list(table.global_secondary_indexes().iter().map(global).collect()),
            "LocalSecondaryIndexes": list(table.local_secondary_indexes().iter().map(local).collect()),
            "DeletionProtectionEnabled": table.deletion_protection_enabled(),
            "TableClassSummary": class.map(|class| json!({"TableClass": class.as_str()})),
        }
    })
}

fn keys(keys: &[types::KeySchemaElement]) -> Vec<Value> {
    let key = |key: &types::KeySchemaElement| {
        let (name, role) = (key.attribute_name(), key.key_type().as_str());
        json!({"AttributeName": name, "KeyType": role})
    };
    keys.iter().map(key).collect()
}

fn index(name: Option<&str>, schema: &[types::KeySchemaElement], projection: Option<&types::Projection>) -> Value {
    let projection = projection.map(|projection| {
        json!({
            "ProjectionType": projection.projection_type().map(types::ProjectionType::as_str),
            "NonKeyAttributes": projection.non_key_attributes(),
        })
    });
    json!({"IndexName": name, "KeySchema": keys(schema), "Projection": projection})
}
