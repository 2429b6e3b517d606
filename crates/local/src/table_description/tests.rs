use aws_sdk_dynamodb::types as sdk;
use serde_json::{Value, json};

use super::*;

/// The output of `aws dynamodb describe-table` for a table with streams, two indexes and a key of the customer.
const ORDERS: &str = r#"{
    "Table": {
        "AttributeDefinitions": [
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "N"},
            {"AttributeName": "status", "AttributeType": "S"}
        ],
        "TableName": "Orders",
        "KeySchema": [
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"}
        ],
        "TableStatus": "ACTIVE",
        "CreationDateTime": "2024-03-07T10:21:33.427000+01:00",
        "ProvisionedThroughput": {"NumberOfDecreasesToday": 0, "ReadCapacityUnits": 0, "WriteCapacityUnits": 0},
        "TableSizeBytes": 48236117004,
        "ItemCount": 61204418,
        "TableArn": "arn:aws:dynamodb:eu-west-1:123456789012:table/Orders",
        "TableId": "6d5c4b3a-0f1e-4d2c-8b7a-9e8f7a6b5c4d",
        "BillingModeSummary": {
            "BillingMode": "PAY_PER_REQUEST",
            "LastUpdateToPayPerRequestDateTime": "2024-03-07T10:21:33.427000+01:00"
        },
        "GlobalSecondaryIndexes": [{
            "IndexName": "by-status",
            "KeySchema": [
                {"AttributeName": "status", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"}
            ],
            "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["total", "currency"]},
            "IndexStatus": "ACTIVE",
            "ProvisionedThroughput": {"NumberOfDecreasesToday": 0, "ReadCapacityUnits": 0, "WriteCapacityUnits": 0},
            "IndexSizeBytes": 412, "ItemCount": 12,
            "IndexArn": "arn:aws:dynamodb:eu-west-1:123456789012:table/Orders/index/by-status"
        }],
        "LocalSecondaryIndexes": [{
            "IndexName": "local",
            "KeySchema": [
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "status", "KeyType": "RANGE"}
            ],
            "Projection": {"ProjectionType": "KEYS_ONLY"}
        }],
        "StreamSpecification": {"StreamEnabled": true, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        "LatestStreamLabel": "2026-11-27T08:00:00.000",
        "LatestStreamArn": "arn:aws:dynamodb:eu-west-1:123456789012:table/Orders/stream/2026-11-27T08:00:00.000",
        "SSEDescription": {
            "Status": "ENABLED",
            "SSEType": "KMS",
            "KMSMasterKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/0a1b2c3d-4e5f-6789-abcd-ef0123456789"
        },
        "TableClassSummary": {"TableClass": "STANDARD_INFREQUENT_ACCESS"},
        "DeletionProtectionEnabled": true
    }
}"#;

/// Returns the document after a change of the table, as text.
fn changed(change: impl FnOnce(&mut Value)) -> String {
    let mut document: Value = serde_json::from_str(ORDERS).unwrap();
    change(&mut document["Table"]);
    document.to_string()
}

fn remove(table: &mut Value, name: &str) {
    table.as_object_mut().unwrap().remove(name).unwrap();
}

fn key(name: &str, kind: KeyType) -> KeyAttribute {
    KeyAttribute { name: name.to_owned(), kind }
}

#[test]
fn name_and_key_that_no_table_has_are_named_with_the_rule() {
    for name in ["my orders", "ab"] {
        let text = changed(|table| {
            table["TableName"] = json!(name);
            table["TableArn"] = json!(format!("arn:aws:dynamodb:eu-west-1:123456789012:table/{name}"));
        });
        let message = TableDescription::parse(&text).unwrap_err().to_string();
        let expected = format!("/Table/TableName: {name:?} is not a table name: expected 3 to 255 letters, digits");
        assert!(message.starts_with(&expected) && message.contains("without spaces"), "{message}");
    }
    let text = changed(|table| table["KeySchema"][1]["AttributeName"] = json!("pk"));
    let message = TableDescription::parse(&text).unwrap_err().to_string();
    assert!(message.contains("/Table/KeySchema: \"pk\" is both the partition key and the sort key"), "{message}");
}

#[test]
fn region_of_the_engine_is_replaced_in_every_arn() {
    let engine = ORDERS.replace(":eu-west-1:123456789012:table", ":dynoxide:000000000000:table");
    let engine = TableDescription::parse(&engine).unwrap();
    assert!(engine.arn.is_local());
    let table = engine.in_region("eu-central-1");
    assert_eq!(table.arn.to_string(), "arn:aws:dynamodb:eu-central-1:000000000000:table/Orders");
    let stream = table.stream.unwrap().arn;
    assert!(stream.starts_with("arn:aws:dynamodb:eu-central-1:000000000000:table/Orders/stream/"), "{stream}");
    let table = TableDescription::parse(ORDERS).unwrap();
    assert!(!table.arn.is_local());
    assert_eq!(table.clone().in_region("eu-central-1"), table, "a Region of AWS is that of the table");
}

#[test]
fn every_member_of_a_description_is_read() {
    let table = TableDescription::parse(ORDERS).unwrap();
    assert_eq!((&*table.name, &*table.status), ("Orders", "ACTIVE"));
    assert_eq!(table.arn.to_string(), "arn:aws:dynamodb:eu-west-1:123456789012:table/Orders");
    let TableArn { partition, region, account, table: name } = &table.arn;
    assert_eq!([&**partition, &**region, &**account, &**name], ["aws", "eu-west-1", "123456789012", "Orders"]);
    assert_eq!(table.partition_key.to_string(), "pk:S");
    assert_eq!(table.sort_key, Some(key("sk", KeyType::Number)));
    assert_eq!(table.key_names(), ["pk", "sk"]);
    let roles: Vec<_> = table.key_definitions().into_iter().map(|key| key.role).collect();
    assert_eq!(roles, ["HASH", "RANGE"]);
    assert_eq!((table.item_count, table.size_bytes), (Some(61_204_418), Some(48_236_117_004)));
    let stream = table.stream.as_ref().unwrap();
    assert_eq!((stream.view, &*stream.label), (StreamViewType::NewAndOldImages, "2026-11-27T08:00:00.000"));
    assert!(stream.arn.ends_with("/stream/2026-11-27T08:00:00.000") && table.former_stream_arn.is_none());
    let encryption = table.encryption.as_ref().unwrap();
    assert_eq!((&*encryption.kind, &*encryption.status), ("KMS", "ENABLED"));
    assert!(encryption.key_arn.as_deref().unwrap().starts_with("arn:aws:kms:eu-west-1:123456789012:key/"));
    assert_eq!(table.capacity, TableCapacity::OnDemand);
    assert_eq!((table.deletion_protection, &*table.table_class), (Some(true), "STANDARD_INFREQUENT_ACCESS"));
    assert!(!table.is_global());
    assert_eq!((&table.time_to_live, table.ttl_attribute()), (&TimeToLive::Unknown, None));
    let [index] = &table.global_indexes[..] else { panic!("one index: {:?}", table.global_indexes) };
    assert_eq!((&*index.name, &*index.projection, index.keys.len()), ("by-status", "INCLUDE", 2));
    assert_eq!(index.non_key_attributes, ["total", "currency"]);
    assert_eq!((&*table.local_indexes[0].name, &*table.local_indexes[0].projection), ("local", "KEYS_ONLY"));
    assert_eq!(table.attributes.len(), 3);
}

#[test]
fn the_inner_object_is_accepted() {
    let document: Value = serde_json::from_str(ORDERS).unwrap();
    let inner = TableDescription::parse(&document["Table"].to_string()).unwrap();
    assert_eq!(inner, TableDescription::parse(ORDERS).unwrap());
}

/// A table of the least possible description: one binary key with a non-ASCII name, no stream, provisioned capacity.
#[test]
fn absent_members_have_their_documented_meaning() {
    let text = json!({"Table": {
        "AttributeDefinitions": [{"AttributeName": "schlüssel.ä b", "AttributeType": "B"}],
        "TableName": "blobs-1.test",
        "KeySchema": [{"AttributeName": "schlüssel.ä b", "KeyType": "HASH"}],
        "TableStatus": "UPDATING",
        "ProvisionedThroughput": {"NumberOfDecreasesToday": 0, "ReadCapacityUnits": 5, "WriteCapacityUnits": 10},
        "TableSizeBytes": 0,
        "ItemCount": 0,
        "TableArn": "arn:aws-cn:dynamodb:cn-north-1:000000000012:table/blobs-1.test",
    }});
    let table = TableDescription::parse(&text.to_string()).unwrap();
    assert_eq!((table.partition_key, table.sort_key), (key("schlüssel.ä b", KeyType::Binary), None));
    assert_eq!((table.stream, table.former_stream_arn, table.encryption), (None, None, None));
    assert_eq!(table.capacity, TableCapacity::Provisioned { read_units: 5, write_units: 10 });
    assert_eq!((&*table.table_class, table.deletion_protection), ("STANDARD", None));
    assert!(table.global_indexes.is_empty() && table.local_indexes.is_empty() && table.replicas.is_empty());
    assert_eq!((&*table.arn.partition, &*table.arn.account), ("aws-cn", "000000000012"));
}

#[test]
fn a_stream_has_its_view_type_and_a_disabled_one_is_the_former() {
    for (text, view, new, old) in [
        ("KEYS_ONLY", StreamViewType::KeysOnly, false, false),
        ("OLD_IMAGE", StreamViewType::OldImage, false, true),
        ("NEW_IMAGE", StreamViewType::NewImage, true, false),
        ("NEW_AND_OLD_IMAGES", StreamViewType::NewAndOldImages, true, true),
    ] {
        let document = changed(|table| {
            table["StreamSpecification"]["StreamViewType"] = text.into();
            remove(table, "LatestStreamLabel");
        });
        let stream = TableDescription::parse(&document).unwrap().stream.unwrap();
        assert_eq!((stream.view, stream.view.as_str()), (view, text));
        assert_eq!((view.has_new_image(), view.has_old_image()), (new, old));
        assert_eq!(stream.label, "2026-11-27T08:00:00.000", "from the ARN");
    }
    for former in [
        changed(|table| table["StreamSpecification"] = json!({"StreamEnabled": false})),
        changed(|table| remove(table, "StreamSpecification")),
    ] {
        let table = TableDescription::parse(&former).unwrap();
        assert!(table.stream.is_none() && table.former_stream_arn.unwrap().contains("/stream/2026"));
    }
}

#[test]
fn a_global_table_lists_its_replicas() {
    let document = changed(|table| {
        table["GlobalTableVersion"] = "2019.11.21".into();
        table["Replicas"] = json!([
            {"RegionName": "us-east-1", "ReplicaStatus": "ACTIVE"},
            {"RegionName": "ap-southeast-2", "ReplicaStatus": "CREATING"},
        ]);
    });
    let table = TableDescription::parse(&document).unwrap();
    assert!(table.is_global());
    let regions: Vec<_> = table.replicas.iter().map(|replica| &*replica.region).collect();
    assert_eq!(regions, ["us-east-1", "ap-southeast-2"]);
    assert_eq!(table.replicas[1].status.as_deref(), Some("CREATING"));
}

#[test]
fn a_key_that_aws_owns_is_no_encryption_of_the_account() {
    let disabled = changed(|table| table["SSEDescription"] = json!({"Status": "DISABLED"}));
    assert_eq!(TableDescription::parse(&disabled).unwrap().encryption, None);
}

#[test]
fn time_to_live_is_read_next_to_the_table_or_from_a_second_document() {
    let ttl = json!({"TimeToLiveDescription": {"TimeToLiveStatus": "ENABLED", "AttributeName": "ttl"}});
    let second = TableDescription::parse(ORDERS).unwrap().with_time_to_live(&ttl.to_string()).unwrap();
    assert_eq!(second.ttl_attribute(), Some("ttl"));
    let mut both: Value = serde_json::from_str(ORDERS).unwrap();
    both["TimeToLiveDescription"] = ttl["TimeToLiveDescription"].clone();
    assert_eq!(TableDescription::parse(&both.to_string()).unwrap(), second);
    both["TimeToLiveDescription"] = json!({"TimeToLiveStatus": "DISABLED"});
    assert_eq!(TableDescription::parse(&both.to_string()).unwrap().time_to_live, TimeToLive::Disabled);
    let error = TableDescription::parse(ORDERS).unwrap().with_time_to_live("{}").unwrap_err();
    assert_eq!(error.pointer.as_deref(), Some("/TimeToLiveDescription"));
    both["TimeToLiveDescription"] = json!({"TimeToLiveStatus": "ON"});
    let error = TableDescription::parse(&both.to_string()).unwrap_err().to_string();
    assert!(error.starts_with("/TimeToLiveDescription/TimeToLiveStatus: \"ON\": expected ENABLED, "), "{error}");
}

#[test]
fn an_error_names_the_member_its_value_and_what_was_expected() {
    let stream = |from: &str, to: &str| {
        changed(|table| {
            let arn = table["LatestStreamArn"].as_str().unwrap().replace(from, to);
            table["LatestStreamArn"] = arn.into();
        })
    };
    let latest = "aws dynamodb describe-table --region eu-west-1 --table-name Orders --query Table.LatestStreamArn";
    for (document, parts) in [
        ("TableName: Orders".to_owned(), ["not JSON", "describe-table"]),
        ("[]".to_owned(), ["an array", "expected an object"]),
        (r#"{"TableNames": ["Orders"]}"#.to_owned(), [r#"expected {"Table": {…}}"#, "describe-table"]),
        (r#"{"Table": "Orders"}"#.to_owned(), ["/Table: \"Orders\"", "expected an object"]),
        (changed(|table| remove(table, "TableName")), ["/Table/TableName: missing", ""]),
        (changed(|table| remove(table, "TableArn")), ["/Table/TableArn: missing", ""]),
        (changed(|table| remove(table, "TableStatus")), ["/Table/TableStatus: missing", ""]),
        (changed(|table| remove(table, "AttributeDefinitions")), ["/Table/AttributeDefinitions: missing", ""]),
        (changed(|table| table["TableArn"] = "Orders".into()), ["/Table/TableArn: \"Orders\"", "arn:PARTITION"]),
        (changed(|table| table["TableName"] = "Other".into()), ["/Table/TableArn", "Other"]),
        (
            changed(|table| table["KeySchema"][1]["KeyType"] = "SORT".into()),
            ["/Table/KeySchema/1/KeyType: \"SORT\"", "expected HASH or RANGE"],
        ),
        (
            changed(|table| table["AttributeDefinitions"][0]["AttributeType"] = "SS".into()),
            ["/Table/AttributeDefinitions/0/AttributeType: \"SS\"", "expected S, N or B"],
        ),
        (changed(|table| table["KeySchema"] = json!([])), ["/Table/KeySchema", "one HASH element"]),
        (
            changed(|table| table["KeySchema"][0]["AttributeName"] = "id".into()),
            ["/Table/KeySchema: \"id\"", "AttributeDefinitions"],
        ),
        (changed(|table| table["ItemCount"] = "7".into()), ["/Table/ItemCount: \"7\"", "a whole number"]),
        (
            changed(|table| table["StreamSpecification"]["StreamViewType"] = "ALL".into()),
            ["/Table/StreamSpecification/StreamViewType: \"ALL\"", "NEW_AND_OLD_IMAGES"],
        ),
        (changed(|table| remove(table, "LatestStreamArn")), ["/Table/LatestStreamArn: missing", ""]),
        (stream("table/Orders/", "table/Others/"), ["/Table/LatestStreamArn: \"arn:aws:dynamodb:", latest]),
        (
            stream("arn:aws:", "arn:aws-cn:"),
            ["\"arn:aws-cn:dynamodb:", "is not a stream of arn:aws:dynamodb:eu-west-1:"],
        ),
        (
            changed(|table| table["GlobalSecondaryIndexes"][0]["Projection"]["ProjectionType"] = json!(3)),
            ["/Table/GlobalSecondaryIndexes/0/Projection/ProjectionType: 3", "a text"],
        ),
    ] {
        let error = TableDescription::parse(&document).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)) && !error.contains('\n'), "{parts:?}: {error}");
    }
}

/// The members are written to commands and files.
#[test]
fn hostile_texts_are_refused_member_by_member() {
    const TABLE_ARN: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/Orders";
    const KEY_ARN: &str = "arn:aws:kms:eu-west-1:123456789012:key/0a1b";
    let replaced = |text: &str, from: &str, to: &str| json!(text.replace(from, to));
    let hostile =
        ["$(touch /tmp/x)", "`id`", "\n", "\u{1b}[2J", " CodeBucket=evil CodePrefix=x", "\"", "'", ";id", "\u{7f}"];
    for hostile in hostile {
        let region = format!("eu-west-1{hostile}");
        let members = [
            ("/TableName", json!(format!("Orders{hostile}"))),
            ("/TableArn", replaced(TABLE_ARN, "eu-west-1", &region)),
            ("/TableArn", replaced(TABLE_ARN, "aws", &format!("aws{hostile}"))),
            ("/TableArn", replaced(TABLE_ARN, "123456789012", &format!("123456789012{hostile}"))),
            ("/TableStatus", json!(format!("ACTIVE{hostile}"))),
            (
                "/LatestStreamArn",
                replaced(&format!("{TABLE_ARN}/stream/2026-11-27T08:00:00.000"), "eu-west-1", &region),
            ),
            ("/LatestStreamArn", json!(format!("{TABLE_ARN}/stream/2026-11-27T08:00:00.000{hostile}"))),
            ("/LatestStreamLabel", json!(format!("2026-11-27T08:00:00.000{hostile}"))),
            ("/SSEDescription/KMSMasterKeyArn", json!(format!("{KEY_ARN}{hostile}"))),
            ("/SSEDescription/KMSMasterKeyArn", replaced(KEY_ARN, "eu-west-1", &region)),
            ("/SSEDescription/SSEType", json!(format!("KMS{hostile}"))),
            ("/SSEDescription/Status", json!(format!("ENABLED{hostile}"))),
            ("/GlobalSecondaryIndexes/0/IndexName", json!(format!("by-status{hostile}"))),
            ("/LocalSecondaryIndexes/0/IndexName", json!(format!("local{hostile}"))),
            ("/Replicas/0/RegionName", json!(region)),
            ("/Replicas/0/ReplicaStatus", json!(format!("ACTIVE{hostile}"))),
            ("/GlobalTableVersion", json!(format!("2019.11.21{hostile}"))),
            ("/TableClassSummary/TableClass", json!(format!("STANDARD{hostile}"))),
        ];
        for (pointer, value) in members {
            let document = changed(|table| {
                table["Replicas"] = json!([{"RegionName": "us-east-1", "ReplicaStatus": "ACTIVE"}]);
                table["GlobalTableVersion"] = json!("2019.11.21");
                *table.pointer_mut(pointer).unwrap() = value.clone();
            });
            let error = TableDescription::parse(&document).unwrap_err();
            assert_eq!(error.pointer, Some(format!("/Table{pointer}")), "{error}");
            let error = error.to_string();
            assert!(error.contains("expected") || error.contains("set it to"), "{error}");
            assert!(!error.contains(char::is_control), "{error:?}");
            assert!(error.contains(&format!("{:?}", value.as_str().unwrap())), "{value}: {error}");
        }
    }
    let former = changed(|table| {
        remove(table, "StreamSpecification");
        table["LatestStreamArn"] = json!(format!("{TABLE_ARN}/stream/x;id"));
    });
    let error = TableDescription::parse(&former).unwrap_err();
    assert_eq!(error.pointer.as_deref(), Some("/Table/LatestStreamArn"));
}

#[test]
fn an_arn_is_that_of_a_table() {
    for text in [
        "Orders",
        "arn:gcp:dynamodb:eu-west-1:123456789012:table/Orders",
        "arn:aws:dynamodb:eu-west-1$(id):123456789012:table/Orders",
        "arn:aws:dynamodb:eu-west-1:123456789012:table/Orders/stream/2026-11-27T08:00:00.000",
        "arn:aws:dynamodb:eu-west-1:123456789012:table/Orders/index/by-status",
        "arn:aws:dynamodb:eu-west-1:1234:table/Orders",
        "arn:aws:dynamodb::123456789012:table/Orders",
        "arn:aws:s3:::orders",
    ] {
        let error = TableArn::parse(text).unwrap_err().to_string();
        assert!(error.contains(text) && error.contains("table/NAME"), "{error}");
    }
}

#[test]
fn the_sdk_s_response_gives_the_same_description_as_the_cli_s_output() {
    fn element(name: &str, kind: sdk::KeyType) -> sdk::KeySchemaElement {
        sdk::KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap()
    }
    fn attribute(name: &str, kind: sdk::ScalarAttributeType) -> sdk::AttributeDefinition {
        sdk::AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build().unwrap()
    }
    let projection = sdk::Projection::builder().projection_type(sdk::ProjectionType::Include);
    let keys_only = sdk::Projection::builder().projection_type(sdk::ProjectionType::KeysOnly).build();
    let response = sdk::TableDescription::builder()
        .table_name("Orders")
        .table_arn("arn:aws:dynamodb:eu-west-1:123456789012:table/Orders")
        .table_status(sdk::TableStatus::Active)
        .attribute_definitions(attribute("pk", sdk::ScalarAttributeType::S))
        .attribute_definitions(attribute("sk", sdk::ScalarAttributeType::N))
        .attribute_definitions(attribute("status", sdk::ScalarAttributeType::S))
        .key_schema(element("pk", sdk::KeyType::Hash))
        .key_schema(element("sk", sdk::KeyType::Range))
        .item_count(61_204_418)
        .table_size_bytes(48_236_117_004)
        .billing_mode_summary(sdk::BillingModeSummary::builder().billing_mode(sdk::BillingMode::PayPerRequest).build())
        .provisioned_throughput(sdk::ProvisionedThroughputDescription::builder().build())
        .global_secondary_indexes(
            sdk::GlobalSecondaryIndexDescription::builder()
                .index_name("by-status")
                .key_schema(element("status", sdk::KeyType::Hash))
                .key_schema(element("sk", sdk::KeyType::Range))
                .projection(projection.non_key_attributes("total").non_key_attributes("currency").build())
                .build(),
        )
        .local_secondary_indexes(
            sdk::LocalSecondaryIndexDescription::builder()
                .index_name("local")
                .key_schema(element("pk", sdk::KeyType::Hash))
                .key_schema(element("status", sdk::KeyType::Range))
                .projection(keys_only)
                .build(),
        )
        .stream_specification(
            sdk::StreamSpecification::builder()
                .stream_enabled(true)
                .stream_view_type(sdk::StreamViewType::NewAndOldImages)
                .build()
                .unwrap(),
        )
        .latest_stream_label("2026-11-27T08:00:00.000")
        .latest_stream_arn("arn:aws:dynamodb:eu-west-1:123456789012:table/Orders/stream/2026-11-27T08:00:00.000")
        .sse_description(
            sdk::SseDescription::builder()
                .status(sdk::SseStatus::Enabled)
                .sse_type(sdk::SseType::Kms)
                .kms_master_key_arn("arn:aws:kms:eu-west-1:123456789012:key/0a1b2c3d-4e5f-6789-abcd-ef0123456789")
                .build(),
        )
        .table_class_summary(
            sdk::TableClassSummary::builder().table_class(sdk::TableClass::StandardInfrequentAccess).build(),
        )
        .deletion_protection_enabled(true)
        .build();
    assert_eq!(TableDescription::from_sdk(&response).unwrap(), TableDescription::parse(ORDERS).unwrap());

    let incomplete = sdk::TableDescription::builder().table_name("Orders").build();
    let error = TableDescription::from_sdk(&incomplete).unwrap_err();
    assert_eq!(error.pointer.as_deref(), Some("/Table/TableArn"));
}

#[test]
fn key_parameter_escapes_colons_and_what_would_read_as_an_escape() {
    for (name, parameter) in [
        ("pk", "pk:S"),
        ("a.b", "a.b:S"),
        ("_größe (cm)", "_größe (cm):S"),
        ("urn:order", "urn%3Aorder:S"),
        (":", "%3A:S"),
        ("100%", "100%:S"),
        ("a%3Ab", "a%253Ab:S"),
        ("%25:%3A", "%2525%3A%253A:S"),
        ("%3a", "%3a:S"),
    ] {
        let key = KeyAttribute { name: name.to_owned(), kind: KeyType::String };
        assert_eq!((key.to_parameter(), KeyAttribute::from_parameter(parameter)), (parameter.to_owned(), Some(key)));
    }
    for text in ["pk", ":S", "pk:X", "a:b:S", "pk:", ""] {
        assert_eq!(KeyAttribute::from_parameter(text), None, "{text}");
    }
}

#[test]
fn ttl_option_is_a_name_or_none() {
    assert_eq!(TimeToLive::from_option("none"), Ok(TimeToLive::Disabled));
    for name in ["ttl", "None", "läuft ab", &"a".repeat(255)] {
        assert_eq!(TimeToLive::from_option(name), Ok(TimeToLive::Enabled { attribute: name.to_owned() }));
    }
    for text in [String::new(), "a".repeat(256)] {
        assert!(TimeToLive::from_option(&text).unwrap_err().contains("or none if TTL is off"));
    }
}
