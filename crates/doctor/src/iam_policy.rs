//! Permissions of a role, as far as the deployment contains them: [`RolePermissions`].

use crate::access_policy::AccessStatement;
use crate::setting::SettingValue;
use crate::template_scope::{ResolvedNode, ResolvedValue};

/// AWS's managed policies for execution roles that grant nothing on buckets, queues, topics and keys.
const EXECUTION_POLICIES: [&str; 8] = [
    "AWSLambdaBasicExecutionRole",
    "AWSLambdaDynamoDBExecutionRole",
    "AWSLambdaInvocation-DynamoDB",
    "AWSLambdaVPCAccessExecutionRole",
    "AWSXRayDaemonWriteAccess",
    "AWSXrayWriteOnlyAccess",
    "CloudWatchLambdaInsightsExecutionRolePolicy",
    "AmazonDynamoDBReadOnlyAccess",
];
/// AWS's managed policies with the actions that they grant on every resource.
const WIDE_POLICIES: [(&str, &str); 5] = [
    ("AdministratorAccess", "*"),
    ("AmazonS3FullAccess", "s3:*"),
    ("AmazonSQSFullAccess", "sqs:*"),
    ("AmazonSNSFullAccess", "sns:*"),
    ("AmazonDynamoDBFullAccess", "dynamodb:*"),
];

/// Whether a role may perform an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantResult {
    /// A statement allows it.
    Granted,
    /// No statement allows it, and all of the role's are known.
    Missing,
    /// A statement denies it, whatever others allow.
    Denied,
    /// It cannot be determined, for this reason.
    Unknown(String),
}

/// A statement that allows actions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyStatement {
    /// The actions, with wildcards.
    pub actions: Vec<SettingValue<String>>,
    /// The resources, with wildcards.
    pub resources: Vec<SettingValue<String>>,
}

/// The permissions of a role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RolePermissions {
    /// The role's name.
    pub name: String,
    /// The role's ARN.
    pub arn: String,
    /// The statements that allow something.
    pub statements: Vec<PolicyStatement>,
    /// The statements that deny something.
    pub denials: Vec<AccessStatement>,
    /// The managed policies whose statements are not known.
    pub unread_policies: Vec<String>,
    /// The reason why it may have other permissions that are not known, if it may.
    pub unknown: Option<String>,
    /// The results of the account's own evaluation.
    pub simulated: Vec<SimulatedGrant>,
}

/// The result of an evaluation by the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulatedGrant {
    /// The action.
    pub action: String,
    /// The ARN of the resource.
    pub resource: String,
    /// The service that uses a key for the role, such as `dynamodb`; `None` for an action on another resource.
    pub service: Option<String>,
    /// The result.
    pub result: GrantResult,
}

impl RolePermissions {
    /// Returns whether the role may perform an action on a resource. Conditions of a statement that allows are taken as
    /// met; those of a statement that denies make the result unknown.
    #[must_use]
    pub fn grants(&self, action: &str, resource: &str) -> GrantResult {
        self.simulated(action, resource, None).unwrap_or_else(|| self.evaluate_statements(action, resource))
    }

    /// Returns whether the role may perform an action on a key when a service uses the key for it.
    #[must_use]
    pub fn grants_key(&self, action: &str, key: &str, service: &str) -> GrantResult {
        self.simulated(action, key, Some(service)).unwrap_or_else(|| self.evaluate_statements(action, key))
    }

    fn simulated(&self, action: &str, resource: &str, service: Option<&str>) -> Option<GrantResult> {
        let is_same =
            |it: &&SimulatedGrant| it.action == action && it.resource == resource && it.service.as_deref() == service;
        self.simulated.iter().find(is_same).map(|it| it.result.clone())
    }

    /// Returns what the statements of the role say.
    fn evaluate_statements(&self, action: &str, resource: &str) -> GrantResult {
        let mut may_deny = None;
        for denial in &self.denials {
            match denial.concerns(action, resource) {
                Ok(true) => return GrantResult::Denied,
                Ok(false) => {}
                Err(reason) => may_deny = Some(reason),
            }
        }
        let unread = self.unread_policies.first().map(|name| format!("the managed policy {name} is not read"));
        let mut unknown = self.unknown.clone().or(unread);
        for statement in &self.statements {
            let actions = any_match(&statement.actions, &action.to_ascii_lowercase(), true);
            let resources = any_match(&statement.resources, resource, false);
            match (actions, resources) {
                (Ok(true), Ok(true)) => return may_deny.map_or(GrantResult::Granted, GrantResult::Unknown),
                (Ok(false), _) | (_, Ok(false)) => {}
                (Err(reason), _) | (_, Err(reason)) => unknown = Some(reason),
            }
        }
        unknown.map_or(GrantResult::Missing, GrantResult::Unknown)
    }

    /// Adds a policy document.
    pub fn add_document(&mut self, document: &ResolvedNode) {
        if let Some(reason) = document.unresolved() {
            self.unknown = Some(reason.to_owned());
        }
        let Some(statements) = document.get("Statement") else { return };
        for statement in statements.one_or_many() {
            self.add_statement(statement);
        }
    }

    /// Adds one statement of a policy document.
    pub fn add_statement(&mut self, statement: &ResolvedNode) {
        if let Some(reason) = statement.unresolved() {
            self.unknown = Some(reason.to_owned());
            return;
        }
        if statement.get("Effect").and_then(ResolvedNode::text) == Some("Deny") {
            self.denials.extend(AccessStatement::parse(statement));
            return;
        }
        let (Some(actions), Some(resources)) = (statement.get("Action"), statement.get("Resource")) else {
            self.unknown = Some("a statement with NotAction or NotResource is not evaluated".to_owned());
            return;
        };
        let texts = |node: &ResolvedNode| node.one_or_many().into_iter().map(text).collect();
        self.statements.push(PolicyStatement { actions: texts(actions), resources: texts(resources) });
    }

    /// Allows an action on a resource.
    pub fn allow(&mut self, action: &str, resource: SettingValue<String>) {
        let actions = vec![SettingValue::Known(action.to_owned())];
        self.statements.push(PolicyStatement { actions, resources: vec![resource] });
    }

    /// Adds a managed policy by its name or ARN.
    pub fn add_managed(&mut self, policy: &ResolvedNode) {
        let name = match &policy.value {
            ResolvedValue::Text(arn) => arn.rsplit('/').next().unwrap_or(arn),
            ResolvedValue::Unresolved(reason) => {
                self.unknown = Some(reason.clone());
                return;
            }
            _ => return,
        };
        if let Some((_, action)) = WIDE_POLICIES.iter().find(|(wide, _)| *wide == name) {
            self.allow(action, SettingValue::Known("*".to_owned()));
        } else if !EXECUTION_POLICIES.contains(&name) {
            self.unread_policies.push(name.to_owned());
        }
    }

    /// Adds a policy template of SAM, such as `SQSSendMessagePolicy`.
    pub fn add_sam_template(&mut self, name: &str, parameters: &ResolvedNode) {
        let here = "${AWS.Region}:${AWS.AccountId}";
        let parameter = |name: &str, arn: &dyn Fn(&str) -> String| match parameters.get(name).map(text) {
            Some(SettingValue::Known(value)) => SettingValue::Known(arn(&value)),
            Some(other) => other,
            None => SettingValue::Unresolved(format!("the policy has no {name}")),
        };
        match name {
            "S3WritePolicy" | "S3CrudPolicy" | "S3FullAccessPolicy" => {
                let bucket = |suffix: &'static str| {
                    parameter("BucketName", &move |bucket| format!("arn:aws:s3:::{bucket}{suffix}"))
                };
                self.allow("s3:PutObject", bucket("/*"));
                if name != "S3WritePolicy" {
                    self.allow("s3:ListBucket", bucket(""));
                }
            }
            "SQSSendMessagePolicy" => {
                let queue = parameter("QueueName", &|name| format!("arn:aws:sqs:{here}:{name}"));
                // The name is usually a GetAtt of QueueName, which is a token.
                self.allow("sqs:SendMessage", queue.map(|arn| arn.replace(".QueueName}", "}")));
            }
            "SNSPublishMessagePolicy" => {
                let topic = parameter("TopicName", &|name| format!("arn:aws:sns:{here}:{name}"));
                self.allow("sns:Publish", topic.map(|arn| arn.replace(".TopicName}", "}")));
            }
            "KMSDecryptPolicy" => {
                self.allow("kms:Decrypt", parameter("KeyId", &|key| format!("arn:aws:kms:{here}:key/{key}")));
            }
            name if name.starts_with("DynamoDB") || name.starts_with("CloudWatch") || name.starts_with("Lambda") => {}
            name => self.unknown = Some(format!("the policy template {name} is not read")),
        }
    }
}

fn text(node: &ResolvedNode) -> SettingValue<String> {
    match &node.value {
        ResolvedValue::Text(text) => SettingValue::Known(text.clone()),
        ResolvedValue::Unresolved(reason) => SettingValue::Unresolved(reason.clone()),
        _ => SettingValue::Unresolved(format!("line {}: expected a string", node.line)),
    }
}

/// Returns whether any pattern matches; an error if one is unresolved and none matches.
pub(crate) fn any_match(patterns: &[SettingValue<String>], value: &str, ignore_case: bool) -> Result<bool, String> {
    let mut unknown = None;
    for pattern in patterns {
        match pattern {
            SettingValue::Known(pattern) => {
                let pattern = if ignore_case { pattern.to_ascii_lowercase() } else { pattern.clone() };
                if matches_wildcard(&pattern, value) {
                    return Ok(true);
                }
            }
            SettingValue::Absent => {}
            SettingValue::Unresolved(reason) => unknown = Some(reason.clone()),
        }
    }
    unknown.map_or(Ok(false), Err)
}

/// Returns whether a pattern of IAM with `*` and `?` matches. Both may contain wildcards: a value with `*` stands for
/// all names below it, and is matched as text.
#[must_use]
pub fn matches_wildcard(pattern: &str, value: &str) -> bool {
    let (pattern, value): (Vec<char>, Vec<char>) = (pattern.chars().collect(), value.chars().collect());
    let (mut at, mut position) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while position < value.len() {
        if pattern.get(at) == Some(&'*') {
            retry = Some((at, position));
            at += 1;
        } else if pattern.get(at).is_some_and(|letter| *letter == '?' || *letter == value[position]) {
            at += 1;
            position += 1;
        } else if let Some((star, taken)) = retry {
            retry = Some((star, taken + 1));
            at = star + 1;
            position = taken + 1;
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|letter| *letter == '*')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource_entry::resolved_json;

    #[test]
    fn a_wildcard_matches_any_text() {
        for (pattern, value, expected) in [
            ("*", "", true),
            ("s3:*", "s3:putobject", true),
            ("s3:Put*", "s3:GetObject", false),
            ("arn:aws:s3:::b/*", "arn:aws:s3:::b/aws/lambda/x", true),
            ("arn:aws:s3:::b/a?c*e", "arn:aws:s3:::b/abcde", true),
            ("arn:aws:s3:::b", "arn:aws:s3:::b/", false),
        ] {
            assert_eq!(matches_wildcard(pattern, value), expected, "{pattern} {value}");
        }
    }

    #[test]
    fn a_denial_outweighs_what_is_allowed_and_one_with_conditions_makes_it_unknown() {
        let mut role = RolePermissions::default();
        role.allow("s3:*", SettingValue::Known("*".to_owned()));
        let denial = |condition: serde_json::Value| {
            resolved_json(&json!({"Effect": "Deny", "Action": "s3:PutObject", "Resource": "*", "Condition": condition}))
        };
        role.add_statement(&denial(json!({"Bool": {"aws:SecureTransport": "false"}})));
        assert_eq!(role.grants("s3:PutObject", "arn:aws:s3:::b/x"), GrantResult::Granted);
        role.add_statement(&denial(json!({"StringEquals": {"aws:SourceVpc": "vpc-1"}})));
        assert!(matches!(role.grants("s3:PutObject", "arn:aws:s3:::b/x"), GrantResult::Unknown(_)));
        role.add_statement(&denial(json!(null)));
        assert_eq!(role.grants("s3:PutObject", "arn:aws:s3:::b/x"), GrantResult::Denied);
        assert_eq!(role.grants("s3:GetObject", "arn:aws:s3:::b/x"), GrantResult::Granted);
    }

    #[test]
    fn an_unresolved_part_makes_a_missing_grant_unknown() {
        let mut role = RolePermissions::default();
        assert_eq!(role.grants("s3:PutObject", "arn:aws:s3:::b/x"), GrantResult::Missing);
        role.allow("s3:PutObject", SettingValue::Unresolved("parameter B".to_owned()));
        assert_eq!(role.grants("s3:PutObject", "arn:aws:s3:::b/x"), GrantResult::Unknown("parameter B".to_owned()));
        role.allow("S3:*", SettingValue::Known("arn:aws:s3:::b/*".to_owned()));
        assert_eq!(role.grants("s3:PutObject", "arn:aws:s3:::b/x"), GrantResult::Granted);
        assert!(matches!(role.grants("sqs:SendMessage", "arn:aws:sqs:::q"), GrantResult::Missing));
    }
}
