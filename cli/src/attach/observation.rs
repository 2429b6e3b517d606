//! The state of a table and its surroundings, and the calls that were not made or were refused: [`TableObservation`].

use millrace_local::table_description::{TableArn, TableDescription};
use millrace_maintenance::replication_loop::FeedingFunction;

/// A read-only call whose result is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SkippedCall {
    /// The call, such as `DescribeTimeToLive`.
    pub(super) call: &'static str,
    /// The IAM action that allows the call.
    pub(super) action: &'static str,
    /// Why there is no result.
    pub(super) reason: SkipReason,
}

/// The reason why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SkipReason {
    /// `--from` reads no account.
    Offline,
    /// The caller may not make the call.
    Denied,
    /// The call failed, with this error.
    Failed(String),
}

/// The result of a read-only call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CheckResult<T> {
    /// The call's result.
    Known(T),
    /// There is no result, which is not the same as a good result.
    NotChecked(SkippedCall),
}

impl<T> CheckResult<T> {
    /// Returns the result, if there is one.
    pub(super) fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::NotChecked(_) => None,
        }
    }

    /// Returns the call without a result.
    pub(super) fn skipped(&self) -> Option<&SkippedCall> {
        match self {
            Self::Known(_) => None,
            Self::NotChecked(call) => Some(call),
        }
    }
}

/// An event source mapping of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StreamReader {
    /// The name of the function.
    pub(super) function: String,
    /// The state of the mapping, such as `Enabled`.
    pub(super) state: String,
}

impl StreamReader {
    /// Returns whether the mapping reads the stream, or will.
    pub(super) fn is_active(&self) -> bool {
        !matches!(&*self.state, "Disabled" | "Disabling" | "Deleting")
    }
}

/// A KMS key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyObservation {
    /// Whether the key is the one that AWS manages for DynamoDB in the account, not one of the customer.
    pub(super) is_aws_managed: bool,
    /// The state, such as `Enabled`.
    pub(super) state: String,
}

/// The existing table that becomes the replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReplicaObservation {
    /// The ARN.
    pub(super) arn: TableArn,
    /// The description; `None` if the table does not exist.
    pub(super) table: CheckResult<Option<TableDescription>>,
    /// The functions that read the replica's stream and whose environment names the source table.
    pub(super) feeding_functions: CheckResult<Vec<FeedingFunction>>,
}

/// The state of a table as far as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableObservation {
    /// The description, with TTL as far as it is known.
    pub(super) table: TableDescription,
    /// The call that reads TTL, if it has no result.
    pub(super) skipped_ttl: Option<SkippedCall>,
    /// Whether point-in-time recovery is on.
    pub(super) recovery: CheckResult<bool>,
    /// The event source mappings of the table's stream in its account.
    pub(super) readers: CheckResult<Vec<StreamReader>>,
    /// The KMS key, if the table has one in its account.
    pub(super) key: Option<CheckResult<KeyObservation>>,
    /// The existing table that becomes the replica, if the stack does not create it.
    pub(super) replica: Option<ReplicaObservation>,
}

impl TableObservation {
    /// Returns the observation of a table of which only the description is known.
    pub(super) fn offline(table: TableDescription, replica: Option<TableArn>) -> Self {
        use millrace_local::table_description::TimeToLive;
        let call = |call, action| SkippedCall { call, action, reason: SkipReason::Offline };
        let ttl = call("DescribeTimeToLive", "dynamodb:DescribeTimeToLive");
        let mappings = call("ListEventSourceMappings", "lambda:ListEventSourceMappings");
        let has_key = table.encryption.as_ref().is_some_and(|encryption| encryption.key_arn.is_some());
        let key = call("DescribeKey", "kms:DescribeKey");
        let replica = replica.map(|arn| ReplicaObservation {
            arn,
            table: CheckResult::NotChecked(call("DescribeTable of the replica", "dynamodb:DescribeTable")),
            feeding_functions: CheckResult::NotChecked(call(
                "ListEventSourceMappings of the replica's stream",
                "lambda:ListEventSourceMappings",
            )),
        });
        Self {
            skipped_ttl: (table.time_to_live == TimeToLive::Unknown).then_some(ttl),
            recovery: CheckResult::NotChecked(call("DescribeContinuousBackups", "dynamodb:DescribeContinuousBackups")),
            readers: CheckResult::NotChecked(mappings),
            key: has_key.then_some(CheckResult::NotChecked(key)),
            replica,
            table,
        }
    }

    /// Returns all calls without a result.
    pub(super) fn skipped_calls(&self) -> Vec<&SkippedCall> {
        let replica = self.replica.as_ref();
        [
            self.skipped_ttl.as_ref(),
            self.recovery.skipped(),
            // Without a stream there is nothing to list.
            self.table.stream.as_ref().and_then(|_| self.readers.skipped()),
            self.key.as_ref().and_then(CheckResult::skipped),
            replica.and_then(|replica| replica.table.skipped()),
            replica.and_then(|replica| replica.feeding_functions.skipped()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
