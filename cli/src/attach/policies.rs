//! Resource policies that the owner of a table adds if the stack is in another account: [`policies`].
//!
//! The principal is the stack's account, restricted to the roles of the stack by their names: a policy that names a
//! role is rejected until the role exists, and the stack needs the policy to be created.

use serde_json::{Value, json};

use super::findings::{AttachChoices, AttachPlan};
use super::observation::TableObservation;

/// The placeholder of the stack's account, which no policy accepts.
pub(super) const ACCOUNT_PLACEHOLDER: &str = "STACK_ACCOUNT";

/// The actions on the stream, of the replicator and the archiver.
pub(super) const STREAM_ACTIONS: [&str; 4] =
    ["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:ListStreams"];
/// The actions on the table, of the maintenance tasks.
pub(super) const TABLE_ACTIONS: [&str; 5] = [
    "dynamodb:BatchGetItem",
    "dynamodb:DescribeTable",
    "dynamodb:DescribeTimeToLive",
    "dynamodb:GetItem",
    "dynamodb:Scan",
];
/// The actions on the key.
pub(super) const KEY_ACTIONS: [&str; 2] = ["kms:Decrypt", "kms:DescribeKey"];

/// The number of characters of a stack's name that CloudFormation keeps in the name of a role.
const KEPT_CHARACTERS: usize = 20;

/// The actions on an existing replica, of the replicator and the maintenance tasks.
pub(super) const REPLICA_ACTIONS: [&str; 4] =
    ["dynamodb:BatchGetItem", "dynamodb:DescribeTable", "dynamodb:PutItem", "dynamodb:Scan"];

/// Returns the policies of the stream, the table and the key as one document, each with the ARN of its resource, and
/// those of an existing replica that needs any.
pub(super) fn policies(observation: &TableObservation, plan: &AttachPlan, choices: &AttachChoices) -> Value {
    let table = &observation.table;
    let stream_arn = table.stream.as_ref().map(|stream| stream.arn.as_str()).unwrap_or_default();
    let table_arn = table.arn.to_string();
    let partition = &table.arn.partition;
    let kept: String = choices.stack_name.chars().take(KEPT_CHARACTERS).collect();
    let separator = if kept == choices.stack_name { "-" } else { "" };
    let statement_for = |account: &str, sid: &str, actions: &[&str]| {
        json!({
            "Sid": sid,
            "Effect": "Allow",
            "Principal": {"AWS": format!("arn:{partition}:iam::{account}:root")},
            "Action": actions,
            "Condition": {
                "ArnLike": {"aws:PrincipalArn": format!("arn:{partition}:iam::{account}:role/{kept}{separator}*")},
            },
        })
    };
    let account = choices.stack_account.as_deref().unwrap_or(ACCOUNT_PLACEHOLDER);
    let statement = |sid: &str, actions: &[&str], resource: &str| {
        let mut statement = statement_for(account, sid, actions);
        statement["Resource"] = resource.into();
        statement
    };
    let policy = |statement: Value| json!({"Version": "2012-10-17", "Statement": [statement]});
    let mut document = json!({
        "stream": {
            "resource_arn": stream_arn,
            "policy": policy(statement("MillraceStream", &STREAM_ACTIONS, stream_arn)),
        },
        "table": {
            "resource_arn": table_arn,
            "policy": policy(statement("MillraceTable", &TABLE_ACTIONS, &table_arn)),
        },
    });
    if let Some(key_arn) = &plan.source_key_arn {
        // The resource of a statement in a key's policy is that key.
        let mut statement = statement("MillraceKey", &KEY_ACTIONS, "*");
        let service = format!("dynamodb.{}.amazonaws.com", table.arn.region);
        statement["Condition"]["StringEquals"] = json!({"kms:ViaService": service});
        document["key"] = json!({"resource_arn": key_arn, "statement": statement});
    }
    let Some(replica) = observation.replica.as_ref().map(|replica| &replica.arn) else { return document };
    let replica_arn = replica.to_string();
    let stack_account = choices.account_of_stack(table);
    if let Some(role) = &choices.replica_role {
        document["replica_role"] = json!({
            "role_arn": role.as_str(),
            // A trust policy has no resource.
            "trust_policy": policy(statement_for(stack_account, "MillraceReplica", &["sts:AssumeRole"])),
            "policy": policy(json!({
                "Sid": "MillraceReplica", "Effect": "Allow", "Action": REPLICA_ACTIONS, "Resource": replica_arn,
            })),
        });
    } else if replica.account != stack_account {
        let mut statement = statement_for(stack_account, "MillraceReplica", &REPLICA_ACTIONS);
        statement["Resource"] = replica_arn.as_str().into();
        document["replica"] = json!({"resource_arn": replica_arn, "policy": policy(statement)});
    }
    document
}
