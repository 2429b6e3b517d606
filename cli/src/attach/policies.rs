//! Resource policies that the owner of a table adds if the stack is in another account: [`policies`].
//!
//! The principal is the stack's account, restricted to the roles of the stack by their names: a policy that names a
//! role is rejected until the role exists, and the stack needs the policy to be created.

use millrace_local::table_description::TableDescription;
use serde_json::{Value, json};

use super::findings::{AttachChoices, AttachPlan};

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

/// Returns the policies of the stream, the table and the key as one document, each with the ARN of its resource.
pub(super) fn policies(table: &TableDescription, plan: &AttachPlan, choices: &AttachChoices) -> Value {
    let stream_arn = table.stream.as_ref().map(|stream| stream.arn.as_str()).unwrap_or_default();
    let table_arn = table.arn.to_string();
    let account = choices.stack_account.as_deref().unwrap_or(ACCOUNT_PLACEHOLDER);
    let partition = &table.arn.partition;
    let kept: String = choices.stack_name.chars().take(KEPT_CHARACTERS).collect();
    let separator = if kept == choices.stack_name { "-" } else { "" };
    let statement = |sid: &str, actions: &[&str], resource: &str| {
        json!({
            "Sid": sid,
            "Effect": "Allow",
            "Principal": {"AWS": format!("arn:{partition}:iam::{account}:root")},
            "Action": actions,
            "Resource": resource,
            "Condition": {
                "ArnLike": {"aws:PrincipalArn": format!("arn:{partition}:iam::{account}:role/{kept}{separator}*")},
            },
        })
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
    document
}
