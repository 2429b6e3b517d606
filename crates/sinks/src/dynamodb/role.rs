//! The role that a replica's client assumes: [`AssumedRole`].

use std::time::Duration;

use aws_credential_types::provider::ProvideCredentials as _;
use aws_sdk_dynamodb::config::SharedCredentialsProvider;
use millrace_shared::error_chain::error_chain;
use tokio::time::timeout;

use crate::document::RoleArn;

/// The error code of STS for a role that the caller is not allowed to assume, or that does not exist.
const DENIED: &str = "AccessDenied";

/// A role, and the credentials of its sessions.
#[derive(Debug, Clone)]
pub struct AssumedRole {
    /// The role's ARN.
    pub arn: RoleArn,
    /// The provider of the credentials, which calls `sts:AssumeRole`.
    pub credentials: SharedCredentialsProvider,
}

/// The result of assuming a role.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RoleCheck {
    /// The role can be assumed.
    Usable,
    /// STS rejects the request until an operator changes a policy.
    Denied(String),
    /// STS cannot be reached at the moment.
    Unknown(String),
}

impl AssumedRole {
    /// Assumes the role.
    pub(super) async fn check(&self, limit: Duration) -> RoleCheck {
        let arn = self.arn.as_str();
        let reason = match timeout(limit, self.credentials.provide_credentials()).await {
            Ok(Ok(_)) => return RoleCheck::Usable,
            Ok(Err(error)) => error_chain(&error),
            Err(_) => "STS did not respond in time".to_owned(),
        };
        if reason.contains(DENIED) {
            return RoleCheck::Denied(format!(
                "role {arn} cannot be assumed: allow sts:AssumeRole on it in the function's role (parameter \
                 ReplicaRoleArn, or ReplicaRoleArns with a replication document), and name the function's role as a \
                 principal in its trust policy, which aws iam get-role --role-name {} --query \
                 Role.AssumeRolePolicyDocument prints ({reason})",
                arn.rsplit('/').next().unwrap_or_default()
            ));
        }
        RoleCheck::Unknown(format!(
            "role {arn} was not assumed: a function in a network needs a route to STS, such as an interface endpoint \
             ({reason})"
        ))
    }
}
