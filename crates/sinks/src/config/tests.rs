//! Tests of the settings of the sinks.

use super::*;
use crate::document::USERS_DOCUMENT;

fn parse(variables: &[(&str, &str)]) -> Result<SinksConfig, EnvironmentError> {
    SinksConfig::parse(&variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

#[test]
fn the_replica_table_is_enough() {
    let config = parse(&[("REPLICA_TABLE", "UsersReplica")]).unwrap();
    let [replica] = &config.replicas[..] else { panic!("one replica") };
    assert_eq!((replica.name.as_str(), replica.table.max_concurrency), ("dynamodb", 128));
    assert_eq!(config.tombstone, Duration::days(8));
    assert_eq!((&replica.table.region, &replica.table.role_arn), (&None, &None));
}

#[test]
fn a_tombstone_outlives_the_records_of_a_stream() {
    let days = |days| parse(&[("REPLICA_TABLE", "UsersReplica"), ("TOMBSTONE_RETENTION_DAYS", days)]);
    let message = days("1").unwrap_err().to_string();
    assert!(message.contains("TOMBSTONE_RETENTION_DAYS is \"1\": set it to a number from 2 to 3650"), "{message}");
    assert_eq!(days("2").unwrap().tombstone, Duration::days(2));
}

async fn sdk() -> SdkConfig {
    let defaults = aws_config::defaults(aws_config::BehaviorVersion::latest());
    defaults.region(Region::from_static("eu-west-1")).no_credentials().load().await
}

fn region(client: &aws_sdk_dynamodb::Client) -> Option<String> {
    client.config().region().map(ToString::to_string)
}

#[tokio::test]
async fn the_replica_may_be_in_another_region() {
    let arn = "arn:aws:dynamodb:ap-south-1:111122223333:table/Orders";
    for (variables, expected) in [
        (vec![("REPLICA_TABLE", "UsersReplica")], "eu-west-1"),
        (vec![("REPLICA_TABLE", "UsersReplica"), ("REPLICA_REGION", "us-east-2")], "us-east-2"),
        (vec![("REPLICA_TABLE", arn)], "ap-south-1"),
        (vec![("REPLICA_TABLE", arn), ("REPLICA_REGION", "ap-south-1")], "ap-south-1"),
    ] {
        let config = parse(&variables).unwrap();
        let clients = config.replica_clients(&sdk().await).await;
        let client = clients.replica_client(&config.replicas[0].name).client;
        assert_eq!(region(&client).as_deref(), Some(expected), "{variables:?}");
    }
    let message = parse(&[("REPLICA_TABLE", arn), ("REPLICA_REGION", "eu-west-1")]).unwrap_err().to_string();
    assert!(
        message.contains("REPLICA_REGION is \"eu-west-1\", but the ARN in REPLICA_TABLE is in ap-south-1"),
        "{message}"
    );
    let role = ("REPLICA_ROLE_ARN", "arn:aws-cn:iam::111122223333:role/replication");
    let message = parse(&[("REPLICA_TABLE", arn), role]).unwrap_err().to_string();
    assert!(
        message.contains("REPLICA_ROLE_ARN is in the partition aws-cn, but the ARN in REPLICA_TABLE is in aws,")
            && message.contains("set REPLICA_ROLE_ARN to a role in aws, or correct REPLICA_TABLE"),
        "{message}"
    );
}

const BUCKET: (&str, &str) = ("ARCHIVE_BUCKET", "orders-archive");
const DOCUMENT: &str = r#"{"version":1,"replicas":[
    {"name":"staging","sink":"dynamodb","table":"arn:aws:dynamodb:us-east-2:111122223333:table/Orders",
     "role_arn":"arn:aws:iam::111122223333:role/replication","max_concurrency":16},
    {"name":"near","sink":"dynamodb","table":"OrdersCopy"},
    {"name":"archive","sink":"archive","records":"expired"}]}"#;

#[tokio::test]
async fn a_document_has_several_replicas_each_with_its_client() {
    let config = parse(&[("REPLICATION", DOCUMENT), BUCKET]).unwrap();
    let names: Vec<&str> = config.replicas.iter().map(|replica| replica.name.as_str()).collect();
    assert_eq!(names, ["staging", "near"]);
    assert_eq!(config.replicas[1].setting, "REPLICATION /replicas/1/table");
    assert!(config.archive.is_some());
    let clients = config.replica_clients(&sdk().await).await;
    let [staging, near] = [0, 1].map(|index: usize| clients.replica_client(&config.replicas[index].name));
    assert_eq!(region(&staging.client).as_deref(), Some("us-east-2"));
    assert_eq!(staging.role.unwrap().arn.as_str(), "arn:aws:iam::111122223333:role/replication");
    assert_eq!((region(&near.client).as_deref(), near.role.is_none()), (Some("eu-west-1"), true));
}

#[test]
fn a_replica_that_is_the_source_or_in_another_partition_is_rejected() {
    let source = ("SOURCE_TABLE_ARN", "arn:aws:dynamodb:us-east-2:111122223333:table/Orders");
    let message = parse(&[("REPLICATION", DOCUMENT), BUCKET, source]).unwrap_err().to_string();
    assert!(message.contains("1 problem:") && message.contains("REPLICATION /replicas/0/table"), "{message}");
    assert!(message.contains("which is SOURCE_TABLE_ARN: set it to another table"), "{message}");
    let source = ("SOURCE_TABLE_ARN", "arn:aws-cn:dynamodb:cn-north-1:111122223333:table/Orders");
    let message = parse(&[("REPLICATION", DOCUMENT), BUCKET, source]).unwrap_err().to_string();
    assert!(message.contains("partition aws,") && message.contains("SOURCE_TABLE_ARN is in aws-cn"), "{message}");
    assert!(message.contains("name a table and a role in aws-cn"), "{message}");
    let message = parse(&[("REPLICA_TABLE", "UsersReplica"), ("SOURCE_TABLE_ARN", "Users")]).unwrap_err().to_string();
    assert!(message.contains("SOURCE_TABLE_ARN is \"Users\": set it to arn:aws:dynamodb:"), "{message}");
}

#[test]
fn a_sink_of_users_is_rejected_for_any_other_table() {
    let table = ("REPLICA_TABLE", "OrdersReplica");
    for sink in [("POSTGRES_URL", "postgres://millrace:s3cret@db:5432/users"), ("CACHE_URL", "redis://:s3cret@c:6379")]
    {
        for schema in [&[][..], &[("SOURCE_SCHEMA", "any")]] {
            let message = parse(&[&[table, sink], schema].concat()).unwrap_err().to_string();
            assert!(
                message.contains("1 problem:") && message.contains(&format!("{} is set, but", sink.0)),
                "{message}"
            );
            assert!(message.contains("SOURCE_SCHEMA") && message.contains("otherwise remove"), "{message}");
            assert!(!message.contains("s3cret"), "{message}");
        }
        parse(&[table, sink, ("SOURCE_SCHEMA", "users")]).unwrap();
    }
}

#[test]
fn a_table_of_postgres_is_declared_for_any_source() {
    let document = r#"{"version":1,"replicas":[{"name":"sql","sink":"postgres","table":"orders"},
        {"name":"lines","sink":"postgres","table":"users"}]}"#;
    let (document, url) = (("REPLICATION", document), ("POSTGRES_URL", "postgres://millrace@db:5432/shop"));
    let names = |variables: &[(&str, &str)]| -> Vec<String> {
        let config = parse(variables).unwrap();
        assert!(config.postgres_settings().is_some());
        config.postgres(None).iter().map(|sink| sink.name().to_owned()).collect()
    };
    assert_eq!(names(&[document, url]), ["sql", "lines"]);
    let message = parse(&[document]).unwrap_err().to_string();
    assert!(message.contains("2 problems:") && message.contains("/replicas/0/sink is \"postgres\", but POSTGRES_URL"));
    let users = ("SOURCE_SCHEMA", "users");
    let message = parse(&[document, url, users]).unwrap_err().to_string();
    assert!(message.contains("/replicas/1/table is \"users\", the table of the users service"), "{message}");
    let orders = ("REPLICATION", r#"{"version":1,"replicas":[{"name":"sql","sink":"postgres","table":"orders"}]}"#);
    assert_eq!(names(&[orders, url, users]), ["postgres", "sql"]);
}

#[test]
fn users_table_accepts_more_columns_and_rejects_fewer() {
    let declared = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut document: serde_json::Value = serde_json::from_str(USERS_DOCUMENT).unwrap();
        edit(&mut document["replicas"][0]);
        document.to_string()
    };
    let url = ("POSTGRES_URL", "postgres://millrace@db:5432/users");
    let parse = |document: &str, schema| parse(&[("REPLICATION", document), url, ("SOURCE_SCHEMA", schema)]);
    let plan = |replica: &mut serde_json::Value| {
        replica["columns"]["plan"] = serde_json::json!({"path": "attributes.plan", "type": "text"});
    };
    let config = parse(&declared(&plan), "users").unwrap();
    let names: Vec<String> = config.postgres(None).iter().map(|sink| sink.name().to_owned()).collect();
    assert_eq!(names, ["postgres"]);
    let schema = config.postgres_schema();
    assert_eq!((schema.users.unwrap().columns.definitions().len(), schema.tables.len()), (12, 0));
    let message = parse(&declared(&|_| {}), "any").unwrap_err().to_string();
    assert!(
        message.contains("1 problem:") && message.contains("/replicas/0/name is \"postgres\", the name of"),
        "{message}"
    );
    let wrong = |replica: &mut serde_json::Value| {
        replica["columns"]["name_folded"] = serde_json::json!({"path": "name", "type": "text"});
        replica["otherwise"] = "null".into();
        replica["attributes"] = serde_json::json!({"exclude": ["email"]});
        replica["columns"]["expires_at"] = serde_json::json!({"path": "expires_at", "type": "numeric"});
    };
    let message = parse(&declared(&wrong), "users").unwrap_err().to_string();
    for part in [
        "4 problems:",
        "/replicas/0/columns/expires_at is the name of a column that search computes",
        r#"/replicas/0/columns/name_folded must be {"path": "name", "type": "text", "format": "case_folded"}"#,
        r#"/replicas/0/otherwise must be "quarantine""#,
        "/replicas/0/table has rules (where, attributes)",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
}

#[test]
fn key_of_a_hash_is_read_before_the_configuration_is_parsed() {
    const SECRET: &str = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:pii";
    let document = format!(
        r#"{{"version":1,"hash_keys":{{"pii":"{SECRET}"}},"replicas":[{{"name":"copy","sink":"dynamodb",
        "table":"Copy","attributes":{{"hash":{{"email":"pii"}}}}}}]}}"#
    );
    let config = parse(&[("REPLICATION", &document), (SECRET, "0123456789abcdef")]).unwrap();
    assert!(config.replicas[0].transform.is_some());
    let problem = |key| parse(&[("REPLICATION", &document), (SECRET, key)]).unwrap_err().to_string();
    let unread = problem("");
    assert!(unread.contains("/hash_keys/pii is arn:aws:secretsmanager:") && unread.contains("not read"), "{unread}");
    let short = problem("s3cret");
    assert!(short.contains("at least 16 random bytes") && !short.contains("s3cret"), "{short}");
}

#[test]
fn a_document_and_the_variables_that_it_replaces_are_not_both_set() {
    for name in ["REPLICA_TABLE", "REPLICA_REGION", "REPLICA_ROLE_ARN", "REPLICA_MAX_CONCURRENCY"] {
        let message = parse(&[("REPLICATION", DOCUMENT), BUCKET, (name, "1")]).unwrap_err().to_string();
        assert!(message.contains(&format!("{name} is set in addition to REPLICATION")), "{message}");
        assert!(message.contains("1 problem:"), "{message}");
    }
}

#[test]
fn all_problems_of_a_document_are_reported_with_those_of_the_variables() {
    let document = r#"{"version":1,"replicas":[{"name":"A","sink":"dynamodb"}]}"#;
    let message = parse(&[("REPLICATION", document), ("TOMBSTONE_RETENTION_DAYS", "0")]).unwrap_err().to_string();
    let parts = ["3 problems:", "REPLICATION /replicas/0/name is \"A\"", "REPLICATION /replicas/0/table is missing"];
    for part in parts.into_iter().chain(["TOMBSTONE_RETENTION_DAYS is \"0\""]) {
        assert!(message.contains(part), "{part} in {message}");
    }
    for malformed in ["s3://bucket", "Orders"] {
        let message = parse(&[("REPLICATION", malformed)]).unwrap_err().to_string();
        assert!(message.contains("1 problem:") && message.contains("s3://<bucket>/<key>"), "{message}");
    }
}

#[tokio::test]
async fn a_document_that_cannot_be_read_names_bucket_key_and_permission() {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(aws_sdk_s3::config::BehaviorVersion::latest())
        .region(aws_sdk_s3::config::Region::from_static("eu-west-1"))
        .endpoint_url("http://127.0.0.1:1")
        .retry_config(aws_sdk_s3::config::retry::RetryConfig::disabled())
        .build();
    let s3 = aws_sdk_s3::Client::from_conf(config);
    let environment = |value: &str| [(REPLICATION.to_owned(), value.to_owned())].into_iter().collect::<Environment>();
    let message = load_document(environment("s3://orders-config/v1.json"), &s3).await.unwrap_err().to_string();
    for part in [
        "1 problem:",
        "REPLICATION is s3://orders-config/v1.json",
        "object v1.json of bucket orders-config",
        "s3:GetObject",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
    // Nothing is read for a document that is in the variable, and a malformed location is not a location.
    for unchanged in [DOCUMENT, "s3://bucket"] {
        let loaded = load_document(environment(unchanged), &s3).await.unwrap();
        assert_eq!(loaded.get(REPLICATION), Some(unchanged));
    }
}
