//! `infra/replication.yaml` by itself, for a table that exists: its functions start with its environment, and on this
//! machine they replicate a table of another key schema than the users table's.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use millrace_local::stack::{LocalStack, StackOptions};
use millrace_local::task::{StackPorts, TaskTarget};
use millrace_local::template::{ParameterOverrides, SamTemplate};
use millrace_shared::clock::Clock;
use serde_json::{Value, json};

use super::{deployed, every_variable_is_read, workspace};
use crate::maintenance::scene::to_its_end;

const PATH: &str = "infra/replication.yaml";

fn overrides(parameters: &[(&str, &str)]) -> ParameterOverrides {
    let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    ParameterOverrides { parameters, ..ParameterOverrides::default() }
}

fn alone(parameters: &[(&str, &str)]) -> SamTemplate {
    SamTemplate::load_with(&workspace().join(PATH), &overrides(parameters)).unwrap()
}

#[test]
fn functions_start_with_the_environment_for_a_table_of_any_key() {
    for keys in [
        &[("PartitionKey", "pk:S")][..],
        &[("PartitionKey", "a.b:N"), ("SortKey", "_sort key:B")],
        &[("PartitionKey", "größe:B"), ("SortKey", "status:N")],
        &[("PartitionKey", "urn%3Aorder:S"), ("SortKey", "100% %253A:N")],
    ] {
        let template = alone(&[&[("SourceTableName", "Orders")], keys].concat());
        let function = |name: &str| template.functions.iter().find(|function| function.name == name).unwrap().clone();
        let replicator = function("replicator");
        assert_eq!(replicator.environment["REPLICA_TABLE"], "OrdersReplica");
        assert!(replicator.environment["SOURCE_TABLE_ARN"].ends_with(":table/Orders"));
        millrace_replicator::config::ReplicatorConfig::parse(&deployed(replicator)).unwrap();
        let archiver = function("archiver");
        assert!(archiver.environment["SOURCE_TABLE_ARN"].ends_with(":table/Orders"));
        millrace_archiver::config::ArchiverConfig::parse(&deployed(archiver)).unwrap();
        let maintenance = function("maintenance");
        assert_eq!(maintenance.environment["SOURCE_TABLE"], "Orders");
        assert_eq!(maintenance.environment["SOURCE_SCHEMA"], "any");
        assert_eq!(maintenance.environment.get("EMAILS_TABLE"), None);
        millrace_maintenance::config::MaintenanceConfig::parse(&deployed(maintenance)).unwrap();
        assert_eq!(template.functions.len(), 3, "a new function needs its line above");
        let [source, replica] = template.tables.as_slice() else { panic!("{:?}", template.tables) };
        assert_eq!((&source.keys, &source.attributes), (&replica.keys, &replica.attributes));
        assert!(template.routes.is_empty());
        every_variable_is_read(template);
    }
}

#[test]
fn colon_in_the_name_of_a_key_attribute_is_escaped_in_the_parameter() {
    let template = alone(&[("PartitionKey", "urn%3Aorder%3A100%25:S"), ("SortKey", "%253A:B")]);
    for table in &template.tables {
        let names: Vec<&str> = table.keys.iter().map(|key| key.name.as_str()).collect();
        assert_eq!(names, ["urn:order:100%", "%3A"], "{}", table.name);
        let kinds: Vec<&str> = table.attributes.iter().map(|attribute| attribute.kind.as_str()).collect();
        assert_eq!(kinds, ["S", "B"], "{}", table.name);
    }
    let path = workspace().join(PATH);
    let refused = SamTemplate::load_with(&path, &overrides(&[("PartitionKey", "urn:order:S")])).unwrap_err();
    assert!(refused.to_string().contains("with %3A for a colon in the name"), "{refused}");
}

#[test]
fn reserved_prefix_is_that_of_both_functions_and_of_the_replica_s_ttl() {
    for (chosen, prefix) in [(&[][..], "_"), (&[("ReservedPrefix", "mr_")], "mr_")] {
        let template = alone(&[&[("PartitionKey", "pk:S")], chosen].concat());
        let replica = template.tables.iter().find(|table| table.name == "SourceReplica").unwrap();
        assert_eq!(replica.ttl_attribute, Some(format!("{prefix}tombstone_expires_at")));
        for name in ["replicator", "maintenance"] {
            let function = template.functions.iter().find(|function| function.name == name).unwrap();
            assert_eq!(function.environment["RESERVED_PREFIX"], prefix, "{name}");
        }
        every_variable_is_read(template);
    }
}

#[test]
fn existing_replica_is_named_by_its_arn_region_and_role() {
    let arn = "arn:aws:dynamodb:us-east-1:999999999999:table/Orders";
    let role = "arn:aws:iam::999999999999:role/replica";
    let template = alone(&[
        ("PartitionKey", "pk:S"),
        ("ReplicaTableArn", arn),
        ("ReplicaRegion", "us-east-1"),
        ("ReplicaRoleArn", role),
    ]);
    assert_eq!(template.tables.len(), 1, "the stack creates no replica");
    for name in ["replicator", "maintenance"] {
        let function = template.functions.iter().find(|function| function.name == name).unwrap().clone();
        let variables =
            ["REPLICA_TABLE", "REPLICA_REGION", "REPLICA_ROLE_ARN"].map(|name| function.environment[name].clone());
        assert_eq!(variables, [arn, "us-east-1", role].map(str::to_owned), "{name}");
        millrace_replicator::config::ReplicatorConfig::parse(&deployed(function)).unwrap();
    }
    every_variable_is_read(template);
}

#[test]
fn archive_that_is_off_has_no_function_bucket_or_setting() {
    let template = alone(&[("PartitionKey", "pk:S"), ("Archive", "off")]);
    let names: Vec<&str> = template.functions.iter().map(|function| function.name.as_str()).collect();
    assert_eq!(names, ["replicator", "maintenance"]);
    let buckets: Vec<&str> = template.buckets.iter().map(|bucket| bucket.name.as_str()).collect();
    assert_eq!(buckets, ["source-failures"]);
    for function in &template.functions {
        let of_archive = function.environment.keys().find(|variable| variable.starts_with("ARCHIVE"));
        assert_eq!(of_archive, None, "{}", function.name);
    }
    let [replicator, maintenance] = template.functions.as_slice() else { panic!("{names:?}") };
    millrace_replicator::config::ReplicatorConfig::parse(&deployed(replicator.clone())).unwrap();
    millrace_maintenance::config::MaintenanceConfig::parse(&deployed(maintenance.clone())).unwrap();
    every_variable_is_read(template);
}

#[test]
fn archive_in_the_replicator_takes_the_place_of_the_archiver() {
    let parameters = [("PartitionKey", "pk:S"), ("Archive", "in-replicator"), ("ArchiveCompression", "gzip")];
    let template = alone(&parameters);
    let [replicator, maintenance] = template.functions.as_slice() else { panic!("{:?}", template.functions) };
    for function in [replicator, maintenance] {
        let archive = ["ARCHIVE_BUCKET", "ARCHIVE_COMPRESSION"].map(|name| function.environment[name].as_str());
        assert_eq!(archive, ["source-archive", "gzip"], "{}", function.name);
        assert_eq!(function.environment.get("ARCHIVER_FUNCTION"), None, "{}", function.name);
    }
    let buckets: Vec<&str> = template.buckets.iter().map(|bucket| bucket.name.as_str()).collect();
    assert_eq!(buckets, ["source-archive", "source-failures"]);
    let [changes] = replicator.mappings.as_slice() else { panic!("{:?}", replicator.mappings) };
    assert!(changes.filters.is_empty(), "the replicator receives every change, and selects the removals by TTL");
    millrace_maintenance::config::MaintenanceConfig::parse(&deployed(maintenance.clone())).unwrap();
}

#[test]
fn replication_document_takes_the_place_of_the_replica() {
    let document = r#"{"version":1,"replicas":[{"name":"staging","sink":"dynamodb","table":"OrdersStaging"}]}"#;
    let of_lines = document.replace('[', "[\r\n    ").replace(']', "\n  ]").replace('}', "}\n");
    for document in [document, &of_lines, "s3://orders-config/replication.json"] {
        let template = alone(&[
            ("PartitionKey", "pk:S"),
            ("Replication", document),
            ("ReplicaTableArns", "arn:aws:dynamodb:us-east-1:000000000000:table/OrdersStaging"),
        ]);
        assert_eq!(template.tables.len(), 1, "the stack creates no replica");
        for name in ["replicator", "maintenance"] {
            let function = template.functions.iter().find(|function| function.name == name).unwrap();
            assert_eq!(function.environment["REPLICATION"], document, "{name}");
            let of_replica = function.environment.keys().find(|variable| variable.starts_with("REPLICA_"));
            assert_eq!(of_replica, None, "{name}");
        }
        let functions = ["replicator", "maintenance"].map(|name| {
            let function = template.functions.iter().find(|function| function.name == name).unwrap();
            deployed(function.clone())
        });
        // An object is read before the environment is parsed.
        if !document.starts_with("s3://") {
            millrace_replicator::config::ReplicatorConfig::parse(&functions[0]).unwrap();
            millrace_maintenance::config::MaintenanceConfig::parse(&functions[1]).unwrap();
        }
        every_variable_is_read(template);
    }
}

#[test]
fn parameter_that_is_neither_a_document_nor_its_place_is_refused() {
    for text in ["", "replication.json", "{\n  \"version\": 1,\n", "[{}]", "none\n{}", "s3://orders-config/a b"] {
        let given = overrides(&[("PartitionKey", "pk:S"), ("Replication", text)]);
        let refused = SamTemplate::load_with(&workspace().join(PATH), &given).unwrap_err().to_string();
        let expected = format!("Parameters.Replication: {text:?}: must be none, s3://BUCKET/KEY, or a JSON object");
        assert!(refused.contains(&expected), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn table_of_another_key_schema_is_replicated_and_verified() {
    let parameters = [("SourceTableName", "Orders"), ("PartitionKey", "a.b:N"), ("SortKey", "sort key:B")];
    let options = StackOptions {
        template: workspace().join(PATH),
        parameters: overrides(&parameters).parameters,
        ..StackOptions::default()
    };
    let stack = LocalStack::start(options).await.unwrap();
    let banner = millrace::banner::start_banner(&stack, "http://127.0.0.1:1", None);
    let commands = [
        "--table-name Orders ",
        "--table-name OrdersReplica ",
        r#" --item '{"a.b":{"N":"1"},"sort key":{"B":"YQ=="}}'"#,
    ];
    assert!(commands.iter().all(|command| banner.contains(command)), "{banner}");
    assert!(!banner.contains("--template") && !banner.contains("--parameter"), "a task finds the table: {banner}");
    let dynamodb = stack.dynamodb();
    for number in 0..20_u8 {
        let put = dynamodb.put_item().table_name("Orders").item("a.b", AttributeValue::N(number.to_string()));
        let put = put.item("sort key", AttributeValue::B([number].to_vec().into()));
        put.item("total", AttributeValue::N("7".to_owned())).send().await.unwrap();
    }
    let removed = dynamodb.delete_item().table_name("Orders").key("a.b", AttributeValue::N("3".to_owned()));
    removed.key("sort key", AttributeValue::B([3].to_vec().into())).send().await.unwrap();
    stack.wait_until_drained().await;
    let replica = dynamodb.scan().table_name("OrdersReplica").send().await.unwrap();
    assert_eq!(replica.items().len(), 20, "19 items and a tombstone");
    assert_eq!(replica.items().iter().filter(|item| item.contains_key("total")).count(), 19);

    let port = |url: &str| url.rsplit(':').next().unwrap().parse().unwrap();
    let ports =
        StackPorts { api: port(stack.api_url()), dynamodb: port(stack.dynamodb_url()), s3: port(stack.s3_url()) };
    let target = TaskTarget::Running { ports, postgres: None };
    let verify = r#"{"task":"verify","segments":2,"recheck_after_seconds":0}"#;
    let outcome = Box::pin(millrace_local::task::run(verify, target, &Clock::system())).await.unwrap();
    assert!(outcome.is_success(), "{outcome}");
    assert_eq!((outcome.progress.get("source.items"), outcome.progress.get("dynamodb.equal")), (19, 19), "{outcome}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stack_with_only_the_archive_reports_no_replica_to_compare() {
    let document = r#"{"version":1,"replicas":[{"name":"archive","sink":"archive","records":"expired"}]}"#;
    let parameters = [("PartitionKey", "pk:S"), ("Replication", document), ("Archive", "in-replicator")];
    let options = StackOptions {
        template: workspace().join(PATH),
        parameters: overrides(&parameters).parameters,
        ..StackOptions::default()
    };
    let stack = LocalStack::start(options).await.unwrap();
    assert_eq!(stack.replicas(), []);
    let banner = millrace::banner::start_banner(&stack, "http://127.0.0.1:1", None);
    for part in ["replica     none", "declares no replica to compare", "task restore --never-expires"] {
        assert!(banner.contains(part), "{part}: {banner}");
    }
    assert!(!banner.contains("get-item") && !banner.contains("task verify"), "{banner}");
    let maintenance = stack.maintenance().unwrap();
    for task in ["verify", "repair", "backfill", "audit"] {
        let refused = to_its_end(&maintenance, json!({"task": task}), Duration::from_mins(1)).await.unwrap_err();
        assert!(refused.to_string().contains("REPLICATION declares no replica to compare"), "{task}: {refused}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quarantined_records_are_summarized_with_reason_key_and_object() {
    let options = StackOptions {
        template: workspace().join(PATH),
        parameters: overrides(&[("PartitionKey", "pk:S")]).parameters,
        ..StackOptions::default()
    };
    let stack = LocalStack::start(options).await.unwrap();
    let put = async |key: &str| {
        let put = stack.dynamodb().put_item().table_name("Source").item("pk", AttributeValue::S(key.to_owned()));
        put.item("_rev", AttributeValue::N("1".to_owned())).send().await.unwrap();
        stack.wait_until_drained().await;
    };
    put("before").await;
    let known = stack.quarantine_keys().await.unwrap();
    assert_eq!((known.len(), stack.quarantined_since(&known).await.unwrap().total), (1, 0));
    put("a").await;
    put("b").await;
    let summary = stack.quarantined_since(&known).await.unwrap();
    assert_eq!((summary.total, summary.bucket.as_str()), (2, "source-failures"));
    let [reason] = &summary.reasons[..] else { panic!("{summary:?}") };
    assert!(reason.count == 2 && reason.reason.contains("set the parameter ReservedPrefix"), "{reason:?}");
    assert_eq!(reason.item_key.as_deref(), Some(r#"{"pk":{"S":"a"}}"#));
    assert!(reason.object_key.starts_with("quarantine/replicator/dynamodb/Source/"), "{reason:?}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stack_without_an_archive_replicates_and_verifies() {
    let choices = overrides(&[("PartitionKey", "pk:S"), ("Archive", "off")]);
    let options = StackOptions {
        template: workspace().join(PATH),
        parameters: choices.parameters.clone(),
        ..StackOptions::default()
    };
    let stack = LocalStack::start(options).await.unwrap();
    for key in ["a", "b"] {
        let put = stack.dynamodb().put_item().table_name("Source").item("pk", AttributeValue::S(key.to_owned()));
        put.send().await.unwrap();
    }
    stack.wait_until_drained().await;
    let maintenance = stack.maintenance().unwrap();
    let run = async |order: Value| to_its_end(&maintenance, order, Duration::from_mins(1)).await;
    let verified = run(json!({"task": "verify", "recheck_after_seconds": 0})).await.unwrap();
    assert_eq!((verified.differences, verified.progress.get("dynamodb.equal")), (0, 2), "{}", verified.progress);
    let refused = run(json!({"task": "compact"})).await.unwrap_err().to_string();
    assert!(refused.contains("the archive is off") && refused.contains("Archive=separate"), "{refused}");
    stack.stop().await;
}
