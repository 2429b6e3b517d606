//! Bad input of a replication: each error names the field or the value, the fix and a command.

use aws_sdk_dynamodb::types::{StreamSpecification, StreamViewType};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use millrace_maintenance::mapping::MappingNotReadyError;
use millrace_maintenance::source::SourceTableError;
use millrace_replicator::ReplicatorError;
use millrace_replicator::config::ReplicatorConfig;
use millrace_shared::change::OtherTableError;
use millrace_shared::environment::Environment;
use millrace_shared::revision::{Revision, SequenceNumber, StreamLabel};
use serde_json::{Value, json};

use super::events::{EventBuilder, LABEL, event, user};
use super::replicas::check_with_role;
use super::rig::{REPLICA, ReplicationRig, deliver_batch, invocation};

const ORDERS: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/Orders";
const STREAM: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/Orders/stream/2026-11-27T08:00:00.000";
const FORMER: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/Orders/stream/2025-01-01T08:00:00.000";

/// The error of the replicator's configuration with these variables.
fn configured(variables: &[(&str, &str)]) -> String {
    let variables = variables.iter().chain(&[("FAILURE_BUCKET", "failures")]);
    let environment: Environment = variables.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    ReplicatorConfig::parse(&environment).unwrap_err().to_string()
}

/// An item of the source that carries a revision of a stream with this label.
fn replicated(user_id: &str, number: u64, label: StreamLabel) -> EventBuilder {
    let revision = Revision::new(label, SequenceNumber::parse("7").unwrap());
    let mut image: Value = user(user_id, "1", "Ada");
    image["_rev"] = json!({"B": BASE64_STANDARD.encode(revision.encode().as_ref())});
    EventBuilder::image(user_id, number, &image.to_string())
}

/// Turns the stream of the replica on or off; returns the label of its latest stream.
async fn replica_stream(rig: &ReplicationRig, is_enabled: bool) -> Option<StreamLabel> {
    let view = is_enabled.then_some(StreamViewType::NewAndOldImages);
    let stream = StreamSpecification::builder().stream_enabled(is_enabled).set_stream_view_type(view);
    let update = rig.dynamodb.update_table().table_name(REPLICA).stream_specification(stream.build().unwrap());
    update.send().await.unwrap();
    let described = rig.dynamodb.describe_table().table_name(REPLICA).send().await.unwrap().table.unwrap();
    let label = described.latest_stream_arn.and_then(|arn| Some(arn.rsplit_once("/stream/")?.1.to_owned()));
    label.map(|label| StreamLabel::parse(&label).unwrap())
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "the list of bad inputs is one table")]
async fn each_error_names_the_field_the_fix_and_a_command() {
    let rig = ReplicationRig::start().await;
    rig.create_table("Keyed", &[("id", "S")]).await;
    let logged = crate::log_capture::logged(async {
        deliver_batch(&rig.replicator_over("Keyed"), &event(&[EventBuilder::named("a", 7, "Ada")])).await;
    });
    let other_key = logged.await.join("\n");
    let absent = rig.replicator_over("Absent").check().await.unwrap_err().to_string();
    let role = check_with_role(StatusCode::FORBIDDEN, "AccessDenied").await.unwrap_err();
    let label = replica_stream(&rig, true).await.unwrap();
    let looped = rig.replicator().handle(&event(&[replicated("a", 1, label)]), &invocation()).await.unwrap_err();
    let former = MappingNotReadyError::FormerStream {
        uuid: "u-1".to_owned(),
        function: "replicator".to_owned(),
        reads: FORMER.to_owned(),
        stream: STREAM.to_owned(),
    };
    let document = r#"{"version":1,"replicas":[{"name":"copy","sink":"dynamodb","tabel":"Copy"}]}"#;
    let in_china = "arn:aws-cn:dynamodb:cn-north-1:123456789012:table/Copy";
    let attach = "millrace attach arn:aws:dynamodb:eu-west-1:123456789012:table/Orders --replica-table ARN";
    let latest = "aws dynamodb describe-table --region eu-west-1 --table-name Orders --query Table.LatestStreamArn";
    let turn_on = "aws dynamodb update-table --table-name Orders --stream-specification StreamEnabled=true";
    for (input, error, parts) in [
        (
            "a table without a stream",
            SourceTableError::NoStream("Orders".to_owned()).to_string(),
            ["SOURCE_TABLE: table Orders has no stream", "turn it on", turn_on],
        ),
        (
            "a stream without images, read by a task",
            SourceTableError::StreamWithoutImages { arn: STREAM.to_owned(), view: "KEYS_ONLY".to_owned() }.to_string(),
            [STREAM, "view KEYS_ONLY", turn_on],
        ),
        (
            "a stream without images, read by the replicator",
            ReplicatorError::View { stream: STREAM.to_owned(), view: "KEYS_ONLY".to_owned() }.to_string(),
            [STREAM, "view KEYS_ONLY", turn_on],
        ),
        (
            "a replica of another key schema",
            other_key,
            [
                "key is id (S), but the source's key is timestamp (N), user_id (S)",
                "set REPLICA_TABLE (parameter ReplicaTableArn)",
                "aws dynamodb describe-table --table-name Users --query 'Table.[KeySchema,AttributeDefinitions]'",
            ],
        ),
        (
            "a replica that does not exist",
            absent,
            [
                "REPLICA_TABLE Absent",
                "set REPLICA_TABLE (parameter ReplicaTableArn) to a table that exists",
                "aws dynamodb describe-table --table-name Absent",
            ],
        ),
        (
            "a replica that is the source",
            configured(&[("REPLICA_TABLE", ORDERS), ("SOURCE_TABLE_ARN", ORDERS)]),
            ["REPLICA_TABLE is", "which is SOURCE_TABLE_ARN: set it to another table", attach],
        ),
        (
            "a replica that feeds the source",
            looped.to_string(),
            [
                "carries _rev with a revision of the replica's stream",
                "set REPLICA_TABLE (parameter ReplicaTableArn) to another table",
                "aws lambda delete-event-source-mapping",
            ],
        ),
        ("a former stream", former.to_string(), [FORMER, "deploy with the latest stream", latest]),
        (
            "the stream of another table",
            OtherTableError { stream: STREAM.replace("Orders", "Others"), table: ORDERS.to_owned() }.to_string(),
            ["table/Others/stream/", "SOURCE_TABLE_ARN (parameter SourceTableArn)", latest],
        ),
        (
            "a replica in another partition",
            configured(&[("REPLICA_TABLE", in_china), ("SOURCE_TABLE_ARN", ORDERS)]),
            ["REPLICA_TABLE or its role is in the partition aws-cn", "name a table and a role in aws", attach],
        ),
        (
            "a source that is not an ARN",
            configured(&[("REPLICA_TABLE", "Copy"), ("SOURCE_TABLE_ARN", "Orders")]),
            ["SOURCE_TABLE_ARN is \"Orders\"", "set it to arn:aws:dynamodb:", "--query Table.TableArn --output text"],
        ),
        (
            "a role that cannot be assumed",
            role,
            ["cannot be assumed: allow sts:AssumeRole", "parameter ReplicaRoleArn", "aws iam get-role --role-name"],
        ),
        (
            "a document with a wrong member",
            configured(&[("REPLICATION", document)]),
            [
                "REPLICATION /replicas/0/tabel is not a member",
                "did you mean \"table\"?",
                "millrace transform --document FILE --items PATH --key NAMES",
            ],
        ),
    ] {
        for part in parts {
            assert!(error.contains(part), "{input}: {part:?} in {error}");
        }
    }
}

#[tokio::test]
async fn a_replica_that_feeds_the_source_is_refused_and_nothing_is_written_or_quarantined() {
    let rig = ReplicationRig::start().await;
    let label = replica_stream(&rig, true).await.unwrap();
    let mut removed = EventBuilder::deleted("b", 2).record();
    let revision = Revision::new(label, SequenceNumber::parse("9").unwrap());
    let carried = format!(r#""OldImage":{{"_rev":{{"B":"{}"}},"#, BASE64_STANDARD.encode(revision.encode().as_ref()));
    removed = removed.replace(r#""OldImage":{"#, &carried);
    let fed = [
        event(&[EventBuilder::named("a", 1, "Ada"), replicated("b", 2, label)]),
        super::events::event_of(&[EventBuilder::named("a", 1, "Ada").record(), removed]),
    ];
    for batch in &fed {
        let fault = rig.replicator().handle(batch, &invocation()).await.unwrap_err();
        assert_eq!(fault.name(), "SinkMisconfigured", "{fault}");
        assert!(fault.to_string().contains("would be replicated in a loop"), "{fault}");
    }
    assert_eq!((rig.item_count().await, rig.quarantined().await.len()), (0, 0));

    // With a stream that is off, nothing can feed the source: the item is the record's error, and the other is applied.
    replica_stream(&rig, false).await;
    assert_eq!(deliver_batch(&rig.replicator(), &fed[0]).await.identifier(), None);
    let key = format!("quarantine/replicator/dynamodb/Users/{LABEL}-2.json");
    assert_eq!((rig.item_count().await, rig.quarantined_positions().await), (1, vec![key]));
    let reason = rig.quarantine_body(&rig.quarantined().await[0]).await["reason"].to_string();
    for part in ["attribute _rev", "RESERVED_PREFIX", "millrace attach TABLE --reserved-prefix mr_"] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
}

#[tokio::test]
async fn a_copied_item_of_a_replica_blocks_no_other_although_the_replica_has_a_stream() {
    let rig = ReplicationRig::start().await;
    replica_stream(&rig, true).await;
    let copied = replicated("b", 2, StreamLabel::parse(LABEL).unwrap());
    let batch = event(&[EventBuilder::named("a", 1, "Ada"), copied, EventBuilder::named("c", 3, "Cleo")]);
    assert_eq!(deliver_batch(&rig.replicator(), &batch).await.identifier(), None);
    assert_eq!((rig.item_count().await, rig.quarantined().await.len()), (2, 1));
}
