//! The calls that the pages of a deployed stack make in addition to those of `millrace doctor`, and the policy that
//! allows all of them: [`console_policy`].
//!
//! All of them read, except the start of an execution, which is made only if the console may start tasks.

use std::collections::{BTreeMap, BTreeSet};

use millrace_doctor::account_call::{AccountCall, AccountOperation, AccountService, CallRefusal, OPERATIONS};
use serde_json::{Value, json};

const MACHINES: &str = "arn:aws:states:*:*:stateMachine:*";
const EXECUTIONS: &str = "arn:aws:states:*:*:execution:*:*";

/// Returns values of several metrics.
pub(crate) static GET_METRIC_DATA: AccountOperation = AccountOperation {
    service: AccountService::CloudWatch,
    name: "GetMetricData",
    action: "cloudwatch:GetMetricData",
    resource: "*",
    pages: None,
    absent: &[],
};
/// Lists the latest 100 executions of a state machine.
pub(crate) static LIST_EXECUTIONS: AccountOperation = AccountOperation {
    service: AccountService::StepFunctions,
    name: "ListExecutions",
    action: "states:ListExecutions",
    resource: MACHINES,
    pages: None,
    absent: &[],
};
/// Describes an execution with its input and its output.
pub(crate) static DESCRIBE_EXECUTION: AccountOperation = AccountOperation {
    service: AccountService::StepFunctions,
    name: "DescribeExecution",
    action: "states:DescribeExecution",
    resource: EXECUTIONS,
    pages: None,
    absent: &["ExecutionDoesNotExist"],
};
/// Starts an execution. An execution writes, unless its task is a dry run or only reads.
pub(crate) static START_EXECUTION: AccountOperation = AccountOperation {
    service: AccountService::StepFunctions,
    name: "StartExecution",
    action: "states:StartExecution",
    resource: MACHINES,
    pages: None,
    absent: &[],
};

/// The calls by which the adapters of the maintenance tasks read the stores: resource and action.
const STORE_READS: [(&str, &str); 6] = [
    ("arn:aws:dynamodb:*:*:table/*", "dynamodb:BatchGetItem"),
    ("arn:aws:iam::*:role/*", "sts:AssumeRole"),
    ("arn:aws:kms:*:*:key/*", "kms:Decrypt"),
    ("arn:aws:rds-db:*:*:dbuser:*/*", "rds-db:connect"),
    ("arn:aws:s3:::*/*", "s3:GetObject"),
    ("arn:aws:secretsmanager:*:*:secret:*", "secretsmanager:GetSecretValue"),
];

/// Returns the IAM policy that allows everything that the console of a deployed stack reads, as JSON, and the start of
/// tasks if it may start them.
#[must_use]
pub fn console_policy(allow_tasks: bool) -> String {
    let own = [&GET_METRIC_DATA, &LIST_EXECUTIONS, &DESCRIBE_EXECUTION];
    let start = allow_tasks.then_some(&START_EXECUTION);
    let calls = OPERATIONS.into_iter().chain(own).chain(start);
    let calls = calls.map(|operation| (operation.resource, operation.action));
    let mut by_resource: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (resource, action) in calls.chain(STORE_READS) {
        by_resource.entry(resource).or_default().insert(action);
    }
    let statement = |(resource, actions)| json!({"Effect": "Allow", "Action": actions, "Resource": resource});
    let statements: Vec<Value> = by_resource.into_iter().map(statement).collect();
    format!("{:#}", json!({"Version": "2012-10-17", "Statement": statements}))
}

/// Returns why a call has no response: it names the call and, if it was denied, the permission.
pub(crate) fn refused(call: &AccountCall, refusal: &CallRefusal) -> String {
    refusal.reason(call.operation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_allows_only_reads_until_tasks_may_be_started() {
        let policy = console_policy(false);
        for action in ["cloudformation:ListStackResources", "cloudwatch:GetMetricData", "dynamodb:BatchGetItem"] {
            assert!(policy.contains(&format!("\"{action}\"")), "{action}: {policy}");
        }
        let is_read = |action: &str| {
            let name = action.rsplit(':').next().unwrap();
            let reads =
                ["Get", "List", "Describe", "BatchGet", "Scan", "Simulate", "Decrypt", "AssumeRole", "GET", "connect"];
            reads.iter().any(|read| name.starts_with(read))
        };
        let document: Value = serde_json::from_str(&policy).unwrap();
        for statement in document["Statement"].as_array().unwrap() {
            for action in statement["Action"].as_array().unwrap() {
                assert!(is_read(action.as_str().unwrap()), "{action}");
            }
        }
        assert!(!policy.contains("StartExecution") && console_policy(true).contains("\"states:StartExecution\""));
    }
}
